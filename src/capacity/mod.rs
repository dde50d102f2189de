//! From a measured rate to hardware: the capacity model, one file per heading of it.
//!
//! Pure arithmetic on typed quantities and plain records. Measures nothing, opens nothing, prints nothing.

pub mod antipattern;
pub mod demand;
pub mod fleet;
pub mod formula;
pub mod imported;
pub mod mix;
pub mod plan;
pub mod redundancy;
pub mod request_log;
pub mod requirement;
pub mod retries;
pub mod scenario;
pub mod spike;
pub mod staffing;
pub mod state_queue;
pub mod throughput;
pub mod transfer;
