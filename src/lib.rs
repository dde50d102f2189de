//! plimsoll measures how many inference calls a second one device sustains within its latency objectives,
//! judges whether that measurement can be trusted, and plans capacity from it.
//!
//! The folders are the chain `workload -> load -> target -> records -> curve -> capacity -> report`, laid out
//! as floors: a module uses modules of lower floors only, and neighbours on a floor do not see each other
//! (`tests/tidy.rs` holds this, `docs/architecture.md` explains it).

// Floor 0: ground. No input or output, no knowledge of any other module.
pub mod clock;
pub mod rng;
pub mod stats;
pub mod table;
pub mod units;

// Floor 1: what traffic looks like.
pub mod workload;

// Floor 2: plain data, the hinge between measuring and judging; and the one simulator.
pub mod queueing;
pub mod record;

// Floor 3.
pub mod curve;
pub mod http;
pub mod model;
pub mod nvidia;

// Floor 4.
pub mod capacity;
pub mod device;
pub mod telemetry;

// Floor 5.
pub mod engine;
pub mod interchange;
pub mod node;
pub mod report;
pub mod store;

// Floor 6.
pub mod doctor;
pub mod target;

// Floor 7.
pub mod load;
pub mod serve;

// Floor 8: joins the measuring and the judging wing.
pub mod campaign;

// Floor 10: the terminal.
pub mod cli;
