//! What a plan needs beside the rate: calls in flight, KV tokens, what a token costs, waiting, availability, and what each input does.

use plimsoll::capacity::call_latency::CallLatency;
use plimsoll::capacity::fleet::{Availability, FleetInputs};
use plimsoll::capacity::mix::TokenMix;
use plimsoll::capacity::operating::Operating;
use plimsoll::capacity::plan::{Input, Peak, Plan, PlanError, PlanInputs};
use plimsoll::capacity::requirement::Resource;
use plimsoll::capacity::step_cost::StepCost;
use plimsoll::capacity::throughput::Throughput;
use plimsoll::clock::Nanos;
use plimsoll::queueing::truth;
use plimsoll::record::level::{Offered, Purpose};
use plimsoll::record::run::RunRecord;
use plimsoll::record::target::BatchLimits;
use plimsoll::units::rate::{CallRatePerGpu, RecomputeMultiplier, VisibleRate};
use plimsoll::units::share::Headroom;
use proptest::prelude::*;

use crate::small_run;

fn visible(rate: f64) -> VisibleRate {
    VisibleRate::new(rate).expect("a rate")
}

/// A peak of 100 visible requests/s, 1.3 calls each, on the small run.
fn inputs(run: &RunRecord) -> PlanInputs {
    PlanInputs {
        average: Input::given(visible(40.0)),
        peak: Some(Peak::Planned { rate: visible(100.0), window: Nanos::from_secs(60) }),
        recompute: Input::given(RecomputeMultiplier::new(1.3).expect("a multiplier")),
        ..PlanInputs::assumed(Throughput::measured(run).expect("a good run"))
    }
}

fn is_near(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() <= 1e-9 * wanted.abs()
}

fn need(plan: &Plan, of: Resource) -> Option<f64> {
    plan.requirements[0].needs.iter().find(|need| need.of == of).map(|need| need.gpus.get())
}

fn has(plan: &Plan, code: &str) -> bool {
    plan.findings.iter().any(|finding| finding.code == code)
}

/// Mean latency of the small run's calls at 9.7 calls/s, on the straight line between its loads of 9.5 and 10.
const CALL_S: f64 = 0.664 * (0.6 / (1.0 - 9.5 / 12.0) + 0.4 / (1.0 - 10.0 / 12.0));

#[test]
fn resident_kv_tokens_are_the_third_need_by_littles_law() {
    let plan = Plan::of(inputs(&small_run::confirmed())).unwrap();
    let first = &plan.requirements[0];
    // 130 calls/s, each held so long, each with its prompt of 256 tokens and half its answer of 64.
    let tokens = 130.0 * CALL_S * (256.0 + 32.0);
    assert!(is_near(first.resident_kv_tokens.unwrap(), tokens), "{first:?}");
    assert!(is_near(need(&plan, Resource::KvTokens).unwrap(), tokens / 65_536.0 * 1.25));
    assert_eq!(first.binding, Resource::Rate, "the cache is large");
    assert_eq!(need(&plan, Resource::CallsInFlight), None, "by Little's law it would be the rate again");
    assert!(!has(&plan, "kv_not_judged"));
}

#[test]
fn the_largest_need_binds_and_is_named() {
    let small_cache = PlanInputs { kv_tokens_per_gpu: Some(Input::given(2000.0)), ..inputs(&small_run::confirmed()) };
    let plan = Plan::of(small_cache.clone()).unwrap();
    let first = &plan.requirements[0];
    assert_eq!(first.binding, Resource::KvTokens);
    assert!(is_near(first.exact.get(), 130.0 * CALL_S * 288.0 / 2000.0 * 1.25));
    let (few, many) = first.range.unwrap();
    assert!(few <= many && many == first.exact, "a cache does not grow with the throughput: {few:?} {many:?}");
    // 5000 calls in flight, 39.84 on each GPU at the SLO.
    let held = PlanInputs { calls_in_flight: Some(Input::given(5000.0)), kv_tokens_per_gpu: Some(Input::given(1e6)), ..small_cache };
    let plan = Plan::of(held).unwrap();
    assert_eq!(plan.requirements[0].binding, Resource::CallsInFlight);
    assert!(is_near(plan.requirements[0].exact.get(), 5000.0 / 39.84 * 1.25));
    assert!(is_near(plan.requirements[0].resident_kv_tokens.unwrap(), 5000.0 * 288.0), "what is stated goes before Little's law");
    // The viral moment brings 400 requests/s where the peak that this was stated for brings 100.
    let viral = plan.requirements.iter().find(|row| row.name == "Viral moment").unwrap();
    assert!(is_near(viral.calls_in_flight.unwrap(), 20_000.0));
}

