//! A whole campaign through the program's own generator, in virtual time, on targets whose answer is known.

use plimsoll::campaign::bench;
use plimsoll::campaign::instruments::Instruments;
use plimsoll::campaign::interrupt::{Interrupt, Signal};
use plimsoll::campaign::journal::Journal;
use plimsoll::campaign::measure::{Bench, Halt};
use plimsoll::campaign::open::Aim;
use plimsoll::campaign::plan::Plan;
use plimsoll::campaign::progress::{Progress, Silent, Watcher};
use plimsoll::campaign::targets::{SimulatedTargets, Targets};
use plimsoll::campaign::traffic::Traffic;
use plimsoll::campaign::windows::Windows;
use plimsoll::clock::{Clock, Nanos, Virtual};
use plimsoll::queueing::law::{ServiceLaw, ServiceTime};
use plimsoll::queueing::truth::{highest_load, mm1_sojourn_over};
use plimsoll::record::level::{LevelRecord, Offered, Purpose};
use plimsoll::record::run::{HeadlineStatus, WorkloadRecord};
use plimsoll::record::slo::{Slo, SloSource};
use plimsoll::record::verdict::{Invalid, Outcome};
use plimsoll::rng;
use plimsoll::workload::arrivals::Schedule;
use plimsoll::workload::fit::Limits;
use plimsoll::workload::request::{Prompt, Request, RequestSource, Sampling};
use plimsoll::workload::spec::Workload;
use rand_distr::{Distribution, Exp1};

/// Poisson arrivals of requests of one shape.
pub(crate) struct Plain {
    pub(crate) output_tokens: u32,
}

struct Numbered {
    next: u64,
    output_tokens: u32,
}

impl RequestSource for Numbered {
    fn next_request(&mut self) -> Option<Request> {
        let id = self.next;
        self.next += 1;
        Some(Request { id, prompt: Prompt::unique(id, 8), output_tokens: self.output_tokens, sampling: Sampling::default(), session: None })
    }
}

impl Traffic for Plain {
    fn record(&self) -> WorkloadRecord {
        WorkloadRecord {
            name: "plain".to_owned(),
            mean_input_tokens: 8.0,
            mean_output_tokens: f64::from(self.output_tokens),
            arrivals: "poisson".to_owned(),
            source: "test".to_owned(),
            mix: None,
            trace: None,
            labels: Vec::new(),
            hash: "none".to_owned(),
        }
    }

    fn requests(&self, _seed: u64) -> anyhow::Result<Box<dyn RequestSource>> {
        Ok(Box::new(Numbered { next: 0, output_tokens: self.output_tokens }))
    }

    fn of_lengths(&self, seed: u64, prompt_tokens: u32, output_tokens: u32) -> anyhow::Result<Box<dyn RequestSource>> {
        Ok(Workload::fixed(prompt_tokens, output_tokens)?.source(seed, Limits { max_context: 1 << 20, vocab_size: 1 << 16 })?)
    }

    fn schedule(&self, calls_per_s: f64, seed: u64, _steady: Nanos) -> anyhow::Result<Schedule> {
        let mut stream = rng::stream(rng::derive(seed, "arrivals"), "gaps");
        let mut at = 0.0;
        Ok(Box::new(std::iter::repeat_with(move || {
            let gap: f64 = Exp1.sample(&mut stream);
            at += gap / calls_per_s;
            Nanos::from_secs_f64(at)
        })))
    }
}

pub(crate) struct Ran {
    pub(crate) result: bench::Result,
    pub(crate) levels: Vec<LevelRecord>,
    /// On its own clock.
    pub(crate) took: Nanos,
}

pub(crate) fn campaign(law: ServiceLaw, plan: &Plan, watcher: &mut dyn Watcher, interrupt: &Interrupt) -> Ran {
    campaign_of(4, law, plan, watcher, interrupt)
}

fn campaign_of(output_tokens: u32, law: ServiceLaw, plan: &Plan, watcher: &mut dyn Watcher, interrupt: &Interrupt) -> Ran {
    let mut targets = SimulatedTargets::new("test", law, rng::derive(plan.seed, "target"));
    campaign_on(output_tokens, &mut targets, plan, &mut Journal::none(), watcher, interrupt)
}

