//! Decodes Parquet: the wanted columns only, a range of rows at a time, ranges of one row group on several threads. Lists are not read.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, FileReader, Length};
use parquet::file::serialized_reader::SerializedFileReader;

use crate::table::cell::Cell;
use crate::table::read::TableError;
use crate::table::scan::typed::{Meaning, Values};
use crate::table::scan::{Part, Reject};
use crate::table::source::Source;

/// The first and last bytes of a file.
pub(super) const MAGIC: &[u8] = b"PAR1";

/// An open Parquet file.
pub(super) struct Parquet {
    file: SerializedFileReader<Shared>,
    /// Numbers of the columns that are no lists, in order.
    leaves: Vec<usize>,
}

/// A file that several threads read, each where it wants.
#[derive(Clone)]
struct Shared {
    file: Arc<File>,
    length: u64,
}

struct From {
    file: Arc<File>,
    at: u64,
}

impl Read for From {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(into, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Length for Shared {
    fn len(&self) -> u64 {
        self.length
    }
}

impl ChunkReader for Shared {
    type T = BufReader<From>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        // Heads of pages are read through it, a few dozen bytes each.
        Ok(BufReader::with_capacity(1 << 10, From { file: Arc::clone(&self.file), at: start }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        if start.checked_add(length as u64).is_none_or(|end| end > self.length) {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} on lie beyond its end")));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start)?;
        Ok(bytes.into())
    }
}

/// Rows whose cells are put together at a time, column by column.
const AT_ONCE: usize = 64;

/// Rows of one group.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    group: usize,
    from: usize,
    count: usize,
    /// Bytes of the file read by then, about.
    pub(super) read: u64,
}

impl Parquet {
    pub(super) fn open(source: &Source, file: File) -> Result<(Self, Vec<String>), TableError> {
        let length = file.metadata().map_err(|error| TableError::Open { name: source.to_string(), source: error })?.len();
        let shared = Shared { file: Arc::new(file), length };
        let file = SerializedFileReader::new(shared).map_err(|error| unreadable(source, 0, error))?;
        let schema = file.metadata().file_metadata().schema_descr();
        let (mut leaves, mut names) = (Vec::new(), Vec::new());
        for (at, column) in schema.columns().iter().enumerate().filter(|(_, column)| column.max_rep_level() == 0) {
            leaves.push(at);
            names.push(column.path().string());
        }
        Ok((Self { file, leaves }, names))
    }

    /// Ranges of up to `count` rows, in order.
    pub(super) fn ranges(&self, count: usize) -> impl Iterator<Item = Range> + use<> {
        let count = count.max(1);
        let groups =
            self.file.metadata().row_groups().iter().map(|group| (group.num_rows().max(0) as usize, group.compressed_size().max(0) as u64));
        let groups = groups.collect::<Vec<_>>();
        let mut read = 0;
        groups.into_iter().enumerate().flat_map(move |(group, (rows, bytes))| {
            let begun = read;
            read += bytes;
            (0..rows.div_ceil(count)).map(move |part| {
                let from = part * count;
                let count = count.min(rows - from);
                let read = begun + (bytes as u128 * (from + count) as u128 / rows as u128) as u64;
                Range { group, from, count, read }
            })
        })
    }
}

/// The wanted columns of one row group, as far as one thread has read them.
pub(super) struct Columns<'p> {
    parquet: &'p Parquet,
    /// Numbers of the wanted columns among those that are no lists.
    wanted: &'p [usize],
    group: Option<usize>,
    open: Vec<Column>,
}

struct Column {
    reader: ColumnReader,
    /// Rows of the group read or skipped.
    at: usize,
    meaning: Meaning,
    name: String,
    /// A value is there where the level is this one.
    there: i16,
    levels: Vec<i16>,
    values: Values,
}

impl<'p> Columns<'p> {
    pub(super) fn new(parquet: &'p Parquet, wanted: &'p [usize]) -> Self {
        Self { parquet, wanted, group: None, open: Vec::new() }
    }

    fn open(&mut self, group: usize) -> Result<(), ParquetError> {
        if self.group == Some(group) {
            return Ok(());
        }
        self.open.clear();
        self.group = Some(group);
        let (file, group) = (&self.parquet.file, self.parquet.file.get_row_group(group)?);
        for wanted in self.wanted {
            let leaf = self.parquet.leaves[*wanted];
            let described = file.metadata().file_metadata().schema_descr().column(leaf);
            let meaning = Meaning::of(&described);
            self.open.push(Column {
                reader: group.get_column_reader(leaf)?,
                at: 0,
                meaning,
                name: described.path().string(),
                there: described.max_def_level(),
                levels: Vec::new(),
                values: Values::of(described.physical_type(), meaning),
            });
        }
        Ok(())
    }

    /// Reads a range of each column. The crate panics at some damage, and where a reader that has failed is asked again: a panic is
    /// damage, and after a failure all readers are opened anew.
    fn read(&mut self, range: &Range) -> Result<(), ParquetError> {
        let read = catch_unwind(AssertUnwindSafe(|| {
            self.open(range.group)?;
            self.open.iter_mut().try_for_each(|column| column.read(range.from, range.count))
        }));
        let read = read.unwrap_or_else(|_| Err(ParquetError::General("its pages contradict each other".to_owned())));
        if read.is_err() {
            self.group = None;
        }
        read
    }

