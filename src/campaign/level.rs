//! Measures one load level: drives the target under a judge's rules and writes down what was seen, with its verdict.

use crate::campaign::instruments::Witnessed;
use crate::campaign::tally::{self, Brief};
use crate::campaign::validity::{self, Course, Measured, Tokens};
use crate::campaign::watch::Watched;
use crate::clock::Nanos;
use crate::load::Driven;
use crate::record::SCHEMA_VERSION;
use crate::record::level::{
    DeviceShare, GeneratorAudit, InFlight, LevelRecord, ObjectiveJudgement, Offered, PerDevice, Purpose, SloJudgement, Throughput,
};
use crate::record::request::{Ending, FailureKind};
use crate::record::slo::Slo;
use crate::record::target::TargetCounters;
use crate::record::verdict::{Outcome, Verdict};
use crate::stats::interval::Interval;
use crate::workload::request::Tally;

/// A target that refuses more than this share of the requests sheds load.
const SHEDDING: f64 = 0.01;

/// What a level is, before it is measured.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelSpec {
    /// Order of measurement, from 0.
    pub index: u32,
    /// What for.
    pub purpose: Purpose,
    /// What is offered.
    pub offered: Offered,
    /// Seed of arrivals and prompts.
    pub seed: u64,
}

/// What a judge decided, as far as the record keeps it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Judged {
    /// Each objective; empty where none was judged.
    pub objectives: Vec<ObjectiveJudgement>,
    /// Why nothing could be decided; empty where it could.
    pub undecided: String,
    /// The system's outcome by the rules of the level.
    pub outcome: Option<Outcome>,
    /// Closed loop: interval of calls/s.
    pub interval: Option<Interval>,
    /// Closed loop: interval of output tokens/s.
    pub tokens_interval: Option<Interval>,
    /// Open loop: the window that a decision needs, where a quick run cut it.
    pub needed: Option<Nanos>,
    /// Slope of requests in flight, per second.
    pub slope: Option<Interval>,
}

/// Everything that is known of a level when it is over.
#[derive(Debug)]
pub struct Seen<'a> {
    /// What it was.
    pub spec: LevelSpec,
    /// What was watched.
    pub watched: Watched,
    /// What the generator says.
    pub driven: Driven,
    /// What the traffic made.
    pub made: Tally,
    /// What was decided.
    pub judged: Judged,
    /// The objectives, where there are any.
    pub slo: Option<&'a Slo>,
    /// Devices the target owns.
    pub devices: u32,
    /// The target's counters over the level.
    pub counters: TargetCounters,
    /// The same of each device that was at work, by its name, where the target has several.
    pub by_device: Vec<(String, TargetCounters)>,
    /// What the GPUs and the server say.
    pub witnessed: Witnessed,
    /// Whether answers ended when the model ended them.
    pub natural_length: bool,
    /// Whether time was simulated.
    pub virtual_time: bool,
    /// The generator's ceiling, calls/s, where it was measured.
    pub ceiling: Option<f64>,
    /// When it began, for people.
    pub started: String,
}

/// The record of a level.
#[must_use]
pub fn record(seen: Seen<'_>) -> LevelRecord {
    let watched = &seen.watched;
    let (from, to) = watched.window;
    let window_s = to.since(from).as_secs_f64();
    let latency = tally::latencies(&watched.cohort, &watched.gaps);
    let counts = tally::counts(&watched.cohort, watched.whole_level);
    let open_loop = matches!(seen.spec.offered, Offered::Open { .. });
    let audit = audit(&seen, window_s);
    let mut invalid = validity::judge(&Measured {
        cohort: &watched.cohort,
        latency: &latency,
        audit: &audit,
        driven: &seen.driven,
        course: watched.course,
        tokens: Tokens {
            by_target: seen.counters.decode_tokens,
            received: watched.whole_level_tokens,
            in_flight: watched.series.max_in_flight(),
        },
        open_loop,
        natural_length: seen.natural_length,
        virtual_time: seen.virtual_time,
    });
    let Witnessed { telemetry, server, invalid: by_instruments, findings } = seen.witnessed.clone();
    invalid.extend(by_instruments);
    let throughput = throughput(&seen, window_s, open_loop);
    let outcome = outcome(&seen.judged, watched);
    LevelRecord {
        schema_version: SCHEMA_VERSION,
        index: seen.spec.index,
        purpose: seen.spec.purpose.clone(),
        offered: seen.spec.offered.clone(),
        seed: seen.spec.seed,
        started: seen.started.clone(),
        warm_up_s: from.since(watched.begin).as_secs_f64(),
        window_s,
        window: (from, to),
        tail_s: seen.driven.span.1.since(to).as_secs_f64(),
        per_device: PerDevice {
            devices: seen.devices,
            calls_per_s: throughput.calls_per_s / f64::from(seen.devices.max(1)),
            output_tokens_per_s: throughput.output_tokens_per_s / f64::from(seen.devices.max(1)),
        },
        by_device: by_device(&seen.by_device, throughput.output_tokens_per_s),
        throughput,
        counts,
        traffic: seen.made.clone(),
        in_flight: in_flight(watched, seen.judged.slope),
        latency,
        slo: slo_judgement(&seen, window_s),
        generator: audit,
        target: seen.counters,
        telemetry,
        server,
        token_counts: tally::token_counts(&watched.cohort),
        findings,
        mbu: None,
        verdict: Verdict { invalid, outcome },
        request_log_bytes: 0,
        unlogged_requests: 0,
    }
}

