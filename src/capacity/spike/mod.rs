//! The litmus test: does a fleet stand spikes of 5 and 10 times the average within its SLO, and does it recover?
//!
//! One course of load is judged the same way whether it was simulated or driven against a real target: `ledger` takes
//! what became of each call, from either.

pub mod answer;
pub mod check;
pub mod course;
pub mod doubts;
pub mod expected;
pub mod ledger;
pub mod lengths;
pub mod litmus;
pub mod live;
pub mod moments;
pub mod own;
pub mod phases;
pub mod simulated;
