//! What the generator itself can do on this machine: requests per second against the null target, or over HTTP against a server
//! that answers at once.

use std::io;
use std::sync::Arc;

use crate::clock::{Clock, Monotonic, Nanos};
use crate::http::endpoint::{Address, Endpoint};
use crate::load::arrivals::{Arrivals, OnCap, When};
use crate::load::stop::{Live, Stop, Turn};
use crate::load::{Chunks, Manner, drive};
use crate::record::request::RequestRecord;
use crate::record::target::TargetIdentity;
use crate::target::null::Null;
use crate::target::openai::ask::{Api, PromptForm};
use crate::target::openai::loopback::Loopback;
use crate::target::openai::protocol::Protocol;
use crate::target::openai::{self, Server, TimeLimits};
use crate::workload::request::{Prompt, Request, RequestSource, Sampling};

/// Requests of one measurement: a few hundredths of a second.
const REQUESTS: u64 = 50_000;
/// The best of so many: what disturbs it is not the generator.
const REPEATS: usize = 3;

/// How long the generator is measured over HTTP, after a beginning that makes the connections.
const OVER_HTTP: Nanos = Nanos::from_millis(800);
const BEGINNING: Nanos = Nanos::from_millis(150);
/// Requests in flight over HTTP.
const AT_ONCE: u32 = 64;
/// Ids of the prompts over HTTP.
const VOCABULARY: u32 = 20_000;
/// Longest prompt and answer over HTTP, tokens: beyond them a request costs as much as its length.
const LONGEST: u32 = 2048;

/// Requests of one shape.
struct Alike {
    next: u64,
    prompt: u32,
    tokens: u32,
}

impl RequestSource for Alike {
    fn next_request(&mut self) -> Option<Request> {
        let id = self.next;
        self.next += 1;
        let prompt = Prompt::unique(id, self.prompt);
        Some(Request { id, prompt, output_tokens: self.tokens, sampling: Sampling::default(), session: None })
    }
}

struct Count(u64);

impl Stop for Count {
    fn turn(&mut self, _now: Nanos, _live: &Live) -> Turn {
        if self.0 >= REQUESTS { Turn::Over } else { Turn::GoOn }
    }

    fn ended(&mut self, _record: RequestRecord) {
        self.0 += 1;
    }
}

/// Counts what completes between two times.
struct Between {
    from: Nanos,
    to: Nanos,
    completed: u64,
}

impl Stop for Between {
    fn turn(&mut self, now: Nanos, _live: &Live) -> Turn {
        if now >= self.to { Turn::Over } else { Turn::GoOn }
    }

    fn next_due(&self) -> Nanos {
        self.to
    }

    fn ended(&mut self, record: RequestRecord) {
        self.completed += u64::from(record.completed() && record.end >= self.from && record.end < self.to);
    }
}

/// Calls per second that the generator reaches when it speaks so, with prompts and answers of these lengths, a token an event; at
/// least, since the server that answers is no faster than it.
///
/// # Errors
/// When the system gives no port, descriptors or threads, or nothing was answered in time.
pub fn over_http(prompt_tokens: u32, output_tokens: u32, protocol: Protocol) -> io::Result<f64> {
    let (prompt, tokens) = (prompt_tokens.clamp(1, LONGEST), output_tokens.clamp(1, LONGEST));
    let server = Loopback::start(tokens, protocol)?;
    let endpoint = Endpoint { tls: false, host: "127.0.0.1".to_owned(), port: server.address.port(), prefix: String::new(), socket: None };
    let manner = openai::ask::Manner {
        api: Api::Completions,
        model: "loopback".to_owned(),
        prompt: PromptForm::Ids(VOCABULARY),
        force_length: true,
        ask_usage: true,
        ask_running_usage: false,
        completion_limit: false,
        more: String::new(),
    };
    let asked = Arc::new(Server {
        endpoint,
        address: Address::Tcp(server.address),
        tls: None,
        headers: Vec::new(),
        manner,
        limits: TimeLimits::default(),
        identity: TargetIdentity::unknown(),
        tokens_per_event: 1.0,
        tokenizer: None,
        tag: "ceiling".to_owned(),
    });
    let mut clock = Monotonic::start();
    let mut target = protocol.client(asked, clock)?;
    let from = clock.now() + BEGINNING;
    let mut counted = Between { from, to: from + OVER_HTTP, completed: 0 };
    let when = When::Closed { concurrency: AT_ONCE, stagger: Nanos::ZERO, seed: 0 };
    let mut what = Alike { next: 0, prompt, tokens };
    let manner = Manner { chunks: Chunks::Count, ..Manner::default() };
    drive(Arrivals { when, what: &mut what }, manner, &mut counted, &mut *target, &mut clock);
    match counted.completed {
        // A machine too busy to answer itself within a second tells nothing.
        0 => Err(io::ErrorKind::TimedOut.into()),
        completed => Ok(completed as f64 / OVER_HTTP.as_secs_f64()),
    }
}

/// Calls per second that the generator reaches when everything is due at once.
#[must_use]
pub fn measure() -> f64 {
    let mut best = 0.0_f64;
    for _ in 0..REPEATS {
        let mut clock = Monotonic::start();
        let mut what = Alike { next: 0, prompt: 1, tokens: 1 };
        let when = When::Open { schedule: Box::new(std::iter::repeat_n(Nanos::ZERO, REQUESTS as usize)), cap: 64, on_cap: OnCap::Wait };
        drive(Arrivals { when, what: &mut what }, Manner::default(), &mut Count(0), &mut Null::default(), &mut clock);
        best = best.max(REQUESTS as f64 / clock.now().as_secs_f64().max(1e-9));
    }
    best
}
