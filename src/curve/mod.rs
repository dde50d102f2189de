//! Curves through measured levels: the load line under rising concurrency, and latency over offered load.
//!
//! Only valid levels feed a curve, and a curve answers only inside its measured range: beyond it the answer is
//! `not measured`, never an extrapolation.

pub mod load_latency;
pub mod saturation;
pub mod scaling;
pub mod service_law;
