//! How fast fleets are simulated, and how near their mean waits are to those of queueing theory.
//!
//! Prints simulated calls per second of thread CPU time beside a noise probe (the same sum over and over).

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;

use plimsoll::clock::{Nanos, thread_cpu};
use plimsoll::queueing::bands::TokenPrices;
use plimsoll::queueing::fleet::calls::{Arrival, Ended, Ending};
use plimsoll::queueing::fleet::routing::Routing;
use plimsoll::queueing::fleet::simulation::{Fleet, Witness, simulate};
use plimsoll::queueing::law::BatchingLaw;
use plimsoll::queueing::truth::erlang_c;
use plimsoll::rng;
use plimsoll::workload::arrivals::ArrivalProcess;
use plimsoll::workload::lengths::Distribution;

/// Calls of a fleet under a batching law, and of one that theory knows.
const CALLS: u64 = 2_000_000;
const CALLS_OF_THEORY: u64 = 10_000_000;
/// Simulated calls per second of CPU time that are wanted.
const FLOOR: f64 = 1e6;
const RUNS: usize = 3;
const NEVER: Nanos = Nanos::from_secs(1 << 32);

/// What the calls of a fleet come to.
#[derive(Default)]
struct Sums {
    completed: u64,
    waited_s: f64,
    ttft_s: f64,
}

impl Witness for Sums {
    fn ended(&mut self, ended: &Ended) {
        self.completed += u64::from(ended.ending == Ending::Completed);
        self.waited_s += ended.admitted.unwrap_or(ended.ended).since(ended.arrived).as_secs_f64();
        self.ttft_s += ended.ttft().unwrap_or_default().as_secs_f64();
    }
}

/// Calls per second of CPU time, and their mean TTFT in seconds.
fn speed(replicas: u32, routing: Routing) -> (f64, f64) {
    let law = BatchingLaw {
        step_s: 8e-3,
        per_sequence_s: 1e-4,
        per_prefill_token_s: 3e-5,
        per_kv_token_s: 1e-8,
        per_token_s: TokenPrices::default(),
        max_batch: 256,
        chunk_tokens: 2048,
        kv_tokens: 400_000,
    };
    let fleet = Fleet { routing, ..Fleet::fixed(law, replicas) };
    let lognormal = |median, sigma| Distribution::Lognormal { median, sigma, min: 1, max: 32_768 };
    let (prompt, answer) = (lognormal(400.0, 0.8), lognormal(200.0, 0.7));
    // What the generator of the calls costs is no part of it.
    let schedule = ArrivalProcess::Poisson.schedule(12.0 * f64::from(replicas), 3);
    let calls: Vec<Arrival> =
        schedule.zip(0..CALLS).map(|(at, k)| Arrival { at, prompt: prompt.draw(1, k).max(1), tokens: answer.draw(2, k).max(1) }).collect();
    let mut sums = Sums::default();
    let before = thread_cpu();
    simulate(&fleet, calls.into_iter(), Nanos::from_secs(60), NEVER, 1, &mut sums);
    let seconds = thread_cpu().since(before).as_secs_f64();
    assert_eq!(sums.completed, CALLS, "every call is served");
    (CALLS as f64 / seconds, sums.ttft_s / CALLS as f64)
}

/// Mean wait in a queue before equal servers and that of theory, seconds of a mean service of 1 s; calls per second of CPU time.
fn wait(servers: u32, load: f64, exponential: bool) -> (f64, f64, f64) {
    // Steps of a millisecond: a service of 1 s is a thousand tokens.
    let law = BatchingLaw {
        step_s: 1e-3,
        per_sequence_s: 0.0,
        per_prefill_token_s: 0.0,
        per_kv_token_s: 0.0,
        per_token_s: TokenPrices::default(),
        max_batch: 1,
        chunk_tokens: 1 << 30,
        kv_tokens: 1 << 40,
    };
    let fleet = Fleet { in_flight_per_replica: Some(1), ..Fleet::fixed(law, servers) };
    let service = |k: u64| if exponential { -(-rng::uniform_at(7, k)).ln_1p() } else { 1.0 };
    let schedule = ArrivalProcess::Poisson.schedule(load * f64::from(servers), 3);
    let arrivals =
        schedule.zip(0..CALLS_OF_THEORY).map(|(at, k)| Arrival { at, prompt: 1, tokens: ((service(k) * 1e3 + 0.5) as u32).max(1) });
    let mut sums = Sums::default();
    let before = thread_cpu();
    simulate(&fleet, arrivals, Nanos::from_secs(1_000_000), NEVER, 1, &mut sums);
    let seconds = thread_cpu().since(before).as_secs_f64();
    assert_eq!(sums.completed, CALLS_OF_THEORY, "every call is served");
    // Pollaczek and Khinchine: without variance of service, half the wait.
    let theory = erlang_c(servers, load) / (f64::from(servers) * (1.0 - load)) * if exponential { 1.0 } else { 0.5 };
    (sums.waited_s / CALLS_OF_THEORY as f64, theory, CALLS_OF_THEORY as f64 / seconds)
}

fn noise_probe() -> f64 {
    let before = thread_cpu();
    let mut sum = 0_u64;
    for index in 0..200_000_000_u64 {
        sum = sum.wrapping_add(black_box(index) ^ (sum >> 3));
    }
    black_box(sum);
    thread_cpu().since(before).as_secs_f64()
}

fn main() {
    println!("noise probe, CPU s (equal on a quiet machine): {:.3} {:.3} {:.3}", noise_probe(), noise_probe(), noise_probe());

    println!("\n{CALLS} calls, lognormal lengths, 12 calls/s a replica: simulated calls per second of CPU time, {RUNS} runs");
    println!("{:>8}  {:<13}  {:>12}  {:>12}  {:>10}  {:>12}", "replicas", "routing", "best", "worst", "worst/1e6", "mean TTFT ms");
    for routing in [Routing::LeastLoaded, Routing::PowerOfTwo] {
        for replicas in [1, 8, 64, 512] {
            let runs: Vec<(f64, f64)> = (0..RUNS).map(|_| speed(replicas, routing)).collect();
            let best = runs.iter().map(|run| run.0).fold(0.0, f64::max);
            let worst = runs.iter().map(|run| run.0).fold(f64::INFINITY, f64::min);
            let name = routing.to_string();
            println!("{replicas:>8}  {name:<13}  {best:>12.0}  {worst:>12.0}  {:>10.2}  {:>12.2}", worst / FLOOR, runs[0].1 * 1e3);
        }
    }

    println!("\n{CALLS_OF_THEORY} calls: mean wait beside theory, in services (goal: within 1 %)");
    println!("{:>8}  {:>5}  {:>10}  {:>10}  {:>7}  {:>14}", "queue", "load", "simulated", "theory", "off", "calls/CPU s");
    for (name, servers, load, exponential) in [("M/M/1", 1, 0.7, true), ("M/M/8", 8, 0.8, true), ("M/D/1", 1, 0.7, false)] {
        let (mean, theory, speed) = wait(servers, load, exponential);
        println!("{name:>8}  {load:>5}  {mean:>10.5}  {theory:>10.5}  {:>6.2}%  {speed:>14.0}", (mean / theory - 1.0) * 100.0);
    }
}