#[test]
fn an_unknown_kv_cache_is_said_and_not_passed_over() {
    let mut run = small_run::confirmed();
    run.target.batch = BatchLimits::default();
    let plan = Plan::of(inputs(&run)).unwrap();
    assert!(has(&plan, "kv_not_judged") && need(&plan, Resource::KvTokens).is_none());
    assert!(is_near(plan.requirements[0].resident_kv_tokens.unwrap(), 130.0 * CALL_S * 288.0), "how much they would have to hold is known");
    let typed = Throughput::given(CallRatePerGpu::new(8.0).unwrap());
    let typed = PlanInputs { kv_tokens_per_gpu: Some(Input::given(1000.0)), ..PlanInputs::assumed(typed) };
    assert!(has(&Plan::of(typed).unwrap(), "kv_not_judged"), "a cache, and nobody knows how much is in it");
}

/// The small run with the latencies of the law that costs are found by.
fn by_law(alpha: f64, beta: f64, gamma: f64) -> RunRecord {
    let mut run = small_run::confirmed();
    let (input, output) = (run.workload.mean_input_tokens, run.workload.mean_output_tokens);
    let (computed, context) = ((input + output) / (output + 1.0), input + output / 2.0);
    for level in &mut run.levels {
        let Offered::Closed { concurrency } = level.offered else { continue };
        let batch = f64::from(concurrency);
        if level.purpose == Purpose::Sweep {
            level.latency.tpot.raw.mean = Some(alpha + batch * (beta * computed + gamma * context) + beta + gamma * context);
        } else {
            level.latency.ttft.raw.mean = Some(alpha + (beta + gamma) * input);
        }
    }
    run
}

proptest! {
    #[test]
    fn costs_of_tokens_are_found_from_the_levels_of_a_run(alpha in 0.5..20.0_f64, beta in 0.01..1.0_f64, gamma in 1e-5..1e-3_f64) {
        let cost = StepCost::fit(&by_law(alpha, beta, gamma), 1, 39.84).unwrap();
        for (found, wanted) in [(cost.alpha_ms, alpha), (cost.beta_ms, beta), (cost.gamma_ms, gamma)] {
            prop_assert!((found / wanted - 1.0).abs() < 1e-3, "{} {}", found, wanted);
        }
        prop_assert!(cost.worst < 1e-6);
    }
}

#[test]
fn levels_whose_calls_wait_for_a_batch_tell_nothing_of_costs() {
    let mut run = by_law(6.0, 0.05, 0.0001);
    run.target.batch = BatchLimits::default();
    // Beyond 16 sequences the others wait, and each of those in the batch is as quick as ever.
    let full =
        run.levels.iter().find(|level| level.offered == Offered::Closed { concurrency: 16 }).and_then(|level| level.latency.tpot.raw.mean);
    for level in &mut run.levels {
        if matches!(level.offered, Offered::Closed { concurrency } if concurrency > 16) {
            level.latency.tpot.raw.mean = full;
        }
    }
    let cost = StepCost::fit(&run, 1, 16.0).unwrap();
    assert!(cost.levels < 11, "the reference twice, and few of the nine levels of the sweep: {cost:?}");
    let call = TokenMix { input: 256.0, output: 64.0 };
    let exact = 256.0 * 0.0501 + 64.0 * (6.0 / 16.0 + 0.05 + 0.0001 * 288.0);
    assert!((cost.call_ms(call) / exact - 1.0).abs() < 0.35, "{} {exact}", cost.call_ms(call));
}

