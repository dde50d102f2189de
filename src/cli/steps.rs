//! `plimsoll steps`: whole steps of the engine beside the least that the machine could take for them.

use anyhow::Context;
use serde::Serialize;

use crate::campaign::steps::{self, StepsPlan};
use crate::cli::bench::lock_folder;
use crate::cli::device::{Device, DeviceArgs};
use crate::cli::engine_args::ArithmeticArg;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::terminal::{self, Format, Progress, Terminal};
use crate::cli::{ceilings, defaults, loading};
use crate::device::ceilings::CeilingWish;
use crate::engine::loading::{LoadedModel, ModelSource, ShapeWish};
use crate::engine::weights::LoadError;
use crate::node;
use crate::nvidia::Libraries;
use crate::record::SCHEMA_VERSION;
use crate::record::ceilings::CeilingKind;
use crate::record::node::GpuTelemetry;
use crate::record::steps::{StepCase, StepsRecord};
use crate::report::Look;
use crate::report::paint::Paint;
use crate::report::steps as report;
use crate::store::lock::NodeLock;

/// Arguments of `steps`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  plimsoll steps --model llama-3.1-8b\n  \
                        plimsoll steps --model llama-5m --device cpu --decode 1,8 --context 64 --prefill 128")]
pub struct StepsArgs {
    /// Preset with random weights, or folder of a checkpoint [default: the one that `bench` measures on the device]
    #[arg(long, value_name = "DIR|PRESET")]
    model: Option<String>,
    /// Sequences that decode at once, a step for each number; none: `--decode ''`
    #[arg(long, value_name = "N,...", default_value = "1,8,64,256")]
    decode: Counts,
    /// Cached tokens of each sequence that decodes
    #[arg(long, value_name = "N", default_value_t = 2048, value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    context: u32,
    /// Tokens that are prefilled, a step for each number; none: `--prefill ''`
    #[arg(long, value_name = "N,...", default_value = "512,2048,8192")]
    prefill: Counts,
    /// Seconds that the timed steps of each may take, and each ceiling
    #[arg(long, value_name = "S", default_value_t = 1.0, value_parser = ceilings::positive)]
    seconds: f64,
    /// Of weights and tokens
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// How matrix products are computed [default: bf16 on a GPU, f32 on a CPU]
    #[arg(long, value_enum, value_name = "ARITHMETIC", help_heading = "Device")]
    arithmetic: Option<ArithmeticArg>,
    /// Threads of the CPU device [default: one a core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Device")]
    threads: Option<u16>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Numbers above 0, with commas between them; none at all.
#[derive(Clone, Debug)]
struct Counts(Vec<u32>);

impl std::str::FromStr for Counts {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = |text: &str| text.trim().parse().ok().filter(|count| (1..=16_777_216).contains(count));
        let counts = text.split(',').filter(|_| !text.is_empty()).map(count).collect::<Option<_>>();
        counts.map(Self).ok_or_else(|| "give numbers above 0 with commas between them, such as 1,8".to_owned())
    }
}

/// Tokens of a KV block.
const BLOCK: usize = 16;
/// Fewest tokens of the largest step: the cache is filled in pieces of that size.
const FILL: usize = 512;

#[derive(Serialize)]
struct StepsDocument<'a> {
    schema_version: u32,
    #[serde(flatten)]
    record: &'a StepsRecord,
}

/// Times and prints.
///
/// # Errors
/// When the device or the model is not there or fails, or another run measures on this node.
pub fn run(args: &StepsArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let format = out.format_among(&[Format::Text, Format::Json, Format::Csv])?;
    let device = args.device.choose(args.arithmetic, ceilings::threads(args.threads))?.only()?;
    let node = node::describe(GpuTelemetry::Unavailable { why: "nothing of it is asked here".to_owned() });
    let fits = defaults::of(&node, device.gpus().first().map(|gpu| gpu.memory_bytes));
    let name = args.model.as_deref().unwrap_or(fits.model);
    let open = || ModelSource::open(name, args.seed).context("cannot open the model").exit_with(Exit::BadInput);
    open()?;
    let _lock = NodeLock::take(&lock_folder())?;
    let libraries = args.device.libraries();
    let kinds = Some(vec![CeilingKind::MemoryRead, CeilingKind::MatrixProduct]);
    let wish = CeilingWish { seconds_each: args.seconds, kinds, element: device.element() };
    let ceilings = ceilings::measure(&device, libraries, &wish, out.progress())?;
    let plan = args.plan();
    let model = load(&device, libraries, &plan, open, out.progress())?;
    let quiet = out.progress() == Progress::Silent;
    let record = steps::measure(&model, ceilings, &plan, &mut |text| {
        if !quiet {
            terminal::note(text);
        }
    })?;
    match format {
        Format::Json => out.document(&StepsDocument { schema_version: SCHEMA_VERSION, record: &record })?,
        Format::Csv => out.print(report::csv(&record).context("cannot write the steps as CSV")?)?,
        _ => out.print(report::text(&record, Look { width: out.width(), paint: Paint::Colour }))?,
    }
    Ok(Exit::Good)
}

impl StepsArgs {
    fn plan(&self) -> StepsPlan {
        let decode = self.decode.0.iter().map(|batch| StepCase::Decode { batch: *batch, context: self.context });
        let prefill = self.prefill.0.iter().map(|tokens| StepCase::Prefill { tokens: *tokens });
        StepsPlan { cases: decode.chain(prefill).collect(), seconds_each: self.seconds, seed: self.seed }
    }
}

/// Loads the model with a cache for all steps, or for as many as there is memory for.
fn load(
    device: &Device,
    libraries: &Libraries,
    plan: &StepsPlan,
    open: impl Fn() -> anyhow::Result<ModelSource> + Sync,
    progress: Progress,
) -> anyhow::Result<LoadedModel> {
    let (blocks, tokens, sequences) = plan.most(BLOCK);
    let most = |blocks: usize| u32::try_from(blocks).unwrap_or(u32::MAX);
    let mut wish = ShapeWish {
        block_size: BLOCK,
        num_kv_blocks: Some(most(blocks.max(FILL / BLOCK))),
        max_num_seqs: sequences,
        max_num_batched_tokens: tokens.max(FILL),
        ..ShapeWish::default()
    };
    let load = |wish: &ShapeWish| {
        let loaded = device.clone().load(libraries, &open, wish, &mut loading::shown(progress)).context("cannot load the model")?;
        loaded.into_iter().next().context("no device holds the model")
    };
    let refused = match load(&wish) {
        Err(refused) => refused,
        loaded => return loaded,
    };
    let Some(LoadError::NotEnoughMemory { need, free, .. }) = refused.downcast_ref() else { return Err(refused) };
    // A twentieth stays free: what else lives on the device grows and shrinks.
    let left = free.saturating_sub(need.total() - need.kv_cache) / 20 * 19;
    let fitting = left / (need.kv_cache / u64::from(wish.num_kv_blocks.unwrap_or(1))).max(1);
    if fitting < (FILL / BLOCK) as u64 {
        return Err(refused);
    }
    wish.num_kv_blocks = Some(most(fitting as usize));
    load(&wish)
}
