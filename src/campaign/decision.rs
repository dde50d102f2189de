//! What a level says about the SLO: met, broken, unstable, or not decided yet and how much longer it would take.
//!
//! Pure: from counts of misses over blocks of time and the number in flight to a verdict with its evidence. Errors and
//! timeouts are misses here, whatever their cause; whether the measurement is valid is judged elsewhere.

use serde::{Deserialize, Serialize};

use crate::campaign::crossing::{Counted, LevelShares};
use crate::campaign::windows::{Windows, declared_size};
use crate::clock::Nanos;
use crate::record::verdict::Outcome;
use crate::rng;
use crate::stats::batch_means::{CORRELATED, lag1};
use crate::stats::early_stopping::{CONFIDENCE, requests_needed};
use crate::stats::interval::Interval;
use crate::stats::share::{Block, bounds_at, clustering, effective_bounds, joined};
use crate::stats::trend::{Trend, trend};
use crate::stats::{bootstrap, interval, quantile};

/// Confidence of the bounds of a miss share and of the slope.
const BOUNDS: f64 = 0.95;
/// Confidence of the bounds of the share that passes half the limit: it stands in for misses that were not seen, and is looked at several times.
const CLEAR: f64 = 0.998;
/// Draws of the block bootstrap.
const RESAMPLES: usize = 1000;
/// Blocks a fail needs: fewer than a pass, because a fail is shown by misses that are there.
const BLOCKS_TO_FAIL: usize = 5;
/// In-flight growth per arrival under which a slope, however certain, is no instability.
const GROWTH_MIN: f64 = 0.005;
/// Growth or shortfall of fewer requests than this is the chance of a few arrivals, not an overload: a short window at
/// a low load holds a few dozen requests, of which one is 2 %.
const REQUESTS_MIN: f64 = 3.0;
/// Completions per request that should have completed, under which the target does not keep up.
const SERVED_MIN: f64 = 0.98;

/// One objective's verdicts on the cohort, in order of intended start.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectiveCohort {
    /// Share of misses that is allowed, in (0, 1): 0.01 for p99.
    pub allowed: f64,
    /// Intended start, and whether it missed. Failures and timeouts missed; requests for which the metric is undefined
    /// are left out. Empty where none defines it.
    pub requests: Vec<(Nanos, bool)>,
    /// Of those, the ones at or over half the limit; failures too.
    pub over_half: u64,
}

/// An open-loop window, as far as decisions need it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cohort {
    /// The cohort is every request with `from <= intended < to`, followed to its end.
    pub window: (Nanos, Nanos),
    /// In the order of the SLO.
    pub objectives: Vec<ObjectiveCohort>,
    /// Requests intended and not ended (those waiting at a cap count), at equal distances from the window's start to
    /// its end, both included; 200 or more are best.
    pub in_flight: Vec<f64>,
    /// Requests intended to start in the window.
    pub arrivals: u64,
    /// Requests completed in the window, whenever they started; failures do not count.
    pub completions: u64,
    /// 95th percentile of E2E latency.
    pub e2e_p95: Nanos,
}

impl Cohort {
    fn length(&self) -> Nanos {
        self.window.1.since(self.window.0)
    }
}

/// Why nothing can be said yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doubt {
    /// Fewer requests than the misses seen need.
    FewRequests,
    /// Blocks had to be doubled until too few were left: load near capacity comes in long waves.
    FewBlocks,
    /// The bounds hold the allowed share.
    Close,
    /// No request has a value that any objective limits.
    Undefined,
}

/// One objective, judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ObjectiveDecision {
    /// `Met`, `Broken`, `Undecided`, or `Undefined` where no request defines it: it then takes no part.
    pub outcome: Outcome,
    /// Why undecided.
    pub doubt: Option<Doubt>,
    /// Misses and requests.
    pub counts: Block,
    /// Requests that so many misses need: MLPerf's early-stopping count at 99 % of independent requests, times the number
    /// of requests here that are worth one of those.
    pub requests_needed: u64,
    /// 95 % bounds of the miss share: block bootstrap, and never tighter than exact bounds at the effective sample size.
    pub bounds: Option<Interval>,
    /// Blocks behind the bounds.
    pub blocks: usize,
    /// How many times more the share scatters over these blocks than with independent requests, 1 or more.
    pub clustering: f64,
    /// Requests that come and go with one wave of load; the clustering at least, and no more where waves cannot matter.
    pub worth: f64,
}

