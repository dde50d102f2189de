//! Prints the report of a run in the asked format.

use anyhow::Context;

use crate::cli::plan_inputs::PlanInputArgs;
use crate::cli::terminal::{Format, Terminal};
use crate::record::run::RunRecord;
use crate::report::paint::Paint;
use crate::report::{BenchReport, Look, console, csv, json, markdown};

/// Prints `run`, planned with what its demand was said to be.
///
/// # Errors
/// When what is kept of the demand makes no sense, or standard output cannot be written.
pub(super) fn print(run: &RunRecord, out: &mut Terminal) -> anyhow::Result<()> {
    let demand = PlanInputArgs::kept(&run.demand)?;
    let report = BenchReport::of(run, |inputs| demand.apply(inputs)).context("cannot plan from this run")?;
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
