//! Energy over a window by the GPU's total counter, its edges aligned to changes of the counter.
//!
//! The counter refreshes about every 100 ms. Between the first change inside the window and the last one, what it counted and
//! how long it took are both known to a poll's length (20 ms); to the window's own edges they are not. Power readings
//! lag and skip (arXiv 2312.02741), so their trapezoid is a cross-check and no more.

use crate::clock::Nanos;
use crate::record::reading::{Missing, Reading};
use crate::record::telemetry::Energy;
use crate::telemetry::timeline::GpuTimeline;

/// A window has to be this long: what one refresh of the counter is off is about 1 % of it.
pub const SHORTEST: Nanos = Nanos::from_secs(10);
/// A counter that did not change for so long inside the window has stopped.
const SILENCE: Nanos = Nanos::from_secs(2);

/// Energy between the first and the last change of the counter in `from..=to`, for windows of `shortest` or more.
#[must_use]
pub fn over(gpu: &GpuTimeline, from: Nanos, to: Nanos, shortest: Nanos) -> Reading<Energy> {
    if to.since(from) < shortest {
        return Reading::none(Missing::WindowTooShort);
    }
    // The first value that was ever seen is no change: nobody knows since when it stood.
    let first_ever = gpu.energy.iter().next().map(|(at, _)| *at);
    let changes = || gpu.energy.within(from, to).filter(|(at, _)| Some(*at) != first_ever);
    let (Some((begin, first)), Some((end, last))) = (changes().next(), changes().last()) else {
        return Reading::none(gpu.energy_now.ok().err().unwrap_or(Missing::NoSample));
    };
    let backwards = changes().zip(changes().skip(1)).any(|((_, one), (_, next))| next < one);
    let silent = begin.since(from) > SILENCE || to.since(*end) > SILENCE || end == begin;
    if backwards || silent {
        return Reading::none(Missing::Failed);
    }
    Reading::Value(Energy {
        joules: last - first,
        seconds: end.since(*begin).as_secs_f64(),
        begin_s: begin.since(from).as_secs_f64(),
        by_power_j: trapezoid(gpu, *begin, *end),
    })
}

/// Joules by the power readings between two stamps; the first and last reading stand for what lies outside them.
fn trapezoid(gpu: &GpuTimeline, from: Nanos, to: Nanos) -> Reading<f64> {
    let readings = gpu.fast.within(from, to).filter_map(|(at, fast)| Some((at.as_secs_f64(), fast.power_w.get()?)));
    let readings = readings.collect::<Vec<_>>();
    let (Some(first), Some(last)) = (readings.first(), readings.last()) else { return Reading::none(Missing::NoSample) };
    let inside = readings.windows(2).map(|pair| 0.5 * (pair[0].1 + pair[1].1) * (pair[1].0 - pair[0].0)).sum::<f64>();
    let before = first.1 * (first.0 - from.as_secs_f64());
    let after = last.1 * (to.as_secs_f64() - last.0);
    Reading::Value(before + inside + after)
}
