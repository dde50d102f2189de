//! A table as an iterator of rows, whatever its format, its compression and its line ends.

use std::io::{self, BufRead, Read};
use std::sync::Arc;

use csv::{ErrorKind, ReaderBuilder, StringRecord};
use memchr::memchr2;
use serde_json::Value;

use crate::table::row::Row;
use crate::table::source::{Compression, Source};

/// The longest line that is read: a prompt of a million tokens in 16-token blocks is a tenth of it.
pub(super) const LONGEST_LINE: u64 = 8 << 20;
/// How many bad lines at the start are looked past to find the columns.
pub(super) const LOOK_PAST: usize = 100;

/// Why a table, or one line of it, cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// No such file, or no right to it.
    #[error("cannot open `{name}`: {source}. Check the path and that it may be read")]
    Open {
        /// Path, or `standard input`.
        name: String,
        /// What the system says.
        source: io::Error,
    },
    /// Reading failed.
    #[error("cannot read `{name}` beyond line {line}: {source}. Check the disk or the pipe it comes from")]
    Read {
        /// Path, or `standard input`.
        name: String,
        /// Last line that was read.
        line: u64,
        /// What the system says.
        source: io::Error,
    },
    /// The packed bytes are cut short or damaged.
    #[error(
        "cannot read `{name}` beyond line {line}: its {compression} data end early or are damaged ({source}). Fetch or pack the file again"
    )]
    Damaged {
        /// Path, or `standard input`.
        name: String,
        /// `gzip` or `zstd`.
        compression: &'static str,
        /// Last line that was read.
        line: u64,
        /// What the decoder says.
        source: io::Error,
    },
    /// Nothing in it.
    #[error("`{name}` is empty. Give a CSV file with a header line, or JSON lines")]
    Empty {
        /// Path, or `standard input`.
        name: String,
    },
    /// A column cannot be told from another.
    #[error("the header of `{name}` names the column `{column}` twice. Rename one of the two")]
    TwoColumns {
        /// Path, or `standard input`.
        name: String,
        /// The name.
        column: String,
    },
    /// A column that was asked for.
    #[error("`{name}` has no column `{column}`; it has {}. Name one of them", quoted(has))]
    NoColumn {
        /// Path.
        name: String,
        /// The name that was asked for.
        column: String,
        /// The names there are.
        has: Vec<String>,
    },
    /// One list, of which no line is a record.
    #[error("`{name}` is one JSON list, not JSON lines. Make a line of each record with `jq -c '.[]'`")]
    JsonList {
        /// Path, or `standard input`.
        name: String,
    },
    /// Parquet is read from its end.
    #[error("`{name}` is Parquet, which cannot be read from a pipe. Save it to a file and give its path")]
    ParquetStream {
        /// Path, or `standard input`.
        name: String,
    },
    /// A part of a Parquet file that is not read here.
    #[error("cannot read `{name}` as Parquet: {problem}. Write it again with snappy, zstd, gzip or no compression, and without encryption")]
    Parquet {
        /// Path.
        name: String,
        /// What the reader says.
        problem: String,
    },
    /// No file has such a name.
    #[error("no file matches `{pattern}`. Check the path, and put quotes around a pattern that the shell should leave alone")]
    NoMatch {
        /// As it was given.
        pattern: String,
    },
    /// A pattern that means nothing.
    #[error("`{pattern}` is no pattern of paths: {problem}. Use `*`, `?`, `[a-z]` and `**`")]
    BadPattern {
        /// As it was given.
        pattern: String,
        /// What is wrong.
        problem: String,
    },
    /// This line is no row, but the next one may be: the iterator goes on.
    #[error("line {line} of `{name}` is not a row: {problem}. Mend or remove the line")]
    BadLine {
        /// Path, or `standard input`.
        name: String,
        /// From 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
}

/// Names in a sentence.
fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

impl TableError {
    pub(super) fn unreadable(source: &Source, compression: Compression, line: u64, error: io::Error) -> Self {
        let name = source.to_string();
        match compression {
            Compression::None => Self::Read { name, line, source: error },
            packed => Self::Damaged { name, compression: packed.name(), line, source: error },
        }
    }
}

/// An open table: iterate to get its rows.
///
/// After [`TableError::BadLine`] the iteration goes on with the next line; after any other error it ends.
pub struct Table {
    source: Source,
    compression: Compression,
    columns: Arc<[String]>,
    /// What was read while looking for the columns.
    ahead: std::vec::IntoIter<Result<Row, TableError>>,
    lines: Lines,
    line: u64,
    over: bool,
}

enum Lines {
    Csv(Box<csv::Reader<LineByLine>>),
    Json(Box<dyn BufRead + Send>),
}

/// Hands out one line a read, and so knows on which line the reader above it is: CRLF, blank lines, and the lone `\r` that ends a row
/// of CSV as well.
struct LineByLine {
    bytes: Box<dyn BufRead + Send>,
    /// Lines begun.
    line: u64,
    /// Bytes of this line handed out, 0 at its beginning.
    handed_out: u64,
    /// The last line ended with `\r`: a `\n` right behind it belongs to it.
    after_return: bool,
}

