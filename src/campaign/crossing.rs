//! The rate at which the share of misses crosses what is allowed, read from measured levels.
//!
//! Near capacity the logit of the miss share rises about linearly with the logarithm of the rate (exactly so in M/M/1 for
//! small shares), so a logistic curve is fitted by quasi-likelihood: it counts misses and takes no logarithm of them,
//! which would lie too low on average and put the rate too high. Levels weigh less the more their misses cluster, and
//! the farther their share is from what is allowed.

use serde::{Deserialize, Serialize};

use crate::stats::share::Block;

/// Distance in logits from what is allowed over which a level loses its weight (as in a Gaussian).
const NEAR: f64 = 2.0;
/// Half an effective miss: keeps a level without misses finite, and the logarithm of a small count unbiased.
const HALF: f64 = 0.5;

/// Misses among the requests of a level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Misses and requests.
    pub block: Block,
    /// How many times more the share scatters than with independent requests, 1 or more.
    pub clustering: f64,
    /// Requests that come and go with one wave of load; the clustering at least. A pass answers for waves that brought
    /// no miss by luck.
    pub worth: f64,
    /// Blocks of time behind the clustering, less one for each level.
    pub freedom: u64,
}

/// What one level says about all objectives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LevelShares {
    /// Offered load, requests/s.
    pub rate: f64,
    /// In the order of the SLO.
    pub objectives: Vec<Counted>,
}

/// Where a crossing lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Between two measured levels.
    Inside,
    /// Under the lowest: every level misses too much.
    Below,
    /// Over the highest: no level misses too much.
    Above,
}

/// A crossing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Crossing {
    /// Requests/s. Outside the measured levels: extended by at most the width of the last cell, to be taken as a bound.
    pub rate: f64,
    /// Where it lies.
    pub side: Side,
}

/// The lowest crossing over all objectives, each with its allowed share of misses; levels of one rate are pooled. An
/// objective is left out where no request defines it. `None` with fewer than two rates.
#[must_use]
pub fn crossing(levels: &[LevelShares], allowed: &[f64]) -> Option<Crossing> {
    let curves = curves(&pooled(levels), allowed)?;
    curves.iter().map(|curve| curve.crossing).min_by(|one, other| one.rate.total_cmp(&other.rate))
}

/// Where one run alone would cross.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RunCrossing {
    /// Requests/s.
    pub rate: f64,
    /// Standard deviation of its logarithm that the number of misses, with their clusters, implies by itself.
    pub noise: f64,
}

/// Where each run alone would cross: along the slope of all runs together, because one run's own slope is mostly noise.
#[must_use]
pub fn crossing_of_each(runs: &[Vec<LevelShares>], allowed: &[f64]) -> Vec<RunCrossing> {
    let Some(curves) = curves(&pooled(&runs.concat()), allowed) else { return Vec::new() };
    let lowest =
        |run: &Vec<LevelShares>| curves.iter().filter_map(|curve| curve.of_run(run)).min_by(|one, other| one.rate.total_cmp(&other.rate));
    runs.iter().filter_map(lowest).collect()
}

/// Levels in order of rate, those of one rate as one.
#[must_use]
pub fn pooled(levels: &[LevelShares]) -> Vec<LevelShares> {
    let mut sorted: Vec<LevelShares> = levels.to_vec();
    sorted.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    sorted.dedup_by(|later, earlier| {
        let same = same_rate(later.rate, earlier.rate);
        if same {
            for (sum, more) in earlier.objectives.iter_mut().zip(&later.objectives) {
                let (old, new) = (sum.block.misses as f64, more.block.misses as f64);
                // A level without misses says nothing about their clusters.
                if old + new > 0.0 {
                    sum.clustering = (old * sum.clustering + new * more.clustering) / (old + new);
                }
                let (before, added) = (sum.block.requests as f64, more.block.requests as f64);
                if before + added > 0.0 {
                    sum.worth = (before * sum.worth + added * more.worth) / (before + added);
                }
                sum.block.misses += more.block.misses;
                sum.block.requests += more.block.requests;
                sum.freedom += more.freedom;
            }
        }
        same
    });
    sorted
}

/// Equal but for rounding: rates are products of steps.
#[must_use]
pub fn same_rate(one: f64, other: f64) -> bool {
    (one / other - 1.0).abs() < 1e-9
}

fn curves(levels: &[LevelShares], allowed: &[f64]) -> Option<Vec<Curve>> {
    let measured = levels.len() >= 2 && levels.iter().all(|level| level.objectives.len() == allowed.len());
    measured.then(|| allowed.iter().enumerate().filter_map(|(objective, allowed)| Curve::fit(levels, objective, *allowed)).collect())
}

/// A level as the fit sees it.
#[derive(Clone, Copy, Debug)]
struct Point {
    rate: f64,
    /// Logarithm of the rate over the middle of the levels.
    x: f64,
    misses: f64,
    requests: f64,
    clustering: f64,
    /// Over the clustering, and less far from the target.
    weight: f64,
}

/// logit(share) = height + slope x, for one objective.
#[derive(Clone, Debug)]
struct Curve {
    objective: usize,
    target: f64,
    /// Logarithm of the rate at which x is 0.
    origin: f64,
    height: f64,
    slope: f64,
    points: Vec<Point>,
    /// Logarithms of the rates one cell outside the levels: what a crossing is clamped to.
    reach: (f64, f64),
    crossing: Crossing,
}

