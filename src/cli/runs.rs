//! `plimsoll runs`: the runs kept in the data folder.

use std::path::PathBuf;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::cli::exit::Exit;
use crate::cli::report;
use crate::cli::terminal::{Format, Terminal};
use crate::record::SCHEMA_VERSION;
use crate::record::run::{HeadlineStatus, RunRecord, RunStatus};
use crate::store::runs::{Listed, RunStore, StoreError, is_intact, load};

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
struct ListDocument {
    schema_version: u32,
    runs: Vec<ListedRun>,
}

/// A run in a line: `runs show` has its levels.
#[derive(Serialize)]
struct ListedRun {
    id: String,
    folder: String,
    #[serde(flatten)]
    summary: Option<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<String>,
}

#[derive(Serialize)]
struct Summary {
    created: String,
    status: RunStatus,
    target: String,
    model: String,
    workload: String,
    quick: bool,
    levels: usize,
    /// Null unless it was found.
    throughput_per_gpu: Option<f64>,
    headline: Option<HeadlineStatus>,
}

const COLUMNS: [&str; 8] = ["run", "made", "status", "target", "model", "workload", "levels", "calls/s/GPU at SLO"];

fn list(store: &RunStore, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json, Format::Csv])?;
    let runs = store.list()?.iter().map(listed_run).collect::<Vec<_>>();
    match format {
        Format::Json => out.document(&ListDocument { schema_version: SCHEMA_VERSION, runs })?,
        Format::Csv => out.print(csv_of(&runs)?)?,
        _ if runs.is_empty() => out.line(format_args!("no runs in `{}`", store.folder().display()))?,
        _ => {
            out.line(table_of(&runs).trim_fmt())?;
            for run in &runs {
                if let Some(why) = &run.unreadable {
                    out.line(format_args!("{}: {why}", run.id))?;
                }
            }
        }
    }
    Ok(Exit::Good)
}

fn listed_run(listed: &Listed) -> ListedRun {
    let run = listed.run.as_ref();
    ListedRun {
        id: name_of(listed),
        folder: listed.folder.display().to_string(),
        summary: run.ok().map(|run| Summary {
            created: run.created.clone(),
            status: run.status,
            target: run.target.kind.clone(),
            model: run.target.model.clone(),
            workload: run.workload.name.clone(),
            quick: run.quick,
            levels: run.levels.len(),
            throughput_per_gpu: run.headline.as_ref().and_then(|headline| headline.throughput_per_gpu),
            headline: run.headline.as_ref().map(|headline| headline.status),
        }),
        unreadable: run.err().map(ToString::to_string),
    }
}

/// One row a run; what cannot be read has no more than its id and status.
fn cells(run: &ListedRun, rate: impl Fn(f64) -> String, nothing: &str) -> [String; 8] {
    let Some(summary) = &run.summary else {
        let mut cells = [const { String::new() }; 8];
        (cells[0], cells[2]) = (run.id.clone(), "unreadable".to_owned());
        return cells;
    };
    [
        run.id.clone(),
        summary.created.clone(),
        status_of(summary.status).to_owned(),
        summary.target.clone(),
        summary.model.clone(),
        summary.workload.clone(),
        summary.levels.to_string(),
        summary.throughput_per_gpu.map_or_else(|| nothing.to_owned(), rate),
    ]
}

fn csv_of(runs: &[ListedRun]) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["id", "created", "status", "target", "model", "workload", "levels", "throughput_per_gpu"])?;
    for run in runs {
        writer.write_record(cells(run, |rate| rate.to_string(), ""))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}

/// Never wrapped or cut: a number is whole in a pipe as on a narrow terminal.
fn table_of(runs: &[ListedRun]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(COLUMNS);
    for run in runs {
        table.add_row(cells(run, |rate| format!("{rate:.3}"), "-"));
    }
    for column in table.column_iter_mut().skip(6) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// The folder of the run that goes by `name`; where none does, the nearest names.
pub(super) fn find(store: &RunStore, name: &str) -> anyhow::Result<PathBuf> {
    let error = match store.find(name) {
        Err(error @ StoreError::NotFound { .. }) => error,
        found => return Ok(found?),
    };
    let listed = store.list()?;
    if listed.is_empty() {
        return Err(error).context("there are no runs yet: measure with `plimsoll bench` first");
    }
    let wanted = name.to_ascii_uppercase();
    let mut ids = listed.iter().map(name_of).collect::<Vec<_>>();
    ids.sort_by(|one, other| strsim::jaro_winkler(other, &wanted).total_cmp(&strsim::jaro_winkler(one, &wanted)));
    let nearest = ids.iter().take(3).map(|id| format!("`{id}`")).collect::<Vec<_>>().join(", ");
    Err(error).with_context(|| format!("there is no run `{name}`. The nearest are {nearest}"))
}

/// The run that goes by `name` with its levels, and its folder; `what` is done with it. One that was changed is read with a warning.
///
/// # Errors
/// When there is none, or it cannot be read.
pub(super) fn read(store: &RunStore, name: &str, what: &str) -> anyhow::Result<(PathBuf, RunRecord)> {
    let folder = find(store, name)?;
    let run = load(&folder).with_context(|| format!("cannot {what} the run in `{}`", folder.display()))?;
    if is_intact(&folder)? == Some(false) {
        tracing::warn!("`{}` was changed after the run was finished: its digest does not fit", folder.display());
    }
    Ok((folder, run))
}

fn name_of(listed: &Listed) -> String {
    listed.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn status_of(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Complete => "complete",
        RunStatus::Interrupted => "interrupted",
        RunStatus::OutOfBudget => "out of budget",
        RunStatus::Aborted => "aborted",
    }
}

fn show(store: &RunStore, name: &str, out: &mut Terminal) -> anyhow::Result<Exit> {
    let (_, run) = read(store, name, "show")?;
    report::print(&run, out)?;
    Ok(Exit::Good)
}
