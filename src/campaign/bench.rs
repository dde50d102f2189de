//! The order of a run: reference, sweep, search, confirmation, load-latency curve, reference again; then the headline.

use crate::campaign::confirmation::{Confirmation, ConfirmationSpec, Confirmed, ConfirmedLevel, Next};
use crate::campaign::crossing::{Counted, LevelShares};
use crate::campaign::headline;
use crate::campaign::measure::{Bench, Halt};
use crate::campaign::open::Aim;
use crate::campaign::progress::Progress;
use crate::campaign::search::{Found, Probed, Search, SearchSpec, Step, Stop};
use crate::campaign::sweep::{Shown, Sweep};
use crate::campaign::targets::Targets;
use crate::clock::Nanos;
use crate::record::level::{LevelRecord, ObjectiveJudgement, Offered, Purpose};
use crate::record::run::{Drift, Headline};
use crate::record::slo::{Objective, Slo, SloMetric, SloSource};
use crate::record::verdict::Outcome;
use crate::rng;
use crate::stats::share::Block;
use crate::target::Target;

/// Most probes of one search.
const PROBES_MAX: usize = 24;
/// The same with `--quick`.
const PROBES_QUICK: usize = 8;
/// `--quick`: the SLO as a multiple of what one request alone takes.
const QUICK_TTFT: f64 = 10.0;
const QUICK_TPOT: f64 = 3.0;
const QUICK_PERCENTILE: f64 = 90.0;
/// The lowest rate worth searching, as a share of the plateau.
const MINIMUM: f64 = 1.0 / 64.0;

/// What a campaign came to, beside its levels.
#[derive(Debug, Default)]
pub struct Result {
    /// The objectives that were used.
    pub slo: Option<Slo>,
    /// The reference, first and last.
    pub drift: Option<Drift>,
    /// The number; `None` when the campaign was halted before the search.
    pub headline: Option<Headline>,
    /// Why it stopped early.
    pub halted: Option<Halt>,
    /// Time to first token of the first reference request, milliseconds.
    pub first_request_ms: Option<f64>,
}

/// Runs the campaign. Levels are in `bench.levels`, also when it is halted.
///
/// # Errors
/// When a target cannot be made, or a level cannot be measured or saved; what was saved stays.
pub fn run(bench: &mut Bench<'_>, targets: &mut dyn Targets) -> anyhow::Result<Result> {
    let mut result = Result::default();
    let done = stages(bench, targets, &mut result);
    match done {
        Ok(()) => {}
        Err(error) => match error.downcast_ref::<Halt>() {
            Some(halt) => result.halted = Some(*halt),
            None => return Err(error),
        },
    }
    if result.headline.is_none() && result.halted == Some(Halt::Budget) {
        result.headline = Some(headline::out_of_budget());
    }
    Ok(result)
}

fn stages(bench: &mut Bench<'_>, targets: &mut dyn Targets, result: &mut Result) -> anyhow::Result<()> {
    let mut target = targets.fresh()?;
    let first = bench.closed(&mut *target, reference("first"), 1, bench.plan.slo.clone().as_ref())?;
    result.first_request_ms = first.latency.ttft_service.raw.max;
    let slo = match &bench.plan.slo {
        Some(slo) => slo.clone(),
        None => relative_slo(&first),
    };
    bench.watcher.tell(Progress::Note(format!("SLO {slo}")));
    result.slo = Some(slo.clone());

    let plateau = sweep(bench, targets, &mut *target, &slo)?;
    drop(target);
    let found = search(bench, targets, &slo, plateau)?;
    let confirmed = match found.rate {
        Some(rate) if found.stop != Stop::Undecided => Some(confirm(bench, targets, &slo, rate)?),
        _ => None,
    };
    let devices = f64::from(targets.identity().devices.max(1));
    let mut number = headline::of(&found, confirmed.as_ref(), &bench.levels, devices);
    result.headline = Some(number.clone());
    if let Some(rate) = number.throughput_per_gpu {
        curve(bench, targets, &slo, rate * devices)?;
    }

    let mut target = targets.fresh()?;
    let last = bench.closed(&mut *target, reference("last"), 1, Some(&slo))?;
    let drift = drift(&first, &last, bench.plan.drift_limit);
    result.drift = Some(drift);
    headline::judge_drift(&mut number, &drift);
    result.headline = Some(number);
    Ok(())
}

