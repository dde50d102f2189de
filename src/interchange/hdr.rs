//! HDR histogram logs: one a level, an interval with a tag for each latency, as `HistogramLogProcessor` and every other
//! HdrHistogram tool read them. Logs of several levels, nodes or repeats can be added up, which percentiles cannot.
//!
//! Values are nanoseconds with three significant figures, of completed requests of the cohort, by our definitions: from the
//! intended start. The column with the largest value is in milliseconds (divisor 1e6), by which readers show it.

use std::time::Duration;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

use crate::interchange::cohort::{Cohort, gaps_ns, wall_ns};
use crate::interchange::error::ExportError;
use crate::record::request::RequestRecord;
use crate::record::run::RunRecord;
use crate::stats::histogram::SIGNIFICANT_FIGURES;

/// Nanoseconds in the unit of the log's column of largest values.
const DIVISOR: f64 = 1e6;

/// What a request adds to a histogram, nanoseconds.
type Values = fn(&RequestRecord) -> Vec<u64>;

/// The log of one level.
///
/// # Errors
/// When memory cannot be written.
pub(super) fn log(run: &RunRecord, cohort: &Cohort<'_>) -> Result<Vec<u8>, ExportError> {
    let level = cohort.level;
    let began = Duration::from_nanos(wall_ns(level, level.window.0));
    let length = Duration::from_secs_f64(level.window_s.max(0.0));
    let mut bytes = Vec::new();
    let mut serializer = V2DeflateSerializer::new();
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment(&format!("[Logged with plimsoll {}]", run.version))
        .add_comment(&format!("[Run {}, level {}, {}]", run.id, level.index, level.verdict))
        .add_comment("[Values in nanoseconds, from the intended start, of completed requests; largest value in milliseconds]")
        .add_comment(&format!("[Requests that did not complete and are in no histogram: {}]", cohort.failed()))
        .with_start_time(std::time::UNIX_EPOCH + began)
        .with_max_value_divisor(DIVISOR);
    let mut writer = builder.begin_log_with(&mut bytes, &mut serializer).map_err(refused)?;
    let values: [(&str, Values); 4] = [
        ("ttft", |request| request.ttft().map(|length| length.0).into_iter().collect()),
        // Fractions of a nanosecond are below the figures that are kept.
        ("tpot", |request| request.tpot_ns().map(|nanos| nanos.round() as u64).into_iter().collect()),
        ("itl", |request| gaps_ns(request).collect()),
        ("e2e", |request| request.e2e().map(|length| length.0).into_iter().collect()),
    ];
    for (name, of) in values {
        let mut histogram = Histogram::<u64>::new(SIGNIFICANT_FIGURES).map_err(refused)?;
        for value in cohort.all().filter(|request| request.completed()).flat_map(of) {
            histogram.record(value).map_err(refused)?;
        }
        writer.write_histogram(&histogram, began, length, Tag::new(name)).map_err(refused)?;
    }
    Ok(bytes)
}

fn refused(why: impl std::fmt::Debug) -> ExportError {
    ExportError::Encode { format: "hdr", why: format!("{why:?}") }
}
