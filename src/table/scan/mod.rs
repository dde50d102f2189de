//! A table read through once, fast: columns that are wanted, decoded on several threads, handed over in the order of the file.
//!
//! It holds a few blocks of the file at a time, whatever its length. A bad row never ends it, and a file that is cut short gives
//! what stands before the cut.

mod blocks;
mod columnar;
mod fields;
mod in_order;
pub mod pattern;
mod records;
mod typed;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use crate::table::cell::Cell;
use crate::table::read::{LOOK_PAST, TableError};
use crate::table::scan::blocks::{Block, Blocks, Records};
use crate::table::scan::columnar::{Columns, Parquet};
use crate::table::scan::fields::{Fields, Layout};
use crate::table::scan::records::Keys;
use crate::table::source::{BOM, Compression, Opened, Source};

/// Bytes of text that are decoded at a time: few enough to stay in a core's cache, many enough that handing them over costs nothing.
const BLOCK: usize = 1 << 18;
/// The first one wins where two divide equally.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];
/// Bytes that a row of Parquet counts as.
const ROW: usize = 64;

/// An opened table whose columns are known and whose rows are not read yet: CSV (with comma, semicolon, tab or `|`), JSON lines, Parquet;
/// text plain, as gzip or zstd.
pub struct Scan {
    source: Source,
    columns: Vec<String>,
    compression: Compression,
    form: Form,
    block: usize,
}

enum Form {
    /// Divided by this byte, behind a header of so many lines.
    Csv {
        blocks: Blocks,
        delimiter: u8,
        header: u64,
    },
    Json {
        blocks: Blocks,
    },
    Parquet {
        parquet: Box<Parquet>,
    },
}

impl fmt::Debug for Scan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Scan({}, {} columns)", self.source, self.columns.len())
    }
}

/// What one thread makes of one piece.
struct Part<T, E> {
    rows: Vec<T>,
    /// Lines counted from 1 in the piece.
    rejected: Vec<(u64, Reject<E>)>,
    lines: u64,
    read: u64,
    failure: Option<parquet::errors::ParquetError>,
}

/// Rows that stand together in the file, decoded. It is lent: what is left in it is dropped, and its memory used again.
#[derive(Debug)]
pub struct Batch<T, E> {
    /// Decoded rows, in order.
    pub rows: Vec<T>,
    /// Rows that are none: line (for Parquet, number of the row) from 1, and what is wrong, in order.
    pub rejected: Vec<(u64, Reject<E>)>,
    /// Bytes of the file read so far, before any compression is undone; for progress.
    pub bytes: u64,
}

/// Why a row is not among the rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reject<E> {
    /// It is no row: unequal fields, not UTF-8, not JSON; in words.
    NotARow(String),
    /// What the caller's decoder said.
    Cell(E),
}

/// How much was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scanned {
    /// Lines, with header and blank ones; for Parquet, rows.
    pub lines: u64,
}

impl Scan {
    /// Opens a table and reads as far as its columns.
    ///
    /// # Errors
    /// Where it cannot be opened or read, is empty, has a column twice, or is Parquet that comes through a pipe.
    pub fn open(source: &Source) -> Result<Self, TableError> {
        let opened = source.open_counted()?;
        if opened.head == columnar::MAGIC {
            return Self::parquet(source);
        }
        Self::text(source, opened)
    }

    fn parquet(source: &Source) -> Result<Self, TableError> {
        let Source::Path(path) = source else { return Err(TableError::ParquetStream { name: source.to_string() }) };
        if source.is_stream() {
            return Err(TableError::ParquetStream { name: source.to_string() });
        }
        let file = File::open(path).map_err(|error| TableError::Open { name: source.to_string(), source: error })?;
        let (parquet, columns) = Parquet::open(source, file)?;
        distinct(source, &columns)?;
        let form = Form::Parquet { parquet: Box::new(parquet) };
        Ok(Self { source: source.clone(), columns, compression: Compression::None, form, block: BLOCK })
    }

