//! An open-loop level in virtual time without the program's own generator: seeded arrivals straight into a replica.

use std::sync::atomic::{AtomicU64, Ordering};

use plimsoll::campaign::confirmation::{Confirmation, ConfirmationSpec, Confirmed, ConfirmedLevel, Next};
use plimsoll::campaign::decision::{Cohort, Decision, ObjectiveCohort, decide};
use plimsoll::campaign::search::{Probed, Search, SearchSpec, Step};
use plimsoll::campaign::settle::{Load, Progress, Settle, Wave};
use plimsoll::campaign::windows::{LevelShape, Windows};
use plimsoll::clock::Nanos;
use plimsoll::queueing::law::ServiceLaw;
use plimsoll::queueing::replica::{Happening, Job, Replica};
use plimsoll::record::search::Found;
use plimsoll::rng;
use plimsoll::stats::quantile;
use rand_distr::{Distribution, Exp1, Gamma, LogNormal};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Arrivals {
    Poisson,
    /// Gamma gaps of that shape; under 1 is burstier than Poisson.
    Gamma(f64),
    Constant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Metric {
    Ttft,
    Tpot,
    E2e,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Objective {
    pub(crate) metric: Metric,
    pub(crate) limit_s: f64,
    pub(crate) allowed: f64,
}

/// A target with its traffic and its SLO.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub(crate) name: &'static str,
    pub(crate) law: ServiceLaw,
    pub(crate) arrivals: Arrivals,
    pub(crate) objectives: Vec<Objective>,
    /// Mean prompt and output tokens, lognormal with a sigma of 0.6; `None`: one token each.
    pub(crate) tokens: Option<(f64, f64)>,
    pub(crate) windows: Windows,
    /// First probe of a search.
    pub(crate) start: f64,
}

impl Scene {
    pub(crate) fn allowed(&self) -> Vec<f64> {
        self.objectives.iter().map(|objective| objective.allowed).collect()
    }
}

#[derive(Clone, Copy, Debug)]
struct Followed {
    intended: Nanos,
    first: Nanos,
    last: Nanos,
    output: u32,
    done: bool,
}

/// A level that is being driven.
pub(crate) struct Level<'a> {
    scene: &'a Scene,
    rate: f64,
    replica: Replica,
    gaps: rng::Stream,
    lengths: rng::Stream,
    next_arrival: Nanos,
    next_event: Option<Nanos>,
    requests: Vec<Followed>,
    ended: u64,
    tokens: u64,
    completions: Vec<Nanos>,
    pub(crate) from: Nanos,
    pub(crate) to: Nanos,
}

impl<'a> Level<'a> {
    pub(crate) fn new(scene: &'a Scene, rate: f64, seed: u64) -> Self {
        let mut level = Self {
            scene,
            rate,
            replica: Replica::new(scene.law.clone(), rng::derive(seed, "service")),
            gaps: rng::stream(seed, "arrivals"),
            lengths: rng::stream(seed, "lengths"),
            next_arrival: Nanos::ZERO,
            next_event: None,
            requests: Vec::new(),
            ended: 0,
            tokens: 0,
            completions: Vec::new(),
            from: Nanos::ZERO,
            to: Nanos::ZERO,
        };
        level.next_arrival = level.gap();
        level
    }

    fn gap(&mut self) -> Nanos {
        let unit: f64 = match self.scene.arrivals {
            Arrivals::Poisson => Exp1.sample(&mut self.gaps),
            Arrivals::Gamma(shape) => Gamma::new(shape, 1.0 / shape).expect("shape above 0").sample(&mut self.gaps),
            Arrivals::Constant => 1.0,
        };
        Nanos::from_secs_f64(unit / self.rate)
    }

    fn length(&mut self, mean: f64) -> u32 {
        let sigma = 0.6_f64;
        let drawn = LogNormal::new(mean.ln() - sigma * sigma / 2.0, sigma).expect("sigma above 0").sample(&mut self.lengths);
        (drawn.round() as u32).clamp(1, 8 * mean as u32)
    }

