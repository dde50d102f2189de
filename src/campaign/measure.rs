//! Measures levels one after the other: fresh seeds, the right judge, saved as each ends.

use anyhow::Context;

use crate::campaign::closed::ClosedJudge;
use crate::campaign::interrupt::{Interrupt, Signal};
use crate::campaign::journal::Journal;
use crate::campaign::level::{Judged, LevelSpec, Seen, record};
use crate::campaign::open::{self, Aim, OpenJudge};
use crate::campaign::plan::Plan;
use crate::campaign::progress::{Progress, Watcher};
use crate::campaign::traffic::Traffic;
use crate::campaign::watch::{Judge, Watch};
use crate::clock::{Clock, Nanos, wall_now};
use crate::load::arrivals::{Arrivals, When};
use crate::load::{Chunks, Manner, drive};
use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::node::Telemetry;
use crate::record::slo::Slo;
use crate::rng;
use crate::target::Target;

/// Why a campaign stopped before its end, other than by an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Halt {
    /// A signal asked for it.
    #[error("interrupted; what was measured is saved")]
    Signal(Signal),
    /// Its time is spent.
    #[error("the budget is spent")]
    Budget,
}

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
    /// Telemetry of the device, or why there is none.
    pub telemetry: Telemetry,
    /// The generator's ceiling, calls/s.
    pub ceiling: Option<f64>,
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
        let mut judge = ClosedJudge::new(self.plan.closed, concurrency);
        let bin = self.plan.closed.bin();
        self.level(target, spec, Run { when, bin, slo }, &mut judge, ClosedJudge::judged)
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
        let mut judge = OpenJudge::new(self.plan.windows, slo, aim, calls_per_s, rng::derive(spec.seed, "bootstrap"));
        let bin = open::bin(&self.plan.windows);
        self.level(target, spec, Run { when, bin, slo: Some(slo) }, &mut judge, OpenJudge::judged)
    }

    fn spec(&self, purpose: Purpose, offered: Offered) -> LevelSpec {
        let index = self.levels.len() as u32;
        LevelSpec { index, purpose, offered, seed: rng::derive(self.plan.seed, &format!("level {index}")) }
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
        if let Some(saved) = self.journal.take_saved(&spec) {
            self.watcher.tell(Progress::LevelResumed(&saved));
            self.levels.push(saved.clone());
            return Ok(saved);
        }
        self.check_halt()?;
        self.watcher.tell(Progress::LevelBegins { purpose: &spec.purpose, offered: &spec.offered });
        self.journal.begin_level(spec.index);
        let mut requests = self.traffic.requests(spec.seed)?;
        let manner = Manner { timeout: self.plan.timeout, chunks: Chunks::Keep };
        let started = wall_now().to_string();
        let before = target.counters();
        let journal = &mut *self.journal;
        let mut log = |record| journal.log(record);
        let mut watch = Watch::new(judge, run.bin, self.interrupt, self.watcher, &mut log);
        let driven = drive(Arrivals { when: run.when, what: &mut *requests }, manner, &mut watch, target, self.clock);
        let watched = watch.finish();
        let mut level = record(Seen {
            watched,
            driven,
            made: requests.tally(),
            judged: judged(judge),
            slo: run.slo,
            devices: target.identity().devices,
            counters: target.counters().since(&before),
            telemetry: self.telemetry.clone(),
            virtual_time: self.clock.is_virtual(),
            ceiling: self.ceiling,
            started,
            spec,
        });
        self.journal.save_level(&mut level).with_context(|| format!("cannot save level {}", level.index))?;
        self.watcher.tell(Progress::LevelEnded(&level));
        self.levels.push(level.clone());
        self.check_halt()?;
        if driven.not_let_go > 0 {
            anyhow::bail!(
                "the target still held {} requests 30 s after they were cancelled. It hangs: look at its own log",
                driven.not_let_go
            );
        }
        Ok(level)
    }

    fn check_halt(&self) -> Result<(), Halt> {
        match self.interrupt.raised() {
            Some(signal) => Err(Halt::Signal(signal)),
            None if self.plan.over_budget(self.clock.now()) => Err(Halt::Budget),
            None => Ok(()),
        }
    }
}

/// How one level is driven.
struct Run<'a> {
    when: When,
    bin: Nanos,
    slo: Option<&'a Slo>,
}