#[test]
fn another_token_mix_is_corrected_by_the_measured_cost_of_tokens() {
    let (alpha, beta, gamma) = (6.0, 0.05, 0.0001);
    let run = by_law(alpha, beta, gamma);
    let asked = TokenMix { input: 1024.0, output: 64.0 };
    let far = PlanInputs { mix: Some(Input::given(asked)), ..inputs(&run) };
    assert!(matches!(Plan::of(far.clone()), Err(PlanError::Mix { .. })), "four times the prompt is refused unless accepted");
    let plan = Plan::of(PlanInputs { accept_mix: true, ..far }).unwrap();
    // A prompt token costs beta + gamma; an answer token its share of the step, beta, and gamma for each token before it.
    let cost = |mix: TokenMix| mix.input * (beta + gamma) + mix.output * (alpha / 39.84 + beta + gamma * (mix.input + mix.output / 2.0));
    let factor = cost(TokenMix { input: 256.0, output: 64.0 }) / cost(asked);
    let mix = plan.mix.unwrap();
    assert!((mix.factor() / factor - 1.0).abs() < 1e-6, "{} {factor}", mix.factor());
    assert!(factor > 0.25 && mix.low_end() == 0.25 && mix.high_end() == 1.0, "between the safe bound and what may be hoped for");
    let first = &plan.requirements[0];
    assert!((first.exact.get() / (130.0 / (9.7 * factor) * 1.25) - 1.0).abs() < 1e-6);
    let (_, many) = first.range.unwrap();
    assert!((many.get() / (130.0 / (9.7 * 0.25) * 1.25) - 1.0).abs() < 1e-9, "the safe bound is the low end of the rate");
    // Shorter calls earn nothing that was not measured, and a run whose levels fit no law has the safe bound alone.
    let shorter = PlanInputs { mix: Some(Input::given(TokenMix { input: 64.0, output: 16.0 })), accept_mix: true, ..inputs(&run) };
    assert_eq!(Plan::of(shorter).unwrap().mix.unwrap().factor(), 1.0);
    let mut lawless = run;
    lawless.levels.retain(|level| level.purpose != Purpose::Sweep);
    let bound = PlanInputs { mix: Some(Input::given(asked)), accept_mix: true, ..inputs(&lawless) };
    let bound = Plan::of(bound).unwrap().mix.unwrap();
    assert_eq!((bound.by_cost, bound.factor()), (None, 0.25));
}

#[test]
fn every_sensitivity_is_what_a_plan_with_the_changed_input_says() {
    let run = small_run::confirmed();
    let made = |inputs: PlanInputs| Plan::of(inputs).unwrap().requirements.remove(0);
    for kv_tokens in [2000.0, 1e6] {
        let base = PlanInputs {
            kv_tokens_per_gpu: Some(Input::given(kv_tokens)),
            fleet: FleetInputs { price_per_gpu_hour: Some(2.5), ..FleetInputs::default() },
            ..inputs(&run)
        };
        let row = made(base.clone());
        for (times, sign) in [(1.1, 1), (0.9, -1)] {
            let peak = Some(Peak::Planned { rate: visible(100.0 * times), window: Nanos::from_secs(60) });
            let recompute = Input::given(RecomputeMultiplier::new(1.3 * times).unwrap());
            let headroom = Input::given(Headroom::new(0.25 * times).unwrap());
            let throughput = Throughput { planned: CallRatePerGpu::new(9.7 * times).unwrap(), ..base.throughput.clone() };
            let changed = [
                ("peak", PlanInputs { peak, ..base.clone() }),
                ("recompute", PlanInputs { recompute, ..base.clone() }),
                ("headroom", PlanInputs { headroom, ..base.clone() }),
                ("throughput_per_gpu", PlanInputs { throughput, ..base.clone() }),
                ("KV tokens per GPU", PlanInputs { kv_tokens_per_gpu: Some(Input::given(kv_tokens * times)), ..base.clone() }),
            ];
            for (input, changed) in changed {
                let by = made(changed).exact.get() - row.exact.get();
                let told = row.sensitivity.iter().find(|change| change.input == input).unwrap();
                let (gpus, cost) = if sign > 0 { (told.gpus, told.cost.unwrap().0) } else { (told.gpus_less, told.cost.unwrap().1) };
                assert!((gpus - by).abs() < 1e-9 && (cost - 2.5 * by).abs() < 1e-9, "{input} x {times}: {gpus} {by}");
            }
        }
        let of = |input: &str| row.sensitivity.iter().find(|change| change.input == input).unwrap();
        assert_eq!(of("price").gpus, 0.0);
        assert!(is_near(of("price").cost.unwrap().0, 0.1 * 2.5 * row.exact.get()));
        let over = of("throughput_per_gpu").interval.unwrap();
        assert_eq!(over.ends, (9.7, 10.3));
        let at_high = PlanInputs {
            throughput: Throughput { planned: CallRatePerGpu::new(10.3).unwrap(), ..base.throughput.clone() },
            ..base.clone()
        };
        assert!((over.gpus.1 - (made(at_high).exact.get() - row.exact.get())).abs() < 1e-9 && over.gpus.0 == 0.0, "{over:?}");
    }
}

