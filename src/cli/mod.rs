//! The terminal: one thin file per verb, each with its arguments and a `run`.
//!
//! A verb is `pub struct XArgs` (clap) and `pub fn run(args: &XArgs, out: &mut Terminal) -> anyhow::Result<Exit>`.
//! This floor parses, reads the environment, prints and ends the process; it measures and judges nothing.

pub mod bench;
pub mod ceilings;
pub mod completions;
pub mod defaults;
pub mod demand;
mod device;
pub mod doctor;
mod engine_args;
pub mod exit;
pub mod export;
mod failure;
pub mod generate;
pub mod import;
mod kernel_cache;
mod length_of_time;
mod loading;
mod logging;
pub mod man;
pub mod node;
mod nvml_args;
pub mod plan;
mod plan_file;
pub mod plan_inputs;
mod price;
pub mod progress;
mod report;
pub mod runs;
pub mod serve_model;
pub mod signals;
pub mod spike;
pub mod steps;
pub mod terminal;
pub mod transfer;

use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::cli::exit::Exit;
use crate::cli::terminal::{Format, Quiet, Terminal};

/// Measures how many inference calls a second one device sustains within its latency objectives, and plans capacity.
#[derive(Debug, Parser)]
#[command(name = "plimsoll", version, subcommand_required = true, arg_required_else_help = true)]
#[command(subcommand_help_heading = "Verbs", subcommand_value_name = "VERB")]
pub struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb understands.
#[derive(Debug, clap::Args)]
struct GlobalArgs {
    /// How the result is printed
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT", help_heading = "Global options")]
    format: Format,
    /// Colour on a terminal
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN", help_heading = "Global options")]
    color: Color,
    /// Folder that runs are kept in [default: plimsoll in the user's data folder]
    #[arg(long, global = true, value_name = "DIR", env = "PLIMSOLL_DATA_DIR", hide_env_values = true, help_heading = "Global options")]
    data_dir: Option<PathBuf>,
    /// Say more on standard error; twice for debugging
    #[arg(short, long, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    verbose: u8,
    /// Say nothing on standard error but errors
    #[arg(short, long, global = true, conflicts_with = "verbose", help_heading = "Global options")]
    quiet: bool,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Also into a pipe.
    Always,
    /// Not at all.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Measure throughput per GPU under rising concurrency, judge it, and plan from it
    Bench(Box<bench::args::BenchArgs>),
    /// Generate tokens from a model, as a check of the engine
    Generate(generate::GenerateArgs),
    /// Serve the built-in engine as an OpenAI-compatible endpoint, for any client to measure
    ServeModel(serve_model::ServeModelArgs),
    /// Find the demand in request logs: rates, peaks, lengths, latency by load, hidden work
    Demand(Box<demand::DemandArgs>),
    /// Plan capacity from a run: the formula, for each peak to be ready for
    Plan(Box<plan::PlanArgs>),
    /// Prove a plan against spikes of 5 and 10 times the average, simulated or live
    Spike(Box<spike::args::SpikeArgs>),
    /// Write a run in another tool's form: vLLM, AIPerf, GuideLLM, HDR histograms, Parquet
    Export(export::ExportArgs),
    /// Read what another tool measured: vLLM, AIPerf, GuideLLM, InferenceX
    Import(import::ImportArgs),
    /// Say what a server gives beside the built-in engine, and keep it for plans
    Transfer(transfer::TransferArgs),
    /// Measure what the device can do at most: the denominators of every share of a ceiling
    Ceilings(ceilings::CeilingsArgs),
    /// Time whole steps of the engine beside the least that the machine could take for them
    Steps(steps::StepsArgs),
    /// Check libraries, GPUs and permissions, and every kernel against the CPU device
    Doctor(doctor::DoctorArgs),
    /// Say what this machine is
    Node(node::NodeArgs),
    /// List and show the runs kept
    Runs(runs::RunsArgs),
    /// Print completions for a shell
    Completions(completions::CompletionsArgs),
    /// Write the manual pages
    Man(man::ManArgs),
}

/// The arguments of `bench` in a saved command line.
fn bench_args_of(command: &[String]) -> anyhow::Result<bench::args::BenchArgs> {
    match Cli::try_parse_from(command)?.verb {
        Verb::Bench(args) => Ok(*args),
        _ => anyhow::bail!("it is not a command line of `bench`"),
    }
}

/// The clap tree: help, completions and manual pages are made from it.
#[must_use]
pub fn command() -> clap::Command {
    let codes = Exit::ALL.iter().map(|exit| format!("  {:>3}  {}\n", exit.code(), exit.meaning())).collect::<String>();
    let judged = Cli::command().mut_subcommand("spike", spike::args::judging_alone);
    judged.mut_subcommand("bench", bench::args::refusing_beside_resume).after_long_help(format!("Exit codes:\n{codes}"))
}

/// Runs the program: `arguments` as the process got them, its name first.
#[must_use]
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = arguments.into_iter().collect::<Vec<_>>();
    let cli = match command().try_get_matches_from(&arguments).and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(failure::of_usage(&error, &arguments).code()),
    };
    match cli.global.color {
        Color::Auto => {}
        Color::Always => anstream::ColorChoice::Always.write_global(),
        Color::Never => anstream::ColorChoice::Never.write_global(),
    }
    let (quiet, detail) = if cli.global.quiet { (Quiet::Yes, -1) } else { (Quiet::No, i16::from(cli.global.verbose)) };
    logging::start(detail);
    let mut out = Terminal::new(cli.global.format, cli.global.data_dir, quiet);
    let exit = guarded(&mut out, |out| cli.verb.run(&arguments, out));
    ExitCode::from(exit.code())
}

/// Runs a verb; whatever becomes of it is told, and has an exit code of the contract.
fn guarded(out: &mut Terminal, verb: impl FnOnce(&mut Terminal) -> anyhow::Result<Exit>) -> Exit {
    match catch_unwind(AssertUnwindSafe(|| verb(out))) {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => failure::report(&error, out),
        Err(_) => failure::of_panic(out),
    }
}

impl Verb {
    fn run(&self, arguments: &[OsString], out: &mut Terminal) -> anyhow::Result<Exit> {
        match self {
            Self::Bench(args) => bench::run(args, arguments, out),
            Self::Generate(args) => generate::run(args, out),
            Self::ServeModel(args) => serve_model::run(args, out),
            Self::Demand(args) => demand::run(args, out),
            Self::Plan(args) => plan::run(args, out),
            Self::Spike(args) => spike::run(args, out),
            Self::Export(args) => export::run(args, out),
            Self::Import(args) => import::run(args, out),
            Self::Transfer(args) => transfer::run(args, out),
            Self::Ceilings(args) => ceilings::run(args, out),
            Self::Steps(args) => steps::run(args, out),
            Self::Doctor(args) => doctor::run(args, out),
            Self::Node(args) => node::run(args, out),
            Self::Runs(args) => runs::run(args, out),
            Self::Completions(args) => completions::run(args, out),
            Self::Man(args) => man::run(args, out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_of_the_program_has_an_exit_code_of_the_contract() {
        let mut out = Terminal::new(Format::Text, None, Quiet::Yes);
        assert_eq!(guarded(&mut out, |_| panic!("a fault made for this test")), Exit::Internal);
        assert_eq!(guarded(&mut out, |_| Ok(Exit::GateFailed)), Exit::GateFailed);
    }
}
