//! `plimsoll demand sql`: the queries to run where a log lies that outgrew one machine.

use std::collections::BTreeMap;

use clap::builder::PossibleValuesParser;

use crate::capacity::request_log::columns::Role;
use crate::capacity::request_log::sql::dialect::{Dialect, UnknownDialect};
use crate::capacity::request_log::sql::{LogTable, queries};
use crate::cli::demand::options::{read_column, read_edges};
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::terminal::{Format, Terminal};

/// Arguments of `demand sql`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plimsoll demand sql --dialect postgres --table logs.calls --column time=called_at\n  \
    plimsoll demand sql --dialect duckdb --only hours\n\n\
    Run each query and save its result as CSV with a header; `plimsoll demand import *.csv` reads them.")]
pub(super) struct SqlArgs {
    /// Dialect of the warehouse
    #[arg(long, value_name = "DIALECT", value_parser = dialects())]
    dialect: String,
    /// Table that holds the log, as the dialect writes it
    #[arg(long, value_name = "NAME", default_value = "request_logs")]
    table: String,
    /// Column that is named otherwise than created_at, visible_request_id, status, input_tokens, output_tokens, latency_ms,
    /// concurrent_sessions; `ROLE=` leaves it out
    #[arg(long = "column", value_name = "ROLE=NAME", value_parser = read_column)]
    columns: Vec<(Role, String)>,
    /// Where concurrency is parted for the latency at each
    #[arg(long, value_name = "COUNT,...", default_value = "100,500", value_parser = read_edges)]
    load_buckets: std::sync::Arc<[u32]>,
    /// Only the query of this name: hours, totals, rates, lengths, load, recompute
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
}

fn dialects() -> PossibleValuesParser {
    PossibleValuesParser::new(Dialect::ALL.map(|(name, _)| name))
}

/// Prints the queries.
///
/// # Errors
/// When no query has the name, or they cannot be printed.
pub(super) fn run(args: &SqlArgs, out: &mut Terminal) -> anyhow::Result<Exit> {
    let dialect: Dialect = args.dialect.parse().map_err(|error: UnknownDialect| anyhow::anyhow!(error))?;
    let columns: BTreeMap<Role, String> = args.columns.iter().cloned().collect();
    let table = LogTable { name: args.table.clone(), columns, load_edges: args.load_buckets.to_vec() };
    let mut queries = queries(&table, dialect);
    if let Some(only) = &args.only {
        queries.retain(|query| query.name == only);
        if queries.is_empty() {
            let error = anyhow::anyhow!("no query is called `{only}`, or the columns do not allow it. Leave `--only` out to see all");
            return Err(error).exit_with(Exit::Usage);
        }
    }
    if out.format_among(&[Format::Text, Format::Json])? == Format::Json {
        let document: BTreeMap<&str, &str> = queries.iter().map(|query| (query.name, query.text.as_str())).collect();
        out.document(&document)?;
        return Ok(Exit::Good);
    }
    for query in &queries {
        out.line(format_args!("-- {} ({dialect}): {}.", query.name, query.answers))?;
        out.line(format_args!("{};\n", query.text.trim_end()))?;
    }
    Ok(Exit::Good)
}