#[test]
fn waiting_stands_beside_a_peak_by_three_laws() {
    let run = by_law(6.0, 0.05, 0.0001);
    let plan = Plan::of(PlanInputs { gap_cv: Some(3.0), ..inputs(&run) }).unwrap();
    let first = &plan.requirements[0];
    let waiting = first.waiting.unwrap();
    let places = (39.84 * first.fleet.replicas as f64).floor();
    assert_eq!(waiting.places as f64, places);
    assert!(is_near(waiting.taken, 130.0 * CALL_S));
    let waits = truth::erlang_c(places as u32, waiting.taken / places);
    assert!((waiting.waits - waits).abs() < 1e-9, "the same formula, written by somebody else: {waits}");
    let (mean, bursty) = (waiting.mean_ms.unwrap(), waiting.bursty_ms.unwrap());
    let (_, of_latency) = waiting.variations;
    assert!(is_near(bursty / mean, (9.0 + of_latency * of_latency) / 2.0));
    let steady = waiting.chain.unwrap();
    let share = 130.0 / first.fleet.replicas as f64;
    assert!((steady.served_rps / share - 1.0).abs() < 0.01, "{steady:?}");
    let typed = PlanInputs::assumed(Throughput::given(CallRatePerGpu::new(8.0).unwrap()));
    assert_eq!(Plan::of(typed).unwrap().requirements[0].waiting, None, "nobody measured how long a call takes");
}

#[test]
fn a_fleet_owns_enough_replicas_for_the_availability_that_was_asked_for() {
    let availability = Some(Availability { of_replica: 0.995, of_fleet: 0.9999 });
    let wanted = PlanInputs { fleet: FleetInputs { availability, ..FleetInputs::default() }, ..inputs(&small_run::confirmed()) };
    let fleet = Plan::of(wanted).unwrap().requirements[0].fleet;
    // The binomial sum term by term.
    let stand = |owned: u64| {
        let mut term = 0.995_f64.powi(owned as i32);
        let mut sum = 0.0;
        for standing in (fleet.replicas..=owned).rev() {
            sum += term;
            term *= standing as f64 / (owned - standing + 1) as f64 * 0.005 / 0.995;
        }
        sum
    };
    let owned = fleet.for_availability.unwrap();
    assert!(stand(owned) >= 0.9999 && stand(owned - 1) < 0.9999, "{owned}");
    assert_eq!(fleet.replicas_with_spare, owned.max(fleet.replicas + 1));
    assert!((fleet.stand.unwrap() - stand(fleet.replicas_with_spare)).abs() < 1e-9);
}

#[test]
fn a_latency_between_what_is_known_is_never_made_too_short() {
    let call = CallLatency { calls_per_s_per_gpu: 1.0, mean_ms: 50.0, quantiles: vec![(0.5, 40.0), (0.9, 80.0), (0.99, 170.0)] };
    for (share, wanted) in [(0.0, 40.0), (0.3, 40.0), (0.5, 40.0), (0.7, 60.0), (0.9, 80.0)] {
        assert!(is_near(call.quantile(share), wanted), "{share}: {}", call.quantile(share));
    }
    assert!(call.quantile(0.999) > 170.0 && call.quantile(0.999).is_finite());
    let flat = CallLatency { quantiles: vec![(0.5, 40.0), (0.99, 40.0)], ..call };
    assert!(flat.variation() < 1e-9);
    let run = small_run::confirmed();
    assert_eq!(CallLatency::at_load(&run.levels, 0.1), None, "below every load of the curve");
    assert_eq!(CallLatency::at_load(&run.levels, 30.0), None, "above every load of the curve");
    assert_eq!(Operating::default().call, None);
}
