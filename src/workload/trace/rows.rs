//! The calls of a trace, one at a time, in order of arrival; lines that are no call are counted and passed over.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::table::read::{Table, TableError};
use crate::workload::trace::format::{Problem, RowFault, TraceFormat, TraceRow};
use crate::workload::trace::options::TraceOptions;
use crate::workload::trace::survey::TraceError;

/// Rejected lines that are remembered in words.
const REMEMBERED: usize = 5;

/// Lines of a trace that are no call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejects {
    /// How many, by what is wrong with them.
    pub by_problem: BTreeMap<Problem, u64>,
    /// The first few, in words.
    pub first: Vec<String>,
}

impl Rejects {
    /// How many.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_problem.values().sum()
    }

    fn add(&mut self, fault: RowFault) {
        *self.by_problem.entry(fault.problem).or_default() += 1;
        if self.first.len() < REMEMBERED {
            self.first.push(fault.message);
        }
    }
}

/// The calls of a table: iterate to get them, failed ones included.
///
/// Holds `reorder` rows and no more, however long the trace is. Ends after the first error.
#[derive(Debug)]
pub struct TraceRows {
    table: Table,
    format: TraceFormat,
    options: TraceOptions,
    rejects: Rejects,
    /// Rows read ahead to put them in order, the earliest on top.
    ahead: BinaryHeap<Reverse<Early>>,
    /// Stamp of the first row: where the options' window counts from.
    origin: Option<i64>,
    /// Stamp and line of the last row.
    last: Option<(i64, u64)>,
    given: u64,
    over: bool,
}

/// A row by its stamp, then by its line.
#[derive(Debug, PartialEq, Eq)]
struct Early(TraceRow);

impl PartialOrd for Early {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Early {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0.at, self.0.line).cmp(&(other.0.at, other.0.line))
    }
}

impl TraceRows {
    /// The calls of an open table.
    pub fn new(table: Table, options: &TraceOptions) -> Result<Self, TraceError> {
        let columns = table.columns().join("`, `");
        let format = match options.format {
            None => {
                TraceFormat::guess(table.columns()).ok_or_else(|| TraceError::NoFormat { name: table.source().to_string(), columns })?
            }
            Some(format) => {
                let missing = format.missing(table.columns());
                if !missing.is_empty() {
                    let missing = missing.join("`, `");
                    return Err(TraceError::MissingColumns { name: table.source().to_string(), format, missing, columns });
                }
                format
            }
        };
        Ok(Self {
            table,
            format,
            options: options.clone(),
            rejects: Rejects::default(),
            ahead: BinaryHeap::new(),
            origin: None,
            last: None,
            given: 0,
            over: false,
        })
    }

    /// The form, guessed or as told.
    #[must_use]
    pub fn format(&self) -> TraceFormat {
        self.format
    }

    /// Lines passed over so far.
    #[must_use]
    pub fn rejects(&self) -> &Rejects {
        &self.rejects
    }

    /// The next row of the file that is a call.
    fn read(&mut self) -> Result<Option<TraceRow>, TraceError> {
        loop {
            let fault = match self.table.next() {
                None => return Ok(None),
                Some(Ok(row)) => match self.format.decode(&row) {
                    Ok(call) => return Ok(Some(call)),
                    Err(fault) => fault,
                },
                Some(Err(TableError::BadLine { line, problem, .. })) => {
                    RowFault { line, problem: Problem::NotARow, message: format!("line {line}: {problem}") }
                }
                Some(Err(error)) => return Err(error.into()),
            };
            self.rejects.add(fault);
        }
    }

    /// The next call in order of arrival.
    fn in_order(&mut self) -> Result<Option<TraceRow>, TraceError> {
        while self.ahead.len() <= self.options.reorder {
            match self.read()? {
                Some(row) => self.ahead.push(Reverse(Early(row))),
                None => break,
            }
        }
        let Some(Reverse(Early(row))) = self.ahead.pop() else { return Ok(None) };
        match self.last {
            Some((before, line)) if row.at < before => Err(TraceError::Unsorted {
                name: self.table.source().to_string(),
                line: row.line,
                after: line,
                early_s: (before - row.at) as f64 / 1e9,
                reorder: self.options.reorder,
            }),
            _ => {
                self.last = Some((row.at, row.line));
                Ok(Some(row))
            }
        }
    }

    /// The next call that the options ask for.
    fn wanted(&mut self) -> Result<Option<TraceRow>, TraceError> {
        if self.options.first.is_some_and(|first| self.given >= first) {
            return Ok(None);
        }
        while let Some(row) = self.in_order()? {
            let since = row.at.abs_diff(*self.origin.get_or_insert(row.at));
            match self.options.window {
                Some((_, to)) if since >= to.0 => return Ok(None),
                Some((from, _)) if since < from.0 => {}
                _ => {
                    self.given += 1;
                    return Ok(Some(row));
                }
            }
        }
        Ok(None)
    }
}

impl Iterator for TraceRows {
    type Item = Result<TraceRow, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.over {
            return None;
        }
        let row = self.wanted().transpose();
        self.over = !matches!(row, Some(Ok(_)));
        row
    }
}
