//! NVLinks of a GPU: which are up, and what went wrong on them since the driver was loaded.
//!
//! How many links there are no call says: they are asked by number until one is not there. A GPU that has none is one whose
//! first link is not supported.

use nvml_wrapper::Device;
use nvml_wrapper::enum_wrappers::nv_link::ErrorCounter;

use crate::record::reading::{Missing, Reading};
use crate::telemetry::nvml::reading;

/// More links than any GPU has: 18 in Hopper and Blackwell.
const MOST_LINKS: u32 = 36;

/// All of them at one time.
#[derive(Clone, Copy, Debug)]
pub(super) struct NvLinks {
    /// Links that are up.
    pub(super) up: Reading<u32>,
    /// Packets sent again, all links together.
    pub(super) replays: Reading<u64>,
    /// Times that a link was brought up again.
    pub(super) recoveries: Reading<u64>,
    /// Wrong checksums, of control and of data.
    pub(super) crc_errors: Reading<u64>,
}

impl NvLinks {
    /// Nothing is known, for that reason.
    pub(super) const fn none(missing: Missing) -> Self {
        Self {
            up: Reading::none(missing),
            replays: Reading::none(missing),
            recoveries: Reading::none(missing),
            crc_errors: Reading::none(missing),
        }
    }
}

/// Whether each link is up.
pub(super) fn states(device: &Device<'static>) -> Reading<Vec<bool>> {
    let first = match reading(device.link_wrapper_for(0).is_active()) {
        Reading::Value(first) => first,
        Reading::Missing { missing } => return Reading::none(missing),
    };
    let others = (1..MOST_LINKS).map_while(|link| device.link_wrapper_for(link).is_active().ok());
    Reading::Value(std::iter::once(first).chain(others).collect())
}

/// One look.
pub(super) fn look(device: &Device<'static>) -> NvLinks {
    let up = match states(device) {
        Reading::Value(up) => up,
        Reading::Missing { missing } => return NvLinks::none(missing),
    };
    // A link that is down counts nothing, and drivers refuse to say so.
    let running = (0..).zip(&up).filter(|(_, up)| **up).map(|(link, _)| link).collect::<Vec<u32>>();
    let sum = |counters: &[ErrorCounter]| -> Reading<u64> {
        let each = counters.iter().flat_map(|counter| running.iter().map(move |link| (counter, link)));
        each.map(|(counter, link)| reading(device.link_wrapper_for(*link).error_counter(*counter)).ok()).sum::<Result<u64, _>>().into()
    };
    NvLinks {
        up: Reading::Value(running.len() as u32),
        replays: sum(&[ErrorCounter::DlReplay]),
        recoveries: sum(&[ErrorCounter::DlRecovery]),
        crc_errors: sum(&[ErrorCounter::DlCrcFlit, ErrorCounter::DlCrcData]),
    }
}
