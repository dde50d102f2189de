//! What `bench` measures when it is not told: model, threads and traffic by what the node has.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;

use crate::campaign::traffic::Chosen;
use crate::cli::bench::args::{BenchArgs, TargetKind, TrafficArgs};
use crate::cli::defaults;
use crate::cli::device::Device;
use crate::cli::exit::{Exit, ExitWith};
use crate::model::config::ModelConfig;
use crate::record::node::NodeRecord;
use crate::record::slo::{Slo, SloSource};
use crate::table::read::Table;
use crate::table::source::Source;
use crate::workload::arrivals::ArrivalProcess;
use crate::workload::fit::{Caps, Limits};
use crate::workload::spec::Workload;
use crate::workload::trace::options::{AtEnd, TraceOptions};
use crate::workload::trace::survey::{Trace, TraceError};
use crate::workload::traffic::Traffic;

/// Share of the requests that may be cut to a model's context before they are no longer the workload that was asked for.
const CUT_MOST: f64 = 0.5;
/// Chat lengths on a CPU are an eighth of what people send to GPUs.
const CPU_LENGTHS: f64 = 0.125;

/// The model that was asked for, or the preset that fits the device.
pub(super) fn model(args: &BenchArgs, node: &NodeRecord, device: &Device) -> String {
    let fits = defaults::of(node, device.gpus().iter().map(|gpu| gpu.memory_bytes).min());
    args.target.model.clone().unwrap_or_else(|| if args.quick { fits.quick_model } else { fits.model }.to_owned())
}

/// The device; `None` where the target is not the engine.
///
/// # Errors
/// When the one that was asked for is not there.
pub(super) fn device(args: &BenchArgs, node: &NodeRecord) -> anyhow::Result<Option<Device>> {
    if args.target.target != TargetKind::Engine {
        return Ok(None);
    }
    let spare = defaults::of(node, None).threads as usize;
    let threads = NonZeroUsize::new(args.target.threads.map_or(spare, usize::from)).unwrap_or(NonZeroUsize::MIN);
    args.device.choose(args.engine.arithmetic, threads).map(Some)
}

/// The traffic that was asked for, or the one that fits what is measured. Read before any model is loaded.
///
/// # Errors
/// When a workload or trace is not there, or not in order.
pub(super) fn traffic(args: &BenchArgs, device: Option<&Device>) -> anyhow::Result<Traffic> {
    match &args.traffic.trace {
        Some(path) => Ok(Traffic::Recorded(trace(path, &args.traffic)?)),
        None => Ok(Traffic::Drawn(workload(args, device)?)),
    }
}

/// What a model allows.
pub(super) fn limits(config: &ModelConfig) -> Limits {
    let most = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Limits { max_context: most(config.max_position_embeddings), vocab_size: most(config.vocab_size) }
}

/// The traffic within what a model allows.
///
/// # Errors
/// When it does not fit, or only by cutting most of it.
pub(super) fn fitted(traffic: Traffic, limits: Limits) -> anyhow::Result<Chosen> {
    let name = traffic.name().to_owned();
    let chosen = Chosen::new(traffic, limits).context("cannot make the traffic").exit_with(Exit::BadInput)?;
    let cut = chosen.mix().cut_share;
    if cut > CUT_MOST {
        let (cut, context) = (cut * 100.0, limits.max_context);
        let what = format!(
            "{cut:.0} % of the requests of `{name}` are longer than the context of `{context}` tokens: what is left of them is another workload. \
             Multiply all lengths with `--length-scale`, such as 0.25, limit them with `--max-prompt-tokens`, or take a model with a longer context"
        );
        return Err(anyhow::anyhow!(what)).exit_with(Exit::BadInput);
    }
    Ok(chosen)
}

fn workload(args: &BenchArgs, device: Option<&Device>) -> anyhow::Result<Workload> {
    let name = args.traffic.workload.as_deref().unwrap_or(if args.quick { "quick" } else { "chat" });
    let mut workload = if name.ends_with(".toml") || Path::new(name).is_file() {
        let text = std::fs::read_to_string(name)
            .with_context(|| format!("cannot read the workload `{name}`. Give a preset or the path of a TOML file"))
            .exit_with(Exit::BadInput)?;
        let workload = Workload::parse(&text, name).exit_with(Exit::BadInput)?;
        if let Some(slo) = &workload.slo {
            Slo::parse(slo, SloSource::Workload(workload.name.clone()))
                .with_context(|| format!("cannot read the workload `{name}`, key `slo`"))
                .exit_with(Exit::BadInput)?;
        }
        workload
    } else {
        Workload::preset(name).exit_with(Exit::Usage)?
    };
    if let Some(arrivals) = &args.traffic.arrivals {
        workload.arrivals = arrivals.parse::<ArrivalProcess>().exit_with(Exit::Usage)?;
    }
    workload.keeps_rate().exit_with(Exit::BadInput)?;
    // By the device, not by whether a model was named: the same traffic whoever chose the model.
    let on_cpu = device.is_some_and(Device::is_cpu);
    let by_device = (args.traffic.workload.is_none() && !args.quick && on_cpu).then_some(CPU_LENGTHS);
    if let Some(factor) = args.traffic.length_scale.or(by_device) {
        workload = workload.scaled(factor);
    }
    workload.caps = tighter(workload.caps, args.traffic.caps());
    Ok(workload)
}

/// Both limits at once.
fn tighter(one: Caps, other: Caps) -> Caps {
    let least = |one: Option<u32>, other: Option<u32>| [one, other].into_iter().flatten().min();
    Caps { prompt_tokens: least(one.prompt_tokens, other.prompt_tokens), output_tokens: least(one.output_tokens, other.output_tokens) }
}

fn trace(path: &Path, args: &TrafficArgs) -> anyhow::Result<Trace> {
    let name = path.to_string_lossy().into_owned();
    let source = Source::named(&name);
    if source.is_stream() {
        // Said before it is opened: a terminal or a pipe may never end.
        return Err(TraceError::OnlyOnce { name: source.to_string() }).exit_with(Exit::BadInput);
    }
    let options = TraceOptions {
        format: args.trace_format,
        speed: args.trace_speed.unwrap_or(1.0),
        scale: args.length_scale.unwrap_or(1.0),
        caps: args.caps(),
        first: args.trace_first,
        reorder: args.trace_reorder as usize,
        // A level may outlast the trace: it begins again with prompts of its own.
        at_end: AtEnd::Repeat,
        ..TraceOptions::default()
    };
    Trace::survey(move || Table::open(&source), options).with_context(|| format!("cannot replay `{name}`")).exit_with(Exit::BadInput)
}