/// A campaign in virtual time on any targets, into any journal.
pub(crate) fn campaign_on(
    output_tokens: u32,
    targets: &mut dyn Targets,
    plan: &Plan,
    journal: &mut Journal,
    watcher: &mut dyn Watcher,
    interrupt: &Interrupt,
) -> Ran {
    let mut clock = Virtual::start();
    let traffic = Plain { output_tokens };
    let mut bench = Bench {
        plan,
        traffic: &traffic,
        clock: &mut clock,
        journal,
        watcher,
        interrupt,
        telemetry: &mut Instruments::none("simulated"),
        server: None,
        ceiling: None,
        pace: 1.0,
        first_request_ms: None,
        levels: Vec::new(),
    };
    let result = bench::run(&mut bench, targets).expect("a simulated campaign cannot fail");
    let levels = bench.levels;
    Ran { result, levels, took: clock.now() }
}

const SERVICE_S: f64 = 0.02;

pub(crate) fn mm1() -> ServiceLaw {
    ServiceLaw::Servers { count: 1, service: ServiceTime::Exponential { mean_s: SERVICE_S } }
}

pub(crate) fn slo(text: &str) -> Slo {
    Slo::parse(text, SloSource::Flag).expect("the test's SLO")
}

#[test]
fn a_campaign_finds_what_a_queue_can_do_and_never_reports_its_plateau() {
    let limit = 20.0 * SERVICE_S;
    let truth = highest_load(0.01, |load| mm1_sojourn_over(load, limit / SERVICE_S)) / SERVICE_S;
    let plan = Plan { slo: Some(slo("e2e:p99<400ms")), ..Plan::full(7) };
    let ran = campaign(mm1(), &plan, &mut Silent, &Interrupt::default());
    let headline = ran.result.headline.expect("the campaign went to its end");
    assert_eq!(headline.status, HeadlineStatus::Confirmed, "{}", headline.explanation);
    let found = headline.throughput_per_gpu.expect("it is confirmed");
    let interval = headline.interval.expect("three runs");
    assert!((found / truth - 1.0).abs() < 0.04, "found {found:.2}, truth {truth:.2}");
    assert!(interval.low <= found && found <= interval.high, "{interval:?}");
    let plateau =
        ran.levels.iter().filter(|level| level.purpose == Purpose::Sweep).map(|level| level.throughput.calls_per_s).fold(0.0, f64::max);
    assert!((plateau * SERVICE_S - 1.0).abs() < 0.05, "the plateau is the server's whole rate: {plateau:.2}");
    assert!(found < 0.85 * plateau);
    for level in &ran.levels {
        assert!(level.verdict.is_valid(), "{:?} {:?}: {}", level.purpose, level.offered, level.verdict);
    }
    let drift = ran.result.drift.expect("both references were measured");
    assert!(!drift.exceeded(), "{drift:?}");
}

#[test]
fn little_s_law_holds_on_every_level() {
    let plan = Plan { slo: Some(slo("e2e:p99<400ms")), ..Plan::full(3) };
    let ran = campaign(mm1(), &plan, &mut Silent, &Interrupt::default());
    for level in ran.levels.iter().filter(|level| level.verdict.outcome != Outcome::Unstable) {
        let latency_s = level.latency.e2e.raw.mean.expect("requests completed") / 1000.0;
        let expected = level.throughput.completions_per_s * latency_s;
        let off = (level.in_flight.mean / expected - 1.0).abs();
        assert!(off < 0.12, "{:?}: {:.2} in flight, X R = {expected:.2}", level.offered, level.in_flight.mean);
        if let Offered::Closed { concurrency } = level.offered {
            assert!((level.in_flight.mean / f64::from(concurrency) - 1.0).abs() < 0.02, "{level:?}");
        }
    }
}