/// Whether the target kept up.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stability {
    /// Growth of the number in flight, requests/s.
    pub trend: Option<Trend>,
    /// Completions / (arrivals less the growth in flight); below 1 where requests failed.
    pub served: f64,
    /// Neither grows nor falls behind.
    pub stable: bool,
}

/// The verdict on one window, with its evidence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// `Met`, `Broken`, `Unstable` or `Undecided`.
    pub outcome: Outcome,
    /// In the order of the SLO.
    pub objectives: Vec<ObjectiveDecision>,
    /// Whether the target kept up.
    pub stability: Stability,
    /// How long the window should become for the next look; `None` when decided, or when more is not worth its time.
    pub next_look: Option<Nanos>,
}

impl Decision {
    /// What a crossing is read from.
    #[must_use]
    pub fn shares(&self, rate: f64) -> LevelShares {
        let counted = |objective: &ObjectiveDecision| Counted {
            block: objective.counts,
            clustering: objective.clustering,
            worth: objective.worth,
            freedom: (objective.blocks as u64).saturating_sub(1),
        };
        LevelShares { rate, objectives: self.objectives.iter().map(counted).collect() }
    }
}

/// What counts say that were taken together from several windows: the same bounds, without their blocks.
#[must_use]
pub fn outcome_of_counts(counted: &Counted, allowed: f64) -> Outcome {
    let Counted { block, clustering, worth, freedom } = *counted;
    if block.requests == 0 {
        return Outcome::Undefined;
    }
    let under = |clustering: f64| bounds_at(block, clustering, freedom, BOUNDS).is_some_and(|bounds| bounds.high < allowed);
    if bounds_at(block, clustering, freedom, BOUNDS).is_some_and(|bounds| bounds.low > allowed) {
        Outcome::Broken
    } else if block.requests >= declared_size(allowed) && under(worth.max(clustering)) {
        Outcome::Met
    } else {
        Outcome::Undecided
    }
}

/// Judges a window. Misses of correlated blocks are joined before they are believed; `seed` is the bootstrap's.
#[must_use]
pub fn decide(cohort: &Cohort, windows: &Windows, seed: u64) -> Decision {
    let stability = stability(cohort);
    let judged: Vec<(ObjectiveDecision, f64)> =
        cohort.objectives.iter().enumerate().map(|(index, one)| judge(one, cohort, windows, rng::at(seed, index as u64))).collect();
    let objectives: Vec<ObjectiveDecision> = judged.iter().map(|(decision, _)| decision.clone()).collect();
    let any = |outcome| objectives.iter().any(|objective| objective.outcome == outcome);
    let outcome = match () {
        () if !stability.stable => Outcome::Unstable,
        () if any(Outcome::Broken) => Outcome::Broken,
        () if any(Outcome::Undecided) || !any(Outcome::Met) => Outcome::Undecided,
        () => Outcome::Met,
    };
    let next_look = if outcome == Outcome::Undecided && any(Outcome::Undecided) {
        let wanted = judged.iter().map(|(_, times_longer)| *times_longer).fold(1.0, f64::max);
        next_look(cohort.length(), wanted, windows)
    } else {
        None
    };
    Decision { outcome, objectives, stability, next_look }
}

/// Looks come at doubled windows. What would not be decided even by twice the longest window is given up at once: the
/// forecast is rough, so it must be clear.
fn next_look(length: Nanos, times_longer: f64, windows: &Windows) -> Option<Nanos> {
    let hopeless = length.as_secs_f64() * times_longer > 2.0 * windows.window_max.as_secs_f64();
    let next = Nanos(length.0.saturating_mul(2)).min(windows.window_max);
    // A rest of less than a quarter tells nothing new.
    (!hopeless && next.as_secs_f64() >= 1.25 * length.as_secs_f64()).then_some(next)
}

