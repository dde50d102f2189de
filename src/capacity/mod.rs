//! From a measured rate to hardware: the capacity model, one file per heading of it.
//!
//! Pure arithmetic on typed quantities and plain records. Measures nothing, opens nothing, prints nothing.

pub mod antipattern;
pub mod call_latency;
pub mod comparison;
pub mod demand;
pub mod evidence;
pub mod fleet;
pub mod formula;
pub mod imported;
pub mod mix;
mod need;
pub mod operating;
pub mod outcome;
pub mod plan;
pub mod redundancy;
pub mod request_log;
pub mod requirement;
pub mod retries;
pub mod scenario;
pub mod sensitivity;
pub mod spike;
pub mod staffing;
pub mod state_queue;
pub mod step_cost;
pub mod throughput;
pub mod transfer;
pub mod waiting;
