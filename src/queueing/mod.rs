//! A queue in virtual time: the service law as data, one replica that lives by it, and what theory says about it.
//!
//! The simulated target and the simulated spike share it. It knows no clock and no load: jobs arrive when they are
//! told to, and nothing is measured here.

pub mod bands;
pub mod batching;
pub mod closed_loop;
pub mod fleet;
pub mod law;
pub mod replica;
pub mod servers;
pub mod truth;
