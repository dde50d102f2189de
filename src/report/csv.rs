//! Levels as CSV: one row a level in order of measurement, one column a metric of the catalogue, in full precision.

use crate::record::level::{LevelRecord, Offered};
use crate::record::metric::CATALOGUE;

/// What comes before the metrics.
const FIRST: [&str; 9] = ["level", "purpose", "loop", "concurrency", "offered_calls_per_s", "window_s", "cohort", "valid", "outcome"];

/// All levels, heads first. A metric that a level does not have is an empty field, also where it is infinite.
///
/// # Errors
/// When the CSV writer fails, which it does not in memory.
pub fn text<'a>(levels: impl IntoIterator<Item = &'a LevelRecord>) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(FIRST.into_iter().chain(CATALOGUE.iter().map(|metric| metric.id)).chain(["reasons"]))?;
    for level in levels {
        let (shape, concurrency, offered) = match &level.offered {
            Offered::Closed { concurrency } => ("closed", concurrency.to_string(), String::new()),
            Offered::Open { calls_per_s, .. } => ("open", String::new(), calls_per_s.to_string()),
        };
        let first = [
            level.index.to_string(),
            level.purpose.to_string(),
            shape.to_owned(),
            concurrency,
            offered,
            level.window_s.to_string(),
            level.counts.cohort.to_string(),
            level.verdict.is_valid().to_string(),
            level.verdict.outcome.name().to_owned(),
        ];
        let metrics = CATALOGUE.iter().map(|metric| (metric.read)(level).map_or(String::new(), |value| value.to_string()));
        let reasons = level.verdict.invalid.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        writer.write_record(first.into_iter().chain(metrics).chain([reasons]))?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
