//! What `bench` understands.

use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;

use crate::cli::bench::server::ServerArgs;
use crate::cli::device::DeviceArgs;
use crate::cli::engine_args::EngineArgs;
use crate::cli::length_of_time;
use crate::cli::nvml_args::NvmlArgs;
use crate::cli::plan_inputs::PlanInputArgs;
use crate::http::endpoint::{BadEndpoint, Endpoint};
use crate::workload::fit::Caps;
use crate::workload::trace::format::TraceFormat;

/// `bench` with every flag that a run has decided already refused beside `--resume`: silently ignored, it would mislead.
pub(in crate::cli) fn refusing_beside_resume(bench: clap::Command) -> clap::Command {
    let ids = bench.get_arguments().map(|argument| argument.get_id().clone());
    let fixed = ids.filter(|id| !["resume", "budget", "nvml"].contains(&id.as_str())).collect::<Vec<_>>();
    bench.mut_arg("resume", |resume| resume.conflicts_with_all(fixed))
}

/// Arguments of `bench`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  plimsoll bench --quick                                 under two minutes, indicative
  plimsoll bench                                         the published method on what this node has
  plimsoll bench --model ./Llama-3.1-8B --workload rag   your checkpoint, another workload
  plimsoll bench --trace azure_conv.csv.gz --length-scale 0.05 --quick
  plimsoll bench --trace azure_conv.csv.gz --trace-speed 2 --max-prompt-tokens 2000
  plimsoll bench --slo 'ttft:p95<500ms,tpot:p95<30ms' --budget 2h
  plimsoll bench --target http://127.0.0.1:8000 --gpus 8 --slo 'ttft:p99<2s,tpot:p99<50ms'
  plimsoll bench --resume latest                         go on with an interrupted run")]
pub struct BenchArgs {
    /// Short windows, SLO at p90 relative to the idle latencies: under two minutes, indicative
    #[arg(long)]
    pub quick: bool,
    /// Time for the whole run, such as 20m: windows are shortened to fit, which widens bracket and interval
    #[arg(long, value_name = "TIME", value_parser = length_of_time::read)]
    pub budget: Option<std::time::Duration>,
    /// Go on with an unfinished run: `latest`, an id or its beginning, or a folder; with `--budget`, for that much longer
    #[arg(long, value_name = "RUN", num_args = 0..=1, default_missing_value = "latest")]
    pub resume: Option<String>,
    /// A word of your own, kept with the run and shown with it
    #[arg(long, value_name = "TEXT")]
    pub label: Option<String>,

    #[command(flatten)]
    /// What is measured.
    pub target: TargetArgs,
    #[command(flatten)]
    /// A server that somebody else runs.
    pub server: ServerArgs,
    #[command(flatten)]
    /// Where the built-in engine computes.
    pub device: DeviceArgs,
    #[command(flatten)]
    /// How the built-in engine computes.
    pub engine: EngineArgs,
    #[command(flatten)]
    /// What is sent.
    pub traffic: TrafficArgs,
    #[command(flatten)]
    /// How it is measured.
    pub method: MethodArgs,
    #[command(flatten)]
    /// What is watched beside it.
    pub watch: WatchArgs,
    #[command(flatten)]
    /// What the formula is asked.
    pub demand: PlanInputArgs,
}

/// What is measured.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "What is measured")]
pub struct TargetArgs {
    /// `engine` (built in), the URL of a server that speaks OpenAI's API (http://host:port, https://..., unix:/path), `null` (the
    /// generator's own ceiling), or `simulated` (a service law in virtual time)
    #[arg(long, value_name = "TARGET", default_value = "engine")]
    pub target: TargetKind,
    /// Folder with config.json and safetensors, or a preset with random weights [default: by what the node has]; of a server, the
    /// name of its model [default: the first that it lists]
    #[arg(long, value_name = "DIR|PRESET")]
    pub model: Option<String>,
    /// Threads that compute [default: one core less than there are]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// KV blocks [default: a quarter of the free memory, at most what --kv-cache-gib says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub kv_blocks: Option<u32>,
    /// Most memory of the host that KV blocks are fitted into, GiB
    #[arg(long, value_name = "GIB", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=65_536), conflicts_with = "kv_blocks")]
    pub kv_cache_gib: u32,
    /// Service law of `--target simulated`: `mm1`, `batching`, or a JSON file
    #[arg(long, value_name = "LAW", default_value = "batching")]
    pub law: String,
}

