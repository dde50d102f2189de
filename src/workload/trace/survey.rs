//! The first pass over a trace: everything that can be wrong with it is found before the run starts.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::table::read::{Table, TableError};
use crate::workload::trace::format::{Problem, TraceFormat};
use crate::workload::trace::options::TraceOptions;
use crate::workload::trace::rows::TraceRows;

/// Share of lines that may be rejected before the whole trace is.
const REJECTED_MOST: f64 = 0.01;

/// Opens the table of a trace, once for each pass.
pub(super) type Opener = Arc<dyn Fn() -> Result<Table, TableError> + Send + Sync>;

/// A surveyed trace, ready to be replayed.
#[derive(Clone)]
pub struct Trace {
    pub(super) open: Opener,
    pub(super) options: TraceOptions,
    pub(super) facts: TraceFacts,
}

/// What a trace holds, of the part that its options select.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TraceFacts {
    /// Name of the file without its folder: traffic is the same wherever the file lies.
    pub name: String,
    /// Its form.
    pub format: TraceFormat,
    /// Calls, failed ones included.
    pub rows: u64,
    /// Calls without an answer: counted, not replayed.
    pub failed: u64,
    /// Lines that are no call, by what is wrong with them: counted, not replayed.
    pub rejected: BTreeMap<String, u64>,
    /// From the first to the last call, seconds.
    pub span_s: f64,
    /// Calls divided by span, calls/s.
    pub mean_rps: f64,
    /// Mean prompt length of all calls, tokens.
    pub input_tokens_mean: f64,
    /// Mean answer length of all calls, tokens.
    pub output_tokens_mean: f64,
    /// Stamp of the first call that is replayed, on the trace's own clock.
    pub(super) first_at: i64,
    /// From the first to the last call that is replayed, nanoseconds, above 0.
    pub(super) replay_span: i64,
}

/// Why a trace cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The table cannot be read.
    #[error(transparent)]
    Table(#[from] TableError),
    /// The columns fit none of the forms.
    #[error(
        "`{name}` has the columns `{columns}`, which is none of the known traces. Rename them to `arrival_s`, `input_tokens` and `output_tokens`, or bring the file in the form of azure, burstgpt or mooncake (docs/workloads.md)"
    )]
    NoFormat {
        /// File.
        name: String,
        /// Columns it has.
        columns: String,
    },
    /// The columns do not fit the form that was asked for.
    #[error(
        "`{name}` lacks `{missing}`, which a trace of the form `{format}` has; its columns are `{columns}`. Name its real form with `--trace-format`, or leave that out to have it guessed"
    )]
    MissingColumns {
        /// File.
        name: String,
        /// Form asked for.
        format: TraceFormat,
        /// What it lacks.
        missing: String,
        /// Columns it has.
        columns: String,
    },
    /// Stamps go backwards.
    #[error(
        "`{name}` is not in order of arrival: line {line} is {early_s} s earlier than line {after}, with {reorder} rows held to put them in order. Sort the file by time, or hold more rows with `--trace-reorder`"
    )]
    Unsorted {
        /// File.
        name: String,
        /// The line that comes too late.
        line: u64,
        /// The line it should stand before.
        after: u64,
        /// How much earlier, seconds.
        early_s: f64,
        /// Rows held.
        reorder: usize,
    },
    /// Too many lines are no call.
    #[error(
        "{rejected} of {lines} lines of `{name}` are no call, more than 1 % ({reasons}): {first}. Mend these lines, or remove them if the calls are not wanted"
    )]
    Rejected {
        /// File.
        name: String,
        /// How many.
        rejected: u64,
        /// Of how many.
        lines: u64,
        /// How many of each kind.
        reasons: String,
        /// The first few.
        first: String,
    },
    /// No two calls at different times.
    #[error(
        "`{name}` has {calls} calls to replay and no time between them. Select a part of the trace with two arrivals at different times or more"
    )]
    NoSpan {
        /// File.
        name: String,
        /// Calls that can be replayed.
        calls: u64,
    },
    /// It can be read once only.
    #[error("`{name}` can be read only once, and a trace is read twice: surveyed, then replayed. Save it to a file and name that")]
    OnlyOnce {
        /// `standard input`, or a pipe.
        name: String,
    },
    /// An option makes no sense.
    #[error("the {option} of a trace is `{value}` and must be above 0. Take 1 to leave the trace as it was recorded")]
    Option {
        /// Which.
        option: &'static str,
        /// As given.
        value: f64,
    },
}

