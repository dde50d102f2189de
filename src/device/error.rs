//! What can go wrong on a device, said so that the reader knows what to do.

use crate::nvidia::Absence;

/// Failure of a device.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// An allocation that would not fit; nothing was allocated.
    #[error("{what} needs {needed} bytes, and {free} bytes of memory are free. {remedy}")]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// Bytes it takes.
        needed: u64,
        /// Bytes that were free.
        free: u64,
        /// What to do.
        remedy: String,
    },
    /// Memory that NVIDIA's software asked for by itself, such as for a recorded step, and did not get.
    #[error("cannot {attempted}: {said}. {remedy}")]
    Exhausted {
        /// What was attempted.
        attempted: String,
        /// What it said.
        said: String,
        /// What to do.
        remedy: String,
    },
    /// Weights that do not fit their shape.
    #[error("cannot take over {what}: {reason}. Check that the checkpoint's files are complete and belong together")]
    Source {
        /// Which weights.
        what: String,
        /// What contradicts what.
        reason: String,
    },
    /// Arrays of a step that contradict each other: a mistake of the engine.
    #[error("the step cannot be computed: {reason}. This is a defect of the engine, please report it")]
    Step {
        /// What contradicts what.
        reason: String,
    },
    /// Logits of which none is a number: no token can be chosen.
    #[error(
        "the logits of row `{row}` hold no number. Check that the checkpoint's files are whole, and its numbers within the range of their type"
    )]
    NoNumber {
        /// Which row of the step's logits.
        row: usize,
    },
    /// A choice that this machine, or these weights, do not allow.
    #[error("{what} is not possible here: {reason}. {remedy}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What is missing.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// Something of NVIDIA's is not there.
    #[error("{absence}")]
    Absent {
        /// What, and what to do.
        absence: Absence,
    },
    /// NVIDIA's software or the GPU refuses or fails.
    #[error("cannot {attempted}: {said}. {remedy}")]
    Cuda {
        /// What was attempted.
        attempted: String,
        /// What it said.
        said: String,
        /// What to do.
        remedy: String,
    },
    /// The system gives not as many threads as were asked for.
    #[error("cannot start `{count}` threads: {source}. Ask for fewer, or raise the limit on them (`ulimit -u`)")]
    Threads {
        /// How many were asked for.
        count: usize,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The system did not answer a question.
    #[error("cannot read `{path}`: {source}. Check that the file system is mounted and readable")]
    System {
        /// What was read.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
}
