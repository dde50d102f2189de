//! `plimsoll demand import`: demand from what the queries of `demand sql` returned.

use crate::capacity::request_log::warehouse::{ResultError, Results};
use crate::cli::demand::Kept;
use crate::cli::demand::options::Unit;
use crate::cli::exit::{Exit, ExitWith};
use crate::record::demand::Demand;
use crate::table::read::{Table, TableError};
use crate::table::scan::pattern::expand;

/// Arguments of `demand import`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plimsoll demand import results/*.csv --save demand.json\n  \
    plimsoll demand import hours.csv totals.csv rates.csv --format markdown")]
pub(super) struct ImportArgs {
    /// Results of the queries, as CSV or JSON lines, told apart by their columns; patterns such as `results/*.csv`
    #[arg(required = true, value_name = "FILE")]
    files: Vec<String>,
    /// Unit of the latency column that was queried
    #[arg(long, value_enum, value_name = "UNIT", default_value = "ms")]
    latency_unit: Unit,
    #[command(flatten)]
    pub(super) kept: Kept,
}

/// Reads the results.
///
/// # Errors
/// When a file is no such result, or one that is needed is missing.
pub(super) fn read(args: &ImportArgs) -> anyhow::Result<Demand> {
    let (mut results, mut names) = (Results::default(), Vec::new());
    for pattern in &args.files {
        for source in expand(pattern)? {
            let name = source.to_string();
            let table = Table::open(&source)?;
            let columns = table.columns().to_vec();
            let rows = table.collect::<Result<Vec<_>, TableError>>()?;
            results.add(&name, &columns, rows.into_iter()).exit_with(Exit::BadInput)?;
            names.push(name.rsplit('/').next().unwrap_or(&name).to_owned());
        }
    }
    results.demand(names, args.latency_unit.milliseconds()).map_err(|error: ResultError| anyhow::anyhow!(error)).exit_with(Exit::BadInput)
}
