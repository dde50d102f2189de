//! Is the measurement of a level valid? Only what spoils the measurement counts here, never what the system did.

use crate::campaign::tally::{Brief, off_length_share};
use crate::load::Driven;
use crate::record::level::{GeneratorAudit, Latencies};
use crate::record::request::{Ending, FailureKind};
use crate::record::verdict::Invalid;

/// Send lag is accepted up to this, or up to 1 % of the median TTFT where that is more, milliseconds.
const SEND_LAG_MS: f64 = 1.0;
/// Share of its core that the generator may work (not spin).
const CPU_SHARE: f64 = 0.80;
/// Requests sent / requests scheduled.
const ACHIEVED: f64 = 0.99;
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
    /// Open loop judges send lag; in closed loop there is no schedule to be late for.
    pub open_loop: bool,
    /// Virtual time has no generator that could be slow.
    pub virtual_time: bool,
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
        Course::Settled | Course::Failing => {}
        Course::NotSettled { waited_s } => invalid.push(Invalid::NotSettled { waited_s }),
        Course::Interrupted => invalid.push(Invalid::Interrupted),
        Course::Exhausted => invalid.push(Invalid::TrafficExhausted),
    }
    if measured.open_loop && !measured.virtual_time && measured.course != Course::Failing {
        judge_generator(measured, &mut invalid);
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
    let share = off_length_share(measured.cohort);
    if share > OFF_LENGTH {
        invalid.push(Invalid::OutputLength { share });
    }
    if !measured.virtual_time && measured.audit.longest_gap_ms > PAUSE_MS {
        invalid.push(Invalid::Paused { gap_ms: measured.audit.longest_gap_ms });
    }
    invalid
}

fn judge_generator(measured: &Measured<'_>, invalid: &mut Vec<Invalid>) {
    let limit_ms = SEND_LAG_MS.max(0.01 * measured.latency.ttft.raw.p50.unwrap_or(0.0));
    // Arrivals that waited because the cap of requests in flight was reached waited for the target, not for the
    // generator: their clock ran, and the latencies hold the wait.
    let at_cap = measured.audit.waited_at_cap > 0;
    if let Some(p99_ms) = measured.latency.send_lag.p99.filter(|p99| *p99 > limit_ms && !at_cap) {
        invalid.push(Invalid::SendLag { p99_ms, limit_ms });
    }
    if measured.audit.cpu_share > CPU_SHARE {
        invalid.push(Invalid::GeneratorBusy { cpu_share: measured.audit.cpu_share });
    }
    if measured.audit.achieved_over_offered < ACHIEVED && !at_cap {
        invalid.push(Invalid::GeneratorBehind { achieved_over_offered: measured.audit.achieved_over_offered });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Nanos;

    #[test]
    fn a_request_that_the_target_could_never_serve_spoils_the_level() {
        let brief = |ending| Brief {
            id: 0,
            intended: Nanos::ZERO,
            sent: None,
            admitted: None,
            first_token: None,
            last_token: None,
            end: Nanos::ZERO,
            tpot_ns: None,
            prompt_tokens: 1,
            output_tokens: 0,
            requested_tokens: 1,
            ending,
        };
        let judged = |kind| {
            judge(&Measured {
                cohort: &[brief(Ending::Failed(kind))],
                latency: &Latencies::default(),
                audit: &GeneratorAudit::default(),
                driven: &Driven::default(),
                course: Course::Settled,
                open_loop: true,
                virtual_time: true,
            })
        };
        assert_eq!(judged(FailureKind::Rejected), [Invalid::Misfit { rejected: 1 }]);
        assert_eq!(judged(FailureKind::TargetError), [], "what the system did is no fault of the measurement");
    }
}
