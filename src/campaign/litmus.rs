//! Drives the course of a litmus test against a real target, in open loop, and judges it as a simulated one is judged.

use crate::campaign::account::Account;
use crate::campaign::interrupt::{Interrupt, Signal};
use crate::campaign::measure::TargetHangs;
use crate::campaign::progress::{Progress, Watcher};
use crate::campaign::traffic::Traffic;
use crate::campaign::validity::{CPU_SHARE, SEND_LAG_MS};
use crate::capacity::spike::course::Course;
use crate::capacity::spike::ledger::Trial;
use crate::capacity::spike::live::{Audit, Begun, LiveLitmus};
use crate::capacity::spike::moments::Full;
use crate::clock::{Clock, Nanos, thread_cpu};
use crate::load::arrivals::{Arrivals, OnCap, When};
use crate::load::stop::{Live, Stop, Turn};
use crate::load::{Chunks, Manner, drive};
use crate::record::request::RequestRecord;
use crate::record::slo::Slo;
use crate::rng;
use crate::store::atomic::WriteError;
use crate::store::request_log::writer::RequestLog;
use crate::target::{Spread, Target};

/// Who watches is told this often.
const TOLD_EVERY: Nanos = Nanos::from_millis(500);

/// A course before it is driven.
pub struct LiveCourse<'a> {
    /// What comes when.
    pub course: &'a Course,
    /// What must hold.
    pub slo: &'a Slo,
    /// The requests.
    pub traffic: &'a dyn Traffic,
    /// A request that takes longer failed.
    pub timeout: Nanos,
    /// Requests in flight at most; others wait, and their clock runs.
    pub cap: u32,
    /// Of arrivals and prompts.
    pub seed: u64,
    /// Where each call is kept as it ends, its stamps counted from the beginning of the course.
    pub log: &'a mut RequestLog,
    /// A stop from outside.
    pub interrupt: &'a Interrupt,
    /// Who is told.
    pub watcher: &'a mut dyn Watcher,
}

impl std::fmt::Debug for LiveCourse<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("LiveCourse").field("course", &self.course).field("seed", &self.seed).finish_non_exhaustive()
    }
}

/// A course that was driven.
#[derive(Debug)]
pub struct Driven {
    /// Judged; of what was driven, where it was stopped.
    pub trial: Trial,
    /// What the generator itself did.
    pub audit: Audit,
    /// Whether it was stopped or killed before its end.
    pub is_cut: bool,
    /// Why not all of its log could be read.
    pub damage: Option<String>,
    /// The stop that was asked for.
    pub stopped: Option<Signal>,
    /// Whether its log was written to the end.
    pub logged: Result<(), WriteError>,
}

impl Driven {
    /// Beside what was known before.
    #[must_use]
    pub fn beside(self, begun: Begun) -> LiveLitmus {
        let invalid = self.invalid();
        LiveLitmus::of(begun, self.trial, self.audit, invalid)
    }

    /// Why the generator's word cannot be trusted, or the course is not over, by the limits of a level; empty where neither is so.
    fn invalid(&self) -> Vec<String> {
        let audit = &self.audit;
        let median = self.trial.phases.first().and_then(|phase| phase.ttft_ms.p50).unwrap_or(0.0);
        let limit = SEND_LAG_MS.max(0.01 * median);
        let mut invalid = Vec::new();
        if self.is_cut {
            invalid.push("it was stopped before its end".to_owned());
        }
        invalid.extend(self.damage.clone());
        // Arrivals at the cap waited for the target: their lag is the target's.
        if audit.send_lag_p99_ms > limit && audit.waited_at_cap == Some(0) {
            invalid.push(format!("the generator sent late: p99 {:.2} ms, accepted {limit:.2} ms", audit.send_lag_p99_ms));
        }
        if let Some(busy) = audit.cpu_share.filter(|share| *share > CPU_SHARE) {
            invalid.push(format!("the generator was busy: {:.0} % of a core", 100.0 * busy));
        }
        if let Some(lost) = audit.events_lost.filter(|lost| *lost > 0) {
            invalid.push(format!("{lost} events were lost"));
        }
        invalid
    }
}

