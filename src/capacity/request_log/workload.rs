//! A workload with the lengths and the burstiness of a log, so that a target can be measured with them.

use crate::capacity::request_log::tally::SHARES;
use crate::record::demand::{Demand, Lengths};
use crate::workload::arrivals::ArrivalProcess;
use crate::workload::fit::Caps;
use crate::workload::lengths::Distribution;
use crate::workload::spec::{SamplingRule, Workload};

/// Counts of a second less dispersed than this are taken for Poisson.
const POISSON_TO: f64 = 1.2;

/// The log has no lengths to make a workload of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the log does not tell the tokens of prompts and answers that succeeded, so no workload can be made of it. Name their columns with `--column input_tokens=NAME` and `--column output_tokens=NAME`"
)]
pub struct NoLengths;

/// Lengths by the log's quantiles, each drawn independently of the other; arrivals as dispersed over a second as the log's.
///
/// # Errors
/// When the log does not tell the lengths of prompts and answers.
pub fn of(demand: &Demand) -> Result<Workload, NoLengths> {
    let lengths = |lengths: &Option<Lengths>| {
        let found = lengths.as_ref().filter(|lengths| lengths.quantiles.len() == SHARES.len()).ok_or(NoLengths)?;
        let token = |value: f64| value.round().clamp(1.0, f64::from(u32::MAX)) as u32;
        Ok(Distribution::Quantiles(found.quantiles.iter().map(|(share, value)| (*share, token(*value))).collect()))
    };
    let dispersion = demand.rates.first().map_or(1.0, |second| second.index_of_dispersion);
    let arrivals = if dispersion > POISSON_TO { ArrivalProcess::Gamma { burstiness: 1.0 / dispersion } } else { ArrivalProcess::Poisson };
    Ok(Workload {
        name: "from-log".to_owned(),
        description: "Lengths and burstiness of a request log.".to_owned(),
        citation: format!("{}: {} calls", demand.sources.join(", "), demand.calls),
        scale: 1.0,
        slo: None,
        input: lengths(&demand.input_tokens)?,
        output: lengths(&demand.output_tokens)?,
        arrivals,
        sampling: SamplingRule::default(),
        caps: Caps::default(),
        shared_prefix: None,
        sessions: None,
    })
}