/// Whether the number in flight grows, or completions fall behind.
fn stability(cohort: &Cohort) -> Stability {
    let length = cohort.length().as_secs_f64();
    let trend = cohort
        .in_flight
        .len()
        .checked_sub(1)
        .filter(|steps| *steps > 0)
        .and_then(|steps| trend(&cohort.in_flight, length / steps as f64, BOUNDS));
    let growth = match cohort.in_flight.as_slice() {
        [first, .., last] => last - first,
        _ => 0.0,
    };
    let due = cohort.arrivals as f64 - growth;
    let served = if due >= 1.0 { cohort.completions as f64 / due } else { 1.0 };
    let growth_min = REQUESTS_MIN.max(GROWTH_MIN * cohort.arrivals as f64);
    let grows = trend.is_some_and(|trend| trend.interval.low > 0.0 && trend.slope * length > growth_min);
    let behind = served < SERVED_MIN && due - cohort.completions as f64 > REQUESTS_MIN;
    Stability { trend, served, stable: !grows && !behind }
}

/// One objective, and how many times longer the window should be to decide it.
fn judge(objective: &ObjectiveCohort, cohort: &Cohort, windows: &Windows, seed: u64) -> (ObjectiveDecision, f64) {
    let blocks = independent_blocks(objective, cohort, windows);
    let counts =
        Block { misses: objective.requests.iter().filter(|(_, missed)| *missed).count() as u64, requests: objective.requests.len() as u64 };
    let undefined = counts.requests == 0 && cohort.arrivals > 0;
    let clustering = clustering(&blocks);
    // A pass must also answer for the clusters that did not happen to come, unless it is clear that none could.
    let waves = waves(&cohort.in_flight, blocks.len(), counts.requests);
    let clear = clear_of_waves(objective, clustering.max(waves), blocks.len());
    let worth = if clear { clustering } else { clustering.max(waves) };
    let needed =
        (worth * requests_needed((counts.misses as f64 / worth).ceil() as u64, objective.allowed, CONFIDENCE) as f64).ceil() as u64;
    let bounds = bounds(&blocks, seed);
    let (low, high) = bounds.map_or((0.0, 1.0), |bounds| (bounds.low, bounds.high));
    let decision = |outcome, doubt| ObjectiveDecision {
        outcome,
        doubt,
        counts,
        requests_needed: needed,
        bounds,
        blocks: blocks.len(),
        clustering,
        worth,
    };
    if undefined {
        return (decision(Outcome::Undefined, Some(Doubt::Undefined)), 1.0);
    }
    if blocks.len() >= BLOCKS_TO_FAIL && low > objective.allowed {
        return (decision(Outcome::Broken, None), 1.0);
    }
    let enough_requests = counts.requests >= needed.max(declared_size(objective.allowed));
    let passes = high < objective.allowed;
    if passes && blocks.len() >= windows.blocks_min && enough_requests {
        return (decision(Outcome::Met, None), 1.0);
    }
    let undecided = |doubt, times_longer| (decision(Outcome::Undecided, Some(doubt)), times_longer);
    if counts.requests < declared_size(objective.allowed) {
        return undecided(Doubt::FewRequests, declared_size(objective.allowed) as f64 / (counts.requests as f64).max(1.0));
    }
    let share = counts.misses as f64 / counts.requests as f64;
    if (passes || share < 0.5 * objective.allowed) && blocks.len() < windows.blocks_min {
        return undecided(Doubt::FewBlocks, windows.blocks_min as f64 / blocks.len() as f64);
    }
    if passes {
        return undecided(Doubt::FewRequests, needed as f64 / counts.requests as f64);
    }
    // The bounds shrink with the square root of the window.
    let (reach, distance) =
        if share < objective.allowed { (high - share, objective.allowed - share) } else { (share - low, share - objective.allowed) };
    undecided(Doubt::Close, (reach / distance.max(1e-12)).powi(2))
}

