//! One replica in virtual time: jobs arrive, time is moved on, and what happened is reported in order.
//!
//! It keeps no statistics and has no clock of its own; who drives it decides when it is.

use crate::clock::Nanos;
use crate::queueing::batching::Batching;
use crate::queueing::law::{ServiceLaw, Stalls};
use crate::queueing::servers::Servers;

/// One inference call, as far as a queue cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// Unique among the jobs of a replica.
    pub id: u64,
    /// When it arrives: not before the last `advance`, not before the last job.
    pub arrived: Nanos,
    /// Prompt length.
    pub prompt_tokens: u32,
    /// Tokens to generate; 0 counts as 1.
    pub output_tokens: u32,
}

/// What can happen to a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It left the queue and is being served.
    Admitted,
    /// That many tokens of it came out.
    Tokens(u32),
    /// It lost its place and waits again; tokens that came out stay out.
    Preempted,
    /// It is done, right after its last token.
    Completed,
}

/// Who is told: when, to which job, what.
pub type Report<'a> = dyn FnMut(Nanos, u64, Happening) + 'a;

/// A replica and everything in it.
#[derive(Debug)]
pub struct Replica {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Servers(Servers),
    Batching(Batching),
}

impl Replica {
    /// An empty replica at time 0. Service times are drawn from `seed` and a job's id.
    #[must_use]
    pub fn new(law: ServiceLaw, seed: u64) -> Self {
        let (law, stalls) = Stalls::peel(law);
        let kind = match law {
            ServiceLaw::Servers { count, service } => Kind::Servers(Servers::new(count, service, stalls, seed)),
            ServiceLaw::Batching(law) => Kind::Batching(Batching::new(law, stalls)),
            ServiceLaw::Stall { .. } => unreachable!("stalls were peeled off"),
        };
        Self { kind }
    }

    /// Takes a job in. Advance the replica to `job.arrived` before (so that it has room by then what has room) and
    /// after (to hear of its admission and of the next event).
    pub fn arrive(&mut self, job: Job) {
        match &mut self.kind {
            Kind::Servers(servers) => servers.arrive(job),
            Kind::Batching(batching) => batching.arrive(job),
        }
    }

    /// Drops a job, waiting or served; nothing more is reported of it. An unknown id is nothing.
    pub fn cancel(&mut self, id: u64) {
        match &mut self.kind {
            Kind::Servers(servers) => servers.cancel(id),
            Kind::Batching(batching) => batching.cancel(id),
        }
    }

    /// Lives up to and including `now`, reports each happening in order of time, and returns when the next internal
    /// event is due, if nothing arrives before.
    pub fn advance(&mut self, now: Nanos, report: &mut Report<'_>) -> Option<Nanos> {
        match &mut self.kind {
            Kind::Servers(servers) => servers.advance(now, report),
            Kind::Batching(batching) => batching.advance(now, report),
        }
    }

    /// Jobs in it, waiting and served.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        match &self.kind {
            Kind::Servers(servers) => servers.in_flight(),
            Kind::Batching(batching) => batching.in_flight(),
        }
    }
}
