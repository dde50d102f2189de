//! `plimsoll runs`: the runs kept in the data folder.

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::report;
use crate::cli::terminal::{Format, Terminal};
use crate::record::SCHEMA_VERSION;
use crate::record::run::{Headline, RunRecord, RunStatus};
use crate::store::runs::{Listed, RunStore, is_intact, load};

/// Arguments of `runs`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll runs list\n  plimsoll runs show latest\n  plimsoll runs show 01J9 --format json")]
pub struct RunsArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// List the runs, latest first
    List,
    /// Show a run with its levels
    Show {
        /// An id, its first letters, `latest`, or a run folder
        #[arg(default_value = "latest")]
        run: String,
    },
}

/// Lists runs or shows one.
///
/// # Errors
/// When the store cannot be read, or the result cannot be printed.
pub fn run(args: &RunsArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let store = RunStore::at(&out.data_dir()?);
    match &args.what {
        What::List => list(&store, out),
        What::Show { run } => show(&store, run, out),
    }
}

#[derive(Serialize)]
struct ListDocument<'a> {
    schema_version: u32,
    runs: Vec<ListedRun<'a>>,
}

#[derive(Serialize)]
struct ListedRun<'a> {
    id: String,
    folder: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<&'a RunRecord>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

fn list(store: &RunStore, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json])?;
    let listed = store.list()?;
    if format == Format::Json {
        let runs = listed.iter().map(listed_run).collect();
        out.document(&ListDocument { schema_version: SCHEMA_VERSION, runs })?;
    } else if listed.is_empty() {
        out.line(format_args!("no runs in `{}`", store.folder().display()))?;
    } else {
        out.line(table_of(&listed).trim_fmt())?;
    }
    Ok(Exit::Good)
}

fn listed_run(listed: &Listed) -> ListedRun<'_> {
    ListedRun {
        id: name_of(listed),
        folder: listed.folder.display().to_string(),
        run: listed.run.as_ref().ok(),
        unreadable: listed.run.as_ref().err().map(ToString::to_string),
    }
}

/// Never wrapped or cut: a number is whole in a pipe as on a narrow terminal.
fn table_of(listed: &[Listed]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["run", "made", "status", "target", "model", "workload", "levels", "calls/s/GPU at SLO"]);
    for each in listed {
        match &each.run {
            Ok(run) => table.add_row([
                name_of(each),
                run.created.clone(),
                status_of(run).to_owned(),
                run.target.kind.clone(),
                run.target.model.clone(),
                run.workload.name.clone(),
                run.levels.len().to_string(),
                headline_of(run.headline.as_ref()),
            ]),
            Err(error) => table.add_row([name_of(each), String::new(), "unreadable".to_owned(), error.to_string()]),
        };
    }
    for column in table.column_iter_mut().skip(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn name_of(listed: &Listed) -> String {
    listed.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn status_of(run: &RunRecord) -> &'static str {
    match run.status {
        RunStatus::Running => "running",
        RunStatus::Complete => "complete",
        RunStatus::Interrupted => "interrupted",
        RunStatus::OutOfBudget => "out of budget",
        RunStatus::Aborted => "aborted",
    }
}

fn headline_of(headline: Option<&Headline>) -> String {
    let rate = headline.and_then(|headline| headline.throughput_per_gpu);
    rate.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.3}"))
}

fn show(store: &RunStore, name: &str, out: &mut Terminal) -> anyhow::Result<Exit> {
    let folder = store.find(name)?;
    let run = load(&folder).with_context(|| format!("cannot show the run in `{}`", folder.display()))?;
    if is_intact(&folder)? == Some(false) {
        tracing::warn!("`{}` was changed after the run was finished: its digest does not fit", folder.display());
    }
    report::print(&run, |inputs| inputs, out)?;
    Ok(Exit::Good)
}
