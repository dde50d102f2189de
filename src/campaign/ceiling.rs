//! What the generator itself can do on this machine: requests per second against the null target.

use crate::clock::{Clock, Monotonic, Nanos};
use crate::load::arrivals::{Arrivals, OnCap, When};
use crate::load::stop::{Live, Stop, Turn};
use crate::load::{Manner, drive};
use crate::record::request::RequestRecord;
use crate::target::null::Null;
use crate::workload::request::{Prompt, Request, RequestSource, Sampling};

/// Requests of one measurement: a few hundredths of a second.
const REQUESTS: u64 = 50_000;
/// The best of so many: what disturbs it is not the generator.
const REPEATS: usize = 3;

struct Shapeless(u64);

impl RequestSource for Shapeless {
    fn next_request(&mut self) -> Option<Request> {
        let id = self.0;
        self.0 += 1;
        Some(Request { id, prompt: Prompt::unique(id, 1), output_tokens: 1, sampling: Sampling::default(), session: None })
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

/// Calls per second that the generator reaches when everything is due at once.
#[must_use]
pub fn measure() -> f64 {
    let mut best = 0.0_f64;
    for _ in 0..REPEATS {
        let mut clock = Monotonic::start();
        let mut what = Shapeless(0);
        let when = When::Open { schedule: Box::new(std::iter::repeat_n(Nanos::ZERO, REQUESTS as usize)), cap: 64, on_cap: OnCap::Wait };
        drive(Arrivals { when, what: &mut what }, Manner::default(), &mut Count(0), &mut Null::default(), &mut clock);
        best = best.max(REQUESTS as f64 / clock.now().as_secs_f64().max(1e-9));
    }
    best
}
