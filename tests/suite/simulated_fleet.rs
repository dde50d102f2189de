//! A simulated fleet does what its law says step by step, what queueing theory says in the limits, and loses no call.

use std::collections::BTreeMap;

use plimsoll::clock::Nanos;
use plimsoll::queueing::bands::TokenPrices;
use plimsoll::queueing::fleet::calls::{Arrival, CallId, Ended, Ending};
use plimsoll::queueing::fleet::clients::Clients;
use plimsoll::queueing::fleet::leaping::{Leaping, Stage, Work};
use plimsoll::queueing::fleet::routing::Routing;
use plimsoll::queueing::fleet::scaling::{Scaling, Signal};
use plimsoll::queueing::fleet::simulation::{Fleet, State, Witness, simulate};
use plimsoll::queueing::law::{BatchingLaw, ServiceLaw};
use plimsoll::queueing::replica::{Happening, Job, Replica};
use plimsoll::queueing::truth::erlang_c;
use plimsoll::rng;
use plimsoll::workload::arrivals::ArrivalProcess;
use plimsoll::workload::rate_series::{RateSegment, RateSeries, Then};
use proptest::prelude::*;

/// First token, end, and how often each job lost its place.
type Course = BTreeMap<u64, (Nanos, Nanos, u32)>;

fn step_by_step(law: BatchingLaw, jobs: &[(u64, u32, u32)]) -> Course {
    let mut replica = Replica::new(ServiceLaw::Batching(law), 0);
    let (mut course, mut first, mut lost) = (Course::new(), BTreeMap::new(), BTreeMap::<u64, u32>::new());
    let mut report = |at: Nanos, id: u64, what: Happening| match what {
        Happening::Tokens(_) => _ = first.entry(id).or_insert(at),
        Happening::Preempted => *lost.entry(id).or_default() += 1,
        Happening::Completed => _ = course.insert(id, (first[&id], at, lost.get(&id).copied().unwrap_or(0))),
        Happening::Admitted => {}
    };
    for (id, (at, prompt, tokens)) in (0..).zip(jobs) {
        replica.advance(Nanos(*at), &mut report);
        replica.arrive(Job { id, arrived: Nanos(*at), prompt_tokens: *prompt, output_tokens: *tokens });
        replica.advance(Nanos(*at), &mut report);
    }
    let mut now = Nanos::ZERO;
    while let Some(next) = replica.advance(now, &mut report) {
        now = next;
    }
    course
}

fn in_leaps(law: BatchingLaw, jobs: &[(u64, u32, u32)]) -> Course {
    let mut replica = Leaping::new(law);
    let ids: BTreeMap<CallId, u64> = (0..jobs.len() as u32).map(|id| (CallId::alone(id), u64::from(id))).collect();
    let (mut course, mut first, mut lost) = (Course::new(), BTreeMap::new(), BTreeMap::<CallId, u32>::new());
    let mut tell = |at: Nanos, call: CallId, what: Stage| match what {
        Stage::FirstToken => assert!(first.insert(call, at).is_none(), "a call has one first token"),
        Stage::Preempted => *lost.entry(call).or_default() += 1,
        Stage::Completed => _ = course.insert(ids[&call], (first[&call], at, lost.get(&call).copied().unwrap_or(0))),
        Stage::Admitted => {}
    };
    for (call, (at, prompt, tokens)) in (0..).map(CallId::alone).zip(jobs) {
        while replica.due() <= Nanos(*at) {
            replica.advance(replica.due(), &mut tell);
        }
        replica.arrive(Nanos(*at), Work { call, prompt: *prompt, tokens: *tokens }, &mut tell);
    }
    while replica.due() < Nanos::MAX {
        replica.advance(replica.due(), &mut tell);
    }
    course
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    // The costs are whole nanoseconds, so that not even rounding tells the two apart.
    #[test]
    fn many_steps_at_once_end_where_single_steps_end(
        jobs in prop::collection::vec((0_u64..40_000_000, 1_u32..200, 1_u32..60), 1..60),
        (max_batch, chunk_tokens, kv_tokens) in (1_u32..12, 1_u32..150, 50_u64..1500),
        costs in (1_000_u64..10_000_000, 0_u64..1_000_000, 0_u64..100_000, 0_u64..20_000),
        prices in prop::array::uniform6(0_u64..200_000),
    ) {
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        let law = BatchingLaw {
            step_s: seconds(costs.0),
            per_sequence_s: seconds(costs.1),
            per_prefill_token_s: seconds(costs.2),
            per_kv_token_s: seconds(costs.3),
            per_token_s: TokenPrices(prices.map(seconds)),
            max_batch,
            chunk_tokens,
            kv_tokens,
        };
        let mut at = 0;
        let jobs: Vec<_> = jobs.into_iter().map(|(gap, prompt, tokens)| { at += gap; (at, prompt, tokens) }).collect();
        prop_assert_eq!(step_by_step(law, &jobs), in_leaps(law, &jobs));
    }
}

/// Everything that was told.
#[derive(Debug, Default, PartialEq)]
struct Told {
    ended: Vec<Ended>,
    states: Vec<State>,
}