/// Bootstrap bounds, widened to the exact ones at the effective sample size.
fn bounds(blocks: &[Block], seed: u64) -> Option<Interval> {
    let exact = effective_bounds(blocks, BOUNDS)?;
    let drawn = bootstrap::share(blocks, BOUNDS, RESAMPLES, &mut rng::stream(seed, "bootstrap"))?;
    Some(exact.widened_to(drawn.low).widened_to(drawn.high))
}

/// Misses over blocks of time, joined two by two while neighbours are correlated, in their misses or in the load they
/// saw: waves of load show in the number in flight long before there are misses to see them by.
fn independent_blocks(objective: &ObjectiveCohort, cohort: &Cohort, windows: &Windows) -> Vec<Block> {
    let (from, length) = (cohort.window.0, cohort.length());
    let count = (length.0 / windows.block(cohort.e2e_p95).0.max(1)).max(1) as usize;
    let mut blocks = vec![Block::default(); count];
    for &(intended, missed) in &objective.requests {
        let index = (u128::from(intended.since(from).0) * count as u128 / u128::from(length.0.max(1))) as usize;
        let block = &mut blocks[index.min(count - 1)];
        block.requests += 1;
        block.misses += u64::from(missed);
    }
    let mut load = block_means(&cohort.in_flight, count);
    loop {
        let shares: Vec<f64> = blocks.iter().map(|block| block.misses as f64 / (block.requests as f64).max(1.0)).collect();
        let correlated = lag1(&shares) >= CORRELATED || lag1(&load) >= CORRELATED;
        if !correlated || blocks.len() < 2 * BLOCKS_TO_FAIL {
            return blocks;
        }
        blocks = joined(&blocks);
        load = load[load.len() % 2..].chunks_exact(2).map(|pair| 0.5 * (pair[0] + pair[1])).collect();
    }
}

/// How many requests come and go with one wave of load: the clustering of the time that the number in flight spends over
/// its own 90th percentile.
///
/// Excursions of a queue over a high level last about as long whatever the level, because the tail is exponential. So the
/// waves that are there in every window tell how clustered the rare misses are, even in a window that saw none.
fn waves(in_flight: &[f64], blocks: usize, requests: u64) -> f64 {
    if blocks < 2 || in_flight.len() < 2 * blocks {
        return 1.0;
    }
    let mut sorted = in_flight.to_vec();
    let Some(high) = quantile::of_floats(&mut sorted, 0.9) else { return 1.0 };
    let over: Vec<f64> = in_flight.iter().map(|load| f64::from(u8::from(*load >= high))).collect();
    let parts = block_means(&over, blocks);
    let (Some(share), Some(spread)) = (interval::mean(&over), interval::variance(&parts)) else { return 1.0 };
    let alone = share * (1.0 - share);
    if alone <= 0.0 {
        return 1.0;
    }
    // What independent samples would scatter by is not the load's doing.
    let samples = in_flight.len() as f64 / blocks as f64;
    ((spread - alone / samples) * requests as f64 / blocks as f64 / alone).max(1.0)
}

/// Whether waves of load, each of which is `worth` so many requests, cannot bring more misses than are allowed: half the limit is passed
/// too seldom for that.
///
/// What a queue adds to a latency has an exponential tail, or a lighter one. So where half the limit is passed by a share `p` of the
/// requests, the limit itself is by `p^2` at most: by 1 % where half of it is by 10 %. A base that every request has makes that only
/// safer. Requests that are slow by themselves, such as long prompts, come without waves, and are counted as they are.
fn clear_of_waves(objective: &ObjectiveCohort, worth: f64, blocks: usize) -> bool {
    let half = Block { misses: objective.over_half, requests: objective.requests.len() as u64 };
    let bounds = bounds_at(half, worth, (blocks as u64).saturating_sub(1), CLEAR);
    bounds.is_some_and(|bounds| bounds.high < objective.allowed.sqrt())
}

/// Means of a series over `count` equal parts; empty where the series is shorter than that.
fn block_means(series: &[f64], count: usize) -> Vec<f64> {
    if series.len() < count {
        return Vec::new();
    }
    let edge = |index: usize| index * series.len() / count;
    (0..count).filter_map(|index| interval::mean(&series[edge(index)..edge(index + 1)])).collect()
}
