//! What a log does not say of itself, as it is told on the command line.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::ValueEnum;

use crate::capacity::request_log::columns::{Columns, ColumnsError, Role};
use crate::record::demand::LogKind;
use crate::table::cell::StampUnit;

/// How a log is to be read.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "How the log is read")]
pub(super) struct Told {
    /// What a line is [default: by the ids of visible requests]
    #[arg(long, value_enum, value_name = "KIND")]
    log: Option<LogIs>,
    /// Column for a role: time, request, call, status, input_tokens, output_tokens, latency, concurrent; `ROLE=` leaves it out
    #[arg(long = "column", value_name = "ROLE=NAME", value_parser = read_column)]
    columns: Vec<(Role, String)>,
    /// Values of the status column that mean success [default: ok, success, completed, true, 200 to 299 and such]
    #[arg(long, value_name = "VALUE,...", value_delimiter = ',')]
    success: Option<Vec<String>>,
    /// Unit of stamps that are numbers [default: by their size]
    #[arg(long, value_enum, value_name = "UNIT")]
    time_unit: Option<Unit>,
    /// Unit of latencies [default: by the column's name]
    #[arg(long, value_enum, value_name = "UNIT")]
    latency_unit: Option<Unit>,
}

/// What a line of the log is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogIs {
    /// What a user sees
    Requests,
    /// An inference call, retries and hidden ones included
    Calls,
}

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Unit {
    /// Seconds
    S,
    /// Milliseconds
    Ms,
    /// Microseconds
    Us,
    /// Nanoseconds
    Ns,
}

impl Unit {
    /// Of one of it.
    pub(super) const fn milliseconds(self) -> f64 {
        match self {
            Self::S => 1e3,
            Self::Ms => 1.0,
            Self::Us => 1e-3,
            Self::Ns => 1e-6,
        }
    }
}

impl Told {
    /// What a line is, if that was told.
    pub(super) fn kind(&self) -> Option<LogKind> {
        self.log.map(|is| match is {
            LogIs::Requests => LogKind::VisibleRequests,
            LogIs::Calls => LogKind::Calls,
        })
    }

    /// Values that mean success, if they were told.
    pub(super) fn success(&self) -> Option<Vec<String>> {
        self.success.clone()
    }

    /// The columns of the table `name` by what they mean.
    pub(super) fn find(&self, name: &str, columns: &[String]) -> Result<Columns, ColumnsError> {
        let told: BTreeMap<Role, String> = self.columns.iter().cloned().collect();
        let mut found = Columns::find(name, columns, &told)?;
        if let Some(unit) = self.time_unit {
            found.stamp_unit = match unit {
                Unit::S => StampUnit::Seconds,
                Unit::Ms => StampUnit::Millis,
                Unit::Us => StampUnit::Micros,
                Unit::Ns => StampUnit::Nanos,
            };
        }
        if let Some(unit) = self.latency_unit {
            found.latency_unit_assumed = false;
            found.latency_unit_ms = unit.milliseconds();
        }
        Ok(found)
    }
}

pub(super) fn read_column(text: &str) -> Result<(Role, String), String> {
    let names = || Role::ALL.map(Role::name).join(", ");
    let (role, column) = text.split_once('=').ok_or_else(|| format!("`{text}` has no `=`. Write it as `time=created_at`"))?;
    let role = Role::named(role.trim()).ok_or_else(|| format!("`{role}` is no role of a column. Take one of {}", names()))?;
    Ok((role, column.trim().to_owned()))
}

/// A share, 0..=1.
pub(in crate::cli) fn read_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().map_err(|_| format!("`{text}` is no number. Write it like 0.01"))?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(format!("`{text}` is not between 0 and 1")) }
}

/// Counts that rise from above 0, parted by commas.
pub(super) fn read_edges(text: &str) -> Result<Arc<[u32]>, String> {
    let edges: Result<Vec<u32>, _> = text.split(',').map(|edge| edge.trim().parse()).collect();
    match edges {
        Ok(edges) if edges.first() != Some(&0) && edges.is_sorted_by(|a, b| a < b) => Ok(edges.into()),
        _ => Err(format!("`{text}` does not rise from above 0. Write it like 100,500")),
    }
}