impl Witness for Told {
    fn ended(&mut self, ended: &Ended) {
        self.ended.push(*ended);
    }

    fn looked(&mut self, state: &State) {
        self.states.push(*state);
    }
}

impl Told {
    fn count(&self, ending: Ending) -> usize {
        self.ended.iter().filter(|ended| ended.ending == ending).count()
    }

    fn ttft_s(&self, from_s: f64, to_s: f64) -> Vec<f64> {
        let within = |ended: &&Ended| (from_s..to_s).contains(&ended.arrived.as_secs_f64());
        self.ended.iter().filter(within).filter_map(|ended| ended.ttft()).map(Nanos::as_secs_f64).collect()
    }
}

#[derive(Default)]
struct MeanWait {
    calls: u64,
    seconds: f64,
}

impl Witness for MeanWait {
    fn ended(&mut self, ended: &Ended) {
        let admitted = ended.admitted.expect("every call is served");
        self.calls += 1;
        self.seconds += admitted.since(ended.arrived).as_secs_f64();
    }
}

#[test]
fn mean_waits_are_those_of_theory_within_one_percent() {
    // A thousand tokens of a millisecond: 1 s of service.
    let law = BatchingLaw { max_batch: 1, kv_tokens: 1 << 40, chunk_tokens: 1 << 30, ..one_at_a_time(0.001) };
    for (name, servers, load, exponential) in [("M/M/1", 1, 0.5, true), ("M/D/1", 1, 0.5, false), ("M/M/4", 4, 0.75, true)] {
        let fleet = Fleet { in_flight_per_replica: Some(1), ..Fleet::fixed(law, servers) };
        let rate = load * f64::from(servers);
        let service = |k: u64| if exponential { -(-rng::uniform_at(7, k)).ln_1p() } else { 1.0 };
        let schedule = ArrivalProcess::Poisson.schedule(rate, 3);
        let arrivals = schedule.zip(0..3_000_000).map(|(at, k)| Arrival { at, prompt: 1, tokens: (service(k) * 1000.0 + 0.5) as u32 });
        let mut waited = MeanWait::default();
        simulate(&fleet, arrivals, Nanos::from_secs(1_000_000), Nanos::MAX, 1, &mut waited);
        // Pollaczek and Khinchine: without variance of service, half the wait.
        let theory = erlang_c(servers, load) / (f64::from(servers) * (1.0 - load)) * if exponential { 1.0 } else { 0.5 };
        let mean = waited.seconds / waited.calls as f64;
        assert!((mean / theory - 1.0).abs() < 0.01, "{name}: {mean} s waited, {theory} s in theory");
    }
}

fn one_at_a_time(step_s: f64) -> BatchingLaw {
    BatchingLaw {
        step_s,
        per_sequence_s: 0.0,
        per_prefill_token_s: 0.0,
        per_kv_token_s: 0.0,
        per_token_s: TokenPrices::default(),
        max_batch: 1,
        chunk_tokens: 4096,
        kv_tokens: 1 << 20,
    }
}

/// Arrivals at `rate` a second, `times` of that for ten seconds from 20 s on, until 120 s.
fn spike(rate: f64, times: f64, tokens: u32) -> impl Iterator<Item = Arrival> {
    let step = |seconds, level| RateSegment { seconds, from: level, to: level };
    let series = RateSeries { segments: vec![step(20.0, 1.0), step(10.0, times), step(90.0, 1.0)], then: Then::Hold };
    let schedule = ArrivalProcess::Series(series).schedule(rate, 5);
    schedule.take_while(|at| *at < Nanos::from_secs(120)).map(move |at| Arrival { at, prompt: 10, tokens })
}

fn told(fleet: &Fleet, arrivals: impl Iterator<Item = Arrival>) -> Told {
    let mut told = Told::default();
    simulate(fleet, arrivals, Nanos::from_secs(1), Nanos::from_secs(400), 11, &mut told);
    told
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_call_ends_once_however_the_fleet_behaves(
        replicas in 1_u32..5, rate in 5.0_f64..60.0, times in 1.0_f64..8.0, max_batch in 1_u32..6,
        (held, queue) in (prop::option::of(1_u32..8), prop::option::of(0_u32..10)),
        (timeout, attempts, budget, abort_is_seen) in (prop::option::of(100_u64..4000), 1_u32..5, prop::option::of(0.0_f64..0.3), any::<bool>()),
        (routing, lost) in (prop::sample::select(vec![Routing::RoundRobin, Routing::LeastLoaded, Routing::PowerOfTwo]), 0_u32..3),
        kv_tokens in 40_u64..400,
    ) {
        let fleet = Fleet {
            routing,
            in_flight_per_replica: held,
            waiting_per_replica: queue,
            clients: Clients { timeout: timeout.map(Nanos::from_millis), attempts, retry_budget: budget, abort_is_seen, ..Clients::default() },
            scaling: Some(Scaling::usual(Signal::CallsPerSecond(20.0), 8, Nanos::from_secs(10))),
            loss: (lost > 0).then_some((Nanos::from_secs(25), lost)),
            ..Fleet::fixed(BatchingLaw { max_batch, kv_tokens, per_sequence_s: 0.001, ..one_at_a_time(0.01) }, replicas)
        };
        let sent = spike(rate, times, 8).count();
        let told = told(&fleet, spike(rate, times, 8));
        prop_assert_eq!(told.ended.len(), sent);
        prop_assert!(told.ended.iter().all(|ended| (1..=attempts).contains(&ended.attempts)));
        prop_assert!(told.ended.iter().all(|ended| (ended.ending != Ending::Completed) || ended.first_token.is_some_and(|first| first <= ended.ended)));
    }
}

