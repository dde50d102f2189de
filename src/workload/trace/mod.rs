//! Recorded traffic: rows of a trace as arrivals and requests, in four published forms.
//!
//! A trace is read twice and never held: once to survey it (is it sorted, what is wrong with it, how fast is it),
//! then row by row while it is replayed. Opening is the business of `table`.

pub mod format;
pub mod options;
mod pace;
pub mod replay;
pub mod rows;
pub mod survey;
