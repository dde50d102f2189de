//! From a measured rate to hardware: the capacity model, one file per heading of it.
//!
//! Pure arithmetic on typed quantities and plain records. Measures nothing, opens nothing, prints nothing.

pub mod antipattern;
pub mod formula;
pub mod imported;
pub mod plan;
pub mod scenario;
pub mod throughput;
pub mod transfer;
