//! One row of a table: cells by column name, read as a type, with an error that says which cell is wrong and how.

use std::sync::Arc;

use csv::StringRecord;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::table::cell::Cell;

/// A row with the line it stands on.
#[derive(Clone, Debug)]
pub struct Row {
    line: u64,
    cells: Cells,
}

#[derive(Clone, Debug)]
enum Cells {
    Text { columns: Arc<[String]>, record: StringRecord },
    Json(Map<String, Value>),
}

/// What is wrong with a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
pub enum CellProblem {
    /// The row has no such cell, or an empty one.
    #[error("missing")]
    Missing,
    /// It is not a number.
    #[error("not a number")]
    NotANumber,
    /// It is below zero.
    #[error("negative")]
    Negative,
    /// It has a fraction where a count is expected.
    #[error("not a whole number")]
    NotWhole,
    /// It is larger than any count that makes sense here.
    #[error("too large")]
    TooLarge,
    /// It is not a list of whole numbers.
    #[error("not a list of whole numbers")]
    NotAList,
    /// It is neither a date and time nor a number that could be a stamp.
    #[error("not a date and time")]
    NotATime,
}

/// A cell that cannot be read as asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{column}` is {problem}{}", if value.is_empty() { String::new() } else { format!(" (`{value}`)") })]
pub struct CellError {
    /// Line of the file, from 1.
    pub line: u64,
    /// Which column.
    pub column: String,
    /// What stands there; empty where nothing does.
    pub value: String,
    /// What is wrong.
    pub problem: CellProblem,
}

impl Row {
    pub(super) fn text(line: u64, columns: Arc<[String]>, record: StringRecord) -> Self {
        Self { line, cells: Cells::Text { columns, record } }
    }

    pub(super) fn json(line: u64, object: Map<String, Value>) -> Self {
        Self { line, cells: Cells::Json(object) }
    }

    /// Line of the file, from 1.
    #[must_use]
    pub fn line(&self) -> u64 {
        self.line
    }

    /// Whether the table, or this JSON record, has the column.
    #[must_use]
    pub fn has(&self, column: &str) -> bool {
        match &self.cells {
            Cells::Text { columns, .. } => columns.iter().any(|name| name == column),
            Cells::Json(object) => object.contains_key(column),
        }
    }

    /// The cell as text, without spaces around it; `None` where it is missing, empty or `null`.
    #[must_use]
    pub fn find(&self, column: &str) -> Option<String> {
        match &self.cells {
            Cells::Text { .. } => self.cell(column).map(str::to_owned),
            Cells::Json(object) => match object.get(column)? {
                Value::Null => None,
                Value::String(text) => Some(text.trim().to_owned()).filter(|text| !text.is_empty()),
                other => Some(other.to_string()),
            },
        }
    }

    /// The cell as text, or the error that it is missing.
    pub fn string(&self, column: &str) -> Result<String, CellError> {
        self.find(column).ok_or_else(|| self.wrong(column, CellProblem::Missing))
    }

    /// The cell as a count.
    pub fn whole(&self, column: &str) -> Result<u64, CellError> {
        self.borrowed(column).whole().map_err(|problem| self.wrong(column, problem))
    }

    /// The cell as a finite number.
    pub fn number(&self, column: &str) -> Result<f64, CellError> {
        self.borrowed(column).number().map_err(|problem| self.wrong(column, problem))
    }

    /// The cell as a list of counts: a JSON array.
    pub fn wholes(&self, column: &str) -> Result<Vec<u64>, CellError> {
        let wrong = || self.wrong(column, CellProblem::NotAList);
        match &self.cells {
            Cells::Json(object) => {
                let list = object.get(column).ok_or_else(|| self.wrong(column, CellProblem::Missing))?.as_array().ok_or_else(wrong)?;
                list.iter().map(|item| item.as_u64().ok_or_else(wrong)).collect()
            }
            Cells::Text { .. } => serde_json::from_str(&self.string(column)?).map_err(|_| wrong()),
        }
    }

    /// The error that the cell in `column` is wrong in this way.
    #[must_use]
    pub fn wrong(&self, column: &str, problem: CellProblem) -> CellError {
        CellError { line: self.line, column: column.to_owned(), value: self.find(column).unwrap_or_default(), problem }
    }

    pub(super) fn columns(&self) -> Vec<String> {
        match &self.cells {
            Cells::Text { columns, .. } => columns.to_vec(),
            Cells::Json(object) => object.keys().cloned().collect(),
        }
    }

    fn borrowed(&self, column: &str) -> Cell<'_> {
        match &self.cells {
            Cells::Text { .. } => self.cell(column).map_or(Cell::Missing, Cell::Text),
            Cells::Json(object) => match object.get(column) {
                None | Some(Value::Null) => Cell::Missing,
                Some(Value::Bool(value)) => Cell::Bool(*value),
                Some(Value::String(text)) => Cell::Text(text),
                Some(Value::Number(number)) => {
                    number.as_i64().map_or_else(|| Cell::Number(number.as_f64().unwrap_or(f64::NAN)), Cell::Whole)
                }
                // Something stands there, and it is neither missing nor a number.
                Some(Value::Array(_)) => Cell::Text("[...]"),
                Some(Value::Object(_)) => Cell::Text("{...}"),
            },
        }
    }

    fn cell(&self, column: &str) -> Option<&str> {
        let Cells::Text { columns, record } = &self.cells else { return None };
        let at = columns.iter().position(|name| name == column)?;
        record.get(at).map(str::trim).filter(|text| !text.is_empty())
    }
}
