//! The ids that steps chose: on the device, where the next step reads them, and on their way to the host.
//!
//! One place on the device is enough: a step reads the ids of the one before when it begins and writes its own at its end, and
//! they are copied to the host in between, all in the order of one stream. On the host each step under way has a place of
//! its own, and an event that tells when the ids are there. By then the device has also taken over the step's arrays, so
//! the same event says when their place on the host is free (`StepArrays`).

use std::sync::Arc;

use crate::device::cuda::driver::{Context, Event, Stream};
use crate::device::cuda::memory::{Buffer, Pinned};
use crate::device::error::DeviceError;

/// Steps under way at most: one that is computed, and one launched ahead of it.
pub(super) const STEPS: usize = 2;
/// Stands for the id of a row that holds no number.
const NONE: u32 = u32::MAX;

/// The ids, and how far the steps are.
#[derive(Debug)]
pub(super) struct Sampled {
    device: Buffer,
    arrivals: [Arrival; STEPS],
    launched: usize,
    ended: usize,
}

/// Where the ids of one step arrive.
#[derive(Debug)]
struct Arrival {
    host: Pinned,
    rows: usize,
    /// The copy is done.
    landed: Event,
}

impl Arrival {
    fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        Ok(Self { host: Pinned::new(context, bytes)?, rows: 0, landed: Event::untimed(context)? })
    }
}

impl Sampled {
    pub(super) fn new(context: &Arc<Context>, max_rows: usize) -> Result<Self, DeviceError> {
        let bytes = 4 * max_rows;
        let device = Buffer::new(context, "the chosen tokens", bytes as u64)?;
        Ok(Self { device, arrivals: [Arrival::new(context, bytes)?, Arrival::new(context, bytes)?], launched: 0, ended: 0 })
    }

    /// Where they are on the device.
    pub(super) fn address(&self) -> u64 {
        self.device.at(0)
    }

    /// The place of the next step among those under way; none while all are taken.
    pub(super) fn turn(&self) -> Option<usize> {
        (self.launched - self.ended < STEPS).then_some(self.launched % STEPS)
    }

    /// Rows that the step launched last sampled: what the next one may read.
    pub(super) fn newest_rows(&self) -> usize {
        self.launched.checked_sub(1).map_or(0, |last| self.arrivals[last % STEPS].rows)
    }

    /// Sends the first `rows` ids of a step whose operations are all queued to the host.
    pub(super) fn send(&mut self, stream: &Stream, rows: usize) -> Result<(), DeviceError> {
        let arrival = &mut self.arrivals[self.launched % STEPS];
        arrival.rows = rows;
        self.device.read(stream, 0, &mut arrival.host.bytes_mut()[..4 * rows])?;
        arrival.landed.record(stream)?;
        self.launched += 1;
        Ok(())
    }

    /// Waits for the ids of the earliest step under way, and hands them over.
    pub(super) fn receive(&mut self, token_ids: &mut Vec<u32>) -> Result<(), DeviceError> {
        if self.ended == self.launched {
            return Ok(());
        }
        let arrival = &self.arrivals[self.ended % STEPS];
        self.ended += 1;
        arrival.landed.wait()?;
        token_ids.extend(arrival.host.bytes()[..4 * arrival.rows].chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
        token_ids.iter().position(|id| *id == NONE).map_or(Ok(()), |row| Err(DeviceError::NoNumber { row }))
    }
}
