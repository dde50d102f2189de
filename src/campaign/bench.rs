//! The order of a run: reference, sweep, search, confirmation, load-latency curve, reference again; then the headline.

use anyhow::Context;

use crate::campaign::confirmation::{Confirmation, ConfirmationSpec, Confirmed, ConfirmedLevel, Next};
use crate::campaign::crossing::{Counted, LevelShares};
use crate::campaign::headline;
use crate::campaign::idle;
use crate::campaign::measure::{Bench, Halt};
use crate::campaign::open::Aim;
use crate::campaign::plan::{QUICK_PERCENTILE, ROOM};
use crate::campaign::planner_stage;
use crate::campaign::progress::Progress;
use crate::campaign::search::{Probed, Search, SearchSpec, Step};
use crate::campaign::sweep::{Shown, Sweep};
use crate::campaign::targets::{Held, Targets};
use crate::clock::Nanos;
use crate::record::level::{LevelRecord, ObjectiveJudgement, Offered, Purpose};
use crate::record::run::{Drift, Headline};
use crate::record::search::{Found, Stop};
use crate::record::slo::{Objective, Slo, SloMetric, SloSource};
use crate::record::telemetry::IdlePower;
use crate::record::verdict::Outcome;
use crate::rng;
use crate::stats::share::{Block, bounds_at};
use crate::store::request_log::estimated_bytes;

/// Most probes of one search.
const PROBES_MAX: usize = 24;
/// The same with `--quick`.
const PROBES_QUICK: usize = 8;
/// `--quick`: the SLO as a multiple of what one request alone takes.
const QUICK_TTFT: f64 = 10.0;
const QUICK_TPOT: f64 = 3.0;
/// Times the reference is measured while it is invalid.
const REFERENCES: u32 = 3;
/// Confidence with which one request alone breaks an objective.
const BOUNDS: f64 = 0.95;
/// The lowest rate worth searching, as a share of the plateau.
const MINIMUM: f64 = 1.0 / 64.0;

/// About what the request log keeps up with, requests/s.
const LOGGED_PER_S: f64 = 20_000.0;

/// What a campaign came to, beside its levels.
#[derive(Debug, Default)]
pub struct Result {
    /// The objectives that were used.
    pub slo: Option<Slo>,
    /// The reference, first and last; `None` where they cannot be compared.
    pub drift: Option<Drift>,
    /// What the search found.
    pub search: Option<Found>,
    /// The number; `None` when the campaign was halted before the search.
    pub headline: Option<Headline>,
    /// Why it stopped early.
    pub halted: Option<Halt>,
    /// Time to first token of the very first request, milliseconds.
    pub first_request_ms: Option<f64>,
    /// What the watched GPUs used while idle, where it was measured by this process.
    pub idle: Vec<IdlePower>,
    /// What windows were multiplied by for the budget, where they were.
    pub pace: Option<f64>,
}

/// Runs the campaign. Levels are in `bench.levels`, also when it is halted.
///
/// # Errors
/// When a target cannot be made, or a level cannot be measured or saved; what was saved stays.
pub fn run(bench: &mut Bench<'_>, targets: &mut dyn Targets) -> anyhow::Result<Result> {
    let mut result = Result::default();
    let halted = unless_halted(stages(bench, &mut Held::of(targets), &mut result))?;
    result.halted = result.halted.or(halted);
    result.first_request_ms = bench.first_request_ms;
    result.pace = (bench.pace < 1.0).then_some(bench.pace);
    Ok(result)
}

/// A halt is an end of a campaign, not a failure of it.
fn unless_halted(done: anyhow::Result<()>) -> anyhow::Result<Option<Halt>> {
    match done {
        Ok(()) => Ok(None),
        Err(error) => error.downcast_ref::<Halt>().copied().map(Some).ok_or(error),
    }
}

