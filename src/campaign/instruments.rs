//! What a campaign sees of the GPUs while it measures: a sampler and what is expected of it, or why there is none.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::campaign::gpu_state;
use crate::campaign::interrupt::{Interrupt, Signal};
use crate::campaign::series::Series;
use crate::campaign::xid::{self, Consequence, consequence};
use crate::clock::{Monotonic, Nanos};
use crate::node::{cores, listener};
use crate::record::finding::{Finding, Severity};
use crate::record::level::LevelRecord;
use crate::record::reading::Missing;
use crate::record::server_window::ServerWindow;
use crate::record::telemetry::{Energy, EnergyPerToken, GpuProcess, GpuWindow, IdlePower, Telemetry, WindowSummary};
use crate::record::verdict::Invalid;
use crate::telemetry::sampler::{Alarm, Manner, STALE, Sampler};
use crate::telemetry::window::{Interval, Named};
use crate::telemetry::{Source, replay};

/// How long the first look at every GPU may take.
const FIRST_LOOK: Duration = Duration::from_secs(3);

/// Code of the finding that a GPU ended the run.
pub const GPU_FAILED: &str = "gpu_failed";

/// Whose the GPUs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// The run's own process computes on them: what appears while its model is loaded is its own.
    Computes,
    /// A server's process computes on them, and what comes from it.
    Serves {
        /// Its number.
        pid: u32,
    },
    /// They are only watched.
    Watches,
}

/// What is seen of the GPUs.
#[derive(Debug)]
pub enum Instruments {
    /// Nothing, and why.
    None {
        /// What was looked for and not found, or that no GPU is measured.
        why: String,
    },
    /// These GPUs.
    Watching(Box<Watching>),
}

/// GPUs under watch.
#[derive(Debug)]
pub struct Watching {
    sampler: Sampler,
    ownership: Ownership,
    /// Processes that were there at the start, and were accepted.
    present: Vec<GpuProcess>,
    /// Processes that may be on the GPUs; `None` until the first level begins.
    expected: Option<Vec<u32>>,
    /// Mean power of each GPU while it idled, watts.
    idle_w: Vec<Option<f64>>,
    /// End of the last window.
    last: Nanos,
}

/// Somebody else computes on the GPUs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{processes} on the GPU already: what is measured beside others is nobody's throughput. End it, choose another GPU, or accept it with `--allow-shared`"
)]
pub struct GpuBusy {
    processes: String,
}

impl GpuBusy {
    /// That these processes are there.
    #[must_use]
    pub fn of(present: &[GpuProcess]) -> Self {
        Self { processes: present.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ") }
    }
}

/// What the GPUs, and the server where there is one, say about a level.
#[derive(Clone, Debug, PartialEq)]
pub struct Witnessed {
    /// What was seen.
    pub telemetry: Telemetry,
    /// What the server's own counters said.
    pub server: Option<ServerWindow>,
    /// Why the level cannot be trusted.
    pub invalid: Vec<Invalid>,
    /// What a reader should know.
    pub findings: Vec<Finding>,
}

impl Instruments {
    /// Nothing is watched.
    #[must_use]
    pub fn none(why: impl Into<String>) -> Self {
        Self::None { why: why.into() }
    }

    /// Watches the GPUs of `source`, which are called `names`, in order. A fault that ends runs raises `interrupt`.
    #[must_use]
    pub fn watch(source: Arc<dyn Source>, names: Vec<Named>, clock: Monotonic, ownership: Ownership, interrupt: &Interrupt) -> Self {
        let count = names.len();
        let interrupt = interrupt.clone();
        let manner = Manner {
            ends_run: Arc::new(move |code| consequence(code, count) == Consequence::EndRun),
            alarmed: Arc::new(move |_| {
                // An earlier stop keeps its own reason.
                let _ = interrupt.raise(Signal::GpuFailed);
            }),
            at_start: cores::leave_generator_core,
        };
        let sampler = Sampler::start(source, names, clock, manner);
        sampler.wait_for_look(Nanos::ZERO, FIRST_LOOK);
        let present = sampler.processes();
        Self::Watching(Box::new(Watching { sampler, ownership, present, expected: None, idle_w: vec![None; count], last: Nanos::ZERO }))
    }

    /// Processes that were on the watched GPUs before anything of this run was.
    #[must_use]
    pub fn present(&self) -> &[GpuProcess] {
        match self {
            Self::Watching(watching) => &watching.present,
            Self::None { .. } => &[],
        }
    }

    /// Whether a call to the driver hangs.
    #[must_use]
    pub fn hangs(&self) -> bool {
        matches!(self, Self::Watching(watching) if watching.sampler.silence() >= STALE)
    }

    /// The alarm and the name of its GPU.
    fn alarm(&self) -> Option<(Alarm, String)> {
        let Self::Watching(watching) = self else { return None };
        let alarm = watching.sampler.alarm()?;
        let named = &watching.sampler.names()[alarm.gpu()];
        Some((alarm, format!("{} ({})", named.uuid, named.name)))
    }

    /// The target is there and load is about to begin.
    pub fn ready(&mut self, now: Nanos) {
        if let Self::Watching(watching) = self
            && watching.expected.is_none()
        {
            watching.sampler.wait_for_look(now, FIRST_LOOK);
            watching.expected = Some(watching.expected());
            watching.last = now;
        }
    }

    /// What ended the run, if the GPUs did, as a finding.
    #[must_use]
    pub fn failure(&self) -> Option<Finding> {
        let (alarm, gpu) = self.alarm()?;
        let what = match alarm {
            Alarm::Lost { .. } => format!("{gpu} no longer answers"),
            Alarm::Xid(event) => format!("XID {} on {gpu}: {}", event.code, xid::meaning(event.code)),
        };
        let next_step =
            "look at `dmesg`; reset or reboot the node, and have the GPU inspected if it comes again. Levels saved before it stand";
        Some(Finding::new(GPU_FAILED, Severity::Serious, what, next_step))
    }

