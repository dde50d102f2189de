//! A litmus test as text, markdown, CSV of its course, and JSON: what the plan said, what happened, what would have held.

mod course;
pub mod live;
mod phases;
pub mod simulated;
