//! `plimsoll transfer`: what a server gives beside the built-in engine at the same objectives, kept for plans.

use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::capacity::transfer::Transfer;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::runs;
use crate::cli::terminal::{self, Format, Progress, Terminal};
use crate::store::atomic;
use crate::store::runs::{RunStore, load};

/// Folder of transfers beside the runs.
const FOLDER: &str = "transfers";

/// Arguments of `transfer`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plimsoll bench --model ./Llama-3.1-8B --slo 'ttft:p99<2s,tpot:p99<50ms'\n  \
    plimsoll bench --target http://127.0.0.1:8000 --slo 'ttft:p99<2s,tpot:p99<50ms'\n  \
    plimsoll transfer 01J9A 01J9B\n  \
    plimsoll plan 01J9A --transfer latest")]
pub struct TransferArgs {
    /// Run of the built-in engine
    #[arg(value_name = "BUILT_IN_RUN")]
    built_in: String,
    /// Run of the server, with the same workload and objectives, on the same node
    #[arg(value_name = "SERVER_RUN")]
    server: String,
    /// Compare although something is not known of the server, such as its precision: you know that it is the same
    #[arg(long)]
    accept_unknown: bool,
}

/// Prints the ratio and keeps it.
///
/// # Errors
/// When the runs cannot be compared, or the ratio not be saved.
pub fn run(args: &TransferArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json])?;
    let data_dir = out.data_dir()?;
    let store = RunStore::at(&data_dir);
    let read = |name: &str| {
        let folder = runs::find(&store, name)?;
        load(&folder).with_context(|| format!("cannot read the run in `{}`", folder.display()))
    };
    let transfer = Transfer::of(&read(&args.built_in)?, &read(&args.server)?, args.accept_unknown)?;
    let file = data_dir.join(FOLDER).join(format!("{}.json", transfer.server));
    atomic::create_folder(&data_dir.join(FOLDER))?;
    atomic::write(&file, &serde_json::to_vec_pretty(&transfer)?)?;
    match format {
        Format::Json => out.document(&transfer)?,
        _ => out.print(text(&transfer))?,
    }
    if out.progress() != Progress::Silent {
        terminal::note(format_args!("saved as `{}`; plan with it: plimsoll plan {} --transfer latest", file.display(), transfer.built_in));
    }
    Ok(Exit::Good)
}

fn text(transfer: &Transfer) -> String {
    let (low, high) = transfer.ends;
    let mut text = format!(
        "{} gives {:.3} times the built-in engine's calls/s per GPU ({low:.3} to {high:.3})\nwithin {}, workload {}, on {}; runs {} and {}\n",
        transfer.server_name, transfer.ratio, transfer.slo, transfer.workload, transfer.node, transfer.built_in, transfer.server
    );
    for unknown in &transfer.unknown {
        text.push_str(&format!("not known, accepted: {unknown}\n"));
    }
    text
}

/// The transfer of that name: a file, or `latest`.
///
/// # Errors
/// When there is none, or it is not one.
pub(super) fn find(name: &str, data_dir: &Path) -> anyhow::Result<Transfer> {
    let file = if name == "latest" { latest(data_dir)? } else { PathBuf::from(name) };
    let bytes = std::fs::read(&file)
        .with_context(|| format!("cannot read the transfer `{}`. Make one with `plimsoll transfer`", file.display()))
        .exit_with(Exit::BadInput)?;
    serde_json::from_slice(&bytes)
        .with_context(|| format!("`{}` is no transfer. Make one with `plimsoll transfer`", file.display()))
        .exit_with(Exit::BadInput)
}

/// Runs are named by their time, and transfers by their server's run.
fn latest(data_dir: &Path) -> anyhow::Result<PathBuf> {
    let folder = data_dir.join(FOLDER);
    let entries = std::fs::read_dir(&folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let newest = entries.filter(|path| path.extension().is_some_and(|end| end == "json")).max();
    newest.with_context(|| format!("no transfer in `{}`. Make one with `plimsoll transfer`", folder.display())).exit_with(Exit::BadInput)
}
