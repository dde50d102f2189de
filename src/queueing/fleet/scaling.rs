//! An autoscaler as Kubernetes' is: a target per replica, a tolerance, a lead time before new replicas serve, and
//! patience before some are taken away.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;

/// What an autoscaler looks at.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Calls that came a second, per replica.
    CallsPerSecond(f64),
    /// Calls in the fleet, per replica.
    InFlight(f64),
}

/// How a fleet grows and shrinks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// Its target.
    pub signal: Signal,
    /// It never goes below what the fleet began with, nor above this.
    pub max_replicas: u32,
    /// How often it looks.
    #[serde(rename = "interval_ns")]
    pub interval: Nanos,
    /// The rate is taken over this.
    #[serde(rename = "window_ns")]
    pub window: Nanos,
    /// From the decision to a replica that serves: node, image, weights, warm-up.
    #[serde(rename = "lead_ns")]
    pub lead: Nanos,
    /// How long fewer must do before some are taken away.
    #[serde(rename = "patience_ns")]
    pub patience: Nanos,
}

impl Scaling {
    /// Kubernetes' usual choices: every 15 s over a minute, taken away after 5 minutes.
    #[must_use]
    pub fn usual(signal: Signal, max_replicas: u32, lead: Nanos) -> Self {
        Self { signal, max_replicas, interval: Nanos::from_secs(15), window: Nanos::from_secs(60), lead, patience: Nanos::from_secs(300) }
    }
}

/// Off the target by less than this share is on it: Kubernetes' default.
const TOLERANCE: f64 = 0.1;

/// An autoscaler under way.
#[derive(Debug)]
pub(super) struct Scaler {
    scaling: Scaling,
    least: u32,
    next: Nanos,
    /// Calls that had come by each look within the window.
    came: VecDeque<(Nanos, u64)>,
    /// What each look within the patience wanted.
    wanted: VecDeque<(Nanos, u32)>,
}

impl Scaler {
    pub(super) fn new(scaling: Scaling, least: u32) -> Self {
        let next = Nanos(scaling.interval.0.max(1));
        Self { scaling, least, next, came: VecDeque::from([(Nanos::ZERO, 0)]), wanted: VecDeque::new() }
    }

    pub(super) fn due(&self) -> Nanos {
        self.next
    }

    pub(super) fn lead(&self) -> Nanos {
        self.scaling.lead
    }

    /// How many replicas there shall be, ready and starting, at a look: `have` there are, `came` calls had come, `in_flight` are there.
    pub(super) fn look(&mut self, now: Nanos, have: u32, came: u64, in_flight: u64) -> u32 {
        let Scaling { signal, max_replicas, interval, window, patience, .. } = self.scaling;
        self.next = now + Nanos(interval.0.max(1));
        while self.came.len() > 1 && self.came[1].0 + window <= now {
            self.came.pop_front();
        }
        let (metric, target) = match signal {
            Signal::CallsPerSecond(target) => {
                let (since, before) = self.came.front().copied().unwrap_or_default();
                ((came - before) as f64 / now.since(since).as_secs_f64().max(1e-9), target)
            }
            Signal::InFlight(target) => (in_flight as f64, target),
        };
        self.came.push_back((now, came));
        let ratio = metric / (target * f64::from(have.max(1)));
        let asked = if (ratio - 1.0).abs() <= TOLERANCE { have } else { (metric / target).ceil().min(f64::from(u32::MAX)) as u32 };
        let asked = asked.clamp(self.least, max_replicas.max(self.least));
        self.wanted.push_back((now, asked));
        while self.wanted.front().is_some_and(|(at, _)| *at + patience <= now) {
            self.wanted.pop_front();
        }
        // Up at once; down only to the most that was wanted meanwhile.
        if asked >= have { asked } else { self.wanted.iter().map(|(_, asked)| *asked).max().unwrap_or(have).min(have) }
    }
}