/// The window's tokens divided as those of the whole level are.
fn by_device(counters: &[(String, TargetCounters)], output_tokens_per_s: f64) -> Vec<DeviceShare> {
    let all: u64 = counters.iter().map(|(_, counters)| counters.decode_tokens).sum();
    let share = |(device, counters): &(String, TargetCounters)| DeviceShare {
        device: device.clone(),
        output_tokens_per_s: output_tokens_per_s * counters.decode_tokens as f64 / (all as f64).max(1.0),
        preemptions: counters.preemptions,
    };
    counters.iter().map(share).collect()
}

fn audit(seen: &Seen<'_>, window_s: f64) -> GeneratorAudit {
    let watched = &seen.watched;
    let (_, to) = watched.window;
    let in_time = watched.cohort.iter().filter(|brief| brief.sent.is_some_and(|sent| sent <= to)).count();
    let achieved = if watched.cohort.is_empty() { 1.0 } else { in_time as f64 / watched.cohort.len() as f64 };
    let rate = watched.cohort.len() as f64 / window_s.max(f64::MIN_POSITIVE);
    GeneratorAudit {
        cpu_share: if seen.virtual_time || window_s <= 0.0 { 0.0 } else { watched.generator_cpu.as_secs_f64() / window_s },
        starved_share: if seen.virtual_time || window_s <= 0.0 { 0.0 } else { watched.generator_starved.as_secs_f64() / window_s },
        achieved_over_offered: achieved,
        events_lost: seen.driven.events_lost,
        longest_gap_ms: if seen.virtual_time { 0.0 } else { watched.longest_gap.as_millis_f64() },
        waited_at_cap: watched.waited_at_cap,
        ceiling_share: seen.ceiling.map(|ceiling| rate / ceiling),
    }
}

fn throughput(seen: &Seen<'_>, window_s: f64, open_loop: bool) -> Throughput {
    if window_s <= 0.0 {
        return Throughput::default();
    }
    let watched = &seen.watched;
    let (_, to) = watched.window;
    let bins = watched.series.whole(to);
    // Whole bins only: the window's end need not lie on an edge.
    let covered_s = (watched.series.width().as_secs_f64() * bins.len() as f64).max(f64::MIN_POSITIVE);
    let completions: u64 = bins.iter().map(|bin| bin.completions).sum();
    let tokens: u64 = bins.iter().map(|bin| bin.tokens).sum();
    let prompts: u64 = bins.iter().map(|bin| bin.prompt_tokens).sum();
    let completions_per_s = completions as f64 / covered_s;
    let (begin, end) = seen.driven.span;
    Throughput {
        calls_per_s: if open_loop { watched.cohort.len() as f64 / window_s } else { completions_per_s },
        completions_per_s,
        output_tokens_per_s: tokens as f64 / covered_s,
        prompt_tokens_per_s: prompts as f64 / covered_s,
        interval: seen.judged.interval,
        tokens_interval: seen.judged.tokens_interval,
        whole_level_output_tokens_per_s: watched.whole_level_tokens as f64 / end.since(begin).as_secs_f64().max(f64::MIN_POSITIVE),
    }
}

fn in_flight(watched: &Watched, slope: Option<Interval>) -> InFlight {
    let bins = watched.series.whole(watched.window.1);
    let mean = bins.iter().map(|bin| bin.in_flight).sum::<f64>() / bins.len().max(1) as f64;
    InFlight { mean, max: watched.series.max_in_flight(), slope }
}

fn slo_judgement(seen: &Seen<'_>, window_s: f64) -> SloJudgement {
    let Some(slo) = seen.slo else { return SloJudgement::default() };
    let cohort = &seen.watched.cohort;
    let good = cohort.iter().filter(|brief| brief.good(slo)).count();
    let objectives = if seen.judged.objectives.is_empty() { counted(slo, cohort) } else { seen.judged.objectives.clone() };
    SloJudgement {
        objectives,
        joint_attainment: good as f64 / cohort.len().max(1) as f64,
        goodput_calls_per_s: if window_s > 0.0 { good as f64 / window_s } else { 0.0 },
        undecided: if seen.watched.course == Course::Failing { String::new() } else { seen.judged.undecided.clone() },
        needed_s: seen.judged.needed.map(Nanos::as_secs_f64),
    }
}

/// Misses are counted on every level; closed-loop ones decide nothing by them.
fn counted(slo: &Slo, cohort: &[Brief]) -> Vec<ObjectiveJudgement> {
    let judgement = |objective| {
        let judged = cohort.iter().filter_map(|brief| brief.misses(objective));
        let (requests, misses) = judged.fold((0, 0), |(requests, misses), miss| (requests + 1, misses + u64::from(miss)));
        ObjectiveJudgement {
            objective: *objective,
            requests,
            misses,
            miss_share: misses as f64 / (requests as f64).max(1.0),
            clustering: 1.0,
            worth: 1.0,
            blocks: 0,
            bounds: None,
            outcome: Outcome::Measured,
        }
    };
    slo.objectives.iter().map(judgement).collect()
}

fn outcome(judged: &Judged, watched: &Watched) -> Outcome {
    if watched.out_of_memory {
        return Outcome::Oom;
    }
    let refused = watched.cohort.iter().filter(|brief| brief.ending == Ending::Failed(FailureKind::Refused)).count();
    if refused as f64 > SHEDDING * watched.cohort.len() as f64 {
        return Outcome::Shedding;
    }
    if watched.course == Course::Failing {
        return Outcome::Broken;
    }
    judged.outcome.unwrap_or(Outcome::Measured)
}
