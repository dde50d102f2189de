//! A litmus test as text, markdown, CSV of its course, and JSON: what the plan said, what happened, what would have held.

mod course;
mod phases;
pub mod simulated;
