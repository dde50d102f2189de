//! Which column of a log means what: as told, else guessed from the names that gateways and published traces use.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::table::cell::StampUnit;

/// What a column may mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// When a call began.
    Time,
    /// Which visible request it belongs to.
    Request,
    /// Which call it is.
    Call,
    /// Whether it succeeded.
    Status,
    /// Prompt tokens.
    InputTokens,
    /// Answer tokens.
    OutputTokens,
    /// How long it took.
    Latency,
    /// Sessions or calls at once when it began.
    Concurrent,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 8] =
        [Self::Time, Self::Request, Self::Call, Self::Status, Self::InputTokens, Self::OutputTokens, Self::Latency, Self::Concurrent];

    /// Names that are taken for it, in lower case, the likeliest first.
    const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Time => &[
                "created_at",
                "timestamp",
                "arrival_s",
                "arrived_at",
                "started_at",
                "start_time",
                "request_time",
                "received_at",
                "time",
                "ts",
                "@timestamp",
                "datetime",
                "date",
            ],
            Self::Request => &["visible_request_id", "user_request_id", "parent_request_id", "root_request_id", "request_id", "trace_id"],
            Self::Call => &["call_id", "inference_id", "span_id", "id"],
            Self::Status => &["status", "outcome", "result", "state", "status_code", "http_status", "success", "succeeded", "ok"],
            Self::InputTokens => &[
                "input_tokens",
                "prompt_tokens",
                "contexttokens",
                "request tokens",
                "input_length",
                "num_prefill_tokens",
                "tokens_in",
                "usage.prompt_tokens",
                "usage.input_tokens",
            ],
            Self::OutputTokens => &[
                "output_tokens",
                "completion_tokens",
                "generatedtokens",
                "response tokens",
                "output_length",
                "num_decode_tokens",
                "tokens_out",
                "usage.completion_tokens",
                "usage.output_tokens",
            ],
            Self::Latency => &[
                "latency_ms",
                "duration_ms",
                "elapsed_ms",
                "response_time_ms",
                "e2e_latency_ms",
                "latency_s",
                "duration_s",
                "elapsed_s",
                "latency",
                "duration",
                "response_time",
            ],
            Self::Concurrent => &["concurrent_sessions", "concurrent_requests", "concurrency", "in_flight", "active_sessions"],
        }
    }

    /// As it is written, in documents and after `--column`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Request => "request",
            Self::Call => "call",
            Self::Status => "status",
            Self::InputTokens => "input_tokens",
            Self::OutputTokens => "output_tokens",
            Self::Latency => "latency",
            Self::Concurrent => "concurrent",
        }
    }

    /// By its name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// The columns of one log by what they mean.
#[derive(Clone, Debug, PartialEq)]
pub struct Columns {
    of: BTreeMap<Role, String>,
    /// What a bare number is as a stamp.
    pub stamp_unit: StampUnit,
    /// Milliseconds of one unit of the latency column.
    pub latency_unit_ms: f64,
    /// Whether that unit was assumed: neither told nor in the column's name.
    pub latency_unit_assumed: bool,
}

/// The columns do not say what is needed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ColumnsError {
    /// The named column is not there.
    #[error("`{name}` has no column `{column}` to take for `{role}`; its columns are `{columns}`. Name one of them")]
    NotThere {
        /// File.
        name: String,
        /// As told.
        column: String,
        /// For what.
        role: Role,
        /// Those it has.
        columns: String,
    },
    /// Nothing says when a call began.
    #[error("nothing in `{name}` says when a call began; its columns are `{columns}`. Name the one that does with `--column time=NAME`")]
    NoTime {
        /// File.
        name: String,
        /// Those it has.
        columns: String,
    },
}

impl Columns {
    /// Finds the roles in the columns of the table `name`: those `told`, the others by their names (a role told as empty is left out).
    ///
    /// # Errors
    /// When a column that was told is not there, or none says when a call began.
    pub fn find(name: &str, columns: &[String], told: &BTreeMap<Role, String>) -> Result<Self, ColumnsError> {
        let mut of = BTreeMap::new();
        for role in Role::ALL {
            let column = match told.get(&role) {
                Some(none) if none.is_empty() => None,
                Some(column) if columns.contains(column) => Some(column.clone()),
                Some(column) => {
                    let columns = columns.join("`, `");
                    return Err(ColumnsError::NotThere { name: name.to_owned(), column: column.clone(), role, columns });
                }
                None => guess(role, columns),
            };
            of.extend(column.map(|column| (role, column)));
        }
        if !of.contains_key(&Role::Time) {
            return Err(ColumnsError::NoTime { name: name.to_owned(), columns: columns.join("`, `") });
        }
        let has = |name: &str| columns.iter().any(|column| column == name);
        // Mooncake's traces count milliseconds from their beginning, which no magnitude tells from seconds.
        let is_mooncake = has("timestamp") && has("input_length") && has("output_length");
        let stamp_unit = if is_mooncake { StampUnit::Millis } else { StampUnit::Guess };
        let latency = of.get(&Role::Latency).map_or("", String::as_str);
        let unit = UNITS.iter().find(|(suffix, _)| latency.ends_with(suffix)).map(|(_, ms)| *ms);
        let latency_unit_assumed = unit.is_none() && !latency.is_empty();
        Ok(Self { of, stamp_unit, latency_unit_ms: unit.unwrap_or(1.0), latency_unit_assumed })
    }

    /// The column with that role.
    #[must_use]
    pub fn of(&self, role: Role) -> Option<&str> {
        self.of.get(&role).map(String::as_str)
    }

    /// Roles in order with their columns.
    pub fn iter(&self) -> impl Iterator<Item = (Role, &str)> {
        self.of.iter().map(|(role, column)| (*role, column.as_str()))
    }
}

/// Suffixes of column names with the milliseconds of their unit.
const UNITS: [(&str, f64); 5] = [("_ms", 1.0), ("_us", 1e-3), ("_ns", 1e-6), ("_s", 1e3), ("_seconds", 1e3)];

fn guess(role: Role, columns: &[String]) -> Option<String> {
    role.names().iter().find_map(|name| columns.iter().find(|column| column.to_lowercase() == *name)).cloned()
}
