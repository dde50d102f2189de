//! One run of the client on its core against a server on another.

use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::{Clock, Monotonic, Nanos, thread_cpu};
use plimsoll::http::endpoint::Address;
use plimsoll::load::arrivals::{Arrivals, OnCap, When};
use plimsoll::load::stop::AfterRequests;
use plimsoll::load::{Chunks, Manner as DriveManner, drive};
use plimsoll::record::request::RequestRecord;
use plimsoll::record::target::TargetIdentity;
use plimsoll::rng;
use plimsoll::target::openai::ask::{Api, Manner, PromptForm};
use plimsoll::target::openai::reactor::OpenAi;
use plimsoll::target::openai::{Server, TimeLimits};
use plimsoll::workload::request::{Prompt, Request, RequestSource, Sampling};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::openai::script::Behaviour;
use crate::openai::{OpenAiServer, Settings};
use crate::truth::{self, Quantiles, SaidFigures, TrueFigures};
use crate::{CLIENT, SERVER};

/// When requests start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Drive {
    /// So many at once.
    Closed(u32),
    /// So many a second, Poisson.
    Open(f64),
}

/// A run, as asked for.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) drive: Drive,
    pub(crate) tokens: u32,
    pub(crate) requests: usize,
    pub(crate) behaviour: Behaviour,
}

/// A run, as it went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    pub(crate) tokens: u32,
    pub(crate) requests_per_s: f64,
    pub(crate) cpu_us_per_request: f64,
    pub(crate) client_share: f64,
    pub(crate) server_share: f64,
    pub(crate) said: SaidFigures,
    pub(crate) truth: TrueFigures,
    pub(crate) error_ms: Quantiles,
    pub(crate) resident: u64,
}

/// Endless requests of one shape.
struct Alike {
    next: u64,
    tokens: u32,
}

impl RequestSource for Alike {
    fn next_request(&mut self) -> Option<Request> {
        let id = self.next;
        self.next += 1;
        Some(Request { id, prompt: Prompt::unique(id, 16), output_tokens: self.tokens, sampling: Sampling::default(), session: None })
    }
}

/// The calling thread runs on this core alone; threads that it starts begin there too.
pub(crate) fn pin(cpu: usize) {
    let mut set = CpuSet::new();
    set.set(cpu);
    // Where the machine has no such core, the figures say so themselves.
    let _ = sched_setaffinity(None, &set);
}

/// How late sleeping threads wake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Sleeps a millisecond over and over.
pub(crate) fn noise(length: Duration) -> Noise {
    let clock = Monotonic::start();
    let mut late = Vec::new();
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
    while clock.now() < Nanos::from_secs_f64(length.as_secs_f64()) {
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(1));
        late.push(clock.now().since(before).as_secs_f64() * 1e6 - 1000.0);
    }
    let quantiles = Quantiles::of(late);
    Noise { p50_us: quantiles.p50, p99_us: quantiles.p99 }
}

/// Memory that this process holds, bytes.
pub(crate) fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// Runs the client alone against a server that is there, and says what it saw as a JSON object.
pub(crate) fn client(address: std::net::SocketAddr, concurrency: u32, tokens: u32, requests: usize) -> String {
    let mut clock = Monotonic::start();
    let mut target = OpenAi::new(Arc::new(server_at(address, 1.0)), clock).unwrap();
    let mut what = Alike { next: 0, tokens };
    let mut stop = AfterRequests { count: requests, ..AfterRequests::default() };
    let when = When::Closed { concurrency, stagger: Nanos::ZERO, seed: 1 };
    let (cpu, begin) = (thread_cpu(), clock.now());
    drive(Arrivals { when, what: &mut what }, DriveManner::default(), &mut stop, &mut target, &mut clock);
    let (cpu, wall) = (thread_cpu().since(cpu).as_secs_f64(), clock.now().since(begin).as_secs_f64());
    let said = truth::said(&stop.records);
    let completed = stop.records.iter().filter(|record| record.completed()).count();
    format!(
        "{{\"completed\": {completed}, \"wall_s\": {wall:.3}, \"cpu_s\": {cpu:.3}, \"ttft_p50_ms\": {:.3}, \"ttft_p99_ms\": {:.3}, \"gap_p99_ms\": {:.3}, \"resident_mb\": {:.1}}}",
        said.ttft_ms.p50,
        said.ttft_ms.p99,
        said.gap_ms.p99,
        resident_bytes() as f64 / 1e6
    )
}