    fn text(source: &Source, opened: Opened) -> Result<Self, TableError> {
        let Opened { plain, compression, read, .. } = opened;
        let mut blocks = Blocks::new(plain, read);
        let unreadable = |error| TableError::unreadable(source, compression, 0, error);
        let head = blocks.head(BLOCK).map_err(unreadable)?;
        let mark = if head.starts_with(BOM) { BOM.len() } else { 0 };
        let begun = head[mark..].trim_ascii_start();
        let list = begun.strip_prefix(b"[").is_some_and(|rest| matches!(rest.trim_ascii_start(), [] | [b'{', ..]));
        let (columns, form) = match begun.first() {
            None => return Err(TableError::Empty { name: source.to_string() }),
            Some(b'{') => {
                let columns = first_keys(&head[mark..]);
                blocks.begin(mark, Records::Lines);
                (columns, Form::Json { blocks })
            }
            Some(b'[') if list => return Err(TableError::JsonList { name: source.to_string() }),
            Some(_) => {
                let delimiter = guess_delimiter(begun);
                blocks.begin(mark, Records::Quoted(delimiter));
                let mut first = Block::default();
                let (mut fields, mut columns) = (Fields::default(), Vec::new());
                let mut header = 0;
                let bad = |problem: &str| TableError::BadLine { name: source.to_string(), line: 1, problem: problem.to_owned() };
                while columns.is_empty() {
                    if !blocks.next(&mut first, BLOCK) {
                        return Err(blocks.failure().map_or_else(|| TableError::Empty { name: source.to_string() }, unreadable));
                    }
                    let block = first.records();
                    let Some(record) = fields.next(block, 0, delimiter) else {
                        header += fields::lines(block);
                        continue;
                    };
                    let tell = |_, name: &str| columns.push(name.trim().to_owned());
                    fields
                        .texts(block, &record, tell)
                        .filter(|_| !record.open)
                        .ok_or_else(|| bad("its header is not UTF-8 or has an open quote"))?;
                    header += fields::lines(&block[..record.end]);
                    blocks.put_back(&block[record.end..]);
                }
                (columns, Form::Csv { blocks, delimiter, header })
            }
        };
        distinct(source, &columns)?;
        Ok(Self { source: source.clone(), columns, compression, form, block: BLOCK })
    }

    /// With so many bytes of text decoded at a time, and a row of Parquet for each 64 of them. Results do not depend on it.
    #[must_use]
    pub fn with_block(self, bytes: NonZeroUsize) -> Self {
        Self { block: bytes.get(), ..self }
    }