fn stages(bench: &mut Bench<'_>, target: &mut Held<'_>, result: &mut Result) -> anyhow::Result<()> {
    target.alive()?;
    result.idle = idle::measure(bench)?;
    let first = reference(bench, target, "first", bench.plan.slo.clone().as_ref())?;
    if !first.verdict.is_valid() {
        result.headline = Some(headline::no_reference(&first));
        return Ok(());
    }
    let slo = match &bench.plan.slo {
        Some(slo) => slo.clone(),
        None => relative_slo(&first),
    };
    bench.watcher.tell(Progress::Note(format!("SLO {slo}")));
    result.slo = Some(slo.clone());
    let first_request_ms = bench.first_request_ms;
    bench.journal.learn(|run| {
        run.slo = Some(slo.clone());
        run.cold_start.first_request_ms = run.cold_start.first_request_ms.or(first_request_ms);
    })?;

    match unless_halted(under_load(bench, target, &slo, &first, result))? {
        Some(Halt::Budget) => {
            result.halted = Some(Halt::Budget);
            if result.headline.as_ref().is_none_or(|headline| headline.throughput_per_gpu.is_none()) {
                result.headline = Some(headline::out_of_budget(result.headline.take()));
            }
        }
        Some(halt) => return Err(halt.into()),
        None => {}
    }
    if result.halted.is_none() {
        match unless_halted(planner_stage::measure(bench, target))? {
            Some(Halt::Budget) => result.halted = Some(Halt::Budget),
            Some(halt) => return Err(halt.into()),
            None => {}
        }
    }
    let Some(mut number) = result.headline.clone().filter(|number| number.throughput_per_gpu.is_some() || number.bracket.is_some()) else {
        return Ok(());
    };
    target.renew();
    let last = reference(bench, target, "last", Some(&slo))?;
    result.drift = drift(&first, &last, bench.plan.drift_limit);
    headline::judge_drift(&mut number, result.drift.as_ref(), bench.plan.quick || bench.pace < 1.0);
    bench.journal.learn(|run| {
        run.drift = result.drift;
        run.headline = Some(number.clone());
    })?;
    result.headline = Some(number);
    Ok(())
}

/// All between the two references. What is found is in `result` as soon as it is known.
fn under_load(bench: &mut Bench<'_>, target: &mut Held<'_>, slo: &Slo, first: &LevelRecord, result: &mut Result) -> anyhow::Result<()> {
    let e2e_s = first.latency.e2e.raw.mean.unwrap_or(0.0) / 1000.0;
    // Nobody knows yet what the target can do at once: a few times what it does one by one.
    let guess = bench.plan.expected(e2e_s, 4.0 * first.throughput.calls_per_s, 1.0).total_s();
    bench.watcher.tell(Progress::Begins { expected_s: bench.plan.budget.map_or(guess, |budget| guess.min(budget.as_secs_f64())) });
    let (plan, alone) = (bench.plan, first.throughput.calls_per_s);
    bench.keep_to_budget(|pace| plan.expected(e2e_s, 4.0 * alone, pace).total_s());
    require_room(bench, guess, alone)?;

    let plateau = sweep(bench, target, slo)?;
    let expected = move |pace| plan.expected(e2e_s, plateau, pace);
    bench.keep_to_budget(|pace| expected(pace).after_sweep_s());
    target.renew();
    if let Some(broken) = broken_when_idle(first) {
        result.headline = Some(headline::unmet_when_idle(&broken));
        return Ok(());
    }
    if plateau <= 0.0 && bench.levels.iter().any(|level| level.verdict.is_valid()) {
        // Not one request completes, one at a time: there is no lower load to try.
        let number = headline::of(
            &Found { stop: Stop::SloUnmetAtMinimum, rate: None, pass: None, fail: None, gap: None, probes: 0, valid: 0 },
            None,
            &[],
            1.0,
        );
        result.headline =
            Some(Headline { explanation: "the target completes nothing, not even one request at a time".to_owned(), ..number });
        return Ok(());
    }
    let found = search(bench, target, slo, plateau, result)?;
    result.search = Some(found.clone());
    let devices = target.devices();
    let mut number = headline::of(&found, None, &bench.levels, devices);
    bench.journal.learn(|run| run.headline = Some(number.clone()))?;
    result.headline = Some(number.clone());
    if result.halted.is_some() {
        return Err(Halt::Budget.into());
    }
    if let Some(rate) = found.rate.filter(|_| found.stop != Stop::Undecided) {
        // The curve comes last and has what is left: it moves no number.
        bench.keep_to_budget(|pace| ROOM * expected(pace).confirmation_s + expected(pace).planner_s + expected(pace).reference_s);
        let confirmed = confirm(bench, target, slo, rate, result)?;
        number = headline::of(&found, Some(&confirmed), &bench.levels, devices);
        bench.journal.learn(|run| run.headline = Some(number.clone()))?;
        result.headline = Some(number.clone());
        if result.halted.is_some() {
            return Err(Halt::Budget.into());
        }
    }
    match number.throughput_per_gpu {
        Some(rate) => curve(bench, target, slo, rate * devices),
        None => Ok(()),
    }
}

