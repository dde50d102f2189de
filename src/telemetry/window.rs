//! From samples and an interval to a summary: no clock, no library, no judgement.

use crate::clock::Nanos;
use crate::record::clocks::{ClockReason, LimitChange, Limits, ReasonShare};
use crate::record::reading::{Missing, Reading};
use crate::record::telemetry::{Activity, BeforeAfter, FaultCounters, GpuProcess, GpuWindow, Link, Spread, WindowSummary, Xid};
use crate::stats::quantile;
use crate::telemetry::sample::{Fast, Slow};
use crate::telemetry::timeline::{GpuTimeline, Timeline};
use crate::telemetry::{energy, procfs};

/// Samples further apart than this leave a gap: a few times the fast loop's 100 ms.
const GAP: Nanos = Nanos::from_millis(500);
/// A slow look speaks for a window that begins so much later: a little more than the slow loop's second.
const SLOW_REACH: Nanos = Nanos::from_millis(1_200);

/// What a watched GPU is called in a summary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Of the GPU, or of the MIG instance.
    pub uuid: String,
    /// As a person names it.
    pub name: String,
    /// Highest SM clock that it has, MHz.
    pub sm_clock_max_mhz: Reading<u32>,
}

/// The interval of a summary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Faults and "before" go back to here: the end of the level before.
    pub since: Nanos,
    /// The window's begin.
    pub from: Nanos,
    /// The window's end.
    pub to: Nanos,
    /// Energy is read over windows of this length or more.
    pub energy_shortest: Nanos,
}

impl Interval {
    /// A window by itself, under the method's rule for energy.
    #[must_use]
    pub fn of(from: Nanos, to: Nanos) -> Self {
        Self { since: from, from, to, energy_shortest: energy::SHORTEST }
    }

    fn seconds(&self) -> f64 {
        self.to.since(self.from).as_secs_f64()
    }
}

/// The summary of an interval.
#[must_use]
pub fn window(timeline: &Timeline, names: &[Named], interval: &Interval) -> WindowSummary {
    let gpus = timeline.gpus.iter().zip(names).enumerate().map(|(index, (gpu, named))| {
        let xids = timeline.xids.within(interval.since, interval.to).filter(|(_, event)| event.gpu == index);
        let xids = xids.map(|(at, event)| Xid { code: event.code, at_s: at.as_secs_f64() - interval.from.as_secs_f64() }).collect();
        GpuWindow { xids, ..gpu_window(gpu, named, interval) }
    });
    WindowSummary { gpus: gpus.collect(), host: procfs::over(&timeline.host, interval.from, interval.to), ..WindowSummary::default() }
}

/// The readings that a GPU which has them must go on having: power, SM clock, clock reasons, temperature.
#[must_use]
pub fn covered(fast: &Fast) -> [bool; 4] {
    [
        fast.power_w.value().is_some(),
        fast.sm_clock_mhz.value().is_some(),
        fast.reasons.value().is_some(),
        fast.temperature_c.value().is_some(),
    ]
}

