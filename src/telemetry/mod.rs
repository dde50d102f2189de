//! What the GPUs and the machine were doing, sampled beside a measurement: NVML, a DCGM exporter, procfs, or a recording of them; and
//! what a server under test says of itself.
//!
//! A reading is a value or a reason. A [`Source`] reads; the [`sampler`] calls it from threads of its own, so that a call which
//! hangs stalls no measurement; [`mod@window`] makes a summary of an interval, from samples alone. Everything is read-only: it sets
//! no clock, limit or mode. What a summary means for a level is decided in `campaign`.

pub mod counters;
pub mod dcgm;
pub mod energy;
pub mod kv_capacity;
pub mod nvml;
pub mod procfs;
pub mod prometheus;
pub mod replay;
pub mod sample;
pub mod sampler;
pub mod scrape;
pub mod select;
pub mod timeline;
pub mod visible;
pub mod window;

use std::time::Duration;

use crate::clock::Nanos;
use crate::record::reading::Reading;
use crate::telemetry::sample::{Fast, Slow, XidEvent};

/// Where readings come from. GPUs are numbered by their place among the watched ones; calls come from several threads and
/// may take long.
pub trait Source: Send + Sync {
    /// Joules since the driver was loaded, by the GPU's own counter.
    fn energy_j(&self, gpu: usize) -> Reading<f64>;

    /// What changes within a window; tens of milliseconds at most.
    fn fast(&self, gpu: usize) -> Fast;

    /// What changes seldom, or takes long to read.
    fn slow(&self, gpu: usize) -> Slow;

    /// The next fault that the driver reports, within `patience`.
    fn wait_for_xid(&self, patience: Duration) -> Reading<Option<XidEvent>>;

    /// Energy is read over windows of this length or more, where the source needs longer ones than the method does.
    fn energy_shortest(&self) -> Nanos {
        Nanos::ZERO
    }
}