/// Refuses to send load for hours only to find the disk full.
fn require_room(bench: &Bench<'_>, expected_s: f64, calls_per_s: f64) -> anyhow::Result<()> {
    let tokens = bench.traffic.record().mean_output_tokens;
    // A float-to-integer `as` saturates, and NaN becomes 0.
    let requests = (expected_s * calls_per_s.min(LOGGED_PER_S)) as u64;
    bench
        .journal
        .require_room(estimated_bytes(requests, tokens))
        .context("cannot keep every request of such a run (`--no-request-log` keeps none)")
}

/// How far the reference moved, beside what its own precision explains; `None` where the last one is invalid.
fn drift(first: &LevelRecord, last: &LevelRecord, limit: f64) -> Option<Drift> {
    let tokens = |level: &LevelRecord| level.throughput.output_tokens_per_s;
    let half_width = |level: &LevelRecord| {
        let interval = level.throughput.tokens_interval?;
        Some(0.5 * (interval.high - interval.low) / tokens(level)).filter(|noise| noise.is_finite())
    };
    let noise = half_width(first).zip(half_width(last)).map(|(first, last)| first.hypot(last));
    last.verdict.is_valid().then(|| Drift { first: tokens(first), last: tokens(last), limit, noise })
}

/// The reference level on a fresh target; again, on another one, while it is invalid.
fn reference(bench: &mut Bench<'_>, target: &mut Held<'_>, position: &str, slo: Option<&Slo>) -> anyhow::Result<LevelRecord> {
    let mut measured = 0;
    loop {
        let level = bench.closed(target.alive()?, Purpose::Reference { position: position.to_owned() }, 1, slo)?;
        measured += 1;
        if level.verdict.is_valid() || measured == REFERENCES {
            return Ok(level);
        }
        target.renew();
    }
}

