//! From a run and its request log to files of another tool's form, level by level, so that one level at a time is in memory.

use crate::interchange::cohort::{Cohort, date, file_part};
use crate::interchange::error::ExportError;
use crate::interchange::{aiperf, guidellm, hdr, inferencex, parquet, rows, vllm};
use crate::record::level::{LevelRecord, Offered};
use crate::record::request::RequestRecord;
use crate::record::run::RunRecord;

/// A form that runs are written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `vllm bench serve`, a JSON file a level.
    Vllm,
    /// AIPerf, a folder a level with summary and records.
    Aiperf,
    /// GuideLLM, one JSON file.
    Guidellm,
    /// InferenceX, a JSON file a level.
    Inferencex,
    /// HDR histogram logs, one a level.
    Hdr,
    /// A line of JSON a request.
    Jsonl,
    /// A row a request.
    Parquet,
}

impl Format {
    /// As it is named on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Aiperf => "aiperf",
            Self::Guidellm => "guidellm",
            Self::Inferencex => "inferencex",
            Self::Hdr => "hdr",
            Self::Jsonl => "jsonl",
            Self::Parquet => "parquet",
        }
    }

    /// Whether it has every request in it.
    const fn needs_requests(self) -> bool {
        matches!(self, Self::Guidellm | Self::Hdr | Self::Jsonl | Self::Parquet)
    }

    /// Whether all levels go into one file.
    const fn is_of_the_run(self) -> bool {
        matches!(self, Self::Guidellm | Self::Jsonl | Self::Parquet)
    }

    /// The files of one level, or of the run; none of a run that the levels' files make up.
    fn names(self, run: &RunRecord, level: Option<&LevelRecord>) -> Vec<String> {
        let id = &run.id;
        match (self, level) {
            (Self::Vllm, Some(level)) => {
                let offered = match &level.offered {
                    Offered::Closed { concurrency } => format!("infqps-concurrency{concurrency}"),
                    Offered::Open { calls_per_s, .. } => format!("{calls_per_s:?}qps"),
                };
                // `{label}-{rate}qps[-concurrency{n}]-{model}-{date}.json` (vllm/benchmarks/serve.py, compute_result_filename);
                // the label is free, and tells apart levels of one rate that began in one second.
                vec![format!("plimsoll-level{:03}-{offered}-{}-{}.json", level.index, file_part(&run.target.model), date(level))]
            }
            (Self::Aiperf, Some(level)) => {
                let folder = format!("aiperf-{id}/level{:03}", level.index);
                vec![format!("{folder}/profile_export_aiperf.json"), format!("{folder}/profile_export.jsonl")]
            }
            (Self::Inferencex, Some(level)) => vec![format!("agg_plimsoll-{id}-level{:03}.json", level.index)],
            (Self::Hdr, Some(level)) => vec![format!("plimsoll-{id}-level{:03}.hlog", level.index)],
            (Self::Guidellm, None) => vec![format!("benchmarks-{id}.json")],
            (Self::Jsonl, None) => vec![format!("plimsoll-{id}.jsonl")],
            (Self::Parquet, None) => vec![format!("plimsoll-{id}.parquet")],
            _ => Vec::new(),
        }
    }
}

/// A file that was made: a path below the folder of the export, and what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// With `/` between folders.
    pub name: String,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// Every file that an export will make, before it makes any; `has_log` says whether there are requests.
#[must_use]
pub fn names(format: Format, run: &RunRecord, levels: &[&LevelRecord], has_log: bool) -> Vec<String> {
    let of_levels = levels.iter().flat_map(|level| format.names(run, Some(level)));
    let names = of_levels.chain(format.names(run, None));
    names.filter(|name| has_log || !(format == Format::Aiperf && name.ends_with(".jsonl"))).collect()
}

/// An export under way.
#[derive(Debug)]
pub struct Exporter<'a> {
    run: &'a RunRecord,
    format: Format,
    whole: Whole,
}

