//! GPUs: fractional until somebody rounds them, which is an act with a name.

use std::num::NonZeroU32;

use serde::Serialize;

use crate::units::share::Headroom;

/// What is whole on paper is whole here: products of decimals miss by a few units in the last place.
const ROUNDING: f64 = 1e-12;

/// A need of GPUs, fractional, above 0.
#[derive(Clone, Copy, Debug, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct Gpus(f64);

/// A need in whole replicas of several GPUs each (tensor-parallel groups).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Groups {
    /// Replicas.
    pub replicas: u64,
    /// GPUs that one replica spans.
    pub gpus_per_replica: NonZeroU32,
    /// GPUs in all of them.
    pub gpus: u64,
}

impl Gpus {
    pub(super) fn from_quotient(gpus: f64) -> Self {
        Self(gpus)
    }

    /// That hold so many calls in flight at once, each GPU its share; `None` where the share is no number above 0.
    #[must_use]
    pub fn holding(in_flight: f64, per_gpu: f64) -> Option<Self> {
        Some(in_flight / per_gpu).filter(|gpus| gpus.is_finite() && *gpus > 0.0).map(Self)
    }

    /// The exact, fractional need.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }

    /// The same need with a share on top: `x (1 + headroom)`, not `/ (1 - headroom)`.
    #[must_use]
    pub fn with_headroom(self, headroom: Headroom) -> Self {
        Self(self.0 * (1.0 + headroom.get()))
    }

    /// Rounded up to GPUs that can be bought.
    #[must_use]
    pub fn whole_gpus(self) -> u64 {
        round_up(self.0)
    }

    /// Rounded up to whole replicas of that many GPUs.
    #[must_use]
    pub fn in_groups_of(self, gpus_per_replica: NonZeroU32) -> Groups {
        let replicas = round_up(self.0 / f64::from(gpus_per_replica.get()));
        Groups { replicas, gpus_per_replica, gpus: replicas.saturating_mul(u64::from(gpus_per_replica.get())) }
    }
}

/// Up to the next whole number, 1 or more. A float-to-integer `as` saturates.
fn round_up(exact: f64) -> u64 {
    ((exact * (1.0 - ROUNDING)).ceil() as u64).max(1)
}
