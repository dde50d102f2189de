//! Prints the report of a run in the asked format.

use anyhow::Context;

use crate::capacity::plan::PlanInputs;
use crate::cli::terminal::{Format, Terminal};
use crate::record::run::RunRecord;
use crate::report::paint::Paint;
use crate::report::{BenchReport, Look, console, csv, json, markdown};

/// Prints `run`; `demand` turns the assumed inputs of the plan into the wanted ones.
///
/// # Errors
/// When standard output cannot be written.
pub(super) fn print(run: &RunRecord, demand: impl FnOnce(PlanInputs) -> PlanInputs, out: &mut Terminal) -> anyhow::Result<()> {
    let report = BenchReport::of(run, demand).context("cannot plan from this run")?;
    match out.format() {
        Format::Json => out.document(&json::document(&report)),
        Format::Markdown => out.print(markdown::text(&report)),
        Format::Csv => out.print(csv::text(&run.levels).context("cannot write the levels as CSV")?),
        // Escape sequences are dropped on the way where colour is not wanted.
        Format::Text => {
            let look = Look { width: out.width(), paint: Paint::Colour };
            out.print(console::text(&report, look))
        }
    }
}
