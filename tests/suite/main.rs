//! Promises of plimsoll, one module each.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted may panic")]
#![expect(clippy::print_stdout, reason = "tests say what they skip and what they measured")]
#![expect(clippy::disallowed_methods, reason = "tests make half files, read settings and take real time on purpose")]

mod arrivals;
mod behind;
mod bench;
mod bench_traffic;
mod budget;
mod campaign;
mod ceilings;
mod checkpoints;
mod cli;
mod confirmation;
mod cuda_ahead;
mod cuda_cli;
mod cuda_models;
mod cuda_ops;
mod curve;
mod decision;
mod disk;
mod doctor;
mod drive;
mod engine;
mod engine_shapes;
mod failing;
mod fake_cuda;
mod fake_openai;
mod forced;
mod formula;
mod generate;
mod gpu_script;
mod in_process;
mod kv_blocks;
mod memory;
mod nvidia;
mod ops;
mod plain_device;
mod plan;
mod published_traces;
mod queueing;
mod report;
mod request_log;
mod resume;
mod run_ahead;
mod scenarios;
mod search;
mod search_coverage;
mod several;
mod signals;
mod sink;
mod small_run;
mod stats;
mod store;
mod support;
mod telemetry_bench;
mod telemetry_fake;
mod telemetry_select;
mod telemetry_validity;
mod telemetry_window;
mod traces;
mod validity;
mod virtual_level;
mod weights;
mod workloads;
