//! `plimsoll export`: a run in the form of another tool.

use std::iter::Peekable;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use clap::ValueEnum;
use serde::Serialize;

use crate::cli::exit::{Exit, ExitWith};
use crate::cli::runs;
use crate::cli::terminal::{Format, Terminal};
use crate::interchange::error::ExportError;
use crate::interchange::export::{self, Exporter};
use crate::record::SCHEMA_VERSION;
use crate::record::level::LevelRecord;
use crate::record::request::RequestRecord;
use crate::store::atomic;
use crate::store::request_log::reader::{ReadError, Requests};
use crate::store::runs::{REQUEST_LOG, RunStore, is_intact, load};

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll export latest --as vllm --out results\n  \
                        plimsoll export 01J9 --as parquet\n  plimsoll export 01J9 --as hdr --level 12 --level 13\n\n\
                        vllm, aiperf, inferencex and hdr write files for each level; guidellm, jsonl and parquet one for the run.\n\
                        Latencies are by the other tool's definitions (docs/formats.md); jsonl, parquet and hdr have plimsoll's.")]
pub struct ExportArgs {
    /// An id, its first letters, `latest`, or a run folder
    #[arg(default_value = "latest")]
    run: String,
    // `format` is how results are printed.
    /// Form to write
    #[arg(long = "as", value_enum, value_name = "FORM")]
    form: ExportFormat,
    /// Index of a level, as `runs show --format csv` lists it; may be given several times [default: all]
    #[arg(long = "level", value_name = "N")]
    levels: Vec<u32>,
    /// Folder to write into; made where it is not there
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// Write over files that are there
    #[arg(long)]
    force: bool,
}

/// A form that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ExportFormat {
    /// `vllm bench serve`
    Vllm,
    /// AIPerf
    Aiperf,
    /// GuideLLM
    Guidellm,
    /// InferenceX
    Inferencex,
    /// HDR histogram logs
    Hdr,
    /// A line of JSON a request
    Jsonl,
    /// A row a request
    Parquet,
}

impl ExportFormat {
    const fn form(self) -> export::Format {
        match self {
            Self::Vllm => export::Format::Vllm,
            Self::Aiperf => export::Format::Aiperf,
            Self::Guidellm => export::Format::Guidellm,
            Self::Inferencex => export::Format::Inferencex,
            Self::Hdr => export::Format::Hdr,
            Self::Jsonl => export::Format::Jsonl,
            Self::Parquet => export::Format::Parquet,
        }
    }
}

#[derive(Serialize)]
struct ExportDocument<'a> {
    schema_version: u32,
    run: &'a str,
    format: &'static str,
    files: Vec<Written>,
}

#[derive(Serialize)]
struct Written {
    path: String,
    bytes: usize,
}

/// Writes the files and says which.
///
/// # Errors
/// When the run cannot be read or exported, a file is there already, or one cannot be written.
pub fn run(args: &ExportArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let printed = out.format_among(&[Format::Text, Format::Json])?;
    let folder = runs::find(&RunStore::at(&out.data_dir()?), &args.run)?;
    let run = load(&folder).with_context(|| format!("cannot export the run in `{}`", folder.display()))?;
    if is_intact(&folder)? == Some(false) {
        tracing::warn!("`{}` was changed after the run was finished: its digest does not fit", folder.display());
    }
    let levels = wanted(&run.levels, &args.levels).map_err(|what| ExportError::NoLevel { run: run.id.clone(), what })?;
    let log = folder.join(REQUEST_LOG);
    let has_log = log.is_file();
    let form = args.form.form();
    let mut exporter = Exporter::new(&run, form, has_log)?;
    // Before the first is written: an export is not left half done over a name that is taken.
    refuse_taken(&args.out, &export::names(form, &run, &levels, has_log), args.force)?;
    if !has_log {
        tracing::warn!("the run kept no request log: files have what its levels kept, and no arrays or records");
    }
    let mut requests = has_log.then(|| Requests::open(&log)).transpose()?.map(Iterator::peekable);
    let mut files = Vec::new();
    for level in levels {
        let of_level = requests.as_mut().map(|requests| requests_of(requests, level.index)).transpose()?;
        let (logged, all) = (of_level.as_ref().map(|requests| requests.len() as u64), level.counts.whole_level);
        if let Some(logged) = logged.filter(|logged| *logged < all) {
            tracing::warn!("level {}: {} of {all} requests are not in the log, and not exported", level.index, all - logged);
        }
        for file in exporter.level(level, of_level.as_deref())? {
            files.push(write(&args.out, &file)?);
        }
    }
    for file in exporter.finish()? {
        files.push(write(&args.out, &file)?);
    }
    if printed == Format::Json {
        out.document(&ExportDocument { schema_version: SCHEMA_VERSION, run: &run.id, format: form.name(), files })?;
        return Ok(Exit::Good);
    }
    for file in &files {
        out.line(format_args!("{}  {} bytes", file.path, file.bytes))?;
    }
    Ok(Exit::Good)
}

/// The levels that were asked for in order of measurement; all where none was.
fn wanted<'a>(levels: &'a [LevelRecord], indices: &[u32]) -> Result<Vec<&'a LevelRecord>, String> {
    if let Some(absent) = indices.iter().find(|index| levels.iter().all(|level| level.index != **index)) {
        return Err(format!("level {absent}"));
    }
    let wanted = levels.iter().filter(|level| indices.is_empty() || indices.contains(&level.index)).collect::<Vec<_>>();
    if wanted.is_empty() { Err("level".to_owned()) } else { Ok(wanted) }
}

fn refuse_taken(folder: &Path, names: &[String], force: bool) -> anyhow::Result<()> {
    let taken = names.iter().map(|name| folder.join(name)).find(|path| path.exists()).filter(|_| !force);
    let Some(taken) = taken else { return Ok(()) };
    Err(anyhow!("`{}` is there already. Write over it with `--force`, or choose another folder with `--out`", taken.display()))
        .exit_with(Exit::CannotCreate)
}

/// The requests of one level. The log has them level by level; those of levels before that nobody asked for are passed over.
fn requests_of(requests: &mut Peekable<Requests>, level: u32) -> Result<Vec<RequestRecord>, ReadError> {
    let mut of_level = Vec::new();
    while let Some(next) = requests.next_if(|next| next.as_ref().map_or(true, |logged| logged.level <= level)) {
        let logged = next?;
        if logged.level == level {
            of_level.push(logged.request);
        }
    }
    Ok(of_level)
}

fn write(folder: &Path, file: &export::File) -> anyhow::Result<Written> {
    let path = folder.join(&file.name);
    if let Some(folder) = path.parent() {
        atomic::create_folder(folder)?;
    }
    atomic::write(&path, &file.bytes)?;
    Ok(Written { path: path.display().to_string(), bytes: file.bytes.len() })
}
