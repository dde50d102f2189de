//! The rate of one replica at the SLO, as `plan` would divide by it.

use crate::capacity::throughput::Throughput;
use crate::interchange::error::ExportError;
use crate::interchange::planner::points::replicas;
use crate::record::run::RunRecord;

/// What one replica sustains.
#[derive(Clone, Debug)]
pub struct ReplicaRate {
    /// Calls/s that a plan divides by: the lower end of the interval.
    pub planned: f64,
    /// Calls/s as published.
    pub published: f64,
    /// All that a plan knows of it.
    pub throughput: Throughput,
}

/// The rate of a run's replica.
///
/// # Errors
/// When the run has no rate at its SLO.
pub fn of(run: &RunRecord, format: &'static str) -> Result<ReplicaRate, ExportError> {
    let throughput = Throughput::measured(run).map_err(|none| ExportError::NoRate { format, none })?;
    let gpus = f64::from(replicas(run).1);
    Ok(ReplicaRate { planned: throughput.planned.get() * gpus, published: throughput.point.get() * gpus, throughput })
}
