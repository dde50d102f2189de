//! Decodes blocks of CSV as RFC 4180 and the `csv` crate have it: doubled quotes, line ends between quotes, CR, LF and CRLF, blank lines skipped.

use memchr::{memchr, memchr_iter, memchr2_iter, memchr3};

use crate::table::cell::Cell;
use crate::table::scan::blocks::matches;
use crate::table::scan::{Part, Reject};

const UNCLOSED: &str = "a quote that opens in it is never closed";
const NOT_UTF8: &str = "it is not UTF-8";

/// What divides fields, and which are wanted.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    pub(super) delimiter: u8,
    /// For each column, where its cell goes.
    slots: Vec<Option<usize>>,
    wanted: usize,
    /// Columns that are wanted once more: from which slot to which.
    again: Vec<(usize, usize)>,
}

impl Layout {
    /// `columns`: for each wanted cell the number of its column, of `count`.
    pub(super) fn new(delimiter: u8, count: usize, columns: &[usize]) -> Self {
        let mut layout = Self { delimiter, slots: vec![None; count], wanted: columns.len(), again: Vec::new() };
        for (slot, column) in columns.iter().enumerate() {
            match layout.slots[*column] {
                None => layout.slots[*column] = Some(slot),
                Some(first) => layout.again.push((first, slot)),
            }
        }
        layout
    }
}

/// Where a field stands: in the block, or without its doubled quotes in a buffer beside it.
#[derive(Clone, Copy, Debug)]
struct Field {
    start: usize,
    end: usize,
    beside: bool,
}

/// Buffers of one thread.
#[derive(Debug, Default)]
pub(super) struct Fields {
    found: Vec<Field>,
    unquoted: Vec<u8>,
}

/// The decoder at work on a block.
struct Decoding<'a, 'b, T, E, F> {
    layout: &'a Layout,
    decode: &'a F,
    cells: Vec<Cell<'b>>,
    part: &'a mut Part<T, E>,
}

impl<'b, T, E, F: Fn(&[Cell<'_>]) -> Result<T, E>> Decoding<'_, 'b, T, E, F> {
    #[inline]
    fn set(&mut self, column: usize, text: &'b str) {
        if let Some(Some(slot)) = self.layout.slots.get(column) {
            self.cells[*slot] = Cell::Text(text);
        }
    }

    #[inline]
    fn end(&mut self, line: u64, fields: usize) {
        if fields != self.layout.slots.len() {
            self.part.rejected.push((line, Reject::NotARow(format!("it has {fields} fields, the header {}", self.layout.slots.len()))));
            return;
        }
        for (first, slot) in &self.layout.again {
            self.cells[*slot] = self.cells[*first];
        }
        match (self.decode)(&self.cells) {
            Ok(row) => self.part.rows.push(row),
            Err(error) => self.part.rejected.push((line, Reject::Cell(error))),
        }
    }
}

/// Adds the rows of a block to `part`, lines counted from 1.
pub(super) fn decode<T, E>(
    block: &[u8],
    layout: &Layout,
    fields: &mut Fields,
    decode: &impl Fn(&[Cell<'_>]) -> Result<T, E>,
    part: &mut Part<T, E>,
) {
    match std::str::from_utf8(block) {
        Ok(text) if memchr(b'"', block).is_none() && memchr_iter(b'\r', block).all(|at| block.get(at + 1) == Some(&b'\n')) => {
            plain(text, &mut Decoding { layout, decode, cells: vec![Cell::Missing; layout.wanted], part });
        }
        // Record by record: one that needs care does not spoil the others.
        _ => careful(block, layout, fields, decode, part),
    }
}

/// A block without quotes, and with carriage returns before line feeds only: eight bytes at a time.
fn plain<'b, T, E, F: Fn(&[Cell<'_>]) -> Result<T, E>>(text: &'b str, decoding: &mut Decoding<'_, 'b, T, E, F>) {
    let bytes = text.as_bytes();
    let delimiter = decoding.layout.delimiter;
    let (words, last) = bytes.as_chunks::<8>();
    let mut padded = [0; 8];
    padded[..last.len()].copy_from_slice(last);
    let (mut line, mut line_start, mut start, mut column) = (1, 0, 0, 0);
    for (index, word) in words.iter().chain(std::iter::once(&padded)).enumerate() {
        let word = u64::from_le_bytes(*word);
        let mut found = matches(word, delimiter) | matches(word, b'\n');
        while found != 0 {
            let at = index * 8 + found.trailing_zeros() as usize / 8;
            found &= found - 1;
            if bytes[at] != b'\n' {
                decoding.set(column, &text[start..at]);
                column += 1;
            } else {
                let end = if at > start && bytes[at - 1] == b'\r' { at - 1 } else { at };
                if end > line_start {
                    decoding.set(column, &text[start..end]);
                    decoding.end(line, column + 1);
                }
                line += 1;
                line_start = at + 1;
                column = 0;
            }
            start = at + 1;
        }
    }
    decoding.part.lines = line - 1;
    if line_start < bytes.len() {
        decoding.set(column, &text[start..]);
        decoding.end(line, column + 1);
        decoding.part.lines = line;
    }
}