#[test]
fn the_same_seed_gives_the_same_course() {
    let fleet = Fleet { routing: Routing::PowerOfTwo, ..Fleet::fixed(one_at_a_time(0.01), 3) };
    assert_eq!(told(&fleet, spike(20.0, 3.0, 8)), told(&fleet, spike(20.0, 3.0, 8)));
}

#[test]
fn calls_beyond_a_bounded_queue_are_refused_and_the_others_wait_no_longer_than_it() {
    // 10 calls/s are served, 40 come in the spike.
    let bounded = Fleet { waiting_per_replica: Some(5), ..Fleet::fixed(one_at_a_time(0.01), 1) };
    let told_bounded = told(&bounded, spike(5.0, 8.0, 10));
    assert!(told_bounded.count(Ending::Refused) > 200, "{} refused", told_bounded.count(Ending::Refused));
    let longest = told_bounded.ttft_s(0.0, 200.0).into_iter().fold(0.0, f64::max);
    assert!(longest < 0.8, "{longest} s, with five calls of 0.1 s before it");
    let endless = told(&Fleet::fixed(one_at_a_time(0.01), 1), spike(5.0, 8.0, 10));
    assert_eq!(endless.count(Ending::Refused), 0);
    assert!(endless.ttft_s(29.0, 30.0).into_iter().fold(0.0, f64::max) > 20.0);
}

#[test]
fn clients_that_try_again_keep_a_fleet_down_that_works_on_for_nobody_and_a_budget_lets_it_recover() {
    let clients = Clients { timeout: Some(Nanos::from_secs(2)), attempts: 8, abort_is_seen: false, ..Clients::default() };
    let fleet = |clients| Fleet { clients, ..Fleet::fixed(one_at_a_time(0.01), 1) };
    let late = |told: &Told| {
        let last: Vec<&Ended> = told.ended.iter().filter(|ended| ended.arrived >= Nanos::from_secs(100)).collect();
        last.iter().filter(|ended| ended.ending != Ending::Completed || ended.attempts > 1).count() as f64 / last.len() as f64
    };
    // 8 of 10 calls/s, and 60 for ten seconds.
    let storm = late(&told(&fleet(clients), spike(8.0, 7.5, 10)));
    assert!(storm > 0.9, "{storm} of the calls of the last seconds fail or are tried again");
    let calm = Clients { retry_budget: Some(0.1), abort_is_seen: true, ..clients };
    let recovered = late(&told(&fleet(calm), spike(8.0, 7.5, 10)));
    assert!(recovered < 0.2, "{recovered}");
}

#[test]
fn an_autoscaler_serves_more_only_after_its_lead_time() {
    let scaling = Scaling { patience: Nanos::from_secs(30), ..Scaling::usual(Signal::CallsPerSecond(8.0), 6, Nanos::from_secs(20)) };
    let step = |seconds, level| RateSegment { seconds, from: level, to: level };
    let series = RateSeries { segments: vec![step(100.0, 1.0), step(1.0, 0.05)], then: Then::Hold };
    let schedule = ArrivalProcess::Series(series).schedule(30.0, 5).take_while(|at| *at < Nanos::from_secs(250));
    let arrivals = schedule.map(|at| Arrival { at, prompt: 10, tokens: 10 });
    let told = told(&Fleet { scaling: Some(scaling), ..Fleet::fixed(one_at_a_time(0.01), 1) }, arrivals);
    let ready = |second: u64| told.states.iter().find(|state| state.at == Nanos::from_secs(second)).expect("one a second").ready;
    assert_eq!(ready(34), 1, "the first look is at 15 s, the lead time 20 s");
    assert!((4..=5).contains(&ready(60)), "30 calls/s at 8 a replica: {} replicas", ready(60));
    assert_eq!(ready(249), 1, "1.5 calls/s are left");
}

#[test]
fn calls_on_a_lost_replica_are_tried_again_elsewhere() {
    let fleet = Fleet {
        loss: Some((Nanos::from_secs(25), 1)),
        clients: Clients { attempts: 2, ..Clients::default() },
        ..Fleet::fixed(one_at_a_time(0.01), 3)
    };
    let again = told(&fleet, spike(15.0, 1.5, 10));
    assert_eq!(again.count(Ending::Lost), 0);
    assert!(again.ended.iter().any(|ended| ended.attempts == 2));
    let once = told(&Fleet { clients: Clients::default(), ..fleet }, spike(15.0, 1.5, 10));
    assert!(once.count(Ending::Lost) > 0);
}
