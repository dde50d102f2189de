//! The four forms of a trace, and one row of each as the same typed row.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::rng;
use crate::table::row::{CellError, CellProblem, Row};

/// Tokens of a prefix block of the Mooncake traces.
pub(super) const BLOCK_TOKENS: u32 = 512;
/// Columns that may hold the arrival time of a plain trace, in the order in which they are looked for.
const PLAIN_TIMES: [&str; 3] = ["arrival_s", "timestamp", "created_at"];

/// The form of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TraceFormat {
    /// Azure LLM inference trace 2023, CSV: `TIMESTAMP` (date and time), `ContextTokens`, `GeneratedTokens`.
    Azure,
    /// BurstGPT, CSV: `Timestamp` (seconds), `Request tokens`, `Response tokens` (0: the call failed).
    Burstgpt,
    /// Mooncake, JSON lines: `timestamp` (milliseconds), `input_length`, `output_length`, `hash_ids` (one per 512-token block).
    Mooncake,
    /// Ours, CSV or JSON lines: `arrival_s` (seconds), or `timestamp` or `created_at` (seconds, or date and time), `input_tokens`,
    /// `output_tokens` (0: the call failed), optionally `session`.
    Plain,
}

impl TraceFormat {
    /// All of them, in the order in which they are guessed.
    pub const ALL: [Self; 4] = [Self::Azure, Self::Burstgpt, Self::Mooncake, Self::Plain];

    /// The form that has these columns.
    #[must_use]
    pub fn guess(columns: &[String]) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.missing(columns).is_empty())
    }

    /// Columns that the form needs and these lack.
    #[must_use]
    pub fn missing(self, columns: &[String]) -> Vec<&'static str> {
        let has = |column: &&str| columns.iter().any(|name| name == column);
        let needed: &[&str] = match self {
            Self::Azure => &["TIMESTAMP", "ContextTokens", "GeneratedTokens"],
            Self::Burstgpt => &["Timestamp", "Request tokens", "Response tokens"],
            Self::Mooncake => &["timestamp", "input_length", "output_length", "hash_ids"],
            Self::Plain if PLAIN_TIMES.iter().any(has) => &["input_tokens", "output_tokens"],
            Self::Plain => &["arrival_s", "input_tokens", "output_tokens"],
        };
        needed.iter().copied().filter(|column| !has(column)).collect()
    }

    /// One row as a typed row.
    pub(super) fn decode(self, row: &Row) -> Result<TraceRow, RowFault> {
        let (time, input, output) = match self {
            Self::Azure => ("TIMESTAMP", "ContextTokens", "GeneratedTokens"),
            Self::Burstgpt => ("Timestamp", "Request tokens", "Response tokens"),
            Self::Mooncake => ("timestamp", "input_length", "output_length"),
            Self::Plain => (PLAIN_TIMES[PLAIN_TIMES.iter().position(|name| row.has(name)).unwrap_or(0)], "input_tokens", "output_tokens"),
        };
        let at = match self {
            Self::Azure => date_nanos(row, time)?,
            Self::Burstgpt => nanos(row, time, 1e9)?,
            Self::Mooncake => nanos(row, time, 1e6)?,
            Self::Plain => nanos(row, time, 1e9).or_else(|error| match error.problem {
                Problem::Cell(CellProblem::NotANumber) => date_nanos(row, time),
                _ => Err(error),
            })?,
        };
        let tokens = |column: &str| {
            let count = row.whole(column)?;
            u32::try_from(count).map_err(|_| row.wrong(column, CellProblem::TooLarge))
        };
        let (input_tokens, output_tokens) = (tokens(input)?, tokens(output)?);
        let fault = |problem, message| RowFault { line: row.line(), problem, message };
        if input_tokens == 0 && output_tokens > 0 {
            return Err(fault(Problem::ZeroPrompt, format!("line {}: `{input}` is 0, but there is an answer", row.line())));
        }
        let blocks = if self == Self::Mooncake { row.wholes("hash_ids")? } else { Vec::new() };
        if self == Self::Mooncake && blocks.len() != input_tokens.div_ceil(BLOCK_TOKENS) as usize {
            let message =
                format!("line {}: {} `hash_ids` for `{input_tokens}` tokens in blocks of {BLOCK_TOKENS}", row.line(), blocks.len());
            return Err(fault(Problem::BlocksDisagree, message));
        }
        let session = if self == Self::Plain { row.find("session").map(|name| rng::derive(0, &name)) } else { None };
        Ok(TraceRow { line: row.line(), at, input_tokens, output_tokens, blocks, session })
    }
}