    /// Lives until `until`, arrivals going on; `settle` watches.
    fn live(&mut self, until: Nanos, mut settle: Option<&mut Settle>) {
        loop {
            let at = self.next_arrival.min(until);
            let (requests, tokens, ended, completions) = (&mut self.requests, &mut self.tokens, &mut self.ended, &mut self.completions);
            self.next_event = self.replica.advance(at, &mut |now, id, what| match what {
                Happening::Tokens(count) => {
                    let request = &mut requests[id as usize];
                    if request.first == Nanos::MAX {
                        request.first = now;
                    }
                    request.last = now;
                    *tokens += u64::from(count);
                }
                Happening::Completed => {
                    *ended += 1;
                    completions.push(now);
                    requests[id as usize].done = true;
                    if let Some(settle) = settle.as_deref_mut() {
                        settle.observe_end(Some(now.since(requests[id as usize].intended)), Wave::Later);
                    }
                }
                Happening::Admitted | Happening::Preempted => {}
            });
            if self.next_arrival > until {
                return;
            }
            let (prompt_tokens, output_tokens) = match self.scene.tokens {
                Some((prompt, output)) => (self.length(prompt), self.length(output)),
                None => (1, 1),
            };
            let id = self.requests.len() as u64;
            self.requests.push(Followed { intended: at, first: Nanos::MAX, last: Nanos::MAX, output: output_tokens, done: false });
            self.replica.arrive(Job { id, arrived: at, prompt_tokens, output_tokens });
            let gap = self.gap();
            self.next_arrival = at + gap;
        }
    }

    /// Warms up by the rule; says how that ended.
    pub(crate) fn warm_up(&mut self) -> Progress {
        let mut settle = Settle::new(Load::Open { rate: self.rate }, Nanos::ZERO, self.scene.windows.warm_up_max);
        loop {
            let due = settle.step_due();
            self.live(due, Some(&mut settle));
            settle.observe_step(self.requests.len() as u64 - self.ended, self.tokens);
            match settle.progress(due) {
                Progress::Warming => {}
                progress => {
                    self.from = due;
                    return progress;
                }
            }
        }
    }

    /// Warms up for a stated time.
    pub(crate) fn begin_at(&mut self, from: Nanos) {
        self.from = from;
        self.live(from, None);
    }

    /// 95th percentile of E2E so far.
    pub(crate) fn e2e_p95(&self) -> Nanos {
        let mut all: Vec<u64> = self.requests.iter().filter(|one| one.done).map(|one| one.last.since(one.intended).0).collect();
        Nanos(quantile::of_nanos(&mut all, 0.95).unwrap_or(0))
    }

    /// Measures a window without following its cohort.
    pub(crate) fn window_only(&mut self, length: Nanos) -> Cohort {
        self.to = self.from + length;
        self.live(self.to, None);
        self.cohort()
    }

    /// Measures until the window is `length` long, and follows its cohort to the end (or to four times its limits).
    pub(crate) fn window(&mut self, length: Nanos) -> Cohort {
        self.to = self.from + length;
        self.live(self.to, None);
        let slowest =
            self.scene.objectives.iter().map(|one| one.limit_s * if one.metric == Metric::Tpot { 2000.0 } else { 1.0 }).fold(0.0, f64::max);
        let give_up = self.to + Nanos::from_secs_f64(4.0 * slowest);
        let first_after = self.requests.partition_point(|one| one.intended < self.to);
        let mut now = self.to;
        while now < give_up && self.requests[..first_after].iter().any(|one| !one.done) {
            now += Nanos::from_secs_f64(0.1 * slowest).max(Nanos(1));
            self.live(now, None);
        }
        self.cohort()
    }

    fn cohort(&self) -> Cohort {
        let inside = |at: Nanos| (self.from..self.to).contains(&at);
        let length = self.to.since(self.from);
        let samples = 600_usize;
        let slot = |at: Nanos| (u128::from(at.since(self.from).0) * samples as u128 / u128::from(length.0)) as usize;
        // Changes up to and including each sample.
        let mut change = vec![0.0; samples + 2];
        for one in &self.requests {
            if one.intended < self.to {
                change[if one.intended <= self.from { 0 } else { slot(one.intended) + 1 }] += 1.0;
            }
        }
        for &at in &self.completions {
            if at < self.to {
                change[if at <= self.from { 0 } else { slot(at) + 1 }] -= 1.0;
            }
        }
        let mut now = 0.0;
        let in_flight: Vec<f64> = change[..=samples]
            .iter()
            .map(|change| {
                now += change;
                now
            })
            .collect();
        let cohort: Vec<&Followed> = self.requests.iter().filter(|one| inside(one.intended)).collect();
        let objectives = self.scene.objectives.iter().map(|objective| ObjectiveCohort {
            allowed: objective.allowed,
            requests: cohort.iter().filter_map(|one| Some((one.intended, missed(one, objective)?))).collect(),
            over_half: {
                let half = Objective { limit_s: objective.limit_s / 2.0, ..*objective };
                cohort.iter().filter(|one| missed(one, &half) == Some(true)).count() as u64
            },
        });
        let mut e2e: Vec<u64> = cohort.iter().map(|one| if one.done { one.last.since(one.intended).0 } else { length.0 }).collect();
        Cohort {
            window: (self.from, self.to),
            objectives: objectives.collect(),
            in_flight,
            arrivals: cohort.len() as u64,
            completions: self.completions.iter().filter(|at| inside(**at)).count() as u64,
            e2e_p95: Nanos(quantile::of_nanos(&mut e2e, 0.95).unwrap_or(0)),
        }
    }
}

