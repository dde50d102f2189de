//! Workload files: TOML to [`Workload`] and back, with messages that name the line, the key and the nearest known key.

use crate::workload::spec::{Workload, WorkloadError};

impl Workload {
    /// Reads a workload file. `file` is its name for messages.
    pub fn parse(toml: &str, file: &str) -> Result<Self, WorkloadError> {
        let toml = toml.strip_prefix('\u{feff}').unwrap_or(toml);
        let workload: Self = toml::from_str(toml).map_err(|error| {
            let problem = in_one_form(error.message().trim());
            let before = error.span().and_then(|span| toml.get(..span.start)).unwrap_or_default();
            let remedy = remedy(&problem);
            WorkloadError::Parse { file: file.to_owned(), line: before.matches('\n').count() + 1, problem, remedy }
        })?;
        workload.check()?;
        Ok(workload)
    }

    /// The workload as a file, with every value stated: reading it gives the same workload.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a workload has string keys and plain values only")
    }
}

/// The reader's message. It names unknown keys in a form of its own inside an enum: `unexpected keys in table: x, available keys: a, b`.
fn in_one_form(message: &str) -> String {
    let parts = message.strip_prefix("unexpected keys in table: ").and_then(|rest| rest.split_once(", available keys: "));
    let Some((wrong, known)) = parts else { return message.to_owned() };
    let quoted = |names: &str| names.split(", ").map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    format!("unknown field {}, expected one of {}", quoted(wrong.split(", ").next().unwrap_or(wrong)), quoted(known))
}

/// Names less alike than this (Jaro-Winkler, 0 to 1) are not one another misspelt.
const ALIKE: f64 = 0.6;

/// What to do about a message of the TOML reader.
fn remedy(problem: &str) -> String {
    // The reader's messages are: unknown field `x`, expected one of `a`, `b`, `c`.
    let mut quoted = problem.split('`').skip(1).step_by(2);
    if let (true, Some(wrong)) = (problem.starts_with("unknown "), quoted.next()) {
        let likeness = |known: &&str| strsim::jaro_winkler(wrong, known);
        let nearest = quoted.max_by(|one, other| likeness(one).total_cmp(&likeness(other))).filter(|known| likeness(known) > ALIKE);
        return match nearest {
            Some(known) => format!("The nearest known name is `{known}`"),
            None => "Remove it, or compare with the files in `benchmarks/workloads`".to_owned(),
        };
    }
    if problem.starts_with("missing field") {
        return "Add it, as the files in `benchmarks/workloads` do".to_owned();
    }
    "Compare with the files in `benchmarks/workloads`".to_owned()
}
