//! `plimsoll demand`: what logs of requests say of demand.

mod bar;
mod found;
mod import;
pub(super) mod options;
mod sql;

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::Subcommand;

use crate::capacity::request_log::workload;
use crate::cli::demand::options::Told;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::terminal::{Format, Terminal};
use crate::record::demand::Demand;
use crate::report::paint::Paint;
use crate::report::{Look, demand as report};
use crate::store::atomic;

/// Arguments of `demand`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Examples:\n  \
    plimsoll demand calls.csv.gz\n  \
    plimsoll demand 'logs/2026-03-*.parquet' --save demand.json\n  \
    plimsoll demand access.jsonl --column time=ts --column latency=took_s --log requests\n  \
    zcat calls.csv.gz | plimsoll demand - --format json\n\n\
    CSV, JSON lines and Parquet; gzip and zstd. `plan --demand demand.json` plans from what is saved.")]
pub struct DemandArgs {
    /// Logs, `-` for standard input, or patterns such as `logs/*.csv.gz`
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    #[command(flatten)]
    told: Told,
    /// Where concurrency is parted for the latency at each
    #[arg(long, value_name = "COUNT,...", default_value = "100,500", value_parser = options::read_edges)]
    load_buckets: Arc<[u32]>,
    /// Share of lines that may be no call before the log is refused
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = options::read_share)]
    max_rejected: f64,
    #[command(flatten)]
    kept: Kept,
    /// Threads that read [default: all cores]
    #[arg(long, value_name = "COUNT")]
    threads: Option<NonZeroUsize>,
    #[command(subcommand)]
    from: Option<From>,
}

/// Where demand is kept besides being printed.
#[derive(Debug, clap::Args)]
struct Kept {
    /// Keep the demand in this file, for `plan --demand`
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Write a workload with these lengths and this burstiness, for `bench --workload`
    #[arg(long, value_name = "FILE")]
    workload_out: Option<PathBuf>,
}

/// Logs that lie in a warehouse.
#[derive(Debug, Subcommand)]
enum From {
    /// Print the queries that count the log where it lies
    Sql(sql::SqlArgs),
    /// Read what those queries returned
    Import(import::ImportArgs),
}

/// Prints the demand that the logs hold.
///
/// # Errors
/// When a log cannot be read, too many of its lines are no call, or the demand cannot be printed or kept.
pub fn run(args: &DemandArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    match &args.from {
        None => give(&found::find(args, out)?, &args.kept, out),
        Some(From::Sql(args)) => sql::run(args, out),
        Some(From::Import(args)) => give(&import::read(args)?, &args.kept, out),
    }
}

/// Prints it and keeps it in the files that were asked for.
fn give(demand: &Demand, kept: &Kept, out: &mut Terminal) -> anyhow::Result<Exit> {
    // What was found is printed whatever happens to the files that it is kept in.
    let printed = print(demand, out);
    if let Some(file) = &kept.save {
        let text = serde_json::to_vec_pretty(demand).context("cannot write the demand as JSON")?;
        atomic::write(file, &text)?;
    }
    if let Some(file) = &kept.workload_out {
        atomic::write(file, workload::of(demand).exit_with(Exit::BadInput)?.to_toml().as_bytes())?;
    }
    printed?;
    Ok(Exit::Good)
}

fn print(demand: &Demand, out: &mut Terminal) -> anyhow::Result<()> {
    match out.format() {
        Format::Json => out.document(demand),
        Format::Markdown => out.print(report::markdown(demand)),
        Format::Csv => out.print(report::csv(demand).context("cannot write the hours as CSV")?),
        Format::Text => out.print(report::text(demand, Look { width: out.width(), paint: Paint::Colour })),
    }
}