/// The shape of `fixed:128:1`: TPOT is defined for no request.
#[test]
fn answers_of_one_token_are_judged_on_the_other_objectives() {
    let truth = highest_load(0.01, |load| mm1_sojourn_over(load, 20.0)) / SERVICE_S;
    let plan = Plan { slo: Some(slo("ttft:p99<400ms,tpot:p99<50ms")), ..Plan::full(7) };
    let ran = campaign_of(1, mm1(), &plan, &mut Silent, &Interrupt::default());
    let headline = ran.result.headline.expect("the campaign went to its end");
    assert_eq!(headline.status, HeadlineStatus::Confirmed, "{}", headline.explanation);
    let found = headline.throughput_per_gpu.expect("it is confirmed");
    assert!((found / truth - 1.0).abs() < 0.04, "found {found:.2}, truth {truth:.2}");
    for level in ran.levels.iter().filter(|level| matches!(level.offered, Offered::Open { .. })) {
        let tpot = &level.slo.objectives[1];
        assert_eq!((tpot.requests, tpot.outcome), (0, Outcome::Undefined));
        assert_eq!(level.latency.tpot.raw.undefined, level.counts.completed, "they are counted");
    }
    let plan = Plan { slo: Some(slo("tpot:p99<50ms")), ..Plan::full(7) };
    let ran = campaign_of(1, mm1(), &plan, &mut Silent, &Interrupt::default());
    let headline = ran.result.headline.expect("the campaign went to its end");
    assert_eq!(headline.status, HeadlineStatus::Undecided, "with no objective left nothing is decided: {}", headline.explanation);
}

#[test]
fn an_slo_that_is_broken_at_the_lowest_load_is_said_to_be() {
    let plan = Plan { slo: Some(slo("e2e:p99<20ms")), ..Plan::full(5) };
    let ran = campaign(mm1(), &plan, &mut Silent, &Interrupt::default());
    let headline = ran.result.headline.expect("the search ended");
    assert_eq!(headline.status, HeadlineStatus::SloUnmetAtMinimum, "{}", headline.explanation);
    assert_eq!(headline.throughput_per_gpu, None);
    assert!(headline.explanation.contains("one request alone"), "no search is needed: {}", headline.explanation);
    assert!(ran.levels.iter().all(|level| level.purpose != Purpose::Search));
}

#[test]
fn both_references_are_the_same_requests_and_their_noise_is_known() {
    let plan = Plan { slo: Some(slo("e2e:p99<400ms")), ..Plan::full(7) };
    let ran = campaign(mm1(), &plan, &mut Silent, &Interrupt::default());
    let references: Vec<u64> =
        ran.levels.iter().filter(|level| matches!(level.purpose, Purpose::Reference { .. })).map(|level| level.seed).collect();
    assert_eq!(references.len(), 2);
    assert_eq!(references[0], references[1]);
    let drift = ran.result.drift.expect("both references were measured");
    assert!(drift.resolved() && drift.noise.is_some_and(|noise| noise < 0.04), "{drift:?}");
}

#[test]
fn a_quick_run_is_decided_by_windows_of_seconds() {
    // Ten milliseconds a request: about 60 calls/s within the SLO, as the smallest model does on two cores.
    let law = ServiceLaw::Servers { count: 1, service: ServiceTime::Exponential { mean_s: 0.01 } };
    let mut decided = 0;
    for seed in 0..10 {
        let plan = Plan { slo: Some(slo("ttft:p90<60ms")), ..Plan::quick(seed) };
        let ran = campaign(law.clone(), &plan, &mut Silent, &Interrupt::default());
        let headline = ran.result.headline.expect("the campaign went to its end");
        let Some((pass, fail)) = headline.bracket.filter(|_| headline.status == HeadlineStatus::Confirmed) else { continue };
        decided += 1;
        assert!(pass < fail && headline.interval.is_some_and(|interval| interval.low <= pass && interval.high >= fail));
        let end = ran.levels.last().expect("it measured").window.1;
        assert!(end < Nanos::from_secs(120), "it took {:.0} s", end.as_secs_f64());
    }
    assert!(decided >= 9, "{decided} of 10");
}

