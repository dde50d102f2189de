//! Runs on disk: a folder for each, written so that a crash at any instruction leaves nothing half under a final name.
//!
//! The folders are the contract (`docs/formats.md`); anything faster than them is an index that can be rebuilt. This
//! room reads and writes records; it neither measures nor judges, and prints nothing.

pub mod atomic;
pub mod lock;
mod named;
pub mod request_log;
pub mod runs;
pub mod spikes;
