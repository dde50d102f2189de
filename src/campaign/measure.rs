//! Measures levels one after the other: fresh seeds, the right judge, saved as each ends.

use anyhow::Context;

use crate::campaign::bandwidth;
use crate::campaign::closed::ClosedJudge;
use crate::campaign::instruments::Instruments;
use crate::campaign::interrupt::{Interrupt, Signal};
use crate::campaign::journal::{Journal, Replay};
use crate::campaign::judge::Judge;
use crate::campaign::level::{Judged, LevelSpec, Seen, record};
use crate::campaign::open::{self, Aim, OpenJudge};
use crate::campaign::pace;
use crate::campaign::plan::Plan;
use crate::campaign::progress::{Progress, Watcher};
use crate::campaign::server_meter::ServerMeter;
use crate::campaign::traffic::Traffic;
use crate::campaign::watch::Watch;
use crate::clock::{Clock, Nanos, wall_now};
use crate::load::arrivals::{Arrivals, When};
use crate::load::stop::LET_GO;
use crate::load::{Chunks, Manner, drive};
use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::request::RequestRecord;
use crate::record::slo::Slo;
use crate::record::target::TargetCounters;
use crate::rng;
use crate::target::{Spread, Target};

/// Why a campaign stopped before its end, other than by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A signal asked for it.
    #[error("{}; what was measured is saved", if *.0 == Signal::GpuFailed { "a GPU failed" } else { "interrupted" })]
    Signal(Signal),
    /// Its time is spent.
    #[error("the budget is spent")]
    Budget,
}

/// A target that keeps what was cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the target still held {held} requests {} s after they were cancelled. It hangs: look at its own log", LET_GO.as_secs_f64())]
pub struct TargetHangs {
    /// Requests that it held.
    pub held: u64,
}

/// A closed-loop window takes no more than this part of a budget.
const CLOSED_SHARE: u64 = 20;

/// Everything a level is measured with.
pub struct Bench<'a> {
    /// All choices.
    pub plan: &'a Plan,
    /// The traffic.
    pub traffic: &'a dyn Traffic,
    /// Time.
    pub clock: &'a mut dyn Clock,
    /// Where it is saved.
    pub journal: &'a mut Journal,
    /// Who is told.
    pub watcher: &'a mut dyn Watcher,
    /// A stop from outside.
    pub interrupt: &'a Interrupt,
    /// What is seen of the GPUs, or why nothing is.
    pub telemetry: &'a mut Instruments,
    /// The server's own counters, where it has some.
    pub server: Option<&'a ServerMeter>,
    /// The generator's ceiling, calls/s.
    pub ceiling: Option<f64>,
    /// Lengths of windows as a share of the plan's: under 1 where a `--budget` shortens them.
    pub pace: f64,
    /// Time to first token of the very first request, milliseconds.
    pub first_request_ms: Option<f64>,
    /// Levels so far.
    pub levels: Vec<LevelRecord>,
}

impl std::fmt::Debug for Bench<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Bench").field("plan", &self.plan).field("levels", &self.levels.len()).finish_non_exhaustive()
    }
}

