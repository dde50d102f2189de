//! The threads that sample a source: a fast loop, a slow loop, and one that waits for faults.
//!
//! They are never joined: a call that hangs in the driver would hold up the run or its end. How long a loop has been silent
//! is known from its last beat; whoever measures looks at that, and at the alarm, without waiting for anything.

use std::fmt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::clock::{Clock, Monotonic, Nanos};
use crate::record::reading::{Missing, Reading};
use crate::record::telemetry::{GpuProcess, WindowSummary};
use crate::telemetry::sample::XidEvent;
use crate::telemetry::timeline::{GpuTimeline, Timeline};
use crate::telemetry::window::{Interval, Named, window};
use crate::telemetry::{Source, procfs};

/// How often the energy counter is looked at: its changes are known to this.
const ENERGY: Duration = Duration::from_millis(20);
/// Looks at the energy counter for each look at everything that changes within a window: 100 ms.
const FAST: u64 = 5;
/// How often everything else is looked at.
const SLOW: Duration = Duration::from_secs(1);
/// How long the thread that waits for faults waits at once.
const PATIENCE: Duration = Duration::from_millis(500);
/// Silence of a loop that says a call hangs.
pub const STALE: Nanos = Nanos::from_secs(2);

/// What each thread does until it is told to stop.
type Loop = fn(&dyn Source, &Shared, Monotonic);
const LOOPS: [(&str, Loop); 3] = [("telemetry-fast", fast_loop), ("telemetry-slow", slow_loop), ("telemetry-xid", xid_loop)];

/// Something that ends a run at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alarm {
    /// A GPU no longer answers; by its place among the watched ones.
    Lost {
        /// Which.
        gpu: usize,
    },
    /// The driver reported a fault after which nothing measured is worth anything.
    Xid(XidEvent),
}

impl Alarm {
    /// The GPU's place among the watched ones.
    #[must_use]
    pub fn gpu(&self) -> usize {
        match self {
            Self::Lost { gpu } => *gpu,
            Self::Xid(event) => event.gpu,
        }
    }
}

/// A running sampler. Dropped, its threads end on their own.
#[derive(Debug)]
pub struct Sampler {
    shared: Arc<Shared>,
    names: Vec<Named>,
    clock: Monotonic,
    energy_shortest: Nanos,
}

struct Shared {
    timeline: Mutex<Timeline>,
    alarm: Mutex<Option<Alarm>>,
    stopped: AtomicBool,
    /// When the fast and the slow loop last began a look.
    beats: [AtomicU64; 2],
    manner: Manner,
}

/// How a sampler behaves beyond its source.
#[derive(Clone)]
pub struct Manner {
    /// Whether a fault of this number (XID) ends a run at once.
    pub ends_run: Arc<dyn Fn(u64) -> bool + Send + Sync>,
    /// Told of the first alarm, on a thread of the sampler.
    pub alarmed: Arc<dyn Fn(Alarm) + Send + Sync>,
    /// What each thread does first, such as keeping off a core.
    pub at_start: fn(),
}

impl Default for Manner {
    /// No fault ends anything, nobody is told.
    fn default() -> Self {
        Self { ends_run: Arc::new(|_| false), alarmed: Arc::new(|_| {}), at_start: || {} }
    }
}

impl fmt::Debug for Manner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Manner").finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Shared").field("beats", &self.beats).finish_non_exhaustive()
    }
}

impl Sampler {
    /// Begins to sample the GPUs called `names`, in the source's order, with stamps of `clock`.
    #[must_use]
    pub fn start(source: Arc<dyn Source>, names: Vec<Named>, clock: Monotonic, manner: Manner) -> Self {
        let (now, energy_shortest) = (clock.now().0, source.energy_shortest());
        let shared = Arc::new(Shared {
            timeline: Mutex::new(Timeline::of(names.len())),
            alarm: Mutex::new(None),
            stopped: AtomicBool::new(false),
            beats: [AtomicU64::new(now), AtomicU64::new(now)],
            manner,
        });
        for (name, run) in LOOPS {
            let (source, shared) = (Arc::clone(&source), Arc::clone(&shared));
            let started = thread::Builder::new().name(name.to_owned()).spawn(move || {
                (shared.manner.at_start)();
                run(&*source, &shared, clock);
            });
            // Without its thread the loop is silent, which is seen as such.
            drop(started);
        }
        Self { shared, names, clock, energy_shortest }
    }

    /// What the watched GPUs are called, in order.
    #[must_use]
    pub fn names(&self) -> &[Named] {
        &self.names
    }

    /// The summary of an interval that is over.
    #[must_use]
    pub fn window(&self, interval: &Interval) -> WindowSummary {
        let silence = interval.to.since(self.last_beat());
        let interval = Interval { energy_shortest: interval.energy_shortest.max(self.energy_shortest), ..*interval };
        let summary = window(&self.shared.timeline(), &self.names, &interval);
        WindowSummary { stale_s: (silence >= STALE).then(|| silence.as_secs_f64()), ..summary }
    }