/// What is sent.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "What is sent")]
pub struct TrafficArgs {
    /// A preset (chat, code, rag, summarize, agentic, quick, fixed:IN:OUT) or a TOML file [default: by the model]
    #[arg(long, value_name = "NAME|FILE", conflicts_with = "trace")]
    pub workload: Option<String>,
    /// Replay a trace: Azure LLM, BurstGPT, Mooncake, or CSV/JSON lines of our own form; .gz and .zst too
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Multiply prompt and answer lengths, such as 0.1 for a small model
    #[arg(long, value_name = "FACTOR", value_parser = parse_factor, allow_negative_numbers = true)]
    pub length_scale: Option<f64>,
    /// Cut prompts to this length, shared prefix and history included; counted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_prompt_tokens: Option<u32>,
    /// Cut answers to this length; counted
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_output_tokens: Option<u32>,
    /// Arrivals of the open-loop levels: constant, poisson, gamma:BURSTINESS
    #[arg(long, value_name = "PROCESS", conflicts_with = "trace")]
    pub arrivals: Option<String>,
    /// Replay the trace's first N rows only
    #[arg(long, value_name = "N", requires = "trace")]
    pub trace_first: Option<u64>,
    /// Begin the search at the trace's own stamps, run this many times as fast: is its own pace held?
    #[arg(long, value_name = "FACTOR", requires = "trace", value_parser = parse_factor, allow_negative_numbers = true)]
    pub trace_speed: Option<f64>,
    /// Form of the trace: azure, burstgpt, mooncake, plain [default: by its columns]
    #[arg(long, value_name = "FORM", requires = "trace")]
    pub trace_format: Option<TraceFormat>,
    /// Put rows in order that stand up to N places too early
    #[arg(long, value_name = "N", requires = "trace", default_value_t = 0, value_parser = clap::value_parser!(u32).range(..=10_000_000))]
    pub trace_reorder: u32,
}

impl TrafficArgs {
    /// The lengths that were asked for.
    pub fn caps(&self) -> Caps {
        Caps { prompt_tokens: self.max_prompt_tokens, output_tokens: self.max_output_tokens }
    }
}

/// How it is measured and judged.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "How it is measured")]
pub struct MethodArgs {
    /// Objectives, each judged on its own, such as 'ttft:p99<2000ms,tpot:p95<50ms' (in quotes: `<` is the shell's too)
    #[arg(long, value_name = "SLO")]
    pub slo: Option<String>,
    /// Confirmation runs; 1 gives a bracket without an interval [default: 3, 2 with --quick]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20))]
    pub confirmations: Option<u32>,
    /// Highest concurrency of the closed-loop sweep
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65536))]
    pub max_concurrency: Option<u32>,
    /// Most requests in flight in open loop
    #[arg(long, value_name = "N", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight_cap: u32,
    /// What arrivals do at that cap
    #[arg(long, value_enum, default_value_t = OnCapArg::Wait)]
    pub on_cap: OnCapArg,
    /// A request is given up after this long [default: 10m, 30s with --quick]
    #[arg(long, value_name = "TIME", value_parser = length_of_time::read)]
    pub timeout: Option<std::time::Duration>,
    /// Seed of everything random [default: a new one]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Keep levels only, not each request
    #[arg(long)]
    pub no_request_log: bool,
    /// Measure also what exports to planners need: prompts of several lengths alone, and contexts under several concurrencies
    #[arg(long, conflicts_with = "natural_length")]
    pub for_planner: bool,
}

/// What is watched while it is measured.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "GPU telemetry")]
pub struct WatchArgs {
    #[command(flatten)]
    /// Where NVML is.
    pub nvml: NvmlArgs,
    /// GPUs to watch beside those that are measured: `all`, or places in CUDA's order and UUIDs, separated by commas
    #[arg(long, value_name = "GPUS")]
    pub watch_gpus: Option<String>,
    /// Watch the GPUs of another node through its DCGM exporter (http://node:9400/metrics): all of them, or those of `--watch-gpus`
    #[arg(long, value_name = "URL")]
    pub dcgm_url: Option<Endpoint>,
    /// Refuse to measure where GPU telemetry is not to be had
    #[arg(long)]
    pub require_telemetry: bool,
    /// Measure also where others compute on the GPU, or hold its lock; said beside every number
    #[arg(long)]
    pub allow_shared: bool,
    /// Keep every sample of the watched GPUs in a file, as JSON lines
    #[arg(long, value_name = "FILE")]
    pub save_samples: Option<PathBuf>,
}

/// The system under test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetKind {
    /// The built-in engine in this process.
    Engine,
    /// A server that speaks OpenAI's API.
    Server(Endpoint),
    /// Answers at once: the generator's own ceiling.
    Null,
    /// A service law in virtual time.
    Simulated,
}

impl FromStr for TargetKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "engine" => Ok(Self::Engine),
            "null" => Ok(Self::Null),
            "simulated" => Ok(Self::Simulated),
            _ if text.contains(':') => text.parse().map(Self::Server).map_err(|error: BadEndpoint| error.to_string()),
            _ => Err("give `engine`, `null`, `simulated`, or a server such as http://127.0.0.1:8000".to_owned()),
        }
    }
}

/// What arrivals do at the in-flight cap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OnCapArg {
    /// Wait with the clock running.
    Wait,
    /// Be refused, which makes the level invalid.
    Refuse,
}

/// A number above 0.
fn parse_factor(text: &str) -> Result<f64, String> {
    let factor = text.parse::<f64>().ok().filter(|factor| *factor > 0.0 && factor.is_finite());
    factor.ok_or_else(|| format!("`{text}` is no factor above 0. Write it like 0.125 or 2"))
}
