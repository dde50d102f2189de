//! Results in the forms of other tools, one file each with its writer and its reader.
//!
//! Definitions differ between tools under the same name, so every figure is carried over by what it means, with the
//! place in the other tool's source that says so. Works on bytes and records: opens, writes and prints nothing.

pub mod aiperf;
mod cohort;
pub mod error;
pub mod export;
mod foreign;
pub mod guidellm;
pub mod hdr;
pub mod import;
pub mod inferencex;
pub mod parquet;
pub mod planner;
mod rows;
mod spread;
pub mod vllm;
