//! The events of a fleet in order of time: who comes, who is served, who gives up, what grows.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use crate::clock::Nanos;
use crate::queueing::fleet::calls::{Arrival, CallId, Calls, Ending, NOWHERE};
use crate::queueing::fleet::clients::Waits;
use crate::queueing::fleet::leaping::{Leaping, Stage, Work};
use crate::queueing::fleet::loads::Loads;
use crate::queueing::fleet::routing::Router;
use crate::queueing::fleet::scaling::Scaler;
use crate::queueing::fleet::simulation::{Fleet, State, Witness};

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Replica,
    Late,
    Retry,
    Arrival,
    Look,
    Scale,
    Start,
    Loss,
}

#[derive(Debug)]
struct Place {
    serving: Leaping,
    /// The event that is filed for it.
    filed: Nanos,
}

/// A fleet with everything that is under way in it.
#[derive(Debug)]
pub(super) struct Simulation<'a, W> {
    fleet: &'a Fleet,
    pub(super) calls: Calls,
    places: Vec<Place>,
    loads: Loads,
    /// When replicas that were asked for are ready.
    starting: VecDeque<Nanos>,
    router: Router,
    waits: Waits,
    scaler: Option<Scaler>,
    /// Calls that no replica has room for; those given up among them are passed over.
    held: VecDeque<CallId>,
    held_now: u32,
    events: BinaryHeap<Reverse<(Nanos, u32)>>,
    stages: Vec<(Nanos, CallId, Stage)>,
    every: Nanos,
    next_look: Nanos,
    loss: Option<(Nanos, u32)>,
    tries: u64,
    retries: u64,
    pub(super) witness: &'a mut W,
}

impl<'a, W: Witness> Simulation<'a, W> {
    pub(super) fn new(fleet: &'a Fleet, every: Nanos, seed: u64, witness: &'a mut W) -> Self {
        let every = Nanos(every.0.max(1));
        let mut simulation = Self {
            fleet,
            calls: Calls::default(),
            places: Vec::new(),
            loads: Loads::default(),
            starting: VecDeque::new(),
            router: Router::new(fleet.routing, seed),
            waits: Waits::new(fleet.clients, seed),
            scaler: fleet.scaling.map(|scaling| Scaler::new(scaling, fleet.replicas.max(1))),
            held: VecDeque::new(),
            held_now: 0,
            events: BinaryHeap::new(),
            stages: Vec::new(),
            every,
            next_look: every,
            loss: fleet.loss,
            tries: 0,
            retries: 0,
            witness,
        };
        for _ in 0..fleet.replicas.max(1) {
            simulation.add_replica();
        }
        simulation
    }

    fn add_replica(&mut self) {
        self.loads.open();
        self.places.push(Place { serving: Leaping::new(self.fleet.law), filed: Nanos::MAX });
    }

    /// What happens first; at equal times what frees room before what takes it.
    pub(super) fn next(&mut self, arrives: Nanos) -> (Nanos, Next) {
        // An event that was filed and no longer holds is passed over.
        while let Some(&Reverse((at, replica))) = self.events.peek() {
            if self.places[replica as usize].serving.due() == at {
                break;
            }
            self.events.pop();
        }
        let calls = &self.calls;
        let late = self.waits.next_deadline(|call| calls.is_current(call));
        let mut first = (self.events.peek().map_or(Nanos::MAX, |Reverse((at, _))| *at), Next::Replica);
        let mut sooner = |at: Nanos, what: Next| {
            if at < first.0 {
                first = (at, what);
            }
        };
        sooner(late, Next::Late);
        sooner(self.waits.next_retry(), Next::Retry);
        sooner(arrives, Next::Arrival);
        sooner(self.next_look, Next::Look);
        sooner(self.scaler.as_ref().map_or(Nanos::MAX, Scaler::due), Next::Scale);
        sooner(self.starting.front().copied().unwrap_or(Nanos::MAX), Next::Start);
        sooner(self.loss.map_or(Nanos::MAX, |(at, _)| at), Next::Loss);
        first
    }

    pub(super) fn arrive(&mut self, arrival: Arrival) {
        self.waits.first_try();
        let call = self.calls.open(arrival);
        self.send(arrival.at, call);
    }

    pub(super) fn live(&mut self, now: Nanos, what: Next) {
        match what {
            Next::Replica => {
                if let Some(Reverse((_, replica))) = self.events.pop() {
                    self.advance(now, replica);
                }
            }
            Next::Late => {
                if let Some(call) = self.waits.take_late() {
                    self.give_up(now, call);
                }
            }
            Next::Retry => {
                if let Some(call) = self.waits.take_retry() {
                    self.retries += 1;
                    self.send(now, call);
                }
            }
            Next::Look => {
                self.next_look = now + self.every;
                let state = self.state(now);
                self.witness.looked(&state);
            }
            Next::Scale => self.scale(now),
            Next::Start => {
                self.starting.pop_front();
                self.add_replica();
                self.serve_held(now, self.places.len() as u32 - 1);
            }
            Next::Loss => self.lose(now),
            Next::Arrival => {}
        }
    }

    fn state(&self, now: Nanos) -> State {
        let waiting: usize = self.places.iter().map(|place| place.serving.waiting()).sum();
        let running: usize = self.places.iter().map(|place| place.serving.running()).sum();
        State {
            at: now,
            ready: self.loads.ready().len() as u32,
            waiting: waiting as u64 + u64::from(self.held_now),
            running: running as u64,
            tries: self.tries,
            retries: self.retries,
        }
    }