impl fmt::Display for TraceFormat {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Azure => "azure",
            Self::Burstgpt => "burstgpt",
            Self::Mooncake => "mooncake",
            Self::Plain => "plain",
        })
    }
}

/// The name is no trace format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no form of a trace. Take `azure`, `burstgpt`, `mooncake` or `plain`")]
pub struct UnknownFormat(pub String);

impl FromStr for TraceFormat {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.to_string() == text).ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// One call of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceRow {
    /// Line of the file, from 1.
    pub line: u64,
    /// When it arrived: nanoseconds on the trace's own clock, whatever its origin.
    pub at: i64,
    /// Prompt length; 0 only where the call failed.
    pub input_tokens: u32,
    /// Answer length; 0 where the call failed.
    pub output_tokens: u32,
    /// Prefix blocks of 512 tokens, the last one partial: equal ids are equal beginnings. Empty where the trace has none.
    pub blocks: Vec<u64>,
    /// The conversation it belongs to, where the trace says.
    pub session: Option<u64>,
}

impl TraceRow {
    /// Whether the call failed, so that there is no answer to ask for.
    #[must_use]
    pub fn failed(&self) -> bool {
        self.output_tokens == 0
    }
}

/// A line that is no call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowFault {
    pub line: u64,
    pub problem: Problem,
    pub message: String,
}

/// What is wrong with a line of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// It is no row at all: not JSON, the wrong number of fields.
    #[error("not a row")]
    NotARow,
    /// A cell is not what it should be.
    #[error("{0}")]
    Cell(CellProblem),
    /// The arrival time is no date and time.
    #[error("not a date and time")]
    NotATime,
    /// No prompt, but an answer.
    #[error("zero-length prompt")]
    ZeroPrompt,
    /// The number of prefix blocks is not that of the prompt's length.
    #[error("blocks and length disagree")]
    BlocksDisagree,
}

impl From<CellError> for RowFault {
    fn from(error: CellError) -> Self {
        Self { line: error.line, problem: Problem::Cell(error.problem), message: error.to_string() }
    }
}

/// A number in units of `unit` nanoseconds.
fn nanos(row: &Row, column: &str, unit: f64) -> Result<i64, RowFault> {
    let value = row.number(column)?;
    if value < 0.0 {
        return Err(row.wrong(column, CellProblem::Negative).into());
    }
    let nanos = (value * unit).round();
    if nanos < i64::MAX as f64 { Ok(nanos as i64) } else { Err(row.wrong(column, CellProblem::TooLarge).into()) }
}

/// A date and time; without a zone it is taken as UTC.
fn date_nanos(row: &Row, column: &str) -> Result<i64, RowFault> {
    let text = row.string(column)?;
    let stamp = text.parse::<Timestamp>().ok().map(Timestamp::as_nanosecond);
    let civil = || Some(TimeZone::UTC.to_timestamp(text.parse::<DateTime>().ok()?).ok()?.as_nanosecond());
    stamp.or_else(civil).and_then(|nanos| i64::try_from(nanos).ok()).ok_or_else(|| RowFault {
        line: row.line(),
        problem: Problem::NotATime,
        message: format!("line {}: `{column}` is not a date and time (`{text}`)", row.line()),
    })
}