    /// Names of the columns: of the header, of the first JSON records, of Parquet's leaves that are no lists; nested ones by dotted path.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Decodes the `wanted` columns of every row on `threads` threads, cells in the order of `wanted`, and lends the results to `each` in the order
    /// of the file, until `each` breaks. A column that CSV or Parquet lacks is an error; one that a JSON record lacks is missing there.
    ///
    /// # Errors
    /// Where a column is not there, or the file cannot be read to its end: after what stands before.
    pub fn run<T: Send, E: Send>(
        self,
        wanted: &[String],
        threads: NonZeroUsize,
        decode: impl Fn(&[Cell<'_>]) -> Result<T, E> + Sync,
        mut each: impl FnMut(&mut Batch<T, E>) -> ControlFlow<()>,
    ) -> Result<Scanned, TableError> {
        let Self { source, columns, compression, form, block: size } = self;
        let place = |column: &String| {
            let missing = || TableError::NoColumn { name: source.to_string(), column: column.clone(), has: columns.clone() };
            columns.iter().position(|name| name == column).ok_or_else(missing)
        };
        let places = || wanted.iter().map(place).collect::<Result<Vec<_>, _>>();
        // Rows go round: what is handed over and cleared is filled again.
        let spare = Mutex::new(Vec::<Vec<T>>::new());
        let part = |read| {
            let rows = spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
            Part { rows, rejected: Vec::new(), lines: 0, read, failure: None }
        };
        let mut lines = if let Form::Csv { header, .. } = &form { *header } else { 0 };
        let (mut failed, mut stopped) = (None, false);
        let hand_over = |part: Part<T, E>| {
            let rejected = part.rejected.into_iter().map(|(line, reject)| (lines + line, reject)).collect();
            let mut batch = Batch { rows: part.rows, rejected, bytes: part.read };
            lines += part.lines;
            failed = part.failure;
            let flow = each(&mut batch);
            stopped = flow.is_break();
            batch.rows.clear();
            spare.lock().unwrap_or_else(PoisonError::into_inner).push(batch.rows);
            if failed.is_some() { ControlFlow::Break(()) } else { flow }
        };
        let mut failure = None;
        match form {
            Form::Csv { mut blocks, delimiter, .. } => {
                let layout = Layout::new(delimiter, columns.len(), &places()?);
                let work = |block: &Block, fields: &mut Fields| {
                    let mut part = part(block.read);
                    fields::decode(block.records(), &layout, fields, &decode, &mut part);
                    part
                };
                in_order::run(threads, |block| blocks.next(block, size), Fields::default, work, hand_over);
                failure = blocks.failure();
            }
            Form::Json { mut blocks } => {
                let keys = Keys::new(wanted);
                let work = |block: &Block, _: &mut ()| {
                    let mut part = part(block.read);
                    records::decode(block.records(), &keys, &decode, &mut part);
                    part
                };
                in_order::run(threads, |block| blocks.next(block, size), || (), work, hand_over);
                failure = blocks.failure();
            }
            Form::Parquet { parquet } => {
                let wanted = places()?;
                let mut ranges = parquet.ranges(size / ROW);
                let next = |range: &mut columnar::Range| ranges.next().map(|found| *range = found).is_some();
                let work = |range: &columnar::Range, columns: &mut Columns<'_>| {
                    let mut part = part(range.read);
                    part.failure = columns.decode(range, &decode, &mut part).err();
                    part
                };
                in_order::run(threads, next, || Columns::new(&parquet, &wanted), work, hand_over);
            }
        }
        match (failed, failure) {
            _ if stopped => Ok(Scanned { lines }),
            (Some(error), _) => Err(columnar::unreadable(&source, lines, error)),
            (_, Some(error)) => Err(TableError::unreadable(&source, compression, lines, error)),
            _ => Ok(Scanned { lines }),
        }
    }
}

fn distinct(source: &Source, columns: &[String]) -> Result<(), TableError> {
    match columns.iter().enumerate().find(|(at, name)| columns[..*at].contains(name)) {
        Some((_, twice)) => Err(TableError::TwoColumns { name: source.to_string(), column: twice.clone() }),
        None => Ok(()),
    }
}

/// Keys of the first records, in alphabetical order: a key of failures only may come late, but a log's first hundred lines have most.
fn first_keys(head: &[u8]) -> Vec<String> {
    let mut columns = BTreeSet::new();
    for line in head.split(|byte| *byte == b'\n').take(LOOK_PAST) {
        if let Ok(record) = serde_json::from_slice::<Map<String, Value>>(line) {
            records::paths(&record, "", &mut columns);
        }
    }
    columns.into_iter().collect()
}

/// What divides the most fields of the header, quotes left out; a comma where nothing does.
fn guess_delimiter(header: &[u8]) -> u8 {
    let (mut quoted, mut counts) = (false, [0_u32; 4]);
    for byte in header {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' | b'\r' if !quoted => break,
            _ if quoted => {}
            _ => {
                if let Some(at) = DELIMITERS.iter().position(|delimiter| delimiter == byte) {
                    counts[at] += 1;
                }
            }
        }
    }
    let most = counts.iter().max().copied().unwrap_or(0);
    counts.iter().position(|count| *count == most).map_or(b',', |at| DELIMITERS[at])
}
