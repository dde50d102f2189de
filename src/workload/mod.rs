//! What traffic looks like, as data and pure arithmetic: lengths, arrivals, sessions, prompts, traces.
//!
//! Nothing here opens a file, knows the time or sends anything; `table` reads traces and `load` sends requests.

pub mod arrivals;
pub mod fit;
pub mod lengths;
pub mod mix;
pub mod parse;
pub mod presets;
pub mod rate_series;
pub mod request;
mod sessions;
pub mod spec;
pub mod trace;
pub mod traffic;
