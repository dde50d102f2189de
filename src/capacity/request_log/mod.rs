//! Demand from a log of requests: how much traffic, how bursty, how long, and how much hidden work behind what users see.
//!
//! The capacity model's first two steps: the distribution instead of the average, and the recompute multiplier. Takes calls in
//! order of time, one by one, and keeps counts: its memory does not grow with the log. Opens no file (`table` does).

pub mod busiest;
pub mod call;
pub mod columns;
pub mod concurrency;
pub mod decode;
pub mod findings;
pub mod hours;
pub mod recompute;
pub mod sql;
pub mod tally;
pub mod warehouse;
pub mod windows;
pub mod workload;
