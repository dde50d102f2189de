//! Latency profile of llm-d's inference simulator: a measured node as a fake one (`docs/latency-profiles.md` there, per-token calculator).
//!
//! The simulator refuses a standard deviation above 30 % of its mean; ours is estimated from p50 and p90, as of a normal distribution.
//! `time-factor-under-load` is ITL with a full batch over ITL alone, by the line through one context.

use serde_json::json;

use crate::interchange::error::ExportError;
use crate::interchange::planner::llmd::{Lines, batch, untold};
use crate::interchange::planner::points::{Least, Points};
use crate::interchange::planner::sidecar::{Comments, Content};
use crate::record::run::RunRecord;

/// How far p90 lies above the median of a normal distribution, in standard deviations.
const P90: f64 = 1.281_551_565_544_600_4;
/// Largest accepted standard deviation, as a share of the mean; a little below what is refused.
const DEVIATION: f64 = 0.299;

/// The profile, and what is said of it.
///
/// # Errors
/// When the run has too few points.
pub(super) fn files(run: &RunRecord, points: &Points, comments: &Comments) -> Result<Content, ExportError> {
    points.require(run, "inference-sim", Least { prefill: 3, decode: 3, contexts: 1 })?;
    let lines = Lines::of(run, points).ok_or_else(|| untold(run, "inference-sim"))?;
    let [overhead, each] = lines.prefill;
    let [fixed, sequence] = lines.decode;
    let sequences = batch(run, points);
    let (alone, full) = (fixed + sequence, fixed + sequence * f64::from(sequences));
    let spread = |median: f64, p90: f64| ((p90 - median) / P90).max(0.0) / median;
    let at_context = points.decode.iter().filter(|point| point.context == lines.context);
    let alone_there = at_context.min_by(|one, other| one.concurrency.total_cmp(&other.concurrency));
    let itl_spread = alone_there.map_or(0.0, |point| spread(point.itl_ms, point.itl_p90_ms)).min(DEVIATION);
    let prefill_spread = points.prefill.iter().map(|point| spread(point.ttft_ms, point.ttft_p90_ms)).fold(0.0, f64::max).min(DEVIATION);
    let text = format!(
        "{}model: {}\nmax-num-seqs: {sequences}\nlatency-calculator: per-token\n\ninter-token-latency: {}\ninter-token-latency-std-dev: {}\n\n\
         prefill-overhead: {}\nprefill-time-per-token: {}\nprefill-time-std-dev: {}\n\ntime-factor-under-load: {}\n",
        comments.text(),
        json!(run.target.model),
        duration(alone),
        duration(alone * itl_spread),
        duration(overhead),
        duration(each),
        duration(overhead * prefill_spread),
        thousandths((full / alone).max(1.0)),
    );
    let most = points.decode.iter().map(|point| point.concurrency).fold(0.0, f64::max);
    let details = json!({
        "context": lines.context,
        "worst_residual_share": lines.worst,
        "measured_up_to_sequences": most,
        "extrapolated": f64::from(sequences) > most,
    });
    Ok(Content::one("latency-profile.yaml", text.into_bytes(), details))
}

/// Milliseconds as one of Go's durations, whole nanoseconds.
fn duration(millis: f64) -> String {
    // A float-to-integer `as` saturates, and NaN becomes 0.
    format!("{}ns", (millis * 1e6).round() as u64)
}

fn thousandths(value: f64) -> String {
    format!("{:?}", (value * 1e3).round() / 1e3)
}
