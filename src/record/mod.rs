//! What was measured, as plain data with a schema version: the hinge between the measuring and the judging wing.
//!
//! Records hold stamps, counts, intervals and verdicts. How they are measured is decided above (`load`,
//! `campaign`), how they are judged beside (`curve`, `capacity`); nothing here computes more than a ratio.

pub mod ceilings;
pub mod clocks;
pub mod demand;
pub mod diagnosis;
pub mod finding;
pub mod gpu;
pub mod imported;
pub mod level;
pub mod metric;
pub mod node;
pub mod reading;
pub mod request;
pub mod run;
pub mod search;
mod seed;
pub mod server;
pub mod server_window;
pub mod slo;
pub mod steps;
pub mod target;
pub mod telemetry;
pub mod verdict;

/// Version of everything that is written as JSON: raised when a reader of the old form would misread the new one.
pub const SCHEMA_VERSION: u32 = 1;
