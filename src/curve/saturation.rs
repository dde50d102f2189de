//! The load line: throughput as concurrency rises (closed loop), its plateau, and the knee where saturation starts.
//!
//! The plateau is what a target does when latency does not matter. It is not `throughput_per_gpu`, which needs an
//! SLO and open-loop load. A target that was still gaining at the highest concurrency has no plateau here.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::record::level::{LevelRecord, Offered, Purpose};

/// Saturated: two doublings of concurrency gained less than this. The knee is the first to come this near the plateau.
pub const GAIN: f64 = 0.03;
/// More failed requests than this, or any preemption, and the target is out of room: it will not rise further.
const MOST_ERRORS: f64 = 0.01;

/// One closed-loop level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct LoadLinePoint {
    /// Requests in flight, all devices.
    pub concurrency: u32,
    /// Completions per second per device.
    pub calls_per_s_per_gpu: f64,
    /// Output tokens per second per device: steadier than calls where lengths vary, so saturation is judged on it.
    pub output_tokens_per_s_per_gpu: f64,
    /// Little's law: `X R / c - 1`, 0 where throughput, mean end-to-end time and concurrency agree; far from it one of
    /// them is measured wrongly. `None` where no end-to-end time was measured.
    pub littles_law_residual: Option<f64>,
}

/// The highest throughput under rising concurrency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Plateau {
    /// Completions per second per device.
    pub calls_per_s_per_gpu: f64,
    /// Output tokens per second per device.
    pub output_tokens_per_s_per_gpu: f64,
    /// Where it was seen.
    pub concurrency: u32,
    /// Concurrency at which throughput first comes within [`GAIN`] of it, interpolated between levels.
    pub knee: f64,
}

/// The load line of a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Saturation {
    /// By rising concurrency; one for each.
    pub points: Vec<LoadLinePoint>,
    /// `None` where throughput was still rising at the highest concurrency.
    pub plateau: Option<Plateau>,
}

impl Saturation {
    /// Of the valid levels of a sweep; `None` where there are none. Of levels with equal concurrency the last counts.
    #[must_use]
    pub fn of(levels: &[LevelRecord]) -> Option<Self> {
        let sweep = levels.iter().filter(|level| level.verdict.is_valid() && level.purpose == Purpose::Sweep);
        let mut by_concurrency = BTreeMap::new();
        for level in sweep {
            if let Offered::Closed { concurrency } = level.offered {
                by_concurrency.insert(concurrency, level);
            }
        }
        let (_, last) = by_concurrency.last_key_value()?;
        let out_of_room = last.target.preemptions > 0 || failed_share(last) > MOST_ERRORS;
        let points = by_concurrency.into_iter().map(|(concurrency, level)| LoadLinePoint::of(level, concurrency)).collect::<Vec<_>>();
        let line = points.iter().map(|point| (point.concurrency, point.output_tokens_per_s_per_gpu)).collect::<Vec<_>>();
        let plateau = (out_of_room || has_flattened(&line)).then(|| {
            let highest =
                points.iter().max_by(|one, other| one.output_tokens_per_s_per_gpu.total_cmp(&other.output_tokens_per_s_per_gpu))?;
            Some(Plateau {
                calls_per_s_per_gpu: highest.calls_per_s_per_gpu,
                output_tokens_per_s_per_gpu: highest.output_tokens_per_s_per_gpu,
                concurrency: highest.concurrency,
                knee: knee(&line)?,
            })
        });
        Some(Self { plateau: plateau.flatten(), points })
    }
}

impl LoadLinePoint {
    fn of(level: &LevelRecord, concurrency: u32) -> Self {
        Self {
            concurrency,
            calls_per_s_per_gpu: level.per_device.calls_per_s,
            output_tokens_per_s_per_gpu: level.per_device.output_tokens_per_s,
            littles_law_residual: littles_law_residual(level, concurrency),
        }
    }
}

/// Whether the last two doublings of a load line gained less than [`GAIN`]. Pairs of concurrency, rising, and throughput.
#[must_use]
pub fn has_flattened(line: &[(u32, f64)]) -> bool {
    let Some(&(concurrency, throughput)) = line.last() else { return false };
    let earlier = line.iter().filter(|point| point.0 <= concurrency / 4).map(|point| point.1).fold(f64::NAN, f64::max);
    // NaN (nothing measured two doublings below) is no small gain.
    throughput < earlier * (1.0 + GAIN)
}

/// The concurrency at which a load line first comes within [`GAIN`] of its highest throughput: linear between levels,
/// from nothing at concurrency 0. Pairs of concurrency, rising, and throughput.
#[must_use]
pub fn knee(line: &[(u32, f64)]) -> Option<f64> {
    let near = line.iter().map(|point| point.1).fold(f64::NAN, f64::max) / (1.0 + GAIN);
    let at = line.iter().position(|point| point.1 >= near)?;
    let below = at.checked_sub(1).map_or((0.0, 0.0), |before| (f64::from(line[before].0), line[before].1));
    let (concurrency, throughput) = (f64::from(line[at].0), line[at].1);
    Some(below.0 + (near - below.1) / (throughput - below.1) * (concurrency - below.0))
}

fn failed_share(level: &LevelRecord) -> f64 {
    let failed = level.counts.failed.values().sum::<u64>() + level.counts.timed_out;
    failed as f64 / (level.counts.cohort as f64).max(1.0)
}

fn littles_law_residual(level: &LevelRecord, concurrency: u32) -> Option<f64> {
    let seconds = level.latency.e2e.raw.mean? / 1e3;
    Some(level.throughput.completions_per_s * seconds / f64::from(concurrency) - 1.0)
}
