//! A target with known answers: a service law in virtual time.
//!
//! It shows what the method finds where the truth is known, and lets a whole campaign run in a second. Its figures
//! are labelled as simulated in every output.

use std::collections::VecDeque;

use crate::clock::Nanos;
use crate::queueing::law::ServiceLaw;
use crate::queueing::replica::{Happening, Job, Replica};
use crate::record::request::FailureKind;
use crate::record::target::{BatchLimits, TargetCounters, TargetIdentity};
use crate::target::{Event, EventKind, Slot, Target};
use crate::workload::request::Request;

/// One replica under a service law. Lives only when it is advanced.
#[derive(Debug)]
pub struct Simulated {
    name: String,
    batch: BatchLimits,
    replica: Replica,
    now: Nanos,
    /// The job that each slot names now. A job's id holds its slot in the low bits and is never used twice, because
    /// the law draws service times from it.
    jobs: Vec<u64>,
    jobs_made: u64,
    events: VecDeque<Event>,
    counters: TargetCounters,
}

/// Bits of a job's id that hold its slot.
const SLOT_BITS: u32 = 24;

fn slot_of(job: u64) -> Slot {
    Slot((job & ((1 << SLOT_BITS) - 1)) as u32)
}

impl Simulated {
    /// A fresh replica under `law`, which a person would call `name`.
    #[must_use]
    pub fn new(name: &str, law: ServiceLaw, seed: u64) -> Self {
        Self {
            name: name.to_owned(),
            batch: limits_of(&law),
            replica: Replica::new(law, seed),
            now: Nanos::ZERO,
            jobs: Vec::new(),
            jobs_made: 0,
            events: VecDeque::new(),
            counters: TargetCounters::default(),
        }
    }

    /// What such a target is.
    #[must_use]
    pub fn identity_of(name: &str) -> TargetIdentity {
        TargetIdentity {
            kind: "simulated".to_owned(),
            model: format!("service law `{name}`"),
            device: "virtual".to_owned(),
            precision: "none".to_owned(),
            devices: 1,
            labels: vec!["simulated target: no measurement of any hardware".to_owned()],
            max_context: 0,
            vocab_size: 0,
            batch: BatchLimits::default(),
        }
    }
}

/// What bounds a batch under `law`.
#[must_use]
pub fn limits_of(law: &ServiceLaw) -> BatchLimits {
    match law {
        ServiceLaw::Batching(law) => {
            BatchLimits { max_sequences: Some(law.max_batch), max_step_tokens: Some(law.chunk_tokens), kv_tokens: Some(law.kv_tokens) }
        }
        ServiceLaw::Servers { count, .. } => BatchLimits { max_sequences: Some(*count), ..BatchLimits::default() },
        ServiceLaw::Stall { otherwise, .. } => limits_of(otherwise),
    }
}

impl Target for Simulated {
    fn identity(&self) -> TargetIdentity {
        TargetIdentity { batch: self.batch, ..Self::identity_of(&self.name) }
    }

    fn submit(&mut self, request: Request, slot: Slot) {
        let prompt_tokens = request.prompt.len();
        self.counters.prefill_tokens += u64::from(prompt_tokens);
        let id = (self.jobs_made << SLOT_BITS) | u64::from(slot.0);
        self.jobs_made += 1;
        if self.jobs.len() <= slot.0 as usize {
            self.jobs.resize(slot.0 as usize + 1, u64::MAX);
        }
        self.jobs[slot.0 as usize] = id;
        self.replica.arrive(Job { id, arrived: self.now, prompt_tokens, output_tokens: request.output_tokens });
    }

    fn cancel(&mut self, slot: Slot) {
        if let Some(job) = self.jobs.get(slot.0 as usize) {
            self.replica.cancel(*job);
        }
        self.events.push_back(Event { slot, at: self.now, kind: EventKind::Failed(FailureKind::TargetGone) });
    }

    fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn advance(&mut self, now: Nanos) -> Option<Nanos> {
        self.now = now;
        let Self { replica, events, counters, .. } = self;
        replica.advance(now, &mut |at, id, happening| {
            let kind = match happening {
                Happening::Admitted => EventKind::Started { cached_tokens: 0 },
                Happening::Tokens(tokens) => {
                    counters.decode_tokens += u64::from(tokens);
                    EventKind::Tokens(tokens)
                }
                Happening::Preempted => {
                    counters.preemptions += 1;
                    EventKind::Preempted
                }
                Happening::Completed => EventKind::Completed,
            };
            events.push_back(Event { slot: slot_of(id), at, kind });
        })
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    fn counters(&self) -> TargetCounters {
        self.counters
    }
}
