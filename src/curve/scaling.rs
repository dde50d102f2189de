//! What the GPUs of a node cost each other: one alone beside the same one among all, at the same load each.
//!
//! Power, heat, the bus and the host's processor are shared. A planner takes the rate of the loaded node.

use serde::{Deserialize, Serialize};

use crate::record::level::{LevelRecord, Offered, Purpose};

/// One device alone and among all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaling {
    /// The one that was measured alone.
    pub device: String,
    /// Requests in flight on each device, both times.
    pub concurrency: u32,
    /// Output tokens/s of it alone.
    pub alone_tokens_per_s: f64,
    /// Output tokens/s per device with all at work.
    pub together_tokens_per_s: f64,
    /// `together / alone`: 1 where they cost each other nothing.
    pub ratio: f64,
}

/// From the levels of a run; `None` where no device was measured alone, or not beside all of them.
#[must_use]
pub fn of(levels: &[LevelRecord]) -> Option<Scaling> {
    let valid = || levels.iter().filter(|level| level.verdict.is_valid());
    let (device, alone) = valid().find_map(|level| match &level.purpose {
        Purpose::Solo { device } => Some((device, level)),
        _ => None,
    })?;
    let Offered::Closed { concurrency } = alone.offered else { return None };
    let same_load = |level: &&LevelRecord| {
        let offered = Offered::Closed { concurrency: concurrency * level.per_device.devices };
        level.purpose == Purpose::Sweep && level.per_device.devices > 1 && level.offered == offered
    };
    let together = valid().find(same_load)?;
    let (alone_tokens_per_s, together_tokens_per_s) = (alone.throughput.output_tokens_per_s, together.per_device.output_tokens_per_s);
    let ratio = together_tokens_per_s / alone_tokens_per_s;
    (alone_tokens_per_s > 0.0).then(|| Scaling { device: device.clone(), concurrency, alone_tokens_per_s, together_tokens_per_s, ratio })
}
