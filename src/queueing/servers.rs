//! Equal servers behind one queue in order of arrival: M/M/1, M/M/c and M/D/1 when arrivals are Poisson.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::clock::Nanos;
use crate::queueing::law::{ServiceTime, Stalls};
use crate::queueing::replica::{Happening, Job, Report};

/// Where a server is with its job.
#[derive(Clone, Copy, Debug)]
struct Served {
    id: u64,
    started: Nanos,
    length: Nanos,
    tokens: u32,
    /// Tokens that came out.
    out: u32,
}

#[derive(Debug)]
pub(crate) struct Servers {
    service: ServiceTime,
    stalls: Stalls,
    seed: u64,
    queue: VecDeque<Job>,
    /// One place a server.
    places: Vec<Option<Served>>,
    free: Vec<usize>,
    /// When the next token of a place comes out. An entry whose job was cancelled is skipped when it comes up.
    events: BinaryHeap<Reverse<(Nanos, usize, u64)>>,
    /// Admissions at arrival, not yet reported: all earlier than any event in the heap.
    admitted: VecDeque<(Nanos, u64)>,
    now: Nanos,
}

impl Servers {
    pub(crate) fn new(count: u32, service: ServiceTime, stalls: Stalls, seed: u64) -> Self {
        let count = count.max(1) as usize;
        Self {
            service,
            stalls,
            seed,
            queue: VecDeque::new(),
            places: vec![None; count],
            free: (0..count).rev().collect(),
            events: BinaryHeap::with_capacity(count),
            admitted: VecDeque::new(),
            now: Nanos::ZERO,
        }
    }

    pub(crate) fn arrive(&mut self, job: Job) {
        self.now = self.now.max(job.arrived);
        match self.free.pop() {
            Some(place) => {
                self.admitted.push_back((self.now, job.id));
                self.serve(place, job, self.now);
            }
            None => self.queue.push_back(job),
        }
    }

    pub(crate) fn cancel(&mut self, id: u64) {
        self.admitted.retain(|(_, admitted)| *admitted != id);
        if let Some(place) = self.places.iter().position(|served| served.is_some_and(|served| served.id == id)) {
            self.places[place] = None;
            self.release(place, self.now);
        } else if let Some(index) = self.queue.iter().position(|job| job.id == id) {
            self.queue.remove(index);
        }
    }

    pub(crate) fn advance(&mut self, now: Nanos, report: &mut Report<'_>) -> Option<Nanos> {
        while let Some((at, id)) = self.admitted.pop_front() {
            report(at, id, Happening::Admitted);
        }
        while let Some(&Reverse((at, place, id))) = self.events.peek() {
            let Some(mut served) = self.places[place].filter(|served| served.id == id) else {
                self.events.pop();
                continue;
            };
            if at > now {
                break;
            }
            self.events.pop();
            served.out += 1;
            report(at, id, Happening::Tokens(1));
            if served.out < served.tokens {
                self.places[place] = Some(served);
                self.expect(place, served);
                continue;
            }
            report(at, id, Happening::Completed);
            self.places[place] = None;
            self.release(place, at);
            while let Some((at, id)) = self.admitted.pop_front() {
                report(at, id, Happening::Admitted);
            }
        }
        self.now = self.now.max(now);
        self.events.peek().map(|Reverse((at, ..))| *at)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.queue.len() + self.places.len() - self.free.len()
    }

    /// A free place takes the next job of the queue.
    fn release(&mut self, place: usize, at: Nanos) {
        match self.queue.pop_front() {
            Some(job) => {
                self.admitted.push_back((at, job.id));
                self.serve(place, job, at);
            }
            None => self.free.push(place),
        }
    }

    fn serve(&mut self, place: usize, job: Job, at: Nanos) {
        let length = Nanos::from_secs_f64(self.service.sample_s(self.seed, job.id));
        let served = Served { id: job.id, started: at, length, tokens: job.output_tokens.max(1), out: 0 };
        self.places[place] = Some(served);
        self.expect(place, served);
    }

    /// Files the next token of a place.
    fn expect(&mut self, place: usize, served: Served) {
        // Exact at the last token: what is served for `length` ends after `length`.
        let part = u128::from(served.length.0) * u128::from(served.out + 1) / u128::from(served.tokens);
        let at = self.stalls.done(served.started, Nanos(part as u64));
        self.events.push(Reverse((at, place, served.id)));
    }
}