/// How far the reference moved, beside what its own precision explains.
fn drift(first: &LevelRecord, last: &LevelRecord, limit: f64) -> Drift {
    let half_width = |level: &LevelRecord| {
        let interval = level.throughput.interval?;
        Some(0.5 * (interval.high - interval.low) / level.throughput.calls_per_s)
    };
    let noise = half_width(first).zip(half_width(last)).map_or(0.0, |(first, last)| first.hypot(last));
    Drift { first: first.throughput.output_tokens_per_s, last: last.throughput.output_tokens_per_s, limit, noise }
}

fn reference(position: &str) -> Purpose {
    Purpose::Reference { position: position.to_owned() }
}

/// `--quick`: what one request alone takes, times 10 to the first token and times 3 for each further one.
fn relative_slo(reference: &LevelRecord) -> Slo {
    let objective = |metric, millis: Option<f64>, times: f64| {
        let limit = Nanos::from_secs_f64(millis? * times / 1000.0);
        (limit.0 > 0).then_some(Objective { metric, percentile: QUICK_PERCENTILE, limit })
    };
    let objectives: Vec<Objective> = [
        objective(SloMetric::Ttft, reference.latency.ttft.raw.p50, QUICK_TTFT),
        objective(SloMetric::Tpot, reference.latency.tpot.raw.p50, QUICK_TPOT),
    ]
    .into_iter()
    .flatten()
    .collect();
    if objectives.is_empty() { Slo::default_limits() } else { Slo { objectives, source: SloSource::IdleReference } }
}

/// Rising concurrency. Returns the plateau, calls/s: where the search starts, and never what it finds.
fn sweep(bench: &mut Bench<'_>, targets: &mut dyn Targets, target: &mut dyn Target, slo: &Slo) -> anyhow::Result<f64> {
    let limit = bench.plan.most_concurrency.min(targets.most_in_flight());
    let mut sweep = Sweep::new(limit, bench.plan.fill_levels);
    let mut plateau = 0.0_f64;
    while let Some(concurrency) = sweep.next_level() {
        let level = bench.closed(target, Purpose::Sweep, concurrency, Some(slo))?;
        if level.verdict.is_valid() {
            plateau = plateau.max(level.throughput.calls_per_s);
        }
        sweep.report(Shown {
            concurrency,
            tokens_per_s: level.throughput.output_tokens_per_s,
            error_share: 1.0 - level.counts.completed as f64 / (level.counts.cohort as f64).max(1.0),
            preempts: level.target.preemptions > 0,
            valid: level.verdict.is_valid(),
        });
    }
    if let (Some(knee), Some(ended)) = (sweep.knee(), sweep.ended()) {
        bench.watcher.tell(Progress::Note(format!("sweep ended ({ended:?}), knee at {knee} in flight, plateau {plateau:.2} calls/s")));
    }
    Ok(plateau)
}

fn search(bench: &mut Bench<'_>, targets: &mut dyn Targets, slo: &Slo, plateau: f64) -> anyhow::Result<Found> {
    let start = if plateau > 0.0 { plateau / 2.0 } else { 1.0 };
    let (minimum, maximum) = (start * MINIMUM, bench.ceiling.map_or(start * 64.0, |ceiling| (0.5 * ceiling).max(start)));
    let mut search = Search::new(SearchSpec {
        start: bench.plan.first_rate.unwrap_or(start).clamp(minimum, maximum),
        minimum,
        maximum,
        tolerance: bench.plan.windows.tolerance,
        probes_max: if bench.plan.quick { PROBES_QUICK } else { PROBES_MAX },
        allowed: allowed(slo),
        seed: rng::derive(bench.plan.seed, "search"),
    });
    let mut target = targets.fresh()?;
    loop {
        match search.next() {
            Step::Done(found) => {
                bench.watcher.tell(Progress::Note(headline::in_words(&found)));
                return Ok(found);
            }
            Step::Probe { rate, .. } => {
                let level = match bench.open(&mut *target, Purpose::Search, rate, slo, Aim::Decide) {
                    Ok(level) => level,
                    Err(error) if error.downcast_ref::<Halt>() == Some(&Halt::Budget) => return Ok(search.out_of_budget()),
                    Err(error) => return Err(error),
                };
                let outcome = if bench.plan.quick { likely_outcome(&level) } else { outcome(&level) };
                search.report(Probed { level: shares(&level, rate), outcome });
            }
        }
    }
}

