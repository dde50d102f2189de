//! The litmus test of a real target: the plan's word, the simulation's, and what happened, point by point.

use serde::{Deserialize, Serialize};

use crate::capacity::spike::check::Pair;
use crate::capacity::spike::expected::Expected;
use crate::capacity::spike::ledger::Trial;
use crate::capacity::spike::litmus::ExpectedPhase;
use crate::capacity::spike::own;
use crate::capacity::spike::phases::{PhaseHeld, Quantiles};
use crate::record::finding::{Finding, Severity};
use crate::record::slo::Slo;

/// A point that is simulated within this share of what was measured is met.
const NEAR: f64 = 0.15;

/// What the generator did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Audit {
    /// Its own delay, 99th percentile, milliseconds.
    pub send_lag_p99_ms: f64,
    /// CPU of its thread less its spinning, share of one core; `None` where it was killed.
    pub cpu_share: Option<f64>,
    /// Arrivals that waited at the cap of requests in flight; `None` where it was killed.
    pub waited_at_cap: Option<u64>,
    /// Events lost in the ring; `None` where it was killed.
    pub events_lost: Option<u64>,
    /// Calls that the log could not keep up with; `None` where that is not known.
    pub unlogged: Option<u64>,
    /// Calls that failed, whatever the reason.
    pub failed: u64,
}

/// One phase both ways.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LiveVerdict {
    /// Every phase was within the SLO.
    Holds,
    /// One was not.
    Breaks,
    /// The generator was in the way, or it was stopped: nothing can be said.
    Invalid,
}

/// All that is known before a call is sent, and needed to judge what comes of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// See [`crate::record::SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Names its folder.
    pub id: String,
    /// The run behind the plan and the law.
    pub run: String,
    /// When it was driven (UTC, RFC 3339).
    pub created: String,
    /// What was driven.
    pub target: String,
    /// What must stand beside every number.
    pub labels: Vec<String>,
    /// What has to hold.
    pub limits: Slo,
    /// GPUs of the plan.
    pub planned_gpus: u64,
    /// GPUs (or devices) of the target.
    pub driven_gpus: u32,
    /// Calls/s on average for each GPU of the plan.
    pub average_calls_per_s_per_gpu: f64,
    /// Seconds of a spike that were asked for.
    pub spike_s: f64,
    /// What the plan says of each phase.
    pub expected: Vec<ExpectedPhase>,
    /// What the fitted law makes of the course.
    pub simulated: Trial,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LiveLitmus {
    /// What was known before.
    #[serde(flatten)]
    pub begun: Begun,
    /// What had to hold, in words.
    pub slo: String,
    /// What happened.
    pub measured: Trial,
    /// That and the simulation, point by point.
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

impl LiveLitmus {
    /// What was known, beside what happened.
    #[must_use]
    pub fn of(begun: Begun, measured: Trial, audit: Audit, invalid: Vec<String>) -> Self {
        let verdict = match measured.holds() {
            _ if !invalid.is_empty() => LiveVerdict::Invalid,
            true => LiveVerdict::Holds,
            false => LiveVerdict::Breaks,
        };
        let compared = compare(&measured, &begun.simulated);
        let slo = begun.limits.to_string();
        let mut litmus = Self { begun, slo, measured, compared, audit, invalid, verdict, findings: Vec::new() };
        litmus.findings = findings(&litmus);
        litmus
    }
}

/// Phase by phase, as far as calls came.
fn compare(measured: &Trial, simulated: &Trial) -> Vec<ComparedPhase> {
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
    measured.phases.iter().zip(&simulated.phases).filter(|(measured, _)| measured.calls > 0).map(of).collect()
}

/// What is to be said of it.
fn findings(live: &LiveLitmus) -> Vec<Finding> {
    let mut findings: Vec<Finding> = own::shorter(&live.measured.course, live.begun.spike_s).into_iter().collect();
    if u64::from(live.begun.driven_gpus) < live.begun.planned_gpus {
        findings.push(Finding::new(
            "part_of_the_fleet",
            Severity::Note,
            format!(
                "{} of {} planned GPUs were driven, with their share of the load: neither routing nor scale-out was tested",
                live.begun.driven_gpus, live.begun.planned_gpus
            ),
            "see what the simulated fleet says (`plimsoll spike`), or drive the fleet's own address with `--target`",
        ));
    }
    let against = live.begun.expected.iter().zip(&live.measured.phases).find(|(expected, phase)| match expected.expected {
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
