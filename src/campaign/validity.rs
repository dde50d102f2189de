//! Is the measurement of a level valid? Only what spoils the measurement counts here, never what the system did.

use crate::campaign::tally::{Brief, off_length_share};
use crate::load::Driven;
use crate::record::level::{GeneratorAudit, Latencies};
use crate::record::request::{Ending, FailureKind};
use crate::record::verdict::Invalid;
use crate::stats::quantile;

/// Send lag is accepted up to this, or up to 1 % of the median TTFT where that is more, milliseconds.
pub(super) const SEND_LAG_MS: f64 = 1.0;
/// Share of its core that the generator may work (not spin).
pub(super) const CPU_SHARE: f64 = 0.80;
/// Largest share of the window in which the generator may be ready and have no core.
const STARVED: f64 = 0.25;
/// Requests sent / requests scheduled.
const ACHIEVED: f64 = 0.99;
/// Share by which the target's count of tokens may be off what arrived; tokens of requests in flight come on top.
const TOKENS: f64 = 0.01;
/// Share of completed requests that may be off their asked length.
const OFF_LENGTH: f64 = 0.01;
/// A pause of the generator's loop longer than this, when it lasts longer than anything that was waited for.
const PAUSE_MS: f64 = 1000.0;

/// What is judged about how a level was measured.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// The cohort.
    pub cohort: &'a [Brief],
    /// Its latencies.
    pub latency: &'a Latencies,
    /// The generator's own account.
    pub audit: &'a GeneratorAudit,
    /// What `drive` says.
    pub driven: &'a Driven,
    /// How the phases went.
    pub course: Course,
    /// Tokens of the whole level, counted on both sides.
    pub tokens: Tokens,
    /// Open loop judges send lag; in closed loop there is no schedule to be late for.
    pub open_loop: bool,
    /// Answers end when the model ends them.
    pub natural_length: bool,
    /// Virtual time has no generator that could be slow.
    pub virtual_time: bool,
}

/// Tokens of a whole level.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Generated, by the target's own count; 0 where it keeps none.
    pub by_target: u64,
    /// Received.
    pub received: u64,
    /// Most requests in flight at once: at the level's end some of their tokens are under way.
    pub in_flight: u64,
}

/// How a level's phases went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Course {
    /// Warm-up settled, the window was measured.
    Settled,
    /// Warm-up did not settle in this many seconds; the window was measured all the same.
    NotSettled {
        /// Seconds waited.
        waited_s: f64,
    },
    /// Stopped from outside.
    Interrupted,
    /// Nothing more arrived before the window was over.
    Exhausted,
    /// Request after request failed, so it was ended early: an outcome, and no fault of the measurement.
    Failing,
}

/// Every reason why the level cannot be trusted; empty where it can.
#[must_use]
pub fn judge(measured: &Measured<'_>) -> Vec<Invalid> {
    let mut invalid = Vec::new();
    match measured.course {
        Course::Settled if measured.cohort.is_empty() => invalid.push(Invalid::NothingBegan),
        Course::Settled | Course::Failing => {}
        Course::NotSettled { waited_s } => invalid.push(Invalid::NotSettled { waited_s }),
        Course::Interrupted => invalid.push(Invalid::Interrupted),
        Course::Exhausted => invalid.push(Invalid::TrafficExhausted),
    }
    if measured.open_loop && !measured.virtual_time && measured.course != Course::Failing {
        judge_schedule(measured, &mut invalid);
    }
    let (cpu_share, starved_share) = (measured.audit.cpu_share, measured.audit.starved_share);
    if (cpu_share > CPU_SHARE || starved_share > STARVED) && measured.course != Course::Failing {
        invalid.push(Invalid::GeneratorSaturated { cpu_share, starved_share });
    }
    let limited = measured.cohort.iter().filter(|brief| brief.ending == Ending::Failed(FailureKind::ClientLimit)).count() as u64;
    if limited > 0 {
        invalid.push(Invalid::GeneratorLimited { requests: limited });
    }
    let refused = measured.cohort.iter().filter(|brief| brief.ending == Ending::Refused).count() as u64;
    if refused > 0 {
        invalid.push(Invalid::GeneratorCapped { refused });
    }
    let rejected = measured.cohort.iter().filter(|brief| brief.ending == Ending::Failed(FailureKind::Rejected)).count() as u64;
    if rejected > 0 {
        invalid.push(Invalid::Misfit { rejected });
    }
    if measured.driven.events_lost > 0 {
        invalid.push(Invalid::EventsLost { events: measured.driven.events_lost });
    }
    let Tokens { by_target, received, in_flight } = measured.tokens;
    // A request on its way brings a token or two that only one side has counted.
    if by_target > 0 && by_target.abs_diff(received) as f64 > TOKENS * received as f64 + 2.0 * in_flight as f64 {
        invalid.push(Invalid::TokenCounts { by_target, received });
    }
    let share = off_length_share(measured.cohort);
    if share > OFF_LENGTH && !measured.natural_length {
        invalid.push(Invalid::OutputLength { share });
    }
    if !measured.virtual_time && measured.audit.longest_gap_ms > PAUSE_MS {
        invalid.push(Invalid::Paused { gap_ms: measured.audit.longest_gap_ms });
    }
    invalid
}

/// Arrivals that waited because the cap of requests in flight was reached waited for the target, not for the generator:
/// their clock ran, and the latencies hold the wait. They are the latest ones; the rest is judged.
fn judge_schedule(measured: &Measured<'_>, invalid: &mut Vec<Invalid>) {
    let limit_ms = SEND_LAG_MS.max(0.01 * measured.latency.ttft.raw.p50.unwrap_or(0.0));
    let waited = measured.audit.waited_at_cap;
    let mut lags: Vec<u64> = measured.cohort.iter().filter_map(|brief| Some(brief.sent?.since(brief.intended).0)).collect();
    lags.sort_unstable();
    lags.truncate(lags.len().saturating_sub(waited as usize));
    let p99_ms = quantile::of_nanos(&mut lags, 0.99).map(|lag| lag as f64 / 1e6);
    if let Some(p99_ms) = p99_ms.filter(|p99| *p99 > limit_ms) {
        invalid.push(Invalid::SendLag { p99_ms, limit_ms });
    }
    let cohort = measured.cohort.len() as f64;
    let late = ((1.0 - measured.audit.achieved_over_offered) * cohort - waited as f64).max(0.0);
    let achieved_over_offered = 1.0 - late / cohort.max(1.0);
    if achieved_over_offered < ACHIEVED {
        invalid.push(Invalid::GeneratorBehind { achieved_over_offered });
    }
}
