//! The target that answers at once: what the generator itself can do.
//!
//! Every measured level is compared with this ceiling, so a saturated generator is never mistaken for a slow GPU.

use std::collections::VecDeque;

use crate::clock::Nanos;
use crate::record::target::{BatchLimits, TargetIdentity};
use crate::target::{Event, EventKind, Slot, Target};
use crate::workload::request::Request;

/// Answers each request with all its tokens in one chunk, the next time it is looked at.
#[derive(Debug, Default)]
pub struct Null {
    submitted: Vec<(Slot, u32)>,
    events: VecDeque<Event>,
}

impl Target for Null {
    fn identity(&self) -> TargetIdentity {
        TargetIdentity {
            kind: "null".to_owned(),
            model: "none".to_owned(),
            device: "none".to_owned(),
            precision: "none".to_owned(),
            devices: 1,
            labels: vec!["null target: the generator's own ceiling".to_owned()],
            max_context: 0,
            vocab_size: 0,
            batch: BatchLimits::default(),
        }
    }

    fn submit(&mut self, request: Request, slot: Slot) {
        self.submitted.push((slot, request.output_tokens));
    }

    fn cancel(&mut self, _slot: Slot) {}

    fn next_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn advance(&mut self, now: Nanos) -> Option<Nanos> {
        for (slot, tokens) in self.submitted.drain(..) {
            self.events.push_back(Event { slot, at: now, kind: EventKind::Started { cached_tokens: 0 } });
            self.events.push_back(Event { slot, at: now, kind: EventKind::Tokens(tokens) });
            self.events.push_back(Event { slot, at: now, kind: EventKind::Completed });
        }
        None
    }

    fn has_events(&self) -> bool {
        !self.events.is_empty()
    }
}
