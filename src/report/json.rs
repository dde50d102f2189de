//! The report of `bench` as one JSON document: the run as recorded, and what is made of it.
//!
//! Beside the record: `throughput_per_gpu` (calls/s; null unless it may be planned with), `saturation`, `scaling` (one device beside all), `capacity` (a plan, or `refused`), and in
//! each level `metrics` by their ids in the catalogue, and `throughput_per_gpu`: its calls/s per device where it is a valid open-loop level
//! that met the SLO, null everywhere else. A closed-loop rate never goes by that name.

use serde::Serialize;

use crate::capacity::plan::Plan;
use crate::curve::saturation::Saturation;
use crate::curve::scaling::{self, Scaling};
use crate::record::level::{LevelRecord, Offered};
use crate::record::metric::CATALOGUE;
use crate::record::run::RunRecord;
use crate::record::verdict::Outcome;
use crate::report::BenchReport;

/// The document of a run.
#[derive(Debug, Serialize)]
pub struct BenchDocument<'a> {
    #[serde(flatten)]
    run: RunRecord,
    throughput_per_gpu: Option<f64>,
    saturation: Option<&'a Saturation>,
    scaling: Option<Scaling>,
    capacity: Capacity<'a>,
    levels: Vec<LevelDocument<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Capacity<'a> {
    Planned(&'a Plan),
    Refused { refused: String },
}

#[derive(Debug, Serialize)]
struct LevelDocument<'a> {
    #[serde(flatten)]
    level: &'a LevelRecord,
    throughput_per_gpu: Option<f64>,
    metrics: serde_json::Map<String, serde_json::Value>,
}

/// The document of a run; it brings its `schema_version`.
#[must_use]
pub fn document<'a>(report: &'a BenchReport<'a>) -> BenchDocument<'a> {
    let capacity = match &report.capacity {
        Ok(plan) => Capacity::Planned(plan),
        Err(refused) => Capacity::Refused { refused: refused.to_string() },
    };
    BenchDocument {
        // Its levels are written below, with their metrics.
        run: RunRecord { levels: Vec::new(), ..report.run.clone() },
        throughput_per_gpu: report.capacity.as_ref().ok().map(|plan| plan.inputs.throughput.point.get()),
        saturation: report.saturation.as_ref(),
        scaling: scaling::of(&report.run.levels),
        capacity,
        levels: report.run.levels.iter().map(LevelDocument::of).collect(),
    }
}

impl<'a> LevelDocument<'a> {
    fn of(level: &'a LevelRecord) -> Self {
        let metrics = CATALOGUE.iter().map(|metric| (metric.id.to_owned(), (metric.read)(level).into()));
        let met = level.verdict.is_valid() && level.verdict.outcome == Outcome::Met && matches!(level.offered, Offered::Open { .. });
        Self { level, throughput_per_gpu: met.then_some(level.per_device.calls_per_s), metrics: metrics.collect() }
    }
}