/// One open-loop level of 100 s at 40 % of what the queue can do.
fn one_level(law: ServiceLaw, cap: u32) -> LevelRecord {
    let base = Plan::full(11);
    let plan = Plan { cap, windows: Windows { curve: Nanos::from_secs(100), ..base.windows }, ..base };
    let (mut clock, mut journal, interrupt) = (Virtual::start(), Journal::none(), Interrupt::default());
    let mut bench = Bench {
        plan: &plan,
        traffic: &Plain { output_tokens: 4 },
        clock: &mut clock,
        journal: &mut journal,
        watcher: &mut Silent,
        interrupt: &interrupt,
        telemetry: &mut Instruments::none("simulated"),
        server: None,
        ceiling: None,
        pace: 1.0,
        first_request_ms: None,
        levels: Vec::new(),
    };
    let mut target = SimulatedTargets::new("test", law, 3).fresh().expect("simulated targets are made of nothing");
    let slo = slo("e2e:p99<400ms");
    bench.open(&mut *target, Purpose::Curve, 0.4 / SERVICE_S, &slo, Aim::Show).expect("a simulated level cannot fail")
}

#[test]
fn a_stall_of_two_seconds_shows_in_the_open_loop_tail_capped_or_not() {
    let p99 = |level: &LevelRecord| level.latency.ttft.adjusted.p99.expect("all completed");
    for cap in [8, 4096] {
        let calm = one_level(mm1(), cap);
        let at = Nanos::from_secs(60);
        let stalled = one_level(ServiceLaw::Stall { at, length: Nanos::from_secs(2), otherwise: Box::new(mm1()) }, cap);
        assert!(stalled.window.0 < at && at + Nanos::from_secs(10) < stalled.window.1, "{:?}", stalled.window);
        let (calm, stalled) = (p99(&calm), p99(&stalled));
        // Two of 100 s, and what they leave behind: the slowest 1 % waited for most of the stall.
        assert!(calm < 200.0 && stalled > 1000.0, "cap {cap}: p99 {calm:.0} ms without the stall, {stalled:.0} ms with it");
    }
}

/// Stops the campaign at a level.
struct StopAt {
    level: usize,
    seen: usize,
    interrupt: Interrupt,
}

impl Watcher for StopAt {
    fn tell(&mut self, progress: Progress<'_>) {
        match progress {
            Progress::LevelBegins { .. } => self.seen += 1,
            Progress::LevelGoesOn { .. } if self.seen == self.level => {
                let _ = self.interrupt.raise(Signal::Interrupt);
            }
            _ => {}
        }
    }
}

#[test]
fn an_interrupted_campaign_keeps_what_it_has_and_calls_the_broken_level_invalid() {
    let interrupt = Interrupt::default();
    let mut watcher = StopAt { level: 4, seen: 0, interrupt: interrupt.clone() };
    let plan = Plan { slo: Some(slo("e2e:p99<400ms")), ..Plan::full(7) };
    let ran = campaign(mm1(), &plan, &mut watcher, &interrupt);
    assert_eq!(ran.result.halted, Some(Halt::Signal(Signal::Interrupt)));
    assert_eq!(ran.levels.len(), 4);
    assert!(ran.levels[..3].iter().all(|level| level.verdict.is_valid()));
    assert!(ran.levels[3].verdict.invalid.contains(&Invalid::Interrupted), "{}", ran.levels[3].verdict);
    assert!(ran.result.headline.is_none());
}

#[test]
fn a_campaign_is_a_function_of_its_seed() {
    let plan = Plan { slo: Some(slo("e2e:p90<100ms")), ..Plan::quick(9) };
    let once = campaign(mm1(), &plan, &mut Silent, &Interrupt::default());
    let again = campaign(mm1(), &plan, &mut Silent, &Interrupt::default());
    let untimed =
        |levels: &[LevelRecord]| levels.iter().map(|level| LevelRecord { started: String::new(), ..level.clone() }).collect::<Vec<_>>();
    assert_eq!(untimed(&once.levels), untimed(&again.levels));
    let other = campaign(mm1(), &Plan { seed: 10, ..plan }, &mut Silent, &Interrupt::default());
    assert_ne!(untimed(&once.levels), untimed(&other.levels));
}