impl Trace {
    /// Reads a trace from end to end, in bounded memory. `open` is called again for every replay.
    pub fn survey(open: impl Fn() -> Result<Table, TableError> + Send + Sync + 'static, options: TraceOptions) -> Result<Self, TraceError> {
        for (option, value) in [("speed", options.speed), ("scale", options.scale)] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(TraceError::Option { option, value });
            }
        }
        let table = open()?;
        let name = table.source().to_string();
        if table.source().is_stream() {
            return Err(TraceError::OnlyOnce { name });
        }
        let mut rows = TraceRows::new(table, &options)?;
        let (mut calls, mut failed, mut inputs, mut outputs) = (0_u64, 0_u64, 0_u64, 0_u64);
        let (mut all, mut replayed) = (None::<(i64, i64)>, None::<(i64, i64)>);
        for row in &mut rows {
            let row = row?;
            let until = |span: Option<(i64, i64)>| Some((span.map_or(row.at, |(first, _)| first), row.at));
            calls += 1;
            inputs += u64::from(row.input_tokens);
            outputs += u64::from(row.output_tokens);
            all = until(all);
            if row.failed() {
                failed += 1;
            } else {
                replayed = until(replayed);
            }
        }
        let rejects = rows.rejects();
        let (rejected, lines) = (rejects.total(), calls + rejects.total());
        if rejected as f64 > REJECTED_MOST * lines as f64 {
            let reasons: Vec<_> = rejects.by_problem.iter().map(|(problem, count)| format!("{count} {problem}")).collect();
            return Err(TraceError::Rejected { name, rejected, lines, reasons: reasons.join(", "), first: rejects.first.join("; ") });
        }
        let span = |span: Option<(i64, i64)>| span.map_or(0, |(first, last)| last.saturating_sub(first));
        if span(replayed) == 0 {
            return Err(TraceError::NoSpan { name, calls: calls - failed });
        }
        let span_s = span(all) as f64 / 1e9;
        let facts = TraceFacts {
            name: name.rsplit('/').next().unwrap_or(&name).to_owned(),
            format: rows.format(),
            rows: calls,
            failed,
            rejected: rejects.by_problem.iter().map(|(problem, count): (&Problem, _)| (problem.to_string(), *count)).collect(),
            span_s,
            mean_rps: calls as f64 / span_s,
            input_tokens_mean: inputs as f64 / calls as f64,
            output_tokens_mean: outputs as f64 / calls as f64,
            first_at: replayed.map_or(0, |(first, _)| first),
            replay_span: span(replayed),
        };
        Ok(Self { open: Arc::new(open), options, facts })
    }

    /// What it holds.
    #[must_use]
    pub fn facts(&self) -> &TraceFacts {
        &self.facts
    }

    /// How it is used.
    #[must_use]
    pub fn options(&self) -> &TraceOptions {
        &self.options
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Trace({:?})", self.facts)
    }
}

impl fmt::Display for TraceFacts {
    /// One line for people, with everything that was left out.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, format, rows, failed, span_s, mean_rps, .. } = self;
        write!(out, "{name}: {rows} calls in {span_s:.0} s ({mean_rps:.4} calls/s), read as {format}")?;
        if *failed > 0 {
            write!(out, "; {failed} failed calls not replayed")?;
        }
        for (problem, count) in &self.rejected {
            write!(out, "; {count} lines rejected: {problem}")?;
        }
        Ok(())
    }
}
