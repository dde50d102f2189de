//! A run as planners, autoscalers and simulators of fleets read it: one file each, with what each figure means there.
//!
//! None of them knows a verdict, an interval or a label. So an invalid level is never in an export, what was left out is counted, and
//! beside every export stands `plimsoll-export.json`: whose numbers they are, under which labels, which consumer has read such a file,
//! and whether headroom is inside.

pub mod aiconfigurator;
pub mod dynamo;
pub mod dynamo_fpm;
pub mod export;
pub mod form;
pub mod inference_sim;
pub mod keda;
pub mod latency_predictor;
pub mod llmd;
pub mod npz;
pub mod points;
pub mod prometheus;
pub mod rate;
pub mod sidecar;
pub mod vidur;
