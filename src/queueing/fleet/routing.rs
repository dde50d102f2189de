//! Which replica a call goes to.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::queueing::fleet::loads::Loads;
use crate::rng;

/// How a router chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Routing {
    /// Each in turn.
    RoundRobin,
    /// The one with the fewest calls.
    #[default]
    LeastLoaded,
    /// The one with fewer calls of two that are drawn.
    PowerOfTwo,
}

/// Not one of them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no routing. Take `round-robin`, `least-loaded` or `power-of-two`")]
pub struct NoSuchRouting(String);

impl FromStr for Routing {
    type Err = NoSuchRouting;

    fn from_str(text: &str) -> Result<Self, NoSuchRouting> {
        match text {
            "round-robin" => Ok(Self::RoundRobin),
            "least-loaded" => Ok(Self::LeastLoaded),
            "power-of-two" => Ok(Self::PowerOfTwo),
            other => Err(NoSuchRouting(other.to_owned())),
        }
    }
}

impl fmt::Display for Routing {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::RoundRobin => "round-robin",
            Self::LeastLoaded => "least-loaded",
            Self::PowerOfTwo => "power-of-two",
        })
    }
}

/// A router under way.
#[derive(Debug)]
pub(super) struct Router {
    routing: Routing,
    seed: u64,
    routed: u64,
}

impl Router {
    pub(super) fn new(routing: Routing, seed: u64) -> Self {
        Self { routing, seed: rng::derive(seed, "routing"), routed: 0 }
    }

    /// The chosen one; `None` where none takes calls.
    pub(super) fn choose(&mut self, loads: &Loads) -> Option<u32> {
        let ready = loads.ready();
        let count = ready.len() as u64;
        if count == 0 {
            return None;
        }
        let number = self.routed;
        self.routed += 1;
        let in_turn = ready[(number % count) as usize];
        match self.routing {
            Routing::RoundRobin => Some(in_turn),
            // In turn among equals, so that idle replicas share the work.
            Routing::LeastLoaded => loads.least_from(in_turn),
            Routing::PowerOfTwo => {
                let drawn = rng::at(self.seed, number);
                let one = ready[(((drawn >> 32) * count) >> 32) as usize];
                let other = ready[(((drawn & 0xffff_ffff) * count) >> 32) as usize];
                Some(if loads.of(other) < loads.of(one) { other } else { one })
            }
        }
    }
}
