//! Several engines as one target, one a device: a node with all its GPUs at work at once.
//!
//! Each engine gets arrivals of its own: what one sends to a node is split at random, so that every engine sees the same
//! process at its share of the rate, and no clever router makes a GPU look better than it is alone. In closed loop each
//! engine keeps its equal share of what is in flight.

use std::collections::VecDeque;

use crate::clock::{Nanos, ThreadUse};
use crate::record::request::FailureKind;
use crate::record::target::{TargetCounters, TargetIdentity};
use crate::rng;
use crate::target::{Event, EventKind, Slot, Spread, Target};
use crate::workload::request::Request;

/// Engines side by side.
pub struct Several {
    engines: Vec<Engine>,
    /// Whose each slot is, by the slot's number.
    owners: Vec<usize>,
    spread: Spread,
    /// Splits arrivals; counts them.
    seed: u64,
    submitted: u64,
}

/// One of them.
struct Engine {
    target: Box<dyn Target>,
    /// Its next event, taken to be compared with the others'.
    next: VecDeque<Event>,
    in_flight: u32,
}

impl std::fmt::Debug for Several {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Several").field("engines", &self.engines.len()).field("spread", &self.spread).finish_non_exhaustive()
    }
}

impl Several {
    /// All of `targets` together, one or more of them; `seed` splits arrivals among them.
    #[must_use]
    pub fn new(targets: Vec<Box<dyn Target>>, seed: u64) -> Self {
        let engines = targets.into_iter().map(|target| Engine { target, next: VecDeque::with_capacity(1), in_flight: 0 }).collect();
        Self { engines, owners: Vec::new(), spread: Spread::Independent, seed, submitted: 0 }
    }

    /// Who serves `request`. A conversation stays where its beginning is cached.
    fn choose(&self, request: &Request) -> usize {
        let count = self.engines.len() as u64;
        match self.spread {
            Spread::Only(engine) => engine.min(self.engines.len() - 1),
            Spread::Independent => {
                ((u128::from(rng::at(self.seed, request.session.unwrap_or(self.submitted))) * u128::from(count)) >> 64) as usize
            }
            // The first of the least busy ones: each time a request ends, its engine is the one that gets the next.
            Spread::Even => (0..self.engines.len()).min_by_key(|engine| self.engines[*engine].in_flight).unwrap_or(0),
        }
    }
}

/// What several alike targets are together: what each is, on all their devices.
#[must_use]
pub fn identity_of(each: &[TargetIdentity]) -> TargetIdentity {
    let first = each.first().cloned().expect("there is at least one");
    let devices = each.iter().map(|identity| identity.device.as_str()).collect::<Vec<_>>().join(",");
    TargetIdentity {
        device: devices,
        devices: each.iter().map(|identity| identity.devices).sum(),
        max_context: each.iter().map(|identity| identity.max_context).min().unwrap_or(0),
        ..first
    }
}

impl Target for Several {
    fn identity(&self) -> TargetIdentity {
        identity_of(&self.engines.iter().map(|engine| engine.target.identity()).collect::<Vec<_>>())
    }

    fn submit(&mut self, request: Request, slot: Slot) {
        let chosen = self.choose(&request);
        self.submitted += 1;
        let place = slot.0 as usize;
        if place >= self.owners.len() {
            self.owners.resize(place + 1, 0);
        }
        self.owners[place] = chosen;
        self.engines[chosen].in_flight += 1;
        self.engines[chosen].target.submit(request, slot);
    }

    fn cancel(&mut self, slot: Slot) {
        if let Some(owner) = self.owners.get(slot.0 as usize) {
            self.engines[*owner].target.cancel(slot);
        }
    }

    fn next_event(&mut self) -> Option<Event> {
        for engine in &mut self.engines {
            if engine.next.is_empty() {
                engine.next.extend(engine.target.next_event());
            }
        }
        let earliest = self.engines.iter_mut().filter(|engine| !engine.next.is_empty()).min_by_key(|engine| engine.next[0].at)?;
        let event = earliest.next.pop_front()?;
        if matches!(event.kind, EventKind::Completed | EventKind::Failed(_)) {
            earliest.in_flight = earliest.in_flight.saturating_sub(1);
        }
        Some(event)
    }

    fn advance(&mut self, now: Nanos) -> Option<Nanos> {
        self.engines.iter_mut().filter_map(|engine| engine.target.advance(now)).min()
    }

    fn wake_this_thread(&mut self) {
        self.engines.iter_mut().for_each(|engine| engine.target.wake_this_thread());
    }

    fn has_events(&self) -> bool {
        self.engines.iter().any(|engine| !engine.next.is_empty() || engine.target.has_events())
    }

    /// One dead engine is a dead node: the rest would be measured as the whole.
    fn is_alive(&self) -> bool {
        self.engines.iter().all(|engine| engine.target.is_alive())
    }

    fn said(&self, kind: FailureKind) -> Option<String> {
        self.engines.iter().find_map(|engine| engine.target.said(kind))
    }

    fn events_lost(&self) -> u64 {
        self.engines.iter().map(|engine| engine.target.events_lost()).sum()
    }

    fn counters(&self) -> TargetCounters {
        self.engines.iter().map(|engine| engine.target.counters()).fold(TargetCounters::default(), TargetCounters::and)
    }

    fn counters_by_device(&self) -> Vec<TargetCounters> {
        self.engines.iter().map(|engine| engine.target.counters()).collect()
    }

    fn client_threads(&self) -> Vec<ThreadUse> {
        self.engines.iter().flat_map(|engine| engine.target.client_threads()).collect()
    }

    fn spread(&mut self, spread: Spread) {
        self.spread = spread;
    }
}
