//! `plimsoll bench`: measures, judges, saves, and says what it means in hardware.

mod args;
mod choose;
mod demand;
mod law;
mod run;

use std::path::PathBuf;

use anyhow::Context;

use crate::campaign::measure::Halt;
pub use crate::cli::bench::args::BenchArgs;
use crate::cli::bench::demand::Demand;
use crate::cli::bench::run::{Place, Prepared, measure};
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::progress::Drawn;
use crate::cli::terminal::{Format, Terminal};
use crate::cli::{report, signals};
use crate::node;
use crate::record::run::{HeadlineStatus, RunRecord, RunStatus};
use crate::store::runs::{RunStore, load};

/// Measures a target, saves the run and prints its report.
///
/// # Errors
/// When the target or its traffic cannot be made, or the run cannot be saved.
pub fn run(args: &BenchArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    out.format_among(&[Format::Text, Format::Json, Format::Markdown, Format::Csv])?;
    let store = RunStore::open(&out.data_dir()?)?;
    let (args, resumed) = resolve(args, &store)?;
    let demand = Demand::given(&args.demand)?;
    let interrupt = signals::watch()?;
    let node = node::describe();
    // Before anything is built: two measurements on one node spoil each other.
    let lock = store.lock_node(&node.hostname)?;
    let id = resumed.as_ref().map_or_else(RunStore::new_id, |(_, saved)| saved.id.clone());
    let prepared = Prepared::new(args, node, &id, Drawn::new(out.progress()))?;
    let (run, halted) = measure(prepared, Place { store: &store, lock, id: &id }, resumed, &interrupt)?;
    report::print(&run, |assumed| demand.over(assumed), out)?;
    tracing::info!("saved as run {id} in {}", store.folder().display());
    Ok(exit(&run, halted))
}

/// With `--resume` the saved command line counts, not this one.
fn resolve(args: &BenchArgs, store: &RunStore) -> anyhow::Result<(BenchArgs, Option<(PathBuf, RunRecord)>)> {
    let Some(name) = &args.resume else { return Ok((args.clone(), None)) };
    let folder = store.find(name)?;
    let saved = load(&folder)?;
    if saved.status == RunStatus::Complete {
        return Err(anyhow::anyhow!(
            "run {} is complete: there is nothing to resume. See it with `plimsoll runs show {}`",
            saved.id,
            saved.id
        ))
        .exit_with(Exit::Usage);
    }
    let mut args = super::bench_args_of(&saved.command)
        .with_context(|| format!("cannot read the command line that run {} was made with", saved.id))
        .exit_with(Exit::BadInput)?;
    args.method.seed = Some(saved.seed);
    Ok((args, Some((folder, saved))))
}

fn exit(run: &RunRecord, halted: Option<Halt>) -> Exit {
    if let Some(Halt::Signal(signal)) = halted {
        return signal.into();
    }
    match run.headline.as_ref().map(|headline| headline.status) {
        Some(HeadlineStatus::Confirmed | HeadlineStatus::BracketOnly) => Exit::Good,
        Some(HeadlineStatus::SloUnmetAtMinimum) => Exit::GateFailed,
        Some(HeadlineStatus::NoValidBound | HeadlineStatus::Drift) => Exit::Invalid,
        Some(HeadlineStatus::Undecided | HeadlineStatus::OutOfBudget | HeadlineStatus::NotReached) | None => Exit::Inconclusive,
    }
}
