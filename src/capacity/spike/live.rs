//! The litmus test of a real target: the plan's word, the simulation's, and what happened, point by point.

use serde::{Deserialize, Serialize};

use crate::capacity::spike::check::Pair;
use crate::capacity::spike::expected::Expected;
use crate::capacity::spike::ledger::Trial;
use crate::capacity::spike::litmus::ExpectedPhase;
use crate::capacity::spike::own;
use crate::capacity::spike::phases::{PhaseHeld, Quantiles};
use crate::record::finding::{Finding, Severity};

/// A point that is simulated within this share of what was measured is met.
const NEAR: f64 = 0.15;

/// What the generator did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Its own delay, 99th percentile, milliseconds.
    pub send_lag_p99_ms: f64,
    /// CPU of its thread less its spinning, share of one core.
    pub cpu_share: f64,
    /// Arrivals that waited at the cap of requests in flight.
    pub waited_at_cap: u64,
    /// Events lost in the ring.
    pub events_lost: u64,
    /// Calls that failed, whatever the reason.
    pub failed: u64,
}

/// One phase both ways.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparedPhase {
    /// Which.
    pub phase: String,
    /// Whether both came to the same verdict.
    pub same_verdict: bool,
    /// Calls/s within the SLO.
    pub goodput: Option<Pair>,
    /// 95th percentile of the time to first token, milliseconds.
    pub ttft_p95: Option<Pair>,
    /// Of the time per output token.
    pub tpot_p95: Option<Pair>,
    /// Of the whole call.
    pub e2e_p95: Option<Pair>,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveVerdict {
    /// Every phase was within the SLO.
    Holds,
    /// One was not.
    Breaks,
    /// The generator was in the way, or it was stopped: nothing can be said.
    Invalid,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct LiveLitmus {
    /// Names the saved file.
    pub id: String,
    /// The run behind the plan and the law.
    pub run: String,
    /// When it was driven (UTC, RFC 3339).
    pub created: String,
    /// What was driven.
    pub target: String,
    /// What must stand beside every number.
    pub labels: Vec<String>,
    /// What had to hold.
    pub slo: String,
    /// GPUs of the plan, and GPUs (or devices) that were driven.
    pub planned_gpus: u64,
    /// Of the target.
    pub driven_gpus: u32,
    /// Calls/s on average for each GPU of the plan.
    pub average_calls_per_s_per_gpu: f64,
    /// Seconds of a spike that were asked for.
    pub spike_s: f64,
    /// What the plan says of each phase, before it was driven.
    pub expected: Vec<ExpectedPhase>,
    /// What the fitted law makes of the course.
    pub simulated: Trial,
    /// What happened.
    pub measured: Trial,
    /// Both, point by point.
    pub compared: Vec<ComparedPhase>,
    /// What the generator did.
    pub audit: Audit,
    /// Why nothing can be said; empty where something can.
    pub invalid: Vec<String>,
    /// The verdict.
    pub verdict: LiveVerdict,
    /// What a reader should know.
    pub findings: Vec<Finding>,
}

/// Phase by phase.
#[must_use]
pub fn compare(measured: &Trial, simulated: &Trial) -> Vec<ComparedPhase> {
    let p95 = |phase: &PhaseHeld, of: fn(&PhaseHeld) -> Quantiles| of(phase).p95;
    let of = |(measured, simulated): (&PhaseHeld, &PhaseHeld)| {
        let pair = |of: fn(&PhaseHeld) -> Quantiles| {
            let measured = p95(measured, of).filter(|value| *value > 0.0)?;
            Some(Pair { measured, simulated: p95(simulated, of)? })
        };
        let goodput = Pair { measured: measured.goodput_calls_per_s, simulated: simulated.goodput_calls_per_s };
        ComparedPhase {
            phase: measured.name.clone(),
            same_verdict: measured.holds() == simulated.holds(),
            goodput: (goodput.measured > 0.0).then_some(goodput),
            ttft_p95: pair(|phase| phase.ttft_ms),
            tpot_p95: pair(|phase| phase.tpot_ms),
            e2e_p95: pair(|phase| phase.e2e_ms),
        }
    };
    measured.phases.iter().zip(&simulated.phases).map(of).collect()
}

/// What is to be said of it.
#[must_use]
pub fn findings(live: &LiveLitmus) -> Vec<Finding> {
    let mut findings: Vec<Finding> = own::shorter(&live.measured.course, live.spike_s).into_iter().collect();
    if u64::from(live.driven_gpus) < live.planned_gpus {
        findings.push(Finding::new(
            "part_of_the_fleet",
            Severity::Note,
            format!(
                "{} of {} planned GPUs were driven, with their share of the load: neither routing nor scale-out was tested",
                live.driven_gpus, live.planned_gpus
            ),
            "see what the simulated fleet says (`plimsoll spike`), or drive the fleet's own address with `--target`",
        ));
    }
    let against = live.expected.iter().zip(&live.measured.phases).find(|(expected, phase)| match expected.expected {
        Expected::Holds => !phase.holds(),
        Expected::Breaks => phase.holds(),
        Expected::Open => false,
    });
    if let Some((expected, phase)) = against.filter(|_| live.verdict != LiveVerdict::Invalid) {
        findings.push(Finding::new(
            "plan_contradicted",
            if phase.holds() { Severity::Note } else { Severity::Serious },
            format!(
                "the plan says that {} ({:.3} calls/s) {}, and it {}",
                expected.phase,
                expected.judged_calls_per_s(),
                expected.expected.word(),
                if phase.holds() { "holds" } else { "breaks" }
            ),
            "measure again (`plimsoll bench`) and plan from that run",
        ));
    }
    let off: Vec<&str> = live.compared.iter().filter(|phase| is_off(phase)).map(|phase| phase.phase.as_str()).collect();
    if !off.is_empty() {
        findings.push(Finding::new(
            "simulation_off",
            Severity::Warning,
            format!("the simulated p95 of TTFT or TPOT is more than {:.0} % off the measured one at {}", 100.0 * NEAR, off.join(", ")),
            "take simulated answers near these loads with care",
        ));
    }
    findings
}

fn is_off(phase: &ComparedPhase) -> bool {
    !phase.same_verdict || [phase.ttft_p95, phase.tpot_p95].into_iter().flatten().any(|pair| pair.off().abs() > NEAR)
}
