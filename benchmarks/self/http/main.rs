//! What the HTTP client can do on one core, and how true its stamps are, beside a server on the other core that keeps
//! the truth of every write.
//!
//! `cargo bench --bench http` prints a table; `-- NAME...` runs some scenarios alone. CPU is thread CPU time of the client;
//! each rate is the best of five; a noise probe tells what the machine's own wake-ups are late by.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#![expect(clippy::unwrap_used, reason = "a benchmark that cannot start has nothing to say")]

#[path = "../../../tests/fakes/openai/mod.rs"]
#[expect(dead_code, reason = "tests use more of it")]
mod openai;
mod scenario;
mod truth;

use std::time::Duration;

use openai::script::Behaviour;
use scenario::{Asked, Drive, Run, run};

/// The client's core and the server's.
const CLIENT: usize = 0;
const SERVER: usize = 1;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // For a comparison with other clients: `client ADDRESS CONCURRENCY TOKENS REQUESTS`, against a server that runs already.
    if let [name, address, concurrency, tokens, requests] = &arguments[..]
        && name == "client"
    {
        let run =
            scenario::client(address.parse().unwrap(), concurrency.parse().unwrap(), tokens.parse().unwrap(), requests.parse().unwrap());
        println!("{run}");
        return;
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| name.starts_with(wanted.as_str()));
    scenario::pin(CLIENT);
    let noise = scenario::noise(Duration::from_secs(2));
    println!("noise probe: a sleep of 1 ms on the client's core wakes {:.0} us late at p50, {:.0} us at p99", noise.p50_us, noise.p99_us);
    for (name, concurrency, tokens, requests) in [
        ("short", 1, 8, 20_000),
        ("short", 64, 8, 40_000),
        ("short", 1024, 8, 40_000),
        ("burst", 64, 128, 10_000),
        ("burst", 1024, 128, 10_000),
    ] {
        if wants(name) {
            let asked = Asked { drive: Drive::Closed(concurrency), tokens, requests, behaviour: Behaviour::default() };
            let runs: Vec<Run> = (0..5).map(|_| run(&asked)).collect();
            let best = runs.iter().max_by(|one, other| one.requests_per_s.total_cmp(&other.requests_per_s)).unwrap();
            let worst = runs.iter().map(|run| run.requests_per_s).fold(f64::MAX, f64::min);
            println!(
                "{name}: {concurrency} at once, {tokens} tokens: {:.0} requests/s (worst of five {worst:.0}), {:.0} chunks/s; client CPU {:.1} us a request, {:.2} us a chunk, {:.0} % of its core; server {:.0} % of its own",
                best.requests_per_s,
                best.requests_per_s * f64::from(tokens),
                best.cpu_us_per_request,
                best.cpu_us_per_request / f64::from(tokens),
                best.client_share * 100.0,
                best.server_share * 100.0,
            );
        }
    }
    for streams in [4, 64, 256, 1024] {
        if wants("paced") {
            let behaviour = Behaviour { ttft: Duration::from_millis(50), gap: Duration::from_millis(20), ..Behaviour::default() };
            let asked = Asked { drive: Drive::Closed(streams), tokens: 64, requests: (3 * streams as usize).max(40), behaviour };
            paced(&format!("paced: {streams} streams"), &run(&asked), &noise);
        }
    }
    if wants("four") {
        let behaviour =
            Behaviour { ttft: Duration::from_millis(100), gap: Duration::from_millis(40), tokens_per_event: 4, ..Behaviour::default() };
        let asked = Asked { drive: Drive::Closed(16), tokens: 16, requests: 100, behaviour };
        let run = run(&asked);
        println!("four tokens an event, 10 ms a token: TPOT p50 {:.3} ms, p99 {:.3} ms", run.said.tpot_ms.p50, run.said.tpot_ms.p99);
    }
    for rate in [50, 200, 1000] {
        if wants("open") {
            let behaviour = Behaviour { ttft: Duration::from_millis(20), gap: Duration::from_millis(5), ..Behaviour::default() };
            let asked = Asked { drive: Drive::Open(f64::from(rate)), tokens: 8, requests: 10 * rate as usize, behaviour };
            let run = run(&asked);
            println!(
                "open: {rate}/s asked, {:.1}/s at the server; lateness p50 {:.3} ms, p99 {:.3} ms, max {:.3} ms; intended to arrival p99 {:.3} ms; TTFT p99 said {:.2} ms",
                run.requests_per_s,
                run.said.lag_ms.p50,
                run.said.lag_ms.p99,
                run.said.lag_ms.max,
                run.truth.arrival_ms.p99,
                run.said.ttft_ms.p99,
            );
        }
    }
    for streams in [64, 4096] {
        if wants("memory") {
            let behaviour = Behaviour { ttft: Duration::from_millis(50), gap: Duration::from_millis(200), ..Behaviour::default() };
            let asked = Asked { drive: Drive::Closed(streams), tokens: 16, requests: 2 * streams as usize, behaviour };
            let before = scenario::resident_bytes();
            let run = run(&asked);
            let grown = run.resident.saturating_sub(before) as f64 / 1e6;
            println!(
                "memory: {streams} streams: {:.1} MB resident (server and client in one process), {grown:.1} MB of it grown by this level",
                run.resident as f64 / 1e6
            );
        }
    }
}

fn paced(name: &str, run: &Run, noise: &scenario::Noise) {
    println!(
        "{name}: held {:.0} chunks/s ({:.0} offered); TTFT said p50 {:.2} p99 {:.2} ms, true p50 {:.2} p99 {:.2} ms; error p50 {:.3} p99 {:.3} ms (less noise {:.3}); gap p99 said {:.2}, true {:.2} ms; client CPU {:.1} us a chunk, {:.0} % of its core",
        run.truth.chunks_per_s,
        run.truth.offered_chunks_per_s,
        run.said.ttft_ms.p50,
        run.said.ttft_ms.p99,
        run.truth.ttft_ms.p50,
        run.truth.ttft_ms.p99,
        run.error_ms.p50,
        run.error_ms.p99,
        (run.error_ms.p99 - noise.p99_us / 1000.0).max(0.0),
        run.said.gap_ms.p99,
        run.truth.gap_ms.p99,
        run.cpu_us_per_request / f64::from(run.tokens),
        run.client_share * 100.0,
    );
}