    /// A try reaches the fleet.
    fn send(&mut self, now: Nanos, call: CallId) {
        self.tries += 1;
        self.waits.sent(now, call);
        let (places, loads) = (&self.places, &self.loads);
        let chosen = if self.held_now > 0 { None } else { self.router.choose(loads) };
        let has_room = |replica: &u32| self.fleet.in_flight_per_replica.is_none_or(|most| loads.of(*replica) < most);
        let queue = self.fleet.waiting_per_replica;
        match chosen.filter(has_room) {
            Some(replica) if queue.is_none_or(|most| (places[replica as usize].serving.waiting() as u32) < most) => {
                self.hand(now, call, replica);
            }
            None if (self.fleet.in_flight_per_replica.is_some() || !self.starting.is_empty())
                && queue.is_none_or(|most| self.held_now < most.saturating_mul(loads.ready().len().max(1) as u32)) =>
            {
                self.held.push_back(call);
                self.held_now += 1;
            }
            _ => self.fail(now, call, Ending::Refused),
        }
    }

    /// A replica takes a try in.
    fn hand(&mut self, now: Nanos, call: CallId, replica: u32) {
        let open = self.calls.get(call);
        open.replica = replica;
        let work = Work { call, prompt: open.prompt, tokens: open.tokens };
        self.loads.change(replica, self.loads.of(replica) + 1);
        let place = &mut self.places[replica as usize];
        let stages = &mut self.stages;
        place.serving.arrive(now, work, &mut |at, call, stage| stages.push((at, call, stage)));
        self.follow_up(now, replica);
    }

    fn advance(&mut self, now: Nanos, replica: u32) {
        let stages = &mut self.stages;
        let place = &mut self.places[replica as usize];
        place.filed = Nanos::MAX;
        place.serving.advance(now, &mut |at, call, stage| stages.push((at, call, stage)));
        self.follow_up(now, replica);
    }

    /// What a replica told, and its next event.
    fn follow_up(&mut self, now: Nanos, replica: u32) {
        self.file(replica);
        if self.stages.is_empty() {
            return;
        }
        let mut stages = std::mem::take(&mut self.stages);
        let mut freed = false;
        for (at, call, stage) in stages.drain(..) {
            let current = self.calls.is_current(call);
            match stage {
                Stage::Completed => {
                    self.loads.change(replica, self.loads.of(replica) - 1);
                    freed = true;
                    if current {
                        let ended = self.calls.close(call, at + self.fleet.overhead, Ending::Completed);
                        self.witness.ended(&ended);
                    }
                }
                Stage::FirstToken if current => self.calls.get(call).first_token = at + self.fleet.overhead,
                Stage::Admitted if current => {
                    let open = self.calls.get(call);
                    open.admitted = open.admitted.min(at);
                }
                Stage::FirstToken | Stage::Admitted | Stage::Preempted => {}
            }
        }
        // The buffer is kept; what serving those held tells goes into a fresh one.
        if self.stages.is_empty() {
            self.stages = stages;
        }
        if freed && self.held_now > 0 {
            self.serve_held(now, replica);
        }
    }

    fn file(&mut self, replica: u32) {
        let place = &mut self.places[replica as usize];
        let due = place.serving.due();
        if due != place.filed && due < Nanos::MAX {
            self.events.push(Reverse((due, replica)));
        }
        place.filed = due;
    }

    /// A replica takes from those that wait before the fleet what it has room for.
    fn serve_held(&mut self, now: Nanos, replica: u32) {
        if !self.loads.is_ready(replica) {
            return;
        }
        while self.fleet.in_flight_per_replica.is_none_or(|most| self.loads.of(replica) < most) {
            let Some(call) = self.held.pop_front() else { return };
            if self.calls.is_current(call) {
                self.held_now -= 1;
                self.hand(now, call, replica);
            }
        }
    }

    /// A client has waited long enough.
    fn give_up(&mut self, now: Nanos, call: CallId) {
        let replica = self.calls.get(call).replica;
        if replica == NOWHERE {
            self.held_now -= 1;
        } else if self.fleet.clients.abort_is_seen {
            self.loads.change(replica, self.loads.of(replica) - 1);
            self.places[replica as usize].serving.give_up(now, call);
            self.file(replica);
        }
        self.fail(now, call, Ending::TimedOut);
        if replica != NOWHERE && self.held_now > 0 {
            self.serve_held(now, replica);
        }
    }

    /// A try failed: its client tries again, or is done.
    fn fail(&mut self, now: Nanos, call: CallId, ending: Ending) {
        let attempts = self.calls.get(call).attempts;
        if self.waits.tries_again(attempts) {
            let again = self.calls.again(call);
            self.waits.later(now, again, attempts);
        } else {
            let ended = self.calls.close(call, now, ending);
            self.witness.ended(&ended);
        }
    }

    fn scale(&mut self, now: Nanos) {
        let have = (self.loads.ready().len() + self.starting.len()) as u32;
        let Some(scaler) = &mut self.scaler else { return };
        let want = scaler.look(now, have, self.tries, self.calls.count() as u64);
        for _ in have..want {
            self.starting.push_back(now + scaler.lead());
        }
        for _ in want..have {
            // What has not begun is not begun; else the newest takes no more calls and ends with those it has.
            if self.starting.pop_back().is_none() {
                self.loads.close_newest();
            }
        }
    }

    /// Replicas vanish with the calls they have.
    fn lose(&mut self, now: Nanos) {
        let Some((_, count)) = self.loss.take() else { return };
        for _ in 0..count {
            let Some(replica) = self.loads.close_newest() else { break };
            for call in self.calls.on(replica) {
                self.fail(now, call, Ending::Lost);
            }
            let place = &mut self.places[replica as usize];
            (place.serving, place.filed) = (Leaping::new(self.fleet.law), Nanos::MAX);
            self.loads.change(replica, 0);
        }
    }
}
