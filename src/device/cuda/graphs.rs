//! Recorded steps: one for each number of sequences that decode, so that a step is started as a whole.
//!
//! A step of few tokens is hundreds of short kernels, and starting them one by one would take longer than they run. The
//! first step of a bucket runs as it is (kernels choose their products, buffers are made), the second is recorded, and
//! from then on it is played. Everything that differs between steps lies in device memory.

use crate::device::cuda::driver::{Graph, Stream};
use crate::device::error::DeviceError;

/// Numbers of sequences that are recorded; a step is padded to the next.
const BUCKETS: &[usize] = &[1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024];

/// What is known of one bucket.
#[derive(Debug)]
enum State {
    Unseen,
    Seen,
    Recorded(Graph),
}

/// What is to be done with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// Computed operation by operation.
    Plain,
    /// Computed so, and being recorded under this bucket.
    Recording(usize),
    /// Played.
    Played,
}

/// The recorded steps of one engine.
#[derive(Debug)]
pub(super) struct Graphs {
    buckets: Vec<(usize, State)>,
    /// How many steps were played.
    pub(super) played: u64,
}

impl Graphs {
    /// For up to `max_sequences`; none of them when not `enabled`.
    pub(super) fn new(enabled: bool, max_sequences: usize) -> Self {
        let sizes = BUCKETS.iter().copied().filter(|size| enabled && *size <= max_sequences);
        Self { buckets: sizes.map(|size| (size, State::Unseen)).collect(), played: 0 }
    }

    /// The bucket that so many sequences are padded to; `None` where there is none so large.
    pub(super) fn bucket(&self, sequences: usize) -> Option<usize> {
        self.buckets.iter().map(|(size, _)| *size).find(|size| sequences <= *size)
    }

    /// Plays the bucket's step if it is recorded, and begins to record it if it was seen once.
    pub(super) fn begin(&mut self, stream: &Stream, bucket: usize) -> Result<Mode, DeviceError> {
        let state = self.state(bucket);
        match state {
            State::Unseen => {
                *state = State::Seen;
                Ok(Mode::Plain)
            }
            State::Seen => {
                stream.begin_capture()?;
                Ok(Mode::Recording(bucket))
            }
            State::Recorded(graph) => {
                graph.launch(stream)?;
                self.played += 1;
                Ok(Mode::Played)
            }
        }
    }

    /// Ends the recording of `bucket`, and plays it for the first time: recording computed nothing.
    pub(super) fn finish(&mut self, stream: &Stream, bucket: usize) -> Result<(), DeviceError> {
        let graph = stream.end_capture()?;
        graph.launch(stream)?;
        *self.state(bucket) = State::Recorded(graph);
        Ok(())
    }

    fn state(&mut self, bucket: usize) -> &mut State {
        let found = self.buckets.iter_mut().find(|(size, _)| *size == bucket);
        &mut found.expect("a bucket came from here").1
    }
}
