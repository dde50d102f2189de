//! The rules of an open-loop level: one of the search is enough when the SLO is decided, one of a confirmation or
//! curve when its fixed window is over.

use crate::campaign::decision::{Cohort, Decision, Doubt, ObjectiveCohort, ObjectiveDecision, decide};
use crate::campaign::judge::{Enough, Judge, Pulse, Settled, Window};
use crate::campaign::level::Judged;
use crate::campaign::settle::{Load, Progress, Settle, Wave};
use crate::campaign::tally::Brief;
use crate::campaign::windows::{LevelShape, Windows};
use crate::clock::Nanos;
use crate::record::level::ObjectiveJudgement;
use crate::record::slo::{Objective, Slo, SloMetric};
use crate::record::verdict::Outcome;
use crate::stats::quantile;

/// A window is cut into this many bins or more.
const BINS: u64 = 200;

/// Width of the bins of an open-loop level's series.
#[must_use]
pub fn bin(windows: &Windows) -> Nanos {
    Nanos(windows.window_min.0 / BINS)
}

/// How long an open-loop level is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Until the SLO is decided, or cannot be in time.
    Decide,
    /// For a fixed window, as long as a decision needs at least.
    Confirm,
    /// For a fixed window from which nothing is decided: a point of the load-latency curve.
    Show,
}

/// What the warm-up showed of the number in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Growth {
    /// It stays.
    None,
    /// It grows without an end in sight.
    NoEnd,
}

/// An open-loop level under way.
#[derive(Debug)]
pub struct OpenJudge<'a> {
    windows: Windows,
    slo: &'a Slo,
    aim: Aim,
    rate: f64,
    seed: u64,
    warm_up: Option<Settle>,
    e2e: Vec<u64>,
    decision: Option<Decision>,
    /// What a decision needs, where a quick run cut it.
    needed: Option<Nanos>,
}

impl<'a> OpenJudge<'a> {
    /// The rules for `rate` calls/s against `slo`.
    #[must_use]
    pub fn new(windows: Windows, slo: &'a Slo, aim: Aim, rate: f64, seed: u64) -> Self {
        Self { windows, slo, aim, rate, seed, warm_up: None, e2e: Vec::new(), decision: None, needed: None }
    }

    /// What was decided.
    #[must_use]
    pub fn judged(&self) -> Judged {
        let Some(decision) = &self.decision else {
            return Judged { outcome: Some(Outcome::Undecided), undecided: "the window did not end".to_owned(), ..Judged::default() };
        };
        let judgement = |(objective, decided): (_, &ObjectiveDecision)| ObjectiveJudgement {
            objective,
            requests: decided.counts.requests,
            misses: decided.counts.misses,
            miss_share: decided.counts.misses as f64 / (decided.counts.requests as f64).max(1.0),
            clustering: decided.clustering,
            worth: decided.worth,
            blocks: decided.blocks as u64,
            bounds: decided.bounds,
            outcome: decided.outcome,
        };
        let doubts = decision.objectives.iter().filter(|decided| decided.doubt.is_some());
        // An objective that nothing defines is the reason only where it is the only one.
        let doubt = doubts.min_by_key(|decided| decided.outcome == Outcome::Undefined).and_then(|decided| decided.doubt);
        let undecided = doubt.map(in_words).unwrap_or_default();
        Judged {
            objectives: self.slo.objectives.iter().copied().zip(&decision.objectives).map(judgement).collect(),
            undecided: if decision.outcome == Outcome::Undecided { undecided.to_owned() } else { String::new() },
            outcome: Some(decision.outcome),
            interval: None,
            tokens_interval: None,
            needed: self.needed,
            slope: decision.stability.trend.map(|trend| trend.interval),
        }
    }

