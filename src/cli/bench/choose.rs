//! What `bench` measures when it is not told: model, threads and traffic by what the node has.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;

use crate::campaign::traffic::Chosen;
use crate::cli::bench::args::{BenchArgs, TrafficArgs};
use crate::cli::defaults;
use crate::cli::exit::{Exit, ExitWith};
use crate::record::node::NodeRecord;
use crate::table::read::Table;
use crate::table::source::Source;
use crate::workload::arrivals::ArrivalProcess;
use crate::workload::fit::Limits;
use crate::workload::spec::Workload;
use crate::workload::trace::options::{AtEnd, TraceOptions};
use crate::workload::trace::survey::Trace;
use crate::workload::traffic::Traffic;

/// Chat lengths on a CPU are an eighth of what people send to GPUs.
const CPU_LENGTHS: f64 = 0.125;

/// The preset that fits a node without a GPU.
pub(super) fn model(args: &BenchArgs) -> String {
    args.target.model.clone().unwrap_or_else(|| if args.quick { defaults::QUICK_MODEL } else { defaults::MODEL }.to_owned())
}

/// Threads of the CPU device.
pub(super) fn threads(asked: Option<u16>, node: &NodeRecord) -> NonZeroUsize {
    let spare = defaults::of(node).threads as usize;
    NonZeroUsize::new(asked.map_or(spare, usize::from)).unwrap_or(NonZeroUsize::MIN)
}

/// The traffic that was asked for, or the one that fits the model.
///
/// # Errors
/// When a workload or trace is not there, or not in order.
pub(super) fn traffic(args: &BenchArgs, limits: Limits) -> anyhow::Result<Chosen> {
    let traffic = match &args.traffic.trace {
        Some(path) => Traffic::Recorded(trace(path, &args.traffic)?),
        None => Traffic::Drawn(workload(args)?),
    };
    Chosen::new(traffic, limits).context("cannot make the traffic").exit_with(Exit::BadInput)
}

fn workload(args: &BenchArgs) -> anyhow::Result<Workload> {
    let by_model = args.traffic.workload.is_none();
    let name = args.traffic.workload.as_deref().unwrap_or(if args.quick { "quick" } else { "chat" });
    let mut workload = if name.ends_with(".toml") || Path::new(name).is_file() {
        let text = std::fs::read_to_string(name)
            .with_context(|| format!("cannot read the workload `{name}`. Give a preset or the path of a TOML file"))
            .exit_with(Exit::BadInput)?;
        Workload::parse(&text, name).exit_with(Exit::BadInput)?
    } else {
        Workload::preset(name).exit_with(Exit::Usage)?
    };
    if let Some(arrivals) = &args.traffic.arrivals {
        workload.arrivals = arrivals.parse::<ArrivalProcess>().exit_with(Exit::Usage)?;
    }
    workload.keeps_rate().exit_with(Exit::BadInput)?;
    let scale = args.traffic.length_scale.or((by_model && !args.quick && args.target.model.is_none()).then_some(CPU_LENGTHS));
    match scale {
        None => Ok(workload),
        Some(factor) if factor > 0.0 && factor.is_finite() => Ok(workload.scaled(factor)),
        Some(factor) => Err(anyhow::anyhow!("cannot scale lengths by `{factor}`. Give a factor above 0")).exit_with(Exit::Usage),
    }
}

fn trace(path: &Path, args: &TrafficArgs) -> anyhow::Result<Trace> {
    let name = path.to_string_lossy().into_owned();
    let options = TraceOptions {
        scale: args.length_scale.unwrap_or(1.0),
        first: args.trace_first,
        // A level may outlast the trace: it begins again with prompts of its own.
        at_end: AtEnd::Repeat,
        ..TraceOptions::default()
    };
    let source = name.clone();
    Trace::survey(move || Table::open(&Source::named(&source)), options)
        .with_context(|| format!("cannot replay `{name}`"))
        .exit_with(Exit::BadInput)
}
