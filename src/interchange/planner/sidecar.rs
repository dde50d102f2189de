//! What stands beside every export to a planner, because its form has no room for it: whose numbers these are, under which labels, who
//! has read such a file, and whether headroom is inside.

use serde_json::{Value, json};

use crate::interchange::planner::form::Form;
use crate::interchange::planner::points::{Dropped, replicas};
use crate::record::SCHEMA_VERSION;
use crate::record::run::{RunRecord, RunStatus};

/// Its name.
pub const NAME: &str = "plimsoll-export.json";

/// What a form makes.
#[derive(Clone, Debug)]
pub struct Content {
    /// Names, below the folder of the export, and what is in them.
    pub files: Vec<(String, Vec<u8>)>,
    /// What the form itself has to say.
    pub details: Value,
    /// What a reader should know before using it.
    pub warnings: Vec<String>,
}

impl Content {
    /// One file, of which nothing is to be warned.
    #[must_use]
    pub fn one(name: &str, bytes: Vec<u8>, details: Value) -> Self {
        Self { files: vec![(name.to_owned(), bytes)], details, warnings: Vec::new() }
    }
}

/// What is known of one export.
#[derive(Clone, Debug, Default)]
pub struct Made {
    /// Names of its files.
    pub files: Vec<String>,
    /// Levels that were left out.
    pub dropped: Vec<Dropped>,
    /// The headroom inside, where there is one.
    pub headroom: Option<f64>,
    /// What the form itself has to say.
    pub details: Value,
    /// What a reader should know before using it.
    pub warnings: Vec<String>,
}

/// The document.
#[must_use]
pub fn document(run: &RunRecord, form: Form, made: &Made) -> Value {
    let (count, gpus) = replicas(run);
    json!({
        "schema_version": SCHEMA_VERSION,
        "plimsoll": run.version,
        "run": run.id,
        "run_complete": run.status == RunStatus::Complete,
        "form": form.name(),
        "files": made.files,
        "consumer": form.consumer(),
        "checked": form.checked(),
        "headroom": {"inside": made.headroom.is_some(), "share": made.headroom},
        "labels": labels(run),
        "target": {
            "model": run.target.model,
            "kind": run.target.kind,
            "device": run.target.device,
            "precision": run.target.precision,
            "replicas_measured": count,
            "gpus_per_replica": gpus,
        },
        "slo": run.slo.as_ref().map(ToString::to_string),
        "workload": {
            "name": run.workload.name,
            "mean_input_tokens": run.workload.mean_input_tokens,
            "mean_output_tokens": run.workload.mean_output_tokens,
        },
        "levels_left_out": made.dropped,
        "details": made.details,
        "warnings": made.warnings,
    })
}

/// All labels of a run, each once.
#[must_use]
pub fn labels(run: &RunRecord) -> Vec<String> {
    let headline = run.headline.iter().flat_map(|headline| &headline.labels);
    let mut labels = Vec::<String>::new();
    for label in run.labels.iter().chain(&run.target.labels).chain(&run.workload.labels).chain(headline) {
        if !labels.contains(label) {
            labels.push(label.clone());
        }
    }
    if run.status != RunStatus::Complete {
        labels.push("run not complete".to_owned());
    }
    labels
}

/// The same in short, as comments of forms that have them.
#[derive(Clone, Debug)]
pub struct Comments(Vec<String>);

impl Comments {
    /// Of an export with or without headroom inside.
    #[must_use]
    pub fn of(run: &RunRecord, form: Form, headroom: Option<f64>) -> Self {
        let inside = headroom.map_or_else(|| "not inside".to_owned(), |share| format!("{share} inside"));
        let mut lines = vec![
            format!("plimsoll {}, run {}, for {}: {}", run.version, run.id, form.consumer(), form.checked()),
            format!("Headroom: {inside}. Model: {} on {}", run.target.model, run.target.device),
        ];
        lines.extend(labels(run).iter().map(|label| format!("Label: {label}")));
        Self(lines)
    }

    /// A line each.
    #[must_use]
    pub fn text(&self) -> String {
        let line = |line: &String| format!("# {}\n", line.replace(char::is_control, " "));
        self.0.iter().map(line).collect()
    }
}