fn gpu_window(gpu: &GpuTimeline, named: &Named, interval: &Interval) -> GpuWindow {
    let fast = || gpu.fast.within(interval.from, interval.to).map(|(_, fast)| fast);
    // A short window may lie between two slow looks: the one before it is its own.
    let slow = || gpu.slow.within(Nanos(interval.from.0.saturating_sub(SLOW_REACH.0)), interval.to).map(|(_, slow)| slow);
    let spread = |read: fn(&Fast) -> Reading<f64>| spread(fast().map(read));
    let clock = |reading: Reading<u32>| reading.map(f64::from);
    let (coverage, longest_gap) = coverage(gpu, interval);
    GpuWindow {
        uuid: named.uuid.clone(),
        name: named.name.clone(),
        coverage,
        longest_gap_s: longest_gap.as_secs_f64(),
        samples: fast().count() as u64,
        power_w: spread(|fast| fast.power_w),
        power_mean_w: mean(fast().map(|fast| fast.power_w)),
        power_instant_w: spread(|fast| fast.power_instant_w),
        energy: energy::over(gpu, interval.from, interval.to, interval.energy_shortest),
        sm_clock_mhz: spread(|fast| fast.sm_clock_mhz.map(f64::from)),
        sm_clock_unexcused_mhz: self::spread(fast().filter(|fast| !excused(fast)).map(|fast| clock(fast.sm_clock_mhz))),
        sm_clock_max_mhz: named.sm_clock_max_mhz,
        memory_clock_mhz: spread(|fast| fast.memory_clock_mhz.map(f64::from)),
        clock_reasons: reasons(fast()),
        temperature_max_c: largest(fast().map(|fast| fast.temperature_c)),
        memory_temperature_max_c: largest(fast().map(|fast| fast.memory_temperature_c)),
        busy: mean(fast().map(|fast| fast.busy)),
        memory_used_bytes: largest(fast().map(|fast| fast.memory_used_bytes)),
        activity: Activity {
            dram: counted(slow().map(|slow| slow.activity.dram)),
            sm: counted(slow().map(|slow| slow.activity.sm)),
            tensor: counted(slow().map(|slow| slow.activity.tensor)),
        },
        limits: BeforeAfter { before: first_limits(gpu, interval), after: slow().last().map(|slow| slow.limits).unwrap_or_default() },
        limit_changes: limit_changes(gpu, interval),
        faults: faults(gpu, interval),
        link: Link {
            generation: largest(slow().map(|slow| slow.link.generation)),
            generation_max: largest(slow().map(|slow| slow.link.generation_max)),
            width: largest(slow().map(|slow| slow.link.width)),
            width_max: largest(slow().map(|slow| slow.link.width_max)),
            sent_bytes_per_s: mean(slow().map(|slow| slow.link.sent_bytes_per_s)),
            received_bytes_per_s: mean(slow().map(|slow| slow.link.received_bytes_per_s)),
        },
        nvlinks_up: smallest(slow().map(|slow| slow.nvlinks_up)),
        processes: processes(slow()),
        xids: Vec::new(),
        lost: gpu.lost.is_some_and(|lost| lost <= interval.to),
    }
}

/// Whether the driver says why this clock may be low without anything being wrong.
fn excused(fast: &Fast) -> bool {
    let excuses = ClockReason::PowerCap.bit() | ClockReason::Idle.bit();
    fast.reasons.get().is_some_and(|reasons| reasons & excuses != 0)
}

/// Share of the window without a gap, and the longest gap, by the reading that has it worst of those the GPU ever had.
fn coverage(gpu: &GpuTimeline, interval: &Interval) -> (f64, Nanos) {
    let (mut worst, mut longest) = (1.0_f64, Nanos::ZERO);
    let readings = gpu.has.iter().enumerate().filter(|(_, has)| **has).map(|(index, _)| Some(index));
    // A GPU that has none of them is covered by nothing.
    let readings = readings.collect::<Vec<_>>();
    for reading in if readings.is_empty() { vec![None] } else { readings } {
        let mut last = interval.from;
        let mut uncovered = Nanos::ZERO;
        let seen = gpu.fast.within(interval.from, interval.to).filter(|(_, fast)| reading.is_some_and(|index| covered(fast)[index]));
        for at in seen.map(|(at, _)| *at).chain([interval.to]) {
            let apart = at.since(last);
            if apart > GAP {
                uncovered += apart;
            }
            longest = longest.max(apart);
            last = at;
        }
        worst = worst.min(1.0 - uncovered.as_secs_f64() / interval.seconds().max(f64::MIN_POSITIVE));
    }
    (worst.clamp(0.0, 1.0), longest)
}

/// Share of the samples in which each reason held.
fn reasons<'a>(fast: impl Iterator<Item = &'a Fast> + Clone) -> Reading<Vec<ReasonShare>> {
    let words = fast.clone().filter_map(|fast| fast.reasons.get()).collect::<Vec<_>>();
    if words.is_empty() {
        return Reading::none(why_none(fast.map(|fast| fast.reasons)));
    }
    let share = |bit: u64| words.iter().filter(|word| **word & bit != 0).count() as f64 / words.len() as f64;
    let shares = ClockReason::ALL.iter().map(|(reason, bit)| ReasonShare { reason: *reason, share: share(*bit) });
    Reading::Value(shares.filter(|held| held.share > 0.0).collect())
}