fn missed(one: &Followed, objective: &Objective) -> Option<bool> {
    let limit = Nanos::from_secs_f64(objective.limit_s);
    match objective.metric {
        Metric::Ttft => Some(one.first == Nanos::MAX || one.first.since(one.intended) >= limit),
        Metric::E2e => Some(!one.done || one.last.since(one.intended) >= limit),
        Metric::Tpot if one.output < 2 => None,
        Metric::Tpot => Some(!one.done || one.last.since(one.first).as_secs_f64() / f64::from(one.output - 1) >= objective.limit_s),
    }
}

/// Measures a search level: looks until decided. Also returns how long the window became.
pub(crate) fn probe(scene: &Scene, rate: f64, seed: u64) -> (Decision, Cohort) {
    let mut level = Level::new(scene, rate, seed);
    let progress = level.warm_up();
    assert_ne!(progress, Progress::NotSettled, "{} at {rate} did not settle", scene.name);
    let ttft_limit = scene.objectives.iter().find(|one| one.metric == Metric::Ttft).map(|one| Nanos::from_secs_f64(one.limit_s));
    let allowed_min = scene.allowed().into_iter().fold(1.0, f64::min);
    let shape = LevelShape { rate, e2e_p95: level.e2e_p95(), ttft_limit, allowed_min };
    let mut length = match progress {
        Progress::Growing => scene.windows.follows(shape.e2e_p95),
        _ => scene.windows.first_look(&shape),
    };
    loop {
        let cohort = level.window(length);
        let decision = decide(&cohort, &scene.windows, seed);
        match decision.next_look {
            Some(longer) => length = longer,
            None => return (decision, cohort),
        }
    }
}

/// A whole search.
pub(crate) fn search(scene: &Scene, seed: u64) -> Found {
    let spec = SearchSpec {
        start: scene.start,
        minimum: scene.start / 1000.0,
        maximum: scene.start * 1000.0,
        tolerance: scene.windows.tolerance,
        probes_max: 40,
        allowed: scene.allowed(),
        seed,
    };
    let mut search = Search::new(spec);
    loop {
        match search.next() {
            Step::Done(found) => return found,
            Step::Probe { rate, seed } => {
                let (decision, _) = probe(scene, rate, seed);
                search.report(Probed { level: decision.shares(rate), outcome: Some(decision.outcome), likely: Some(decision.outcome) });
            }
        }
    }
}

/// The confirmation of what a search found.
pub(crate) fn confirm(scene: &Scene, found: f64, seed: u64) -> Confirmed {
    let spec = ConfirmationSpec {
        found,
        runs: scene.windows.confirmation_runs,
        step: scene.windows.confirmation_step,
        step_growth: scene.windows.step_growth,
        extensions_max: scene.windows.extensions_max,
        allowed: scene.allowed(),
        seed,
    };
    let mut confirmation = Confirmation::new(spec);
    loop {
        match confirmation.next() {
            Next::Done(confirmed) => return confirmed,
            Next::Measure { run, rate, seed } => {
                let mut level = Level::new(scene, rate, seed);
                level.warm_up();
                let cohort = level.window(scene.windows.confirmation);
                let decision = decide(&cohort, &scene.windows, seed);
                confirmation.report(ConfirmedLevel { run, level: decision.shares(rate), outcome: Some(decision.outcome) });
            }
        }
    }
}

/// `work` of 0..count on both cores, in order.
pub(crate) fn parallel<T: Send>(count: u64, work: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(0);
    let mut all: Vec<(u64, T)> = std::thread::scope(|scope| {
        let take = || {
            let mut own = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= count {
                    return own;
                }
                own.push((index, work(index)));
            }
        };
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(take)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("the work does not panic")).collect()
    });
    all.sort_unstable_by_key(|(index, _)| *index);
    all.into_iter().map(|(_, result)| result).collect()
}
