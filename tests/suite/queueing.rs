//! The replica does what queueing theory says, and tells it in order.

use plimsoll::clock::Nanos;
use plimsoll::queueing::bands::TokenPrices;
use plimsoll::queueing::law::{BatchingLaw, ServiceLaw, ServiceTime};
use plimsoll::queueing::replica::{Happening, Job, Replica};
use plimsoll::queueing::truth;

use crate::virtual_level::{Arrivals, Level, Metric, Objective, Scene};
use plimsoll::campaign::windows::Windows;

fn share_over(law: ServiceLaw, rate: f64, metric: Metric, limit_s: f64) -> f64 {
    let scene = Scene {
        name: "theory",
        law,
        arrivals: Arrivals::Poisson,
        objectives: vec![Objective { metric, limit_s, allowed: 0.1 }],
        tokens: None,
        windows: Windows::full(),
        start: 1.0,
    };
    let mut level = Level::new(&scene, rate, 5);
    level.begin_at(Nanos::from_secs(1000));
    let cohort = level.window(Nanos::from_secs_f64(400_000.0 / rate));
    cohort.objectives[0].requests.iter().filter(|(_, missed)| *missed).count() as f64 / cohort.arrivals as f64
}

#[test]
fn sojourns_have_the_tails_of_theory() {
    let exponential = |count| ServiceLaw::Servers { count, service: ServiceTime::Exponential { mean_s: 1.0 } };
    let fixed = ServiceLaw::Servers { count: 1, service: ServiceTime::Deterministic { mean_s: 1.0 } };
    for (name, simulated, theory) in [
        ("M/M/1", share_over(exponential(1), 0.7, Metric::E2e, 7.0), truth::mm1_sojourn_over(0.7, 7.0)),
        ("M/M/4", share_over(exponential(4), 0.8 * 4.0, Metric::E2e, 4.0), truth::mmc_sojourn_over(4, 0.8, 4.0)),
        ("M/D/1", share_over(fixed, 0.8, Metric::E2e, 1.0 + 4.3), truth::md1_wait_over(0.8, 4.3)),
    ] {
        assert!((simulated / theory - 1.0).abs() < 0.06, "{name}: simulated {simulated:.5}, theory {theory:.5}");
    }
    // Allen, "Probability, Statistics and Queueing Theory": 4 servers at 0.75 make half the arrivals wait (0.5094).
    assert!((truth::erlang_c(4, 0.75) - 0.5094).abs() < 1e-4);
}

fn live(replica: &mut Replica, jobs: &[Job]) -> Vec<(Nanos, u64, Happening)> {
    let mut told = Vec::new();
    for job in jobs {
        replica.advance(job.arrived, &mut |at, id, what| told.push((at, id, what)));
        replica.arrive(*job);
    }
    replica.advance(Nanos::MAX, &mut |at, id, what| told.push((at, id, what)));
    told
}

#[test]
fn a_stalled_target_serves_nothing_in_that_span_and_goes_on_after() {
    let law = ServiceLaw::Stall {
        at: Nanos::from_secs(5),
        length: Nanos::from_secs(2),
        otherwise: Box::new(ServiceLaw::Servers { count: 1, service: ServiceTime::Deterministic { mean_s: 1.0 } }),
    };
    let jobs: Vec<Job> =
        (0..8).map(|id| Job { id, arrived: Nanos::from_millis(id * 1000 + 500), prompt_tokens: 1, output_tokens: 4 }).collect();
    let told = live(&mut Replica::new(law, 0), &jobs);
    assert!(told.iter().all(|(at, ..)| *at <= Nanos::from_secs(5) || *at > Nanos::from_secs(7) || *at == Nanos::from_millis(5500)));
    let done: Vec<u64> = told.iter().filter(|(.., what)| *what == Happening::Completed).map(|(at, ..)| at.0 / 1_000_000).collect();
    assert_eq!(done, [1500, 2500, 3500, 4500, 7500, 8500, 9500, 10_500]);
}

