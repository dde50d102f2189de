//! A fleet in virtual time: replicas under one service law behind a router, with clients that try again and an autoscaler.
//!
//! It makes no arrivals, judges nothing and draws nothing: it takes calls in order of arrival and tells what became of
//! each, and once in a while how full it is. Several hundred thousand to millions of calls a second on one core.

pub mod calls;
pub mod clients;
mod events;
pub mod leaping;
mod loads;
pub mod routing;
pub mod scaling;
pub mod simulation;