fn confirm(bench: &mut Bench<'_>, targets: &mut dyn Targets, slo: &Slo, found: f64) -> anyhow::Result<Confirmed> {
    let mut confirmation = Confirmation::new(ConfirmationSpec {
        found,
        runs: bench.plan.windows.confirmation_runs,
        step: bench.plan.windows.confirmation_step,
        extensions_max: bench.plan.windows.extensions_max,
        allowed: allowed(slo),
        seed: rng::derive(bench.plan.seed, "confirmation"),
    });
    let mut fresh: Option<(u32, Box<dyn Target>)> = None;
    loop {
        match confirmation.next() {
            Next::Done(confirmed) => return Ok(confirmed),
            Next::Measure { run, rate, .. } => {
                if fresh.as_ref().is_none_or(|(of, _)| *of != run) {
                    // The old engine goes before the new one comes: their caches need not fit side by side.
                    drop(fresh.take());
                    fresh = Some((run, targets.fresh()?));
                }
                let Some((_, target)) = &mut fresh else { continue };
                let level = bench.open(&mut **target, Purpose::Confirmation { run }, rate, slo, Aim::Confirm)?;
                confirmation.report(ConfirmedLevel { run, level: shares(&level, rate), outcome: outcome(&level) });
            }
        }
    }
}

fn curve(bench: &mut Bench<'_>, targets: &mut dyn Targets, slo: &Slo, rate: f64) -> anyhow::Result<()> {
    let mut target = targets.fresh()?;
    for share in bench.plan.curve.clone() {
        bench.open(&mut *target, Purpose::Curve, rate * share, slo, Aim::Confirm)?;
    }
    Ok(())
}

fn allowed(slo: &Slo) -> Vec<f64> {
    slo.objectives.iter().map(Objective::allowed_miss_share).collect()
}

/// Misses and requests of each objective at the offered rate.
fn shares(level: &LevelRecord, rate: f64) -> LevelShares {
    debug_assert!(matches!(level.offered, Offered::Open { .. }), "only open-loop levels are judged");
    let counted = |objective: &ObjectiveJudgement| Counted {
        block: Block { misses: objective.misses, requests: objective.requests },
        clustering: objective.clustering,
        worth: objective.worth,
        freedom: objective.blocks.saturating_sub(1),
    };
    LevelShares { rate, objectives: level.slo.objectives.iter().map(counted).collect() }
}

/// `--quick` finds its way by the likelier of the two where its short windows decide nothing: confirmation decides.
fn likely_outcome(level: &LevelRecord) -> Option<Outcome> {
    let outcome = outcome(level)?;
    let within = |objective: &ObjectiveJudgement| objective.miss_share <= objective.objective.allowed_miss_share();
    let mut defined = level.slo.objectives.iter().filter(|objective| objective.requests > 0).peekable();
    Some(match outcome {
        Outcome::Undecided if defined.peek().is_none() => Outcome::Undecided,
        Outcome::Undecided if defined.all(within) => Outcome::Met,
        Outcome::Undecided => Outcome::Broken,
        decided => decided,
    })
}

/// `None`: invalid, so no bound.
fn outcome(level: &LevelRecord) -> Option<Outcome> {
    level.verdict.is_valid().then_some(level.verdict.outcome)
}
