//! `plimsoll import`: what another benchmark measured, by our names and units, with what it does not say.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::ValueEnum;

use crate::cli::exit::{Exit, ExitWith};
use crate::cli::terminal::{Format, Terminal};
use crate::interchange::import;
use crate::record::imported::Imported;
use crate::report::paint::Paint;
use crate::report::{Look, imported as report};

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll import vllm-infqps-concurrency8-*.json\n  \
                        plimsoll import benchmarks.json --as guidellm --format csv\n  \
                        plimsoll plan benchmarks.json --slo 'ttft:p99<1000ms' --gpus 4\n\n\
                        Formats: `vllm bench serve` JSON, AIPerf summaries and records, GuideLLM version 2, InferenceX agg_*.json.")]
pub struct ImportArgs {
    /// Results of another tool
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    // `format` is how results are printed.
    /// Form of the files [default: the one that each shows]
    #[arg(long = "as", value_enum, value_name = "FORM")]
    form: Option<ImportFormat>,
}

/// A form that is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ImportFormat {
    /// `vllm bench serve`
    Vllm,
    /// AIPerf
    Aiperf,
    /// GuideLLM
    Guidellm,
    /// InferenceX
    Inferencex,
}

/// Prints what the files hold.
///
/// # Errors
/// When a file cannot be read, or the result cannot be printed.
pub fn run(args: &ImportArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = args.form.map(|format| match format {
        ImportFormat::Vllm => import::Format::Vllm,
        ImportFormat::Aiperf => import::Format::Aiperf,
        ImportFormat::Guidellm => import::Format::Guidellm,
        ImportFormat::Inferencex => import::Format::Inferencex,
    });
    let results = args.files.iter().map(|file| read(file, format)).collect::<anyhow::Result<Vec<_>>>()?;
    match out.format() {
        Format::Json => out.document(&report::json(&results))?,
        Format::Markdown => out.print(report::markdown(&results))?,
        Format::Csv => out.print(report::csv(&results).context("cannot write the results as CSV")?)?,
        Format::Text => out.print(report::text(&results, Look { width: out.width(), paint: Paint::Colour }))?,
    }
    Ok(Exit::Good)
}

/// Reads one file, in a format or the one it shows.
pub(super) fn read(file: &Path, format: Option<import::Format>) -> anyhow::Result<Imported> {
    let name = file.display().to_string();
    let bytes = std::fs::read(file)
        .with_context(|| format!("cannot read `{name}`. Give a file that another tool wrote and that you may read"))
        .exit_with(Exit::BadInput)?;
    Ok(import::read(&name, &bytes, format)?)
}
