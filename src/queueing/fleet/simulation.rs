//! A fleet from its first call to its last: what it is, who is told, and the life of it.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::queueing::fleet::calls::{Arrival, Ended};
use crate::queueing::fleet::clients::Clients;
use crate::queueing::fleet::events::{Next, Simulation};
use crate::queueing::fleet::routing::Routing;
use crate::queueing::fleet::scaling::Scaling;
use crate::queueing::law::BatchingLaw;

/// A fleet before its first call.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fleet {
    /// How each replica serves.
    pub law: BatchingLaw,
    /// What the way to a replica and back adds to the first token and to the end of each call.
    #[serde(rename = "overhead_ns")]
    pub overhead: Nanos,
    /// Replicas that serve from the beginning, 1 or more.
    pub replicas: u32,
    /// Which of them a call goes to.
    pub routing: Routing,
    /// Calls that a replica has at most; others wait before the fleet. `None`: all go to a replica at once.
    pub in_flight_per_replica: Option<u32>,
    /// Calls that wait at most, per replica; others are refused. `None`: any number waits.
    pub waiting_per_replica: Option<u32>,
    /// Who sends the calls.
    pub clients: Clients,
    /// How it grows; `None`: it does not.
    pub scaling: Option<Scaling>,
    /// Replicas that are lost together, and when.
    #[serde(rename = "loss_ns_and_replicas")]
    pub loss: Option<(Nanos, u32)>,
}

impl Fleet {
    /// So many replicas that are always there, behind the usual router, with patient clients.
    #[must_use]
    pub fn fixed(law: BatchingLaw, replicas: u32) -> Self {
        Self {
            law,
            overhead: Nanos::ZERO,
            replicas,
            routing: Routing::default(),
            in_flight_per_replica: None,
            waiting_per_replica: None,
            clients: Clients::default(),
            scaling: None,
            loss: None,
        }
    }
}

/// How full a fleet is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// When.
    pub at: Nanos,
    /// Replicas that take calls.
    pub ready: u32,
    /// Calls that wait for a place in a batch, in front of the fleet or at a replica.
    pub waiting: u64,
    /// Calls in a batch.
    pub running: u64,
    /// Tries so far, and those of them that were not the first.
    pub tries: u64,
    /// Tries after the first.
    pub retries: u64,
}

/// Who is told.
pub trait Witness {
    /// A call ended, in order of ending.
    fn ended(&mut self, ended: &Ended);

    /// How full the fleet is, at equal intervals.
    fn looked(&mut self, _state: &State) {}
}

/// Lives through `arrivals`, which are in order of time, and tells `witness`, how full it is once `every`. What is not done at `until`
/// is unfinished. The same seed gives the same course.
pub fn simulate<W: Witness>(
    fleet: &Fleet,
    arrivals: impl Iterator<Item = Arrival>,
    every: Nanos,
    until: Nanos,
    seed: u64,
    witness: &mut W,
) {
    let mut simulation = Simulation::new(fleet, every, seed, witness);
    let mut arrivals = arrivals.take_while(|arrival| arrival.at < until).peekable();
    loop {
        let arrives = arrivals.peek().map_or(Nanos::MAX, |arrival| arrival.at);
        if arrives == Nanos::MAX && simulation.calls.count() == 0 {
            break;
        }
        let (now, what) = simulation.next(arrives);
        if now >= until {
            break;
        }
        match what {
            Next::Arrival => {
                if let Some(arrival) = arrivals.next() {
                    simulation.arrive(arrival);
                }
            }
            other => simulation.live(now, other),
        }
    }
    for ended in simulation.calls.unfinished(until) {
        simulation.witness.ended(&ended);
    }
}