    /// Adds the rows of a range to `part`, numbered from 1 in the file.
    pub(super) fn decode<T, E>(
        &mut self,
        range: &Range,
        decode: &impl Fn(&[Cell<'_>]) -> Result<T, E>,
        part: &mut Part<T, E>,
    ) -> Result<(), ParquetError> {
        self.read(range)?;
        part.lines = range.count as u64;
        let width = self.open.len();
        let mut cells = vec![Cell::Missing; AT_ONCE * width];
        let mut next = vec![0; width];
        // Cells that are none, with row and column.
        let mut broken = Vec::new();
        for from in (0..range.count).step_by(AT_ONCE) {
            let rows = AT_ONCE.min(range.count - from);
            for (at, (column, next)) in self.open.iter().zip(&mut next).enumerate() {
                column.cells(from..from + rows, next, |row, cell| match cell {
                    Ok(cell) => cells[row * width + at] = cell,
                    Err(problem) => broken.push((row, at, problem)),
                });
            }
            for row in 0..rows {
                let problem = broken.iter().find(|(broken, _, _)| *broken == row);
                let reject = match problem.map(|(_, at, problem)| format!("`{}` {problem}", self.open[*at].name)) {
                    Some(problem) => Reject::NotARow(problem),
                    None => match decode(&cells[row * width..(row + 1) * width]) {
                        Ok(decoded) => {
                            part.rows.push(decoded);
                            continue;
                        }
                        Err(error) => Reject::Cell(error),
                    },
                };
                part.rejected.push(((from + row) as u64 + 1, reject));
            }
            broken.clear();
        }
        Ok(())
    }
}

impl Column {
    /// Tells the cells of these rows of the range, of which `next` is the first value.
    fn cells<'a>(&'a self, rows: std::ops::Range<usize>, next: &mut usize, tell: impl FnMut(usize, Result<Cell<'a>, &'static str>)) {
        let mut take = |there: bool| {
            *next += usize::from(there);
            there.then_some(*next - usize::from(there))
        };
        if self.there == 0 {
            self.values.cells(self.meaning, rows.map(|_| take(true)), tell);
        } else {
            self.values.cells(self.meaning, self.levels[rows].iter().map(|level| take(*level == self.there)), tell);
        }
    }

    /// Reads rows `from..from + count` of the group, which lie beyond those read before.
    fn read(&mut self, from: usize, count: usize) -> Result<(), ParquetError> {
        let skipped = from - self.at;
        self.at = from + count;
        self.levels.clear();
        match (&mut self.reader, &mut self.values) {
            (ColumnReader::BoolColumnReader(reader), Values::Bool(values)) => read(reader, skipped, count, &mut self.levels, values),
            (ColumnReader::Int32ColumnReader(reader), Values::Int32(values)) => read(reader, skipped, count, &mut self.levels, values),
            (ColumnReader::Int64ColumnReader(reader), Values::Int64(values)) => read(reader, skipped, count, &mut self.levels, values),
            (ColumnReader::Int96ColumnReader(reader), Values::Int96(values)) => read(reader, skipped, count, &mut self.levels, values),
            (ColumnReader::FloatColumnReader(reader), Values::Float(values)) => read(reader, skipped, count, &mut self.levels, values),
            (ColumnReader::DoubleColumnReader(reader), Values::Double(values)) => read(reader, skipped, count, &mut self.levels, values),
            (ColumnReader::ByteArrayColumnReader(reader), Values::Bytes(values)) => read(reader, skipped, count, &mut self.levels, values),
            (ColumnReader::FixedLenByteArrayColumnReader(reader), Values::Fixed(values) | Values::Uuid(values, _)) => {
                read(reader, skipped, count, &mut self.levels, values)
            }
            _ => Err(ParquetError::General(format!("`{}` is not of the type that the schema says", self.name))),
        }?;
        self.values.write_out();
        Ok(())
    }
}

fn read<T: DataType>(
    reader: &mut ColumnReaderImpl<T>,
    skipped: usize,
    count: usize,
    levels: &mut Vec<i16>,
    values: &mut Vec<T::T>,
) -> Result<(), ParquetError> {
    values.clear();
    let early = || ParquetError::EOF("a column has fewer rows than its group".to_owned());
    if skipped > 0 && reader.skip_records(skipped)? != skipped {
        return Err(early());
    }
    let (rows, _, _) = reader.read_records(count, Some(levels), None, values)?;
    if rows == count { Ok(()) } else { Err(early()) }
}

/// What the crate says, told apart: a file that is damaged, and one that is in a form that is not read here.
pub(super) fn unreadable(source: &Source, line: u64, error: ParquetError) -> TableError {
    let name = source.to_string();
    match error {
        ParquetError::NYI(problem) => TableError::Parquet { name, problem },
        other if other.to_string().contains("Disabled feature") => TableError::Parquet { name, problem: other.to_string() },
        other => TableError::Damaged { name, compression: "Parquet", line, source: io::Error::other(other) },
    }
}