impl Bench<'_> {
    /// A closed-loop level. `slo` is counted, not decided.
    ///
    /// # Errors
    /// [`Halt`] when the campaign is over; otherwise when it cannot be measured or saved.
    pub fn closed(
        &mut self,
        target: &mut dyn Target,
        purpose: Purpose,
        concurrency: u32,
        slo: Option<&Slo>,
    ) -> anyhow::Result<LevelRecord> {
        let offered = Offered::Closed { concurrency };
        let spec = self.spec(purpose, offered);
        let stagger = self.typical_e2e(concurrency);
        let when = When::Closed { concurrency, stagger, seed: rng::derive(spec.seed, "first wave") };
        let windows = match spec.purpose {
            // A budget leaves no time to know the reference better than any other level.
            Purpose::Reference { .. } if self.plan.budget.is_none() => self.plan.closed.for_reference(self.plan.drift_limit),
            _ => self.plan.closed,
        };
        let mut windows = windows.scaled(self.pace);
        if let Some(budget) = self.plan.budget {
            // The pace is set after the first reference, which may not eat the budget up before.
            windows.max = windows.max.min(Nanos(budget.0 / CLOSED_SHARE)).max(windows.min);
        }
        target.spread(match spec.purpose {
            Purpose::Solo { .. } => Spread::Only(0),
            _ => Spread::Even,
        });
        let mut judge = ClosedJudge::new(windows, concurrency);
        let run = Run { when, bin: windows.bin(), slo, shortest: windows.min };
        self.level(target, spec, run, &mut judge, ClosedJudge::judged)
    }

    /// An open-loop level, decided against `slo`.
    ///
    /// # Errors
    /// [`Halt`] when the campaign is over; otherwise when it cannot be measured or saved.
    pub fn open(
        &mut self,
        target: &mut dyn Target,
        purpose: Purpose,
        calls_per_s: f64,
        slo: &Slo,
        aim: Aim,
    ) -> anyhow::Result<LevelRecord> {
        let process = self.traffic.arrivals(calls_per_s);
        let spec = self.spec(purpose, Offered::Open { calls_per_s, process });
        let schedule = self.traffic.schedule(calls_per_s, spec.seed, self.plan.windows.steady())?;
        let when = When::Open { schedule, cap: self.plan.cap, on_cap: self.plan.on_cap() };
        let windows = self.plan.windows.scaled(self.pace);
        target.spread(Spread::Independent);
        let mut judge = OpenJudge::new(windows, slo, aim, calls_per_s, rng::derive(spec.seed, "bootstrap"));
        let shortest = match aim {
            Aim::Decide => windows.window_min,
            Aim::Confirm => windows.confirmation,
            Aim::Show => windows.curve,
        };
        let run = Run { when, bin: open::bin(&windows), slo: Some(slo), shortest };
        self.level(target, spec, run, &mut judge, OpenJudge::judged)
    }

    fn spec(&self, purpose: Purpose, offered: Offered) -> LevelSpec {
        let index = self.levels.len() as u32;
        let seed = match purpose {
            // First and last are compared, so they are the same requests; each comes to a fresh target.
            Purpose::Reference { .. } => rng::derive(self.plan.seed, "reference"),
            _ => rng::derive(self.plan.seed, &format!("level {index}")),
        };
        LevelSpec { index, purpose, offered, seed }
    }

    /// What a request takes at about this concurrency, from the levels measured so far; 0 when there is none.
    fn typical_e2e(&self, concurrency: u32) -> Nanos {
        let closed = self.levels.iter().rev().find_map(|level| match level.offered {
            Offered::Closed { concurrency: other } => Some((level, other)),
            Offered::Open { .. } => None,
        });
        let Some((level, other)) = closed else { return Nanos::ZERO };
        let mean_s = level.latency.e2e.raw.mean.unwrap_or(0.0) / 1000.0;
        // Doubled concurrency at most doubles the time.
        Nanos::from_secs_f64(mean_s * (f64::from(concurrency) / f64::from(other.max(1))).clamp(1.0, 2.0))
    }

    fn level<J: Judge>(
        &mut self,
        target: &mut dyn Target,
        spec: LevelSpec,
        run: Run<'_>,
        judge: &mut J,
        judged: impl FnOnce(&J) -> Judged,
    ) -> anyhow::Result<LevelRecord> {
        match self.journal.replay(&spec, run.shortest).context("cannot go on with the saved levels")? {
            Replay::Saved(saved) => {
                self.watcher.tell(Progress::LevelResumed(&saved));
                self.levels.push((*saved).clone());
                return Ok(*saved);
            }
            Replay::Measure { dropped: 0 } => {}
            Replay::Measure { dropped } => self.watcher.tell(Progress::Note(format!(
                "{dropped} saved levels from {} on are not what would be measured now: they were removed, and are measured again",
                spec.index
            ))),
        }
        self.check_signal()?;
        self.check_budget(&spec.purpose, run.shortest)?;
        self.watcher.tell(Progress::LevelBegins { purpose: &spec.purpose, offered: &spec.offered });
        self.journal.begin_level(spec.index).context("cannot write the request log")?;
        let mut requests = match spec.purpose.lengths() {
            Some((prompt_tokens, output_tokens)) => self.traffic.of_lengths(spec.seed, prompt_tokens, output_tokens)?,
            None => self.traffic.requests(spec.seed)?,
        };
        let manner = Manner { timeout: self.plan.timeout, chunks: Chunks::Keep };
        self.telemetry.ready(self.clock.now());
        let started = wall_now().to_string();
        let before = (target.counters(), target.counters_by_device());
        let (journal, first_request_ms) = (&mut *self.journal, &mut self.first_request_ms);
        let mut first = spec.index == 0;
        let mut log = |record: RequestRecord| {
            // One at a time: the first to end is the first that was sent.
            if std::mem::take(&mut first) {
                *first_request_ms = record.ttft_service().map(Nanos::as_millis_f64);
            }
            journal.log(record);
        };
        let mut watch = Watch::new(judge, run.bin, self.interrupt, self.watcher, &mut log).beside(target.client_threads());
        let driven = drive(Arrivals { when: run.when, what: &mut *requests }, manner, &mut watch, target, self.clock);
        let watched = watch.finish();
        let mut witnessed = self.telemetry.over(watched.window, &watched.series, &self.levels);
        let made = requests.tally();
        if let Some(server) = self.server {
            let shares_prefixes = spec.purpose.lengths().is_none() && self.traffic.shares_prefixes();
            server.join(&mut witnessed, &watched, &made, shares_prefixes);
        }
        let mut level = record(Seen {
            watched,
            driven,
            made,
            judged: judged(judge),
            slo: run.slo,
            devices: if matches!(spec.purpose, Purpose::Solo { .. }) { 1 } else { target.identity().devices },
            counters: target.counters().since(&before.0),
            by_device: by_device(target, &before.1),
            witnessed,
            natural_length: self.plan.natural_length,
            virtual_time: self.clock.is_virtual(),
            ceiling: self.ceiling,
            started,
            spec,
        });
        level.mbu = bandwidth::mbu(&level, self.journal.decode_need());
        level.findings.extend(bandwidth::disagreement(&level));
        self.journal.save_level(&mut level).with_context(|| format!("cannot save level {}", level.index))?;
        self.watcher.tell(Progress::LevelEnded(&level));
        self.levels.push(level.clone());
        self.check_signal()?;
        if driven.not_let_go > 0 {
            return Err(TargetHangs { held: driven.not_let_go }.into());
        }
        Ok(level)
    }

    /// Lets time pass.
    pub(super) fn pause(&mut self, length: Nanos) -> Result<(), Halt> {
        let (deadline, interrupt) = (self.clock.now() + length, self.interrupt);
        self.clock.wait(deadline, &mut || interrupt.raised().is_some());
        self.check_signal()
    }

    fn check_signal(&self) -> Result<(), Halt> {
        self.interrupt.raised().map_or(Ok(()), |signal| Err(Halt::Signal(signal)))
    }

    /// Refuses a level that would not end within the budget, with time kept for the last reference. What a level showed
    /// is never thrown away, so this is asked before it, not after.
    fn check_budget(&self, purpose: &Purpose, shortest: Nanos) -> Result<(), Halt> {
        let Some(budget) = self.plan.budget.filter(|_| !matches!(purpose, Purpose::Reference { .. })) else { return Ok(()) };
        let length = |level: &LevelRecord| Nanos::from_secs_f64(level.warm_up_s + level.window_s + level.tail_s);
        let reserve = self.levels.first().map_or(Nanos::ZERO, length);
        let before = self.levels.iter().rev().find(|level| level.purpose == *purpose).map_or(Nanos::ZERO, length);
        let needed = before.max(shortest) + reserve;
        if self.clock.now() + needed > budget { Err(Halt::Budget) } else { Ok(()) }
    }

    /// Shortens what is left to measure until it fits into what is left of the budget; `expected_s` tells how long it takes
    /// at a pace.
    pub fn keep_to_budget(&mut self, expected_s: impl Fn(f64) -> f64) {
        let Some(budget) = self.plan.budget else { return };
        let left_s = budget.since(self.clock.now()).as_secs_f64();
        self.pace = pace::fitting(left_s, self.plan.quick, expected_s);
        if self.pace < 1.0 {
            self.watcher.tell(Progress::Note(format!("{left_s:.0} s of the budget are left: windows x {:.2}", self.pace)));
        }
    }
}

/// What each of several devices added to its counters.
fn by_device(target: &dyn Target, before: &[TargetCounters]) -> Vec<(String, TargetCounters)> {
    let identity = target.identity();
    if identity.devices < 2 {
        return Vec::new();
    }
    let added = target.counters_by_device().into_iter().zip(before).map(|(now, before)| now.since(before));
    identity.device.split(',').map(str::to_owned).zip(added).collect()
}

/// How one level is driven.
struct Run<'a> {
    when: When,
    bin: Nanos,
    slo: Option<&'a Slo>,
    /// The window is no shorter than this.
    shortest: Nanos,
}