#[test]
fn batching_gives_every_token_once_and_in_order_of_time_even_when_it_preempts() {
    let law = BatchingLaw {
        step_s: 0.01,
        per_sequence_s: 0.001,
        per_prefill_token_s: 0.0001,
        per_kv_token_s: 0.0,
        per_token_s: TokenPrices::default(),
        max_batch: 16,
        chunk_tokens: 64,
        kv_tokens: 400,
    };
    let jobs: Vec<Job> = (0..200)
        .map(|id| Job {
            id,
            arrived: Nanos::from_millis(id * 20),
            prompt_tokens: 20 + (id % 70) as u32,
            output_tokens: 1 + (id % 60) as u32,
        })
        .collect();
    let told = live(&mut Replica::new(ServiceLaw::Batching(law), 0), &jobs);
    assert!(told.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    assert!(told.iter().any(|(.., what)| *what == Happening::Preempted), "the cache was meant to be too small");
    for job in &jobs {
        let own: Vec<_> = told.iter().filter(|(_, id, _)| *id == job.id).collect();
        let tokens: u32 = own.iter().map(|(.., what)| if let Happening::Tokens(count) = what { *count } else { 0 }).sum();
        assert_eq!(tokens, job.output_tokens);
        assert_eq!(own.first().map(|(.., what)| *what), Some(Happening::Admitted));
        assert_eq!(own.last().map(|(.., what)| *what), Some(Happening::Completed));
        let count = |which| own.iter().filter(|(.., what)| *what == which).count();
        assert_eq!(count(Happening::Admitted), 1 + count(Happening::Preempted));
    }
}

#[test]
fn one_sequence_alone_takes_as_long_as_its_steps() {
    let law = BatchingLaw {
        step_s: 0.01,
        per_sequence_s: 0.001,
        per_prefill_token_s: 0.0001,
        per_kv_token_s: 0.0,
        per_token_s: TokenPrices::default(),
        max_batch: 16,
        chunk_tokens: 64,
        kv_tokens: 10_000,
    };
    let told = live(
        &mut Replica::new(ServiceLaw::Batching(law), 0),
        &[Job { id: 0, arrived: Nanos::from_secs(1), prompt_tokens: 100, output_tokens: 3 }],
    );
    // Two steps for the prompt (64 and 36 tokens), then two of decoding.
    let stamps: Vec<u64> = told.iter().map(|(at, ..)| at.0 / 1000).collect();
    assert_eq!(stamps, [1_000_000, 1_030_000, 1_041_000, 1_052_000, 1_052_000]);
}

#[test]
fn a_cancelled_job_is_heard_of_no_more_and_frees_its_place() {
    let law = ServiceLaw::Servers { count: 1, service: ServiceTime::Deterministic { mean_s: 1.0 } };
    let mut replica = Replica::new(law, 0);
    for id in 0..3 {
        replica.arrive(Job { id, arrived: Nanos::ZERO, prompt_tokens: 1, output_tokens: 1 });
    }
    replica.advance(Nanos::from_millis(500), &mut |_, _, _| {});
    replica.cancel(0);
    replica.cancel(2);
    let mut told = Vec::new();
    replica.advance(Nanos::from_secs(10), &mut |at, id, what| told.push((at.0 / 1_000_000, id, what)));
    assert_eq!(told, [(500, 1, Happening::Admitted), (1500, 1, Happening::Tokens(1)), (1500, 1, Happening::Completed)]);
    assert_eq!(replica.in_flight(), 0);
}

#[test]
fn laws_are_read_and_written_as_data() {
    let law = ServiceLaw::Stall {
        at: Nanos(5),
        length: Nanos(6),
        otherwise: Box::new(ServiceLaw::Servers { count: 2, service: ServiceTime::Erlang { mean_s: 0.1, stages: 4 } }),
    };
    let text = serde_json::to_string(&law).expect("a law is plain data");
    assert_eq!(serde_json::from_str::<ServiceLaw>(&text).expect("what was written is read"), law);
}
