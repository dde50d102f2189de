//! Where a table comes from: a path or standard input, decompressed by what its first bytes say.

use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::table::read::TableError;

/// Bytes read at once.
const BUFFER: usize = 1 << 16;
/// The byte-order mark that some exports put in front of UTF-8.
pub(super) const BOM: &[u8] = b"\xef\xbb\xbf";

/// What can be opened as a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, which can be opened again for another pass.
    Path(PathBuf),
    /// Standard input, which can be read once.
    Stdin,
}

impl Source {
    /// `-` is standard input, everything else a path.
    #[must_use]
    pub fn named(name: &str) -> Self {
        if name == "-" { Self::Stdin } else { Self::Path(name.into()) }
    }

    /// Whether it gives its bytes once, as standard input and pipes do: known without opening it, which may wait for a writer.
    #[must_use]
    pub fn is_stream(&self) -> bool {
        match self {
            Self::Path(path) => path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()),
            Self::Stdin => true,
        }
    }

    /// Opens, undoes the compression and drops a byte-order mark.
    pub(super) fn open(&self) -> Result<(Box<dyn BufRead + Send>, Compression), TableError> {
        let Opened { plain, compression, .. } = self.open_counted()?;
        let mut plain = BufReader::with_capacity(BUFFER, plain);
        let head = plain.fill_buf().map_err(|source| TableError::unreadable(self, compression, 0, source))?;
        if head.starts_with(BOM) {
            plain.consume(BOM.len());
        }
        Ok((Box::new(plain), compression))
    }

    /// Opens and undoes the compression, without a buffer and with any byte-order mark.
    pub(super) fn open_counted(&self) -> Result<Opened, TableError> {
        let unreadable = |source| TableError::Open { name: self.to_string(), source };
        let raw: Box<dyn Read + Send> = match self {
            Self::Path(path) => Box::new(File::open(path).map_err(unreadable)?),
            Self::Stdin => Box::new(io::stdin()),
        };
        let read = Arc::new(AtomicU64::new(0));
        let (head, raw) = peek(Box::new(Counted { raw, read: Arc::clone(&read) }), 4).map_err(unreadable)?;
        let compression = Compression::of(&head);
        let plain: Box<dyn Read + Send> = match compression {
            Compression::None => raw,
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER, raw))),
            Compression::Zstd => Box::new(zstd::stream::read::Decoder::new(raw).map_err(unreadable)?),
        };
        Ok(Opened { head, plain, compression, read })
    }
}

/// An opened source.
pub(super) struct Opened {
    /// Its first four bytes as they stand in it, or fewer.
    pub(super) head: Vec<u8>,
    /// All of it, unpacked.
    pub(super) plain: Box<dyn Read + Send>,
    pub(super) compression: Compression,
    /// Bytes taken from it so far, still packed.
    pub(super) read: Arc<AtomicU64>,
}

struct Counted {
    raw: Box<dyn Read + Send>,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.raw.read(into)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(out, "{}", path.display()),
            Self::Stdin => write!(out, "standard input"),
        }
    }
}

/// How the bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// From the magic numbers of RFC 1952 and RFC 8878.
    fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            _ => Self::None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::None => "plain",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// The first `count` bytes (fewer at the end), and a reader that still gives them.
fn peek(mut raw: Box<dyn Read + Send>, count: u64) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut head = Vec::new();
    raw.by_ref().take(count).read_to_end(&mut head)?;
    Ok((head.clone(), Box::new(Cursor::new(head).chain(raw))))
}