/// The limits that held when the window began, as far as that was read.
fn first_limits(gpu: &GpuTimeline, interval: &Interval) -> Limits {
    let before = gpu.slow.within(interval.since, interval.from).last().map(|(_, slow)| slow.limits);
    before.or_else(|| gpu.slow.within(interval.from, interval.to).next().map(|(_, slow)| slow.limits)).unwrap_or_default()
}

/// Each change from one look to the next, since the level before.
fn limit_changes(gpu: &GpuTimeline, interval: &Interval) -> Vec<LimitChange> {
    let mut known = gpu.slow.last_before(interval.since).map(|slow| slow.limits);
    let mut changes = Vec::new();
    for (at, slow) in gpu.slow.within(interval.since, interval.to) {
        let at_s = at.as_secs_f64() - interval.from.as_secs_f64();
        changes.extend(known.iter().flat_map(|known| known.changes(&slow.limits, Some(at_s))));
        // A look that failed leaves what is known.
        known = Some(known.map_or(slow.limits, |known| known.or(slow.limits)));
    }
    changes
}

/// Fault counters at the end of the level before, or the first look since, and at the last one: also what happened in the warm-up
/// counts.
fn faults(gpu: &GpuTimeline, interval: &Interval) -> BeforeAfter<FaultCounters> {
    let since = || gpu.slow.within(interval.since, interval.to).map(|(_, slow)| slow.faults);
    let before = gpu.slow.last_before(interval.since).map(|slow| slow.faults).or_else(|| since().next());
    BeforeAfter { before: before.unwrap_or_default(), after: since().last().unwrap_or_default() }
}

/// Every process that some look saw, as it was at the last look that did.
fn processes<'a>(slow: impl Iterator<Item = &'a Slow> + Clone) -> Reading<Vec<GpuProcess>> {
    let lists = slow.clone().filter_map(|slow| slow.processes.value()).collect::<Vec<_>>();
    if lists.is_empty() {
        return Reading::none(why_none(slow.map(|slow| slow.processes.clone())));
    }
    let mut seen = Vec::<GpuProcess>::new();
    for process in lists.into_iter().flatten() {
        match seen.iter_mut().find(|known| known.pid == process.pid) {
            Some(known) => known.clone_from(process),
            None => seen.push(process.clone()),
        }
    }
    Reading::Value(seen)
}

fn spread(readings: impl Iterator<Item = Reading<f64>> + Clone) -> Reading<Spread> {
    let mut values = readings.clone().filter_map(|reading| reading.get()).collect::<Vec<_>>();
    if values.is_empty() {
        return Reading::none(why_none(readings));
    }
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[quantile::nearest_rank(values.len() as u64, share).saturating_sub(1) as usize];
    Reading::Value(Spread { min: values[0], p05: at(0.05), median: at(0.5), max: values[values.len() - 1] })
}

fn mean(readings: impl Iterator<Item = Reading<f64>> + Clone) -> Reading<f64> {
    let (count, sum) =
        readings.clone().filter_map(|reading| reading.get()).fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    if count == 0 { Reading::none(why_none(readings)) } else { Reading::Value(sum / f64::from(count)) }
}

/// Mean of what the hardware counted; none where somebody else held the counters for a part of the window, for the rest would pass for all
/// of it.
fn counted(mut readings: impl Iterator<Item = Reading<f64>> + Clone) -> Reading<f64> {
    let all = readings.clone();
    if readings.any(|reading| reading == Reading::none(Missing::InUse)) { Reading::none(Missing::InUse) } else { mean(all) }
}

fn largest<T: Ord + Copy>(readings: impl Iterator<Item = Reading<T>> + Clone) -> Reading<T> {
    let largest = readings.clone().filter_map(|reading| reading.get()).max();
    largest.map_or_else(|| Reading::none(why_none(readings)), Reading::Value)
}

fn smallest<T: Ord + Copy>(readings: impl Iterator<Item = Reading<T>> + Clone) -> Reading<T> {
    let smallest = readings.clone().filter_map(|reading| reading.get()).min();
    smallest.map_or_else(|| Reading::none(why_none(readings)), Reading::Value)
}

/// Why none of the readings has a value: what the last one says.
fn why_none<T>(readings: impl Iterator<Item = Reading<T>>) -> Missing {
    readings.last().and_then(|reading| reading.ok().err()).unwrap_or(Missing::NoSample)
}
