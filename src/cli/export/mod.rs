//! `plimsoll export`: a run in the form of another tool.

mod planner;

use std::iter::Peekable;
use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::ValueEnum;
use serde::Serialize;

use crate::cli::exit::{Exit, ExitWith};
use crate::cli::plan_inputs::read_headroom;
use crate::cli::runs;
use crate::cli::terminal::{Format, Terminal};
use crate::interchange::error::ExportError;
use crate::interchange::export::{self, Exporter};
use crate::interchange::planner::form::Form;
use crate::record::SCHEMA_VERSION;
use crate::record::level::LevelRecord;
use crate::record::request::RequestRecord;
use crate::record::run::RunRecord;
use crate::store::atomic;
use crate::store::request_log::reader::{ReadError, Requests};
use crate::store::runs::{REQUEST_LOG, RunStore};
use crate::units::share::Headroom;

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll export latest --as vllm --out results\n  \
                        plimsoll export 01J9 --as parquet\n  plimsoll export 01J9 --as hdr --level 12 --level 13\n  \
                        plimsoll export latest --as dynamo --kv-tokens 945029\n  plimsoll export latest --as keda --headroom 0.3\n\n\
                        vllm, aiperf, inferencex and hdr write files for each level; guidellm, jsonl and parquet one for the run.\n\
                        Latencies are by the other tool's definitions (docs/formats.md); jsonl, parquet and hdr have plimsoll's.\n\n\
                        The rest are for planners, autoscalers and simulators: a folder with plimsoll-export.json, which says who has read\n\
                        such files, whether headroom is inside, and what was left out. dynamo, dynamo-fpm, llmd-queue, llmd-perfparms and\n\
                        inference-sim need levels of `bench --for-planner`; aic, llmd-queue, keda and prometheus a rate at the SLO.")]
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
    /// Tokens that the KV cache of one replica holds, where the run does not know it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    kv_tokens: Option<u64>,
    /// Share added to the need, inside the threshold of `keda` [default: that of the run, else 0.25]
    #[arg(long, value_name = "SHARE", value_parser = read_headroom, allow_negative_numbers = true)]
    headroom: Option<Headroom>,
    /// Query of the calls/s that `keda` divides [default: vLLM's successes, which hide demand in overload]
    #[arg(long, value_name = "PROMQL")]
    query: Option<String>,
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
    /// A row a level, our own metrics
    Csv,
    /// ai-dynamo's SLA planner: profile directory, and its mocker's table
    Dynamo,
    /// ai-dynamo's planner: records of forward passes
    DynamoFpm,
    /// AIConfigurator: table for load matching
    Aic,
    /// llm-d: request of queue-analysis
    LlmdQueue,
    /// llm-d: perfParms of its variant autoscaler of 2025 (legacy)
    LlmdPerfparms,
    /// llm-d-inference-sim: latency profile
    InferenceSim,
    /// llm-d's latency predictor: training entries, a line a request
    LatencyPredictor,
    /// Vidur: trace of each open-loop level
    Vidur,
    /// KEDA and HPA: threshold of a replica, headroom inside
    Keda,
    /// Prometheus: gauges
    Prometheus,
}

/// Which family a form belongs to.
enum Family {
    /// Results of another benchmark, or every request.
    Results(export::Format),
    /// For a planner.
    Planner(Form),
}

impl ExportFormat {
    const fn family(self) -> Family {
        use Family::{Planner, Results};
        match self {
            Self::Vllm => Results(export::Format::Vllm),
            Self::Aiperf => Results(export::Format::Aiperf),
            Self::Guidellm => Results(export::Format::Guidellm),
            Self::Inferencex => Results(export::Format::Inferencex),
            Self::Hdr => Results(export::Format::Hdr),
            Self::Jsonl => Results(export::Format::Jsonl),
            Self::Parquet => Results(export::Format::Parquet),
            Self::Csv => Planner(Form::Csv),
            Self::Dynamo => Planner(Form::Dynamo),
            Self::DynamoFpm => Planner(Form::DynamoFpm),
            Self::Aic => Planner(Form::Aic),
            Self::LlmdQueue => Planner(Form::LlmdQueue),
            Self::LlmdPerfparms => Planner(Form::LlmdPerfparms),
            Self::InferenceSim => Planner(Form::InferenceSim),
            Self::LatencyPredictor => Planner(Form::LatencyPredictor),
            Self::Vidur => Planner(Form::Vidur),
            Self::Keda => Planner(Form::Keda),
            Self::Prometheus => Planner(Form::Prometheus),
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
    let (folder, run) = runs::read(&RunStore::at(&out.data_dir()?), &args.run, "export")?;
    let levels = wanted(&run.levels, &args.levels).map_err(|what| ExportError::NoLevel { run: run.id.clone(), what })?;
    let log = folder.join(REQUEST_LOG);
    let has_log = log.is_file();
    let (name, files) = match args.form.family() {
        Family::Results(format) => (format.name(), results(args, &run, &levels, format, has_log.then_some(&*log))?),
        Family::Planner(form) => (form.name(), planner::files(args, &run, levels, form, has_log.then_some(&*log))?),
    };
    if printed == Format::Json {
        out.document(&ExportDocument { schema_version: SCHEMA_VERSION, run: &run.id, format: name, files })?;
        return Ok(Exit::Good);
    }
    for file in &files {
        out.line(format_args!("{}  {} bytes", file.path, file.bytes))?;
    }
    Ok(Exit::Good)
}

/// The forms of other benchmarks.
fn results(
    args: &ExportArgs,
    run: &RunRecord,
    levels: &[&LevelRecord],
    format: export::Format,
    log: Option<&Path>,
) -> anyhow::Result<Vec<Written>> {
    let mut exporter = Exporter::new(run, format, log.is_some())?;
    // Before the first is written: an export is not left half done over a name that is taken.
    refuse_taken(&args.out, &export::names(format, run, levels, log.is_some()), args.force)?;
    if log.is_none() {
        tracing::warn!("the run kept no request log: files have what its levels kept, and no arrays or records");
    }
    let mut requests = log.map(Requests::open).transpose()?.map(Iterator::peekable);
    let mut files = Vec::new();
    for level in levels {
        let of_level = requests.as_mut().map(|requests| requests_of(requests, level)).transpose()?;
        for file in exporter.level(level, of_level.as_deref())? {
            files.push(write(&args.out, &file)?);
        }
    }
    for file in exporter.finish()? {
        files.push(write(&args.out, &file)?);
    }
    Ok(files)
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
fn requests_of(requests: &mut Peekable<Requests>, level: &LevelRecord) -> Result<Vec<RequestRecord>, ReadError> {
    let mut of_level = Vec::new();
    while let Some(next) = requests.next_if(|next| next.as_ref().map_or(true, |logged| logged.level <= level.index)) {
        let logged = next?;
        if logged.level == level.index {
            of_level.push(logged.request);
        }
    }
    let (logged, all) = (of_level.len() as u64, level.counts.whole_level);
    if logged < all {
        tracing::warn!("level {}: {} of {all} requests are not in the log, and not exported", level.index, all - logged);
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
