//! A row of a log as a call.

use std::fmt;

use crate::capacity::request_log::call::Call;
use crate::capacity::request_log::columns::{Columns, Role};
use crate::table::cell::{Cell, StampUnit};
use crate::table::row::CellProblem;

/// What a status may say for success, in lower case; numbers from 200 to 299 do too.
const SUCCESS: [&str; 13] =
    ["ok", "success", "succeeded", "successful", "completed", "complete", "done", "finished", "true", "1", "t", "stop", "length"];

/// Which cell of a row is wrong, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WrongCell {
    /// What the column means.
    pub role: Role,
    /// What is wrong.
    pub problem: CellProblem,
}

impl fmt::Display for WrongCell {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} {}", self.role, self.problem)
    }
}

/// Reads rows whose cells are the wanted columns in order.
#[derive(Clone, Debug)]
pub struct Decoder {
    wanted: Vec<String>,
    at: [Option<usize>; Role::ALL.len()],
    stamp_unit: StampUnit,
    latency_unit_ms: f64,
    /// Values that mean success, instead of the usual ones.
    success: Option<Vec<String>>,
}

impl Decoder {
    /// For these columns; `success` are the values of the status column that mean it, in any case.
    #[must_use]
    pub fn new(columns: &Columns, success: Option<Vec<String>>) -> Self {
        let wanted: Vec<String> = columns.iter().map(|(_, column)| column.to_owned()).collect();
        let place = |role| columns.iter().position(|(other, _)| other == role);
        let success = success.map(|values| values.iter().map(|value| value.to_lowercase()).collect());
        Self { wanted, at: Role::ALL.map(place), stamp_unit: columns.stamp_unit, latency_unit_ms: columns.latency_unit_ms, success }
    }

    /// The columns to read, in the order of the cells.
    #[must_use]
    pub fn wanted(&self) -> &[String] {
        &self.wanted
    }

    /// A row's call.
    ///
    /// # Errors
    /// When a cell is there and is not what its column means, or nothing says when the call began.
    pub fn decode(&self, cells: &[Cell<'_>]) -> Result<Call, WrongCell> {
        let cell = |role: Role| self.at[role as usize].map_or(Cell::Missing, |at| cells[at]);
        let wrong = |role| move |problem| WrongCell { role, problem };
        let count = |role: Role| match cell(role) {
            Cell::Missing => Ok(Call::UNTOLD),
            there => match there.whole() {
                Ok(count) if count < u64::from(Call::UNTOLD) => Ok(count as u32),
                Ok(_) => Err(wrong(role)(CellProblem::TooLarge)),
                Err(CellProblem::Missing) => Ok(Call::UNTOLD),
                Err(problem) => Err(wrong(role)(problem)),
            },
        };
        let at = cell(Role::Time).moment(self.stamp_unit).map_err(wrong(Role::Time))?;
        let latency_ms = match cell(Role::Latency).number() {
            Ok(below) if below < 0.0 => return Err(wrong(Role::Latency)(CellProblem::Negative)),
            Ok(latency) => (latency * self.latency_unit_ms) as f32,
            Err(CellProblem::Missing) => f32::NAN,
            Err(problem) => return Err(wrong(Role::Latency)(problem)),
        };
        let output_tokens = count(Role::OutputTokens)?;
        let succeeded = match self.at[Role::Status as usize] {
            Some(at) => self.is_success(&cells[at]),
            // Published traces have no status: a call that failed has no answer.
            None => output_tokens != 0,
        };
        Ok(Call {
            at,
            request: cell(Role::Request).key().unwrap_or(0),
            id: cell(Role::Call).key().unwrap_or(0),
            latency_ms,
            input_tokens: count(Role::InputTokens)?,
            output_tokens,
            concurrent: count(Role::Concurrent)?,
            succeeded: u32::from(succeeded),
            unused: 0,
        })
    }

    fn is_success(&self, status: &Cell<'_>) -> bool {
        if let Cell::Bool(succeeded) = status {
            return *succeeded;
        }
        let Some(text) = status.text() else { return false };
        match &self.success {
            Some(values) => values.iter().any(|value| value.eq_ignore_ascii_case(&text)),
            None => {
                SUCCESS.iter().any(|value| value.eq_ignore_ascii_case(&text))
                    || text.parse::<u32>().is_ok_and(|code| (200..300).contains(&code))
            }
        }
    }
}