impl Read for LineByLine {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let ahead = self.bytes.fill_buf()?;
        let torn = std::mem::take(&mut self.after_return) && ahead.first() == Some(&b'\n');
        let line_end = memchr2(b'\n', b'\r', ahead).map(|at| if ahead[at..].starts_with(b"\r\n") { at + 2 } else { at + 1 });
        let count = line_end.unwrap_or(ahead.len()).min(into.len());
        into[..count].copy_from_slice(&ahead[..count]);
        self.after_return = line_end == Some(count) && into[..count].ends_with(b"\r");
        self.bytes.consume(count);
        if self.handed_out == 0 && count > 0 && !torn {
            self.line += 1;
        }
        self.handed_out = if line_end == Some(count) { 0 } else { self.handed_out + count as u64 };
        if self.handed_out > LONGEST_LINE { Err(too_long()) } else { Ok(count) }
    }
}

pub(super) fn too_long() -> io::Error {
    io::Error::other(format!("a line is longer than {LONGEST_LINE} bytes"))
}

impl std::fmt::Debug for Table {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "Table({} at line {})", self.source, self.line)
    }
}

impl Table {
    /// Opens a table. JSON lines start with `{`; everything else is CSV with a header.
    pub fn open(source: &Source) -> Result<Self, TableError> {
        let (mut bytes, compression) = source.open()?;
        let unreadable = |error| TableError::unreadable(source, compression, 0, error);
        let first = bytes.fill_buf().map_err(unreadable)?.iter().copied().find(|byte| !byte.is_ascii_whitespace());
        let mut table = Self {
            source: source.clone(),
            compression,
            columns: Arc::new([]),
            ahead: Vec::new().into_iter(),
            lines: Lines::Json(Box::new(io::empty())),
            line: 0,
            over: false,
        };
        match first {
            None => return Err(TableError::Empty { name: source.to_string() }),
            Some(b'{') => {
                table.lines = Lines::Json(bytes);
                table.look_ahead()?;
            }
            Some(_) => {
                let mut reader =
                    Box::new(ReaderBuilder::new().from_reader(LineByLine { bytes, line: 0, handed_out: 0, after_return: false }));
                let columns: Vec<String> = match reader.headers() {
                    Ok(header) => header.iter().map(|name| name.trim().to_owned()).collect(),
                    Err(error) => return Err(table.csv_error(error)),
                };
                if let Some((_, twice)) = columns.iter().enumerate().find(|(at, name)| columns[..*at].contains(name)) {
                    return Err(TableError::TwoColumns { name: source.to_string(), column: twice.clone() });
                }
                table.line = reader.get_ref().line;
                table.columns = columns.into();
                table.lines = Lines::Csv(reader);
            }
        }
        Ok(table)
    }

    /// Column names: of the header, or of the first JSON record.
    #[must_use]
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Reads on to the first JSON record, whose keys are the columns.
    fn look_ahead(&mut self) -> Result<(), TableError> {
        let mut ahead = Vec::new();
        while ahead.len() < LOOK_PAST {
            match self.read() {
                Some(Ok(row)) => {
                    self.columns = row.columns().into();
                    ahead.push(Ok(row));
                    break;
                }
                Some(Err(error @ TableError::BadLine { .. })) => ahead.push(Err(error)),
                Some(Err(error)) => return Err(error),
                None => break,
            }
        }
        self.ahead = ahead.into_iter();
        Ok(())
    }

    fn read(&mut self) -> Option<Result<Row, TableError>> {
        match &mut self.lines {
            Lines::Csv(reader) => {
                let mut record = StringRecord::new();
                let read = reader.read_record(&mut record);
                self.line = reader.get_ref().line;
                match read {
                    Ok(false) => None,
                    Ok(true) => Some(Ok(Row::text(self.line, Arc::clone(&self.columns), record))),
                    Err(error) => Some(Err(self.csv_error(error))),
                }
            }
            Lines::Json(_) => self.json_line(),
        }
    }

    fn json_line(&mut self) -> Option<Result<Row, TableError>> {
        loop {
            let Lines::Json(bytes) = &mut self.lines else { return None };
            let mut text = Vec::new();
            match bytes.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut text) {
                Ok(0) => return None,
                Ok(_) => self.line += 1,
                Err(error) => return Some(Err(TableError::unreadable(&self.source, self.compression, self.line, error))),
            }
            if text.len() as u64 == LONGEST_LINE && !text.ends_with(b"\n") {
                self.over = true;
                return Some(Err(TableError::Read { name: self.source.to_string(), line: self.line, source: too_long() }));
            }
            let text = text.trim_ascii();
            if text.is_empty() {
                continue;
            }
            return Some(match serde_json::from_slice::<Value>(text) {
                Ok(Value::Object(object)) => Ok(Row::json(self.line, object)),
                Ok(_) => Err(self.bad_line("it is JSON, but not an object".to_owned())),
                Err(error) => Err(self.bad_line(format!("it is not JSON ({error})"))),
            });
        }
    }

    fn bad_line(&self, problem: String) -> TableError {
        TableError::BadLine { name: self.source.to_string(), line: self.line, problem }
    }

    fn csv_error(&self, error: csv::Error) -> TableError {
        match error.into_kind() {
            ErrorKind::Io(error) => TableError::unreadable(&self.source, self.compression, self.line, error),
            ErrorKind::UnequalLengths { expected_len, len, .. } => self.bad_line(format!("it has {len} fields, the header {expected_len}")),
            ErrorKind::Utf8 { err, .. } => self.bad_line(format!("it is not UTF-8 ({err})")),
            other => self.bad_line(format!("{other:?}")),
        }
    }
}

impl Iterator for Table {
    type Item = Result<Row, TableError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(row) = self.ahead.next() {
            return Some(row);
        }
        if self.over {
            return None;
        }
        let row = self.read();
        self.over = matches!(&row, None | Some(Err(TableError::Open { .. } | TableError::Read { .. } | TableError::Damaged { .. })));
        row
    }
}
