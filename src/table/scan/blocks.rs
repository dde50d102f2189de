//! Cuts a stream of bytes into blocks of whole records, which can then be decoded apart from each other.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use memchr::{memchr, memrchr};

use crate::table::read::{LONGEST_LINE, too_long};

/// Where a record ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Records {
    /// With the line.
    Lines,
    /// With the line, but for line ends between quotes; fields are divided by this byte.
    Quoted(u8),
}

/// Whole records, in a buffer that is used again and again.
#[derive(Default)]
pub(super) struct Block {
    bytes: Vec<u8>,
    filled: usize,
    /// Bytes of the file read by then.
    pub(super) read: u64,
}

impl Block {
    pub(super) fn records(&self) -> &[u8] {
        &self.bytes[..self.filled]
    }
}

/// The stream, cut.
pub(super) struct Blocks {
    plain: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
    records: Records,
    /// What was read and comes next, from `at` on: mostly the beginning of a record whose end is not read yet.
    ahead: Vec<u8>,
    at: usize,
    /// Whether there is nothing beyond it.
    ended: bool,
    /// Why it ended, where it did not end well.
    failure: Option<io::Error>,
}

impl Blocks {
    pub(super) fn new(plain: Box<dyn Read + Send>, read: Arc<AtomicU64>) -> Self {
        Self { plain, read, records: Records::Lines, ahead: Vec::new(), at: 0, ended: false, failure: None }
    }

    /// The first `size` bytes, more where no line ends in them, all where there are fewer: to find out what they are.
    ///
    /// # Errors
    /// Where none can be read.
    pub(super) fn head(&mut self, size: usize) -> io::Result<&[u8]> {
        let mut block = Block::default();
        let mut wanted = size;
        while memchr(b'\n', block.records()).is_none() && !self.ended && block.filled as u64 <= LONGEST_LINE {
            block.bytes.resize(wanted, 0);
            self.fill(&mut block, wanted);
            wanted *= 2;
        }
        if block.filled == 0
            && let Some(failure) = self.failure.take()
        {
            return Err(failure);
        }
        self.ahead.extend_from_slice(block.records());
        Ok(&self.ahead)
    }

    /// Begins behind `skipped` bytes of the head.
    pub(super) fn begin(&mut self, skipped: usize, records: Records) {
        self.records = records;
        self.at = skipped;
    }

    /// Gives back the end of the last block, to come next.
    pub(super) fn put_back(&mut self, bytes: &[u8]) {
        match self.at.checked_sub(bytes.len()) {
            Some(at) => self.ahead[at..self.at].copy_from_slice(bytes),
            None => drop(self.ahead.splice(..self.at, bytes.iter().copied())),
        }
        self.at = self.at.saturating_sub(bytes.len());
    }

    /// The next block: about `size` bytes, more only where one record is longer. False at the end.
    pub(super) fn next(&mut self, block: &mut Block, size: usize) -> bool {
        block.filled = 0;
        let mut wanted = size;
        loop {
            block.bytes.resize(block.bytes.len().max(wanted), 0);
            self.fill(block, wanted);
            let over = self.ended && self.at == self.ahead.len();
            // What follows the last line end is a record at the end of a file, and a piece of one where the file is damaged.
            let cut = if over && self.failure.is_none() { block.filled } else { self.end_of_records(block.records()) };
            if cut > 0 || over {
                self.put_back(&block.bytes[cut..block.filled]);
                block.filled = cut;
                block.read = self.read.load(Ordering::Relaxed);
                return cut > 0;
            }
            if block.filled as u64 > LONGEST_LINE {
                self.end(Some(too_long()));
                return false;
            }
            wanted = block.filled.max(1 << 10) * 2;
        }
    }

    /// Why the stream ended before its end.
    pub(super) fn failure(&mut self) -> Option<io::Error> {
        self.failure.take()
    }

    fn fill(&mut self, block: &mut Block, wanted: usize) {
        let ahead = &self.ahead[self.at..];
        let count = ahead.len().min(wanted - block.filled);
        block.bytes[block.filled..block.filled + count].copy_from_slice(&ahead[..count]);
        block.filled += count;
        self.at += count;
        while !self.ended && block.filled < wanted {
            match self.plain.read(&mut block.bytes[block.filled..wanted]) {
                Ok(0) => self.end(None),
                Ok(count) => block.filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.end(Some(error)),
            }
        }
    }

    fn end(&mut self, failure: Option<io::Error>) {
        self.ended = true;
        self.failure = failure;
    }

    /// Up to where these bytes, which begin with a record, are whole records.
    fn end_of_records(&self, bytes: &[u8]) -> usize {
        match self.records {
            Records::Lines => after_last_line(bytes),
            Records::Quoted(delimiter) => after_last_line_unquoted(bytes, delimiter),
        }
    }
}

fn after_last_line(bytes: &[u8]) -> usize {
    memrchr(b'\n', bytes).map_or(0, |at| at + 1)
}

/// The same, of line ends that do not stand between quotes.
fn after_last_line_unquoted(bytes: &[u8], delimiter: u8) -> usize {
    // What stands unquoted from `from` on, and where the last line end in such a piece is.
    let (mut from, mut last, mut quoted) = (0, 0, false);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut padded = [0; 8];
    padded[..rest.len()].copy_from_slice(rest);
    for (index, word) in words.iter().chain(std::iter::once(&padded)).enumerate() {
        let mut quotes = matches(u64::from_le_bytes(*word), b'"');
        while quotes != 0 {
            let at = index * 8 + quotes.trailing_zeros() as usize / 8;
            quotes &= quotes - 1;
            if quoted {
                (quoted, from) = (false, at + 1);
                continue;
            }
            // A quote opens a field only where that begins, and goes on with it where it directly follows one that closed it: but not one that
            // was none.
            let opens = match at.checked_sub(1).map(|before| bytes[before]) {
                None | Some(b'\n' | b'\r') => true,
                Some(b'"') => from == at,
                Some(before) => before == delimiter,
            };
            if opens {
                last = memrchr(b'\n', &bytes[from..at]).map_or(last, |feed| from + feed + 1);
                quoted = true;
            }
        }
    }
    if quoted { last } else { memrchr(b'\n', &bytes[from..]).map_or(last, |feed| from + feed + 1) }
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The high bit of each of eight bytes that is this one.
#[inline]
pub(super) fn matches(word: u64, byte: u8) -> u64 {
    let differing = word ^ (LOW * u64::from(byte));
    // No carry leaves a byte, so that none is taken for its neighbour.
    !(((differing & !HIGH) + !HIGH) | differing) & HIGH
}