/// A server by its address, asked as exactly as can be.
fn server_at(address: std::net::SocketAddr, tokens_per_event: f64) -> Server {
    let manner = Manner {
        api: Api::Completions,
        model: "fake".to_owned(),
        prompt: PromptForm::Ids(20_000),
        force_length: true,
        ask_usage: true,
        ask_running_usage: false,
        completion_limit: false,
        more: String::new(),
    };
    Server {
        endpoint: format!("http://{address}").parse().unwrap(),
        address: Address::Tcp(address),
        tls: None,
        headers: Vec::new(),
        manner,
        limits: TimeLimits::default(),
        identity: TargetIdentity::unknown(),
        tokens_per_event,
        tokenizer: None,
        tag: "bench".to_owned(),
    }
}

/// Runs it.
pub(crate) fn run(asked: &Asked) -> Run {
    let behaviour = asked.behaviour.clone();
    let settings = Settings { cpu: Some(SERVER), keeps_requests: false, ..Settings::default() };
    let server = OpenAiServer::with(settings, Box::new(move |_| behaviour.clone())).unwrap();
    pin(CLIENT);
    let mut clock = Monotonic::start();
    let origin = crate::openai::truth::now() - clock.now().0;
    let target = server_at(server.addr, f64::from(asked.behaviour.tokens_per_event));
    let mut target = OpenAi::new(Arc::new(target), clock).unwrap();
    let mut what = Alike { next: 0, tokens: asked.tokens };
    let mut stop = AfterRequests { count: asked.requests, records: Vec::with_capacity(asked.requests + 4096) };
    let cycle_ms = asked.behaviour.ttft.as_secs_f64() * 1000.0 + asked.behaviour.gap.as_secs_f64() * 1000.0 * f64::from(asked.tokens - 1);
    let (when, streams) = match asked.drive {
        Drive::Closed(concurrency) => {
            let stagger = Nanos::from_secs_f64(cycle_ms / 1000.0);
            (When::Closed { concurrency, stagger, seed: 1 }, concurrency)
        }
        Drive::Open(rate) => {
            let mut at = 0.0;
            let schedule = (0_u64..).map(move |index| {
                at += -(1.0 - rng::uniform_at(3, index)).ln() / rate;
                Nanos::from_secs_f64(at)
            });
            (When::Open { schedule: Box::new(schedule), cap: 4096, on_cap: OnCap::Wait }, 1)
        }
    };
    let chunks = if cycle_ms > 0.0 { Chunks::Keep } else { Chunks::Count };
    let before = (thread_cpu(), clock.spun(), clock.now(), plimsoll::clock::process_cpu());
    let driven =
        drive(Arrivals { when, what: &mut what }, DriveManner { chunks, ..DriveManner::default() }, &mut stop, &mut target, &mut clock);
    let after = (thread_cpu(), clock.spun(), clock.now(), plimsoll::clock::process_cpu());
    let wall = after.2.since(before.2).as_secs_f64();
    let spun = after.1.since(before.1);
    let cpu = after.0.since(before.0).since(spun).as_secs_f64();
    let resident = resident_bytes();
    let mut records: Vec<RequestRecord> = stop.records;
    records.retain(RequestRecord::completed);
    // The first wave is shortened, and the last one is on its own.
    records.retain(|record| record.requested_tokens == asked.tokens);
    let log = server.truth();
    let (figures, error_ms) = truth::truth(&log, &records, origin, streams, cycle_ms.max(1e-9), asked.tokens);
    Run {
        tokens: asked.tokens,
        requests_per_s: driven.sent as f64 / wall,
        cpu_us_per_request: cpu * 1e6 / driven.sent as f64,
        client_share: cpu / wall,
        server_share: (after.3.since(before.3).as_secs_f64() - after.0.since(before.0).as_secs_f64()) / wall,
        said: truth::said(&records),
        truth: figures,
        error_ms,
        resident,
    }
}