impl Curve {
    /// `None` where fewer than two levels define the objective.
    fn fit(levels: &[LevelShares], objective: usize, allowed: f64) -> Option<Self> {
        let target = logit(allowed);
        let defined: Vec<&LevelShares> = levels.iter().filter(|level| level.objectives[objective].block.requests > 0).collect();
        let ([first, .., last], count) = (defined.as_slice(), defined.len()) else { return None };
        let (lowest, highest) = (first.rate.ln(), last.rate.ln());
        let origin = 0.5 * (lowest + highest);
        let points: Vec<Point> = defined
            .iter()
            .map(|level| {
                let Counted { block, clustering, .. } = level.objectives[objective];
                let (misses, requests) = (block.misses as f64 + HALF * clustering, block.requests as f64 + 2.0 * HALF * clustering);
                let far = (logit(misses / requests) - target) / NEAR;
                let weight = (-0.5 * far * far).exp().max(1e-9) / clustering;
                Point { rate: level.rate, x: level.rate.ln() - origin, misses, requests, clustering, weight }
            })
            .collect();
        let (height, slope) = logistic(&points);
        let cell = (highest - lowest) / (count - 1) as f64;
        let logarithm = if slope > 0.0 { origin + (target - height) / slope } else { f64::INFINITY };
        let side = match () {
            () if slope <= 0.0 && logit(points[0].misses / points[0].requests) > target => Side::Below,
            () if logarithm < lowest => Side::Below,
            () if logarithm > highest => Side::Above,
            () => Side::Inside,
        };
        let logarithm = if side == Side::Below && slope <= 0.0 { lowest } else { logarithm };
        let reach = (lowest - cell, highest + cell);
        let rate = logarithm.clamp(reach.0, reach.1).exp();
        Some(Self { objective, target, origin, height, slope, points, reach, crossing: Crossing { rate, side } })
    }

    /// The crossing of the curve of that slope that gives a run its own number of misses; `None` where it has no request
    /// that defines the objective.
    fn of_run(&self, run: &[LevelShares]) -> Option<RunCrossing> {
        let own: Vec<Point> = run
            .iter()
            .filter_map(|level| {
                let point = self.points.iter().find(|point| same_rate(point.rate, level.rate))?;
                let Block { misses, requests } = level.objectives[self.objective].block;
                (requests > 0).then_some(Point { misses: misses as f64, requests: requests as f64, ..*point })
            })
            .collect();
        if own.is_empty() {
            return None;
        }
        if self.slope <= 0.0 {
            return Some(RunCrossing { rate: self.crossing.rate, noise: 0.0 });
        }
        let misses: f64 = own.iter().map(|point| point.weight * point.misses).sum();
        // Half an effective miss: a weighted count has as many as its square over its variance.
        let at_common = |value: &dyn Fn(&Point) -> f64| own.iter().map(|point| value(point) * self.expected(point, 0.0)).sum::<f64>();
        let one_miss = at_common(&|point| point.weight * point.weight * point.clustering) / at_common(&|point| point.weight).max(1e-300);
        let misses = misses + HALF * one_miss;
        // The expected number rises with the shift: bisection over what rates can differ by.
        let (mut low, mut high) = (-20.0, 20.0);
        for _ in 0..60 {
            let middle = 0.5 * (low + high);
            let expected: f64 = own.iter().map(|point| point.weight * self.expected(point, middle)).sum();
            if expected < misses {
                low = middle;
            } else {
                high = middle;
            }
        }
        // A curve that is nearly flat crosses anywhere: no farther out than the levels speak of.
        let logarithm = (self.origin + (self.target - self.height - low) / self.slope).clamp(self.reach.0, self.reach.1);
        let noise = ((one_miss / misses).sqrt() / self.slope).min(self.reach.1 - self.reach.0);
        Some(RunCrossing { rate: logarithm.exp(), noise })
    }

    /// Misses expected at a level when the curve is raised.
    fn expected(&self, point: &Point, raised: f64) -> f64 {
        point.requests * share(self.height + raised + self.slope * point.x)
    }
}

/// Height and slope of the logistic curve through weighted counts: Newton's method on the quasi-likelihood.
fn logistic(points: &[Point]) -> (f64, f64) {
    // Start at the weighted line through the logits.
    let line = |value: &dyn Fn(&Point) -> f64| points.iter().map(|point| point.weight * point.misses * value(point)).sum::<f64>();
    let (w, wx, wy) = (line(&|_| 1.0), line(&|point| point.x), line(&|point| logit(point.misses / point.requests)));
    let (wxx, wxy) = (line(&|point| point.x * point.x), line(&|point| point.x * logit(point.misses / point.requests)));
    let spread = w * wxx - wx * wx;
    let mut slope = if spread > 0.0 { (w * wxy - wx * wy) / spread } else { 0.0 };
    let mut height = (wy - slope * wx) / w;
    for _ in 0..50 {
        let (mut g0, mut g1, mut h00, mut h01, mut h11) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for point in points {
            let p = share(height + slope * point.x);
            let gap = point.weight * (point.misses - point.requests * p);
            let bend = point.weight * point.requests * p * (1.0 - p);
            g0 += gap;
            g1 += gap * point.x;
            h00 += bend;
            h01 += bend * point.x;
            h11 += bend * point.x * point.x;
        }
        let determinant = h00 * h11 - h01 * h01;
        if determinant <= 1e-12 * h00 * h11 {
            break;
        }
        let (step0, step1) = ((h11 * g0 - h01 * g1) / determinant, (h00 * g1 - h01 * g0) / determinant);
        // Newton overshoots where the curve is steep: no step moves any level by more than a logit.
        let reach = points.iter().map(|point| (step0 + step1 * point.x).abs()).fold(1.0, f64::max);
        height += step0 / reach;
        slope += step1 / reach;
        if step0.abs() + step1.abs() < 1e-10 {
            break;
        }
    }
    (height, slope)
}

fn share(logit: f64) -> f64 {
    1.0 / (1.0 + (-logit).exp())
}

fn logit(share: f64) -> f64 {
    (share / (1.0 - share)).ln()
}
