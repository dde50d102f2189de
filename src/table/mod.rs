//! Opens tables and decodes them to rows with line numbers: CSV and JSON lines, plain, gzip or zstd, one row at a time ([`read`]); those and
//! Parquet on several threads, wanted columns only ([`scan`]).
//!
//! The one room below floor 3 that opens files. It does not know what a column means (`workload::trace` and
//! `capacity::request_log` do), never holds a whole file, and tells a bad line from a file that cannot be read.

pub mod cell;
mod moment;
pub mod read;
pub mod reorder;
pub mod row;
pub mod scan;
pub mod sorted;
pub mod source;