fn careful<T, E>(block: &[u8], layout: &Layout, fields: &mut Fields, decode: &impl Fn(&[Cell<'_>]) -> Result<T, E>, part: &mut Part<T, E>) {
    let (mut line, mut at) = (1, 0);
    while let Some(record) = fields.next(block, at, layout.delimiter) {
        line += lines(&block[at..record.start]);
        at = record.end;
        // They borrow from a buffer that the next record is unquoted into.
        let mut decoding = Decoding { layout, decode, cells: vec![Cell::Missing; layout.wanted], part };
        if record.open {
            decoding.part.rejected.push((line, Reject::NotARow(UNCLOSED.to_owned())));
        } else if let Some(count) = fields.texts(block, &record, |column, text| decoding.set(column, text)) {
            decoding.end(line, count);
        } else {
            decoding.part.rejected.push((line, Reject::NotARow(NOT_UTF8.to_owned())));
        }
        line += lines(&block[record.start..at]);
    }
    line += lines(&block[at..]);
    part.lines = line - 1 + u64::from(block.last().is_some_and(|last| !matches!(last, b'\r' | b'\n')));
}

/// Line ends in these bytes: LF, CRLF and a lone CR.
pub(super) fn lines(bytes: &[u8]) -> u64 {
    memchr2_iter(b'\r', b'\n', bytes).filter(|at| bytes[*at] == b'\n' || bytes.get(at + 1) != Some(&b'\n')).count() as u64
}

/// Where a record stands, with what ends it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Record {
    start: usize,
    pub(super) end: usize,
    /// Whether a quote in it is never closed.
    pub(super) open: bool,
}

impl Fields {
    /// The record that begins at `from` or behind the blank lines there, divided into its fields.
    pub(super) fn next(&mut self, block: &[u8], from: usize, delimiter: u8) -> Option<Record> {
        let start = from + block[from..].iter().position(|byte| !matches!(byte, b'\r' | b'\n'))?;
        self.found.clear();
        self.unquoted.clear();
        let mut at = start;
        loop {
            if block.get(at) == Some(&b'"') {
                let Some(behind) = self.quoted(block, at + 1, delimiter) else {
                    return Some(Record { start, end: block.len(), open: true });
                };
                at = behind;
            } else {
                let end = field_end(block, at, delimiter);
                self.found.push(Field { start: at, end, beside: false });
                at = end;
            }
            let end = match block.get(at) {
                None => at,
                Some(b'\n') => at + 1,
                Some(b'\r') => at + 1 + usize::from(block.get(at + 1) == Some(&b'\n')),
                Some(_) => {
                    at += 1;
                    continue;
                }
            };
            return Some(Record { start, end, open: false });
        }
    }

    /// A field whose opening quote stands before `from`; gives where it ends. What stands behind the closing quote belongs to it.
    fn quoted(&mut self, block: &[u8], from: usize, delimiter: u8) -> Option<usize> {
        let (mut copied, mut at, beside) = (from, from, self.unquoted.len());
        loop {
            at += near(block.get(at..)?, |byte| byte == b'"').or_else(|| memchr(b'"', &block[at..]))? + 1;
            if block.get(at) != Some(&b'"') {
                break;
            }
            self.unquoted.extend_from_slice(&block[copied..at]);
            at += 1;
            copied = at;
        }
        let end = field_end(block, at, delimiter);
        if copied == from && end == at {
            self.found.push(Field { start: from, end: at - 1, beside: false });
        } else {
            self.unquoted.extend_from_slice(&block[copied..at - 1]);
            self.unquoted.extend_from_slice(&block[at..end]);
            self.found.push(Field { start: beside, end: self.unquoted.len(), beside: true });
        }
        Some(end)
    }

    /// Tells the text of each field of the record that was divided last, and gives their number; `None` where it is not UTF-8.
    pub(super) fn texts<'a>(&'a self, block: &'a [u8], record: &Record, mut tell: impl FnMut(usize, &'a str)) -> Option<usize> {
        let text = std::str::from_utf8(&block[record.start..record.end]).ok()?;
        let unquoted = std::str::from_utf8(&self.unquoted).ok()?;
        for (column, field) in self.found.iter().enumerate() {
            let whole = if field.beside {
                unquoted.get(field.start..field.end)
            } else {
                text.get(field.start - record.start..field.end - record.start)
            };
            tell(column, whole?);
        }
        Some(self.found.len())
    }
}

fn field_end(block: &[u8], from: usize, delimiter: u8) -> usize {
    let rest = &block[from..];
    let end = near(rest, |byte| byte == delimiter || byte == b'\n' || byte == b'\r').or_else(|| memchr3(delimiter, b'\n', b'\r', rest));
    end.map_or(block.len(), |at| from + at)
}

/// Where the first such byte is, if it is near: fields are short, and a search by vectors takes longer to begin than to end.
#[inline]
fn near(bytes: &[u8], is: impl Fn(u8) -> bool) -> Option<usize> {
    bytes.iter().take(12).position(|byte| is(*byte))
}
