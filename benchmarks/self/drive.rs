//! What the generator itself can do: `drive` against the null target, in virtual and in real time, and the cost of
//! a token on its way through ring, generator and record.
//!
//! Prints requests per second of thread CPU time beside a noise probe (the same sum over and over): on a shared
//! machine the wall clock says as much about the neighbours as about the program.

#![expect(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::hint::black_box;

use plimsoll::clock::{Clock, Monotonic, Nanos, Virtual, thread_cpu};
use plimsoll::load::arrivals::{Arrivals, OnCap, When};
use plimsoll::load::stop::{Live, Stop, Turn};
use plimsoll::load::{Manner, drive};
use plimsoll::record::request::RequestRecord;
use plimsoll::record::target::TargetIdentity;
use plimsoll::target::null::Null;
use plimsoll::target::sink::{Events, Sink, ring};
use plimsoll::target::{Event, EventKind, Slot, Target};
use plimsoll::workload::request::{Prompt, Request, RequestSource, Sampling};

/// Endless requests of one shape.
struct Numbered {
    next: u64,
    output_tokens: u32,
}

impl RequestSource for Numbered {
    fn next_request(&mut self) -> Option<Request> {
        self.next += 1;
        Some(Request {
            id: self.next,
            prompt: Prompt::unique(self.next, 512),
            output_tokens: self.output_tokens,
            sampling: Sampling::default(),
            session: None,
        })
    }
}

/// Counts, and keeps a sum so that nothing is optimised away.
struct Count {
    left: u64,
    latency: u64,
    worst_lag: Nanos,
}

impl Stop for Count {
    fn turn(&mut self, _now: Nanos, _live: &Live) -> Turn {
        if self.left == 0 { Turn::Over } else { Turn::GoOn }
    }

    fn ended(&mut self, record: RequestRecord) {
        self.left = self.left.saturating_sub(1);
        self.latency += record.e2e().map_or(0, |latency| latency.0);
        self.worst_lag = self.worst_lag.max(record.send_lag().unwrap_or_default());
    }
}

fn level(requests: u64, calls_per_s: f64, clock: &mut dyn Clock) -> (f64, f64, Count) {
    let mut stop = Count { left: requests, latency: 0, worst_lag: Nanos::ZERO };
    let mut what = Numbered { next: 0, output_tokens: 128 };
    let schedule = Box::new((0_u64..).map(move |index| Nanos::from_secs_f64(index as f64 / calls_per_s)));
    let when = When::Open { schedule, cap: 4096, on_cap: OnCap::Wait };
    let (wall, cpu) = (Monotonic::start(), thread_cpu());
    let driven = drive(Arrivals { when, what: &mut what }, Manner::default(), &mut stop, &mut Null::default(), clock);
    (driven.sent as f64 / wall.now().as_secs_f64(), driven.sent as f64 / thread_cpu().since(cpu).as_secs_f64(), stop)
}

/// Answers each request with its tokens one by one, through a ring, as the engine does.
struct Talking {
    sink: Sink,
    events: Events,
    submitted: Vec<(Slot, u32)>,
}

impl Target for Talking {
    fn identity(&self) -> TargetIdentity {
        Null::default().identity()
    }

    fn submit(&mut self, request: Request, slot: Slot) {
        self.submitted.push((slot, request.output_tokens));
    }

    fn cancel(&mut self, _slot: Slot) {}

    fn next_event(&mut self) -> Option<Event> {
        self.events.take()
    }

    fn advance(&mut self, at: Nanos) -> Option<Nanos> {
        for (slot, tokens) in self.submitted.drain(..) {
            (0..tokens).for_each(|_| self.sink.report(Event { slot, at, kind: EventKind::Tokens(1) }));
            self.sink.report(Event { slot, at, kind: EventKind::Completed });
        }
        None
    }

    fn has_events(&self) -> bool {
        self.events.waiting()
    }
}

/// CPU time of a request of `tokens` one-token chunks, each kept in its record, nanoseconds.
fn talk(tokens: u32) -> f64 {
    const REQUESTS: u64 = 200_000;
    let (sink, events) = ring(1 << 16);
    let mut target = Talking { sink, events, submitted: Vec::new() };
    let mut stop = Count { left: REQUESTS, latency: 0, worst_lag: Nanos::ZERO };
    let mut what = Numbered { next: 0, output_tokens: tokens };
    let schedule = Box::new((0_u64..).map(|index| Nanos(index * 1_000)));
    let when = When::Open { schedule, cap: 4096, on_cap: OnCap::Wait };
    let cpu = thread_cpu();
    let driven = drive(Arrivals { when, what: &mut what }, Manner::default(), &mut stop, &mut target, &mut Virtual::start());
    assert_eq!(driven.events_lost, 0, "the ring holds what a turn brings");
    thread_cpu().since(cpu).0 as f64 / driven.sent as f64
}

fn noise_probe() -> f64 {
    let wall = Monotonic::start();
    let mut sum = 0_u64;
    for index in 0..200_000_000_u64 {
        sum = sum.wrapping_add(black_box(index) ^ (sum >> 3));
    }
    black_box(sum);
    wall.now().as_secs_f64()
}

fn main() {
    println!("noise probe, s (equal on a quiet machine): {:.3} {:.3} {:.3}", noise_probe(), noise_probe(), noise_probe());

    println!("\ndrive, null target, virtual time, 2,000,000 requests each      (goal 1,000,000 requests/s)");
    for _ in 0..5 {
        let (wall, cpu, _) = level(2_000_000, 1e6, &mut Virtual::start());
        println!("  {wall:>12.0} requests/s of wall time   {cpu:>12.0} requests/s of CPU time");
    }

    println!("\ndrive, null target, real time, 100,000 calls/s for 3 s        (goal: offered rate reached)");
    for _ in 0..5 {
        let (wall, _, stop) = level(300_000, 1e5, &mut Monotonic::start());
        println!("  {wall:>12.0} requests/s reached   worst send lag {:>8.1} us", stop.worst_lag.0 as f64 / 1e3);
    }

    println!("\none token through ring, generator and record, one thread     (goal under 100 ns)");
    for _ in 0..5 {
        println!("  {:>8.2} ns", (talk(257) - talk(1)) / 256.0);
    }
}