/// The objective that one request alone breaks, in words: then no load meets it.
fn broken_when_idle(reference: &LevelRecord) -> Option<String> {
    let broken = |objective: &&ObjectiveJudgement| {
        let counts = Block { misses: objective.misses, requests: objective.requests };
        bounds_at(counts, 1.0, counts.requests, BOUNDS).is_some_and(|bounds| bounds.low > objective.objective.allowed_miss_share())
    };
    let objective = reference.slo.objectives.iter().find(broken)?;
    Some(format!(
        "{} of {} requests that had the target to themselves missed {}",
        objective.misses, objective.requests, objective.objective
    ))
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
fn sweep(bench: &mut Bench<'_>, target: &mut Held<'_>, slo: &Slo) -> anyhow::Result<f64> {
    // Steps are of each device: all of them are at work at once.
    let devices = target.devices() as u32;
    let limit = bench.plan.most_concurrency.min(target.most_in_flight()) / devices;
    let mut sweep = Sweep::new(limit.max(1), bench.plan.fill_levels);
    let mut best: Option<(f64, u32)> = None;
    let mut plateau = 0.0_f64;
    while let Some(concurrency) = sweep.next_level() {
        let level = bench.closed(target.alive()?, Purpose::Sweep, concurrency * devices, Some(slo))?;
        if level.verdict.is_valid() {
            plateau = plateau.max(level.throughput.calls_per_s);
            let tokens = level.throughput.output_tokens_per_s;
            best = best.filter(|(most, _)| *most >= tokens).or(Some((tokens, concurrency)));
        }
        sweep.report(Shown {
            concurrency,
            tokens_per_s: level.throughput.output_tokens_per_s,
            error_share: (level.counts.cohort - level.counts.completed) as f64 / (level.counts.cohort as f64).max(1.0),
            preempts: level.target.preemptions > 0,
            valid: level.verdict.is_valid(),
        });
    }
    if let (Some(knee), Some(ended)) = (sweep.knee(), sweep.ended()) {
        bench.watcher.tell(Progress::Note(format!("sweep ended ({ended:?}), knee at {knee} in flight, plateau {plateau:.2} calls/s")));
    }
    if let (Some((_, concurrency)), true) = (best, devices > 1) {
        target.renew();
        let alive = target.alive()?;
        let device = alive.identity().device.split(',').next().unwrap_or_default().to_owned();
        bench.closed(alive, Purpose::Solo { device }, concurrency, Some(slo))?;
    }
    Ok(plateau)
}

/// The search as far as the budget goes; `result.halted` says if it ended there.
fn search(bench: &mut Bench<'_>, target: &mut Held<'_>, slo: &Slo, plateau: f64, result: &mut Result) -> anyhow::Result<Found> {
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
    let found = loop {
        match search.next() {
            Step::Done(found) => break found,
            Step::Probe { rate, .. } => match bench.open(target.alive()?, Purpose::Search, rate, slo, Aim::Decide) {
                Ok(level) => {
                    // Short windows decide little.
                    let likely = if bench.plan.quick || bench.pace < 1.0 { likely_outcome(&level) } else { outcome(&level) };
                    search.report(Probed { level: shares(&level, rate), outcome: outcome(&level), likely });
                }
                Err(error) => {
                    result.halted = out_of_budget(error)?;
                    break search.out_of_budget();
                }
            },
        }
    };
    bench.watcher.tell(Progress::Note(headline::in_words(&found)));
    Ok(found)
}

/// Confirmation as far as the budget goes; `result.halted` says if it ended there.
fn confirm(bench: &mut Bench<'_>, target: &mut Held<'_>, slo: &Slo, found: f64, result: &mut Result) -> anyhow::Result<Confirmed> {
    let mut confirmation = Confirmation::new(ConfirmationSpec {
        found,
        runs: bench.plan.windows.confirmation_runs,
        step: bench.plan.windows.confirmation_step,
        step_growth: bench.plan.windows.step_growth,
        extensions_max: bench.plan.windows.extensions_max,
        allowed: allowed(slo),
        seed: rng::derive(bench.plan.seed, "confirmation"),
    });
    let mut before = None;
    loop {
        match confirmation.next() {
            Next::Done(confirmed) => return Ok(confirmed),
            Next::Measure { run, rate, .. } => {
                if before.replace(run) != Some(run) {
                    target.renew();
                }
                match bench.open(target.alive()?, Purpose::Confirmation { run }, rate, slo, Aim::Confirm) {
                    Ok(level) => confirmation.report(ConfirmedLevel { run, level: shares(&level, rate), outcome: outcome(&level) }),
                    Err(error) => {
                        result.halted = out_of_budget(error)?;
                        return Ok(confirmation.out_of_budget());
                    }
                }
            }
        }
    }
}

/// A spent budget ends a stage with what it found; everything else ends the campaign.
fn out_of_budget(error: anyhow::Error) -> anyhow::Result<Option<Halt>> {
    match error.downcast_ref::<Halt>() {
        Some(Halt::Budget) => Ok(Some(Halt::Budget)),
        _ => Err(error),
    }
}

fn curve(bench: &mut Bench<'_>, target: &mut Held<'_>, slo: &Slo, rate: f64) -> anyhow::Result<()> {
    target.renew();
    for share in bench.plan.curve.clone() {
        bench.open(target.alive()?, Purpose::Curve, rate * share, slo, Aim::Show)?;
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

/// `--quick` and a shortening budget find their way by the likelier of the two where short windows decide nothing: confirmation decides.
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