impl LiveCourse<'_> {
    /// Drives `target` through the course.
    ///
    /// # Errors
    /// When its traffic cannot be made, or the target does not let go of what was cancelled.
    pub fn drive(self, target: &mut dyn Target, clock: &mut dyn Clock) -> anyhow::Result<Driven> {
        let mut requests = self.traffic.requests(rng::derive(self.seed, "requests"))?;
        let schedule = self.course.schedule(rng::derive(self.seed, "arrivals"));
        let when = When::Open { schedule, cap: self.cap, on_cap: OnCap::Wait };
        target.spread(Spread::Independent);
        let mut watch = Watch {
            account: Account::new(self.course, self.slo),
            log: self.log,
            phases: self.course,
            length: Nanos::from_secs_f64(self.course.seconds()),
            begin: Nanos::ZERO,
            next_look: Nanos::ZERO,
            next_told: Nanos::ZERO,
            stopped_at: None,
            interrupt: self.interrupt,
            watcher: self.watcher,
        };
        let cpu = thread_cpu();
        let manner = Manner { timeout: self.timeout, chunks: Chunks::Count };
        let driven = drive(Arrivals { when, what: &mut *requests }, manner, &mut watch, target, clock);
        let seconds = driven.span.1.since(driven.span.0).as_secs_f64();
        let busy = thread_cpu().since(cpu).as_secs_f64() - clock.spun().as_secs_f64();
        let is_virtual = clock.is_virtual();
        let logged = watch.log.end_level();
        let audit = Audit {
            cpu_share: Some(if is_virtual { 0.0 } else { (busy / seconds.max(1e-9)).clamp(0.0, 1.0) }),
            waited_at_cap: Some(driven.waited_at_cap),
            events_lost: Some(driven.events_lost),
            unlogged: logged.as_ref().ok().map(|logged| logged.unlogged),
            ..watch.account.audit()
        };
        let (trial, stopped) = (watch.account.judged(watch.stopped_at), self.interrupt.raised());
        if driven.not_let_go > 0 && stopped.is_none() {
            return Err(TargetHangs { held: driven.not_let_go }.into());
        }
        Ok(Driven { trial, audit, is_cut: watch.stopped_at.is_some(), damage: None, stopped, logged: logged.map(drop) })
    }
}

/// Watches the course go by.
struct Watch<'a> {
    account: Account<'a>,
    log: &'a mut RequestLog,
    phases: &'a Course,
    length: Nanos,
    begin: Nanos,
    next_look: Nanos,
    next_told: Nanos,
    /// Where it was stopped, from the beginning.
    stopped_at: Option<Nanos>,
    interrupt: &'a Interrupt,
    watcher: &'a mut dyn Watcher,
}

impl Stop for Watch<'_> {
    fn begins(&mut self, now: Nanos) {
        self.begin = now;
        self.next_look = now + self.account.every();
        self.next_told = now;
    }

    fn turn(&mut self, now: Nanos, live: &Live) -> Turn {
        let passed = now.since(self.begin);
        if now >= self.next_look {
            self.next_look += self.account.every();
            // What waits in a server cannot be told from what runs there.
            let full = Full { waiting: None, in_flight: u64::from(live.in_flight) + live.waiting, replicas: None };
            self.account.full(passed, full);
        }
        if now >= self.next_told {
            self.next_told = now + TOLD_EVERY;
            let phase = &self.phases.phases[self.phases.phase_at(passed)].name;
            let (at, of) = (passed.as_secs_f64(), self.length.as_secs_f64());
            let text = if passed < self.length { format!("{phase}: {at:.0} of {of:.0} s") } else { "following the last calls".to_owned() };
            self.watcher.tell(Progress::CourseGoesOn { text, in_flight: live.in_flight });
        }
        if live.exhausted && live.in_flight == 0 && live.waiting == 0 && passed >= self.length {
            return Turn::Over;
        }
        if self.interrupt.raised().is_some() {
            self.stopped_at = Some(passed);
            return Turn::Over;
        }
        Turn::GoOn
    }

    fn next_due(&self) -> Nanos {
        self.next_look.min(self.next_told)
    }

    fn ended(&mut self, record: RequestRecord) {
        let record = record.counted_from(self.begin);
        self.account.ended(&record);
        self.log.log(record);
    }
}