    /// How long the more silent of the two loops has been silent.
    #[must_use]
    pub fn silence(&self) -> Nanos {
        self.clock.now().since(self.last_beat())
    }

    /// The earlier one of the two loops' last beats.
    fn last_beat(&self) -> Nanos {
        Nanos(self.shared.beats.iter().map(|beat| beat.load(Ordering::Relaxed)).min().unwrap_or(0))
    }

    /// What ends the run at once, if anything does: the first of it.
    #[must_use]
    pub fn alarm(&self) -> Option<Alarm> {
        *lock(&self.shared.alarm)
    }

    /// Waits until every watched GPU was looked at wholly after `since`, for as long as `patience`; whether it was.
    pub fn wait_for_look(&self, since: Nanos, patience: Duration) -> bool {
        let deadline = self.clock.now() + Nanos::from_secs_f64(patience.as_secs_f64());
        loop {
            let looked = |at: Option<Nanos>| at.is_some_and(|at| at >= since);
            let answered = |gpu: &GpuTimeline| {
                gpu.lost.is_some() || looked(gpu.slow.last().map(|(at, _)| *at)) && looked(gpu.fast.last().map(|(at, _)| *at))
            };
            if self.shared.timeline().gpus.iter().all(answered) {
                return true;
            }
            if self.clock.now() >= deadline {
                return false;
            }
            thread::sleep(ENERGY);
        }
    }

    /// Processes on the watched GPUs at the last look.
    #[must_use]
    pub fn processes(&self) -> Vec<GpuProcess> {
        let timeline = self.shared.timeline();
        let last = timeline.gpus.iter().filter_map(|gpu| gpu.slow.last()?.1.processes.value());
        last.flatten().cloned().collect()
    }

    /// A copy of everything sampled so far.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        self.shared.timeline().clone()
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }
}

impl Shared {
    /// Never held across a call into a driver.
    fn timeline(&self) -> MutexGuard<'_, Timeline> {
        lock(&self.timeline)
    }

    fn goes_on(&self) -> bool {
        !self.stopped.load(Ordering::Relaxed)
    }

    fn beat(&self, which: usize, now: Nanos) {
        self.beats[which].store(now.0, Ordering::Relaxed);
    }

    fn raise(&self, alarm: Alarm) {
        let mut known = lock(&self.alarm);
        if known.is_none() {
            *known = Some(alarm);
            drop(known);
            (self.manner.alarmed)(alarm);
        }
    }

    /// GPUs that still answer: a lost one is not called again.
    fn answering(&self) -> Vec<usize> {
        let timeline = self.timeline();
        (0..timeline.gpus.len()).filter(|gpu| timeline.gpus[*gpu].lost.is_none()).collect()
    }
}

/// A panic of a sampling thread leaves samples that are whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn fast_loop(source: &dyn Source, shared: &Shared, clock: Monotonic) {
    let mut turn = 0_u64;
    let mut due = clock.now();
    while shared.goes_on() {
        shared.beat(0, clock.now());
        for gpu in shared.answering() {
            let joules = source.energy_j(gpu);
            let at = clock.now();
            shared.timeline().energy(gpu, at, joules);
            if turn.is_multiple_of(FAST) {
                let sample = source.fast(gpu);
                let lost = sample.says_lost() || joules == Reading::none(Missing::GpuLost);
                shared.timeline().fast(gpu, clock.now(), sample);
                if lost {
                    shared.raise(Alarm::Lost { gpu });
                }
            }
        }
        turn += 1;
        due = wait(due, ENERGY, clock);
    }
}

fn slow_loop(source: &dyn Source, shared: &Shared, clock: Monotonic) {
    let mut due = clock.now();
    while shared.goes_on() {
        shared.beat(1, clock.now());
        let host = procfs::look_under(Path::new("/"));
        shared.timeline().host.push(clock.now(), host);
        for gpu in shared.answering() {
            let sample = source.slow(gpu);
            shared.timeline().slow(gpu, clock.now(), sample);
        }
        due = wait(due, SLOW, clock);
    }
}

fn xid_loop(source: &dyn Source, shared: &Shared, clock: Monotonic) {
    while shared.goes_on() {
        match source.wait_for_xid(PATIENCE) {
            Reading::Value(Some(event)) => {
                shared.timeline().xids.push(clock.now(), event);
                if (shared.manner.ends_run)(event.code) {
                    shared.raise(Alarm::Xid(event));
                }
            }
            Reading::Value(None) => {}
            // Not to be had here; others may come back.
            Reading::Missing { missing: Missing::NotSupported | Missing::NoCall | Missing::NoPermission } => return,
            Reading::Missing { .. } => thread::sleep(PATIENCE),
        }
    }
}

/// Sleeps until the next look is due. What was missed is not made up for.
fn wait(due: Nanos, period: Duration, clock: Monotonic) -> Nanos {
    let period = Nanos::from_secs_f64(period.as_secs_f64());
    let now = clock.now();
    let next = (due + period).max(now);
    thread::sleep(Duration::from_nanos(next.since(now).0));
    next
}
