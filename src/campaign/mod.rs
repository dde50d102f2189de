//! The campaign: levels, sweep, search and confirmation, from a fresh target to a judged and saved run.
//!
//! The one place where the measuring and the judging wing meet.

pub mod account;
pub mod bandwidth;
pub mod bench;
pub mod ceiling;
pub mod closed;
pub mod confirmation;
pub mod counters;
pub mod crossing;
pub mod decision;
pub mod failures;
pub mod gpu_state;
pub mod headline;
pub mod idle;
pub mod instruments;
pub mod interrupt;
pub mod journal;
pub mod judge;
pub mod level;
pub mod litmus;
pub mod measure;
pub mod open;
pub mod pace;
pub mod plan;
pub mod planner_levels;
mod planner_stage;
pub mod progress;
pub mod search;
pub mod series;
mod server_findings;
pub mod server_meter;
pub mod servers;
pub mod settle;
pub mod steps;
pub mod summary;
pub mod sweep;
pub mod tally;
pub mod targets;
pub mod traffic;
pub mod validity;
pub mod watch;
pub mod windows;
pub mod xid;
