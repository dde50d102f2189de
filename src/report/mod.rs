//! From plain records to text: console, markdown, CSV, JSON. One story in four forms, made of the same rows.
//!
//! Nothing here measures, judges or prints: functions take records and give text, or a JSON value. Every number has
//! three significant figures with its unit in the column head, and is never cut to fit.

pub mod ceilings;
pub mod comparison;
pub mod console;
pub mod csv;
pub mod demand;
mod devices;
pub mod diagnosis;
mod fleet;
mod gpus;
mod grid;
mod headline;
pub mod imported;
pub mod json;
mod levels;
pub mod markdown;
mod needs;
mod number;
mod outcome;
pub mod paint;
mod picture;
pub mod plan;
mod planner;
mod prose;
mod server;
mod servers;
pub mod spike;
pub mod steps;

use crate::capacity::plan::{Plan, PlanError, PlanInputs};
use crate::capacity::throughput::{NoCapacity, Throughput};
use crate::curve::saturation::Saturation;
use crate::record::finding::Finding;
use crate::record::run::RunRecord;
use crate::report::number::three;
use crate::report::paint::Paint;

/// How text is laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Columns to lay prose and pictures out in. Tables of numbers keep the width they need.
    pub width: u16,
    /// Colour, or none.
    pub paint: Paint,
}

impl Look {
    /// For files, pipes and tests: 80 columns, no colour.
    pub const PLAIN: Self = Self { width: 80, paint: Paint::Plain };
}

/// A run and what is made of it.
#[derive(Debug)]
pub struct BenchReport<'a> {
    /// As measured, with its levels.
    pub run: &'a RunRecord,
    /// Of the closed-loop sweep; `None` where no valid level of it was measured.
    pub saturation: Option<Saturation>,
    /// What the capacity formula makes of the headline, or why nothing.
    pub capacity: Result<Plan, NoCapacity>,
}

impl<'a> BenchReport<'a> {
    /// Judges a run; `demand` turns the assumed inputs of the plan into the wanted ones.
    ///
    /// # Errors
    /// When the wanted inputs contradict each other.
    pub fn of(run: &'a RunRecord, demand: impl FnOnce(PlanInputs) -> PlanInputs) -> Result<Self, PlanError> {
        let inputs = Throughput::measured(run).map(PlanInputs::assumed).map(demand);
        let capacity = match inputs {
            Ok(inputs) => Ok(Plan::of(inputs)?),
            Err(refused) => Err(refused),
        };
        Ok(Self { run, saturation: Saturation::of(&run.levels), capacity })
    }
}

impl BenchReport<'_> {
    /// Findings of the run and of the plan, gravest first; the plan's repeat none of the run's.
    fn findings(&self) -> Vec<Finding> {
        let mut findings = self.run.findings.clone();
        let planned = self.capacity.iter().flat_map(|plan| &plan.findings);
        findings.extend(planned.filter(|finding| self.run.findings.iter().all(|known| known.code != finding.code)).cloned());
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings
    }

    /// Where throughput stops growing.
    fn saturation_in_words(&self) -> String {
        let noun = self.run.target.device_noun();
        let Some(saturation) = &self.saturation else { return "No valid level of the sweep was measured.".to_owned() };
        let little = saturation
            .points
            .iter()
            .filter_map(|point| point.littles_law_residual)
            .reduce(|one, other| if other.abs() > one.abs() { other } else { one });
        let little =
            little.map_or(String::new(), |residual| format!(" Little's law holds within {:.2} %.", (residual.abs() * 100.0).max(0.01)));
        let last = saturation.points.last().map_or(0, |point| point.concurrency);
        match saturation.plateau {
            Some(plateau) => format!(
                "Saturates at about {} in flight (knee); plateau {} calls/s and {} output tokens/s per {noun}, at {} in flight.{little}",
                three(plateau.knee),
                three(plateau.calls_per_s_per_gpu),
                three(plateau.output_tokens_per_s_per_gpu),
                plateau.concurrency
            ),
            None => format!("Not saturated: throughput was still rising at {last} in flight.{little}"),
        }
    }
}