    fn first_window(&mut self, growth: Growth) -> Nanos {
        let e2e_p95 = Nanos(quantile::of_nanos(&mut self.e2e, 0.95).unwrap_or(0));
        let ttft_limit =
            self.slo.objectives.iter().filter(|objective| objective.metric == SloMetric::Ttft).map(|objective| objective.limit).min();
        let allowed_min = self.slo.objectives.iter().map(|objective| objective.allowed_miss_share()).fold(1.0, f64::min);
        let windows = self.windows;
        let shape = LevelShape { rate: self.rate, e2e_p95, ttft_limit, allowed_min };
        let window = match (self.aim, growth) {
            (Aim::Show, _) => return windows.curve.max(windows.follows(e2e_p95)),
            // What grows is seen soon; should it not, later looks bring what a pass needs.
            (Aim::Decide, Growth::NoEnd) => return windows.follows(e2e_p95),
            (Aim::Confirm, Growth::NoEnd) => return windows.confirmation.max(windows.follows(e2e_p95)),
            (Aim::Decide, Growth::None) => windows.first_look(&shape),
            (Aim::Confirm, Growth::None) => windows.to_confirm(&shape),
        };
        self.needed = Some(windows.needed(&shape)).filter(|needed| *needed > window);
        window
    }

    fn cohort(&self, window: &Window<'_>) -> Cohort {
        let mut sorted: Vec<&Brief> = window.cohort.iter().collect();
        sorted.sort_unstable_by_key(|brief| brief.intended);
        // Where no completed request defines an objective, those that failed are misses of the others.
        let defined = |objective: &Objective| sorted.iter().any(|brief| brief.completed() && brief.misses(objective).is_some());
        let none_completed = !sorted.iter().any(|brief| brief.completed());
        let over_half = |objective: &Objective| {
            let half = Objective { limit: Nanos(objective.limit.0 / 2), ..*objective };
            sorted.iter().filter(|brief| brief.misses(&half) == Some(true)).count() as u64
        };
        let of = |objective: &Objective| ObjectiveCohort {
            allowed: objective.allowed_miss_share(),
            over_half: over_half(objective),
            requests: if none_completed || defined(objective) {
                sorted.iter().filter_map(|brief| Some((brief.intended, brief.misses(objective)?))).collect()
            } else {
                Vec::new()
            },
        };
        let bins = window.series.whole(window.to);
        let mut e2e: Vec<u64> = sorted.iter().filter_map(|brief| brief.e2e().map(|latency| latency.0)).collect();
        Cohort {
            window: (window.from, window.to),
            objectives: self.slo.objectives.iter().map(of).collect(),
            in_flight: bins.iter().map(|bin| bin.in_flight).collect(),
            arrivals: sorted.len() as u64,
            completions: bins.iter().map(|bin| bin.completions).sum(),
            e2e_p95: Nanos(quantile::of_nanos(&mut e2e, 0.95).unwrap_or(0)),
        }
    }
}

impl Judge for OpenJudge<'_> {
    fn begins(&mut self, now: Nanos) {
        self.warm_up = Some(Settle::new(Load::Open { rate: self.rate }, now, self.windows.warm_up_max));
    }

    fn warms_up(&mut self, ended: &Brief) {
        let latency = ended.e2e();
        self.e2e.extend(latency.map(|latency| latency.0));
        if let Some(warm_up) = &mut self.warm_up {
            warm_up.observe_end(latency, Wave::Later);
        }
    }

    fn settled(&mut self, now: Nanos, pulse: Pulse) -> Settled {
        let Some(warm_up) = &mut self.warm_up else { return Settled::NotYet };
        match warm_up.catch_up(now, pulse.in_flight, pulse.tokens) {
            None | Some(Progress::Warming) => Settled::NotYet,
            Some(Progress::Settled) => Settled::Yes { window: self.first_window(Growth::None) },
            // Growth without an end is an outcome of the system: the window will show it.
            Some(Progress::Growing) => Settled::Yes { window: self.first_window(Growth::NoEnd) },
            Some(Progress::NotSettled) => Settled::GaveUp { window: self.first_window(Growth::None) },
        }
    }

    fn enough(&mut self, window: &Window<'_>) -> Enough {
        let decision = decide(&self.cohort(window), &self.windows, self.seed);
        let next = decision.next_look.filter(|_| self.aim == Aim::Decide);
        self.decision = Some(decision);
        next.map_or(Enough::Yes, |length| Enough::Until(window.from + length))
    }
}

fn in_words(doubt: Doubt) -> &'static str {
    match doubt {
        Doubt::FewRequests => "fewer requests than the misses seen need",
        Doubt::FewBlocks => "too few independent blocks of time: load near capacity comes in long waves",
        Doubt::Close => "the miss share is too close to what is allowed",
        Doubt::Undefined => "no request has a value that an objective limits",
    }
}
