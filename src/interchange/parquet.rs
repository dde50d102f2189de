//! A Parquet table with a row for each request: the columns of `interchange::rows`, and every chunk as two lists. A level is a
//! row group. Column types are those that every reader knows: no unsigned numbers, zstd pages.

use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::interchange::error::ExportError;
use crate::interchange::rows::Row;
use crate::record::level::LevelRecord;
use crate::record::request::{Chunk, RequestRecord};
use crate::record::run::RunRecord;

const SCHEMA: &str = "message request {
    required int32 level; required binary purpose (string); required int64 id; required boolean in_cohort;
    required int64 intended_ns; optional int64 sent_ns; optional int64 admitted_ns; optional int64 first_byte_ns;
    optional int64 first_token_ns; optional int64 last_token_ns; required int64 end_ns;
    required int32 prompt_tokens; required int32 cached_tokens; required int32 requested_tokens; required int32 output_tokens;
    required int32 preemptions; required binary ending (string); optional binary failure (string);
    optional double ttft_ms; optional double tpot_ms; optional double e2e_ms;
    required group chunk_at_ns (list) { repeated group list { required int64 element; } }
    required group chunk_tokens (list) { repeated group list { required int32 element; } }
}";

/// A table under way.
pub(super) struct Table {
    writer: SerializedFileWriter<Vec<u8>>,
}

type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

impl Table {
    /// An empty one, with the run's id and version in its metadata.
    ///
    /// # Errors
    /// When memory cannot be written.
    pub(super) fn new(run: &RunRecord) -> Result<Self, ExportError> {
        let open = || {
            let about = [("plimsoll.run", &run.id), ("plimsoll.version", &run.version)];
            let about = about.map(|(key, value)| KeyValue::new(key.to_owned(), value.clone()));
            let properties = WriterProperties::builder()
                .set_created_by(format!("plimsoll {}", run.version))
                .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
                .set_key_value_metadata(Some(about.into()))
                .build();
            SerializedFileWriter::new(Vec::new(), Arc::new(parse_message_type(SCHEMA)?), Arc::new(properties))
        };
        Ok(Self { writer: open().map_err(refused)? })
    }

    /// Adds a row for each request, in the order of the log.
    ///
    /// # Errors
    /// When memory cannot be written.
    pub(super) fn append(&mut self, level: &LevelRecord, requests: &[RequestRecord]) -> Result<(), ExportError> {
        let rows = requests.iter().map(|request| Row::of(level, request)).collect::<Vec<_>>();
        self.group(&rows, requests).map_err(refused)
    }

    /// All of it.
    ///
    /// # Errors
    /// When memory cannot be written.
    pub(super) fn finish(self) -> Result<Vec<u8>, ExportError> {
        self.writer.into_inner().map_err(refused)
    }

    /// Columns in the order of the schema.
    fn group(&mut self, rows: &[Row], requests: &[RequestRecord]) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        let out = &mut group;
        every::<Int32Type>(out, rows.iter().map(|row| int(row.level)))?;
        every::<ByteArrayType>(out, rows.iter().map(|row| text(&row.purpose)))?;
        every::<Int64Type>(out, rows.iter().map(|row| long(row.id)))?;
        every::<BoolType>(out, rows.iter().map(|row| row.in_cohort))?;
        every::<Int64Type>(out, rows.iter().map(|row| long(row.intended_ns)))?;
        let stamps: [fn(&Row) -> Option<u64>; 5] =
            [|row| row.sent_ns, |row| row.admitted_ns, |row| row.first_byte_ns, |row| row.first_token_ns, |row| row.last_token_ns];
        for stamp in stamps {
            some::<Int64Type>(out, rows.iter().map(|row| stamp(row).map(long)))?;
        }
        every::<Int64Type>(out, rows.iter().map(|row| long(row.end_ns)))?;
        let counts: [fn(&Row) -> u32; 5] =
            [|row| row.prompt_tokens, |row| row.cached_tokens, |row| row.requested_tokens, |row| row.output_tokens, |row| row.preemptions];
        for count in counts {
            every::<Int32Type>(out, rows.iter().map(|row| int(count(row))))?;
        }
        every::<ByteArrayType>(out, rows.iter().map(|row| text(row.ending)))?;
        some::<ByteArrayType>(out, rows.iter().map(|row| row.failure.as_deref().map(text)))?;
        let latencies: [fn(&Row) -> Option<f64>; 3] = [|row| row.ttft_ms, |row| row.tpot_ms, |row| row.e2e_ms];
        for latency in latencies {
            some::<DoubleType>(out, rows.iter().map(latency))?;
        }
        lists::<Int64Type>(out, requests, |chunk| long(chunk.at.0))?;
        lists::<Int32Type>(out, requests, |chunk| int(chunk.tokens))?;
        group.close()?;
        Ok(())
    }
}

/// The next column, which has a value in every row.
fn every<T: DataType>(group: &mut Group<'_>, values: impl Iterator<Item = T::T>) -> Result<(), ParquetError> {
    column::<T>(group, &values.collect::<Vec<_>>(), None, None)
}

/// The next column, which has a value in some rows.
fn some<T: DataType>(group: &mut Group<'_>, values: impl Iterator<Item = Option<T::T>>) -> Result<(), ParquetError> {
    let values = values.collect::<Vec<_>>();
    let defined = values.iter().map(|value| i16::from(value.is_some())).collect::<Vec<_>>();
    column::<T>(group, &values.into_iter().flatten().collect::<Vec<_>>(), Some(&defined), None)
}

/// The next column, which has a list in every row, a value for each chunk.
fn lists<T: DataType>(group: &mut Group<'_>, requests: &[RequestRecord], of: impl Fn(&Chunk) -> T::T) -> Result<(), ParquetError> {
    let (mut defined, mut repeated) = (Vec::new(), Vec::new());
    for request in requests {
        // A list of none still takes one place, which says that there is none.
        defined.extend(std::iter::repeat_n(i16::from(!request.chunks.is_empty()), request.chunks.len().max(1)));
        repeated.extend((0..request.chunks.len().max(1)).map(|index| i16::from(index > 0)));
    }
    let values = requests.iter().flat_map(|request| &request.chunks).map(of).collect::<Vec<_>>();
    column::<T>(group, &values, Some(&defined), Some(&repeated))
}

fn column<T: DataType>(
    group: &mut Group<'_>,
    values: &[T::T],
    defined: Option<&[i16]>,
    repeated: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else { return Err(ParquetError::General("a column too many".to_owned())) };
    column.typed::<T>().write_batch(values, defined, repeated)?;
    column.close()
}

/// Parquet's own numbers have a sign; ours never come near it.
fn long(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn int(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn text(text: &str) -> ByteArray {
    ByteArray::from(text)
}

fn refused(why: ParquetError) -> ExportError {
    ExportError::Encode { format: "parquet", why: why.to_string() }
}