/// What becomes one file of all levels.
enum Whole {
    None,
    Lines(Vec<u8>),
    Table(parquet::Table),
    Benchmarks(Vec<serde_json::Value>),
}

impl std::fmt::Debug for Whole {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::None => "None",
            Self::Lines(_) => "Lines",
            Self::Table(_) => "Table",
            Self::Benchmarks(_) => "Benchmarks",
        })
    }
}

impl<'a> Exporter<'a> {
    /// Begins.
    ///
    /// # Errors
    /// When the form needs every request and there is no log, or memory cannot be written.
    pub fn new(run: &'a RunRecord, format: Format, has_log: bool) -> Result<Self, ExportError> {
        if format.needs_requests() && !has_log {
            return Err(ExportError::NoRequestLog { run: run.id.clone(), format: format.name() });
        }
        let whole = match format {
            Format::Jsonl => Whole::Lines(Vec::new()),
            Format::Parquet => Whole::Table(parquet::Table::new(run)?),
            Format::Guidellm => Whole::Benchmarks(Vec::new()),
            _ => Whole::None,
        };
        Ok(Self { run, format, whole })
    }

    /// Takes one level with all its requests, and gives the files that are ready.
    ///
    /// # Errors
    /// When memory cannot be written.
    pub fn level(&mut self, level: &LevelRecord, requests: Option<&[RequestRecord]>) -> Result<Vec<File>, ExportError> {
        let run = self.run;
        let mut contents = Vec::new();
        match &mut self.whole {
            Whole::Lines(lines) => rows::append_lines(lines, level, requests.unwrap_or_default())?,
            Whole::Table(table) => table.append(level, requests.unwrap_or_default())?,
            Whole::Benchmarks(benchmarks) => benchmarks.push(guidellm::benchmark(run, &Cohort::of(level, requests))),
            Whole::None => {
                let cohort = Cohort::of(level, requests);
                match self.format {
                    Format::Vllm => contents.push(pretty(&vllm::document(run, &cohort))),
                    Format::Inferencex => contents.push(pretty(&inferencex::document(run, &cohort))),
                    Format::Hdr => contents.push(hdr::log(run, &cohort)?),
                    _ => {
                        contents.push(pretty(&aiperf::summary(run, &cohort)));
                        contents.extend(requests.map(|_| aiperf::records(&cohort)));
                    }
                }
            }
        }
        Ok(files(self.format.names(run, Some(level)), contents))
    }

    /// Ends: the files of all levels together.
    ///
    /// # Errors
    /// When memory cannot be written.
    pub fn finish(self) -> Result<Vec<File>, ExportError> {
        let contents = match self.whole {
            Whole::None => Vec::new(),
            Whole::Lines(lines) => vec![lines],
            Whole::Table(table) => vec![table.finish()?],
            Whole::Benchmarks(benchmarks) => vec![pretty(&guidellm::document(self.run, benchmarks))],
        };
        debug_assert_eq!(contents.len(), usize::from(self.format.is_of_the_run()), "one file for the run, or none");
        Ok(files(self.format.names(self.run, None), contents))
    }
}

fn files(names: Vec<String>, contents: Vec<Vec<u8>>) -> Vec<File> {
    names.into_iter().zip(contents).map(|(name, bytes)| File { name, bytes }).collect()
}

fn pretty(document: &serde_json::Value) -> Vec<u8> {
    format!("{document:#}\n").into_bytes()
}

/// What stands beside the foreign fields, where the form has room for more: whose numbers these are.
pub(super) fn origin(run: &RunRecord, level: &LevelRecord) -> serde_json::Value {
    serde_json::json!({
        "version": run.version,
        "run": run.id,
        "level": level.index,
        "purpose": level.purpose.to_string(),
        "valid": level.verdict.is_valid(),
        "outcome": level.verdict.outcome.name(),
        "invalid": level.verdict.invalid.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "labels": run.labels,
        "window_s": level.window_s,
        "devices": level.per_device.devices,
        "says": "cohort of the window; rates are what completed or was emitted inside it",
    })
}