    /// What the GPUs used over a time in which nothing was asked of them: it is taken off for net energy from now on.
    pub fn idled(&mut self, from: Nanos, to: Nanos) -> Vec<IdlePower> {
        let Self::Watching(watching) = self else { return Vec::new() };
        let summary = watching.sampler.window(&Interval::of(from, to));
        let watts = |gpu: &GpuWindow| gpu.energy.value().map(Energy::watts).or(gpu.power_mean_w.get());
        let seconds = to.since(from).as_secs_f64();
        let idle = |gpu: &GpuWindow| Some(IdlePower { gpu: gpu.uuid.clone(), watts: watts(gpu)?, seconds });
        let idle = summary.gpus.iter().filter_map(idle).collect::<Vec<_>>();
        watching.take_off(&idle);
        idle
    }

    /// Takes off what was measured before, such as by the run that is resumed.
    pub fn take_off(&mut self, idle: &[IdlePower]) {
        if let Self::Watching(watching) = self {
            watching.take_off(idle);
        }
    }

    /// Whether GPUs are watched whose idle power is not known.
    #[must_use]
    pub fn wants_idle(&self) -> bool {
        matches!(self, Self::Watching(watching) if watching.idle_w.iter().any(Option::is_none))
    }

    /// Everything sampled so far, as a recording.
    ///
    /// # Errors
    /// When a sample is no JSON, which none is that was read.
    pub fn recording(&self) -> Result<String, serde_json::Error> {
        match self {
            Self::Watching(watching) => replay::write(&watching.sampler.timeline()),
            Self::None { .. } => Ok(String::new()),
        }
    }

    /// What was seen of the GPUs over a window; its tokens are in `series`.
    #[must_use]
    pub fn over(&mut self, window: (Nanos, Nanos), series: &Series, earlier: &[LevelRecord]) -> Witnessed {
        match self {
            Self::None { why } => Witnessed {
                telemetry: Telemetry::Unavailable { why: why.clone() },
                server: None,
                invalid: Vec::new(),
                findings: Vec::new(),
            },
            Self::Watching(watching) => watching.over(window, series, earlier),
        }
    }
}

impl Watching {
    fn over(&mut self, (from, to): (Nanos, Nanos), series: &Series, earlier: &[LevelRecord]) -> Witnessed {
        let interval = Interval { since: self.last, ..Interval::of(from, to) };
        self.last = to;
        let mut summary = self.sampler.window(&interval);
        summary.energy_per_token = energy_per_token(&summary, &self.idle_w, from, series);
        let before = earlier.iter().filter_map(|level| level.telemetry.measured()).collect::<Vec<_>>();
        let mut expected = self.expected.take().unwrap_or_default();
        if let Ownership::Serves { pid } = self.ownership {
            // A server may start further processes while it serves; they may have ended when the next level does.
            expected.extend(listener::tree_under(Path::new("/"), pid));
            expected.sort_unstable();
            expected.dedup();
        }
        let (invalid, findings) = gpu_state::judge(&before, &summary, |process| expected.contains(&process.pid));
        self.expected = Some(expected);
        Witnessed { telemetry: Telemetry::Measured(Box::new(summary)), server: None, invalid, findings }
    }

    fn take_off(&mut self, idle: &[IdlePower]) {
        let of = |name: &Named| idle.iter().find(|idle| idle.gpu == name.uuid).map(|idle| idle.watts);
        self.idle_w = self.sampler.names().iter().map(of).collect();
    }

    /// Processes that belong on the GPUs: those that were accepted at the start, and the run's own. In a container the driver counts
    /// processes as the host does, so that the run cannot know its own: there it is the one that came with the model.
    fn expected(&self) -> Vec<u32> {
        let mut expected = self.present.iter().map(|process| process.pid).collect::<Vec<_>>();
        let came = self.sampler.processes().into_iter().map(|process| process.pid).filter(|pid| !expected.contains(pid));
        let mut came = came.collect::<Vec<_>>();
        came.sort_unstable();
        came.dedup();
        let own = std::process::id();
        if came.contains(&own) {
            expected.push(own);
        } else if self.ownership == Ownership::Computes && came.len() == 1 {
            expected.extend(came);
        }
        expected
    }
}

/// Joules over tokens, both between the same two changes of each GPU's counter; `idle_w` by place among the watched GPUs.
#[must_use]
pub fn energy_per_token(summary: &WindowSummary, idle_w: &[Option<f64>], from: Nanos, series: &Series) -> EnergyPerToken {
    let per_token = |idle_w: &dyn Fn(usize) -> Result<f64, Missing>| -> Result<f64, Missing> {
        let mut sum = 0.0;
        for (index, gpu) in summary.gpus.iter().enumerate() {
            let energy = gpu.energy.ok()?;
            let begin = from + Nanos::from_secs_f64(energy.begin_s);
            let tokens = series.tokens_between(begin, begin + Nanos::from_secs_f64(energy.seconds));
            if tokens < 1.0 {
                return Err(Missing::NoSample);
            }
            sum += (energy.joules - idle_w(index)? * energy.seconds) / tokens;
        }
        if summary.gpus.is_empty() { Err(Missing::NoSample) } else { Ok(sum) }
    };
    EnergyPerToken {
        gross_j: per_token(&|_| Ok(0.0)).into(),
        net_j: per_token(&|index| idle_w.get(index).copied().flatten().ok_or(Missing::NotMeasured)).into(),
    }
}
