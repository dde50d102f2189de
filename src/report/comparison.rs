//! Several plans under one demand as text, markdown and JSON: one row a measurement.

use serde::Serialize;

use crate::capacity::comparison::{Candidate, Comparison};
use crate::record::SCHEMA_VERSION;
use crate::report::Look;
use crate::report::grid::{Cell, Grid, Head, escaped};
use crate::report::needs::resource;
use crate::report::number::{NONE, grouped, three, three_or_none};
use crate::report::paint::Tone;
use crate::report::plan::{findings_markdown, findings_text};
use crate::report::prose::{labelled, title};

/// For the terminal.
#[must_use]
pub fn text(comparison: &Comparison, look: Look) -> String {
    let mut text = title("Plans", &format!("for {}, spares included", comparison.peak), look);
    text.push_str(&grid(comparison).to_text(look));
    text.push('\n');
    for (label, says) in beside(comparison) {
        text.push_str(&labelled(&label, &says, look));
    }
    text.push_str(&findings_text(&comparison.findings, look));
    text.trim_start_matches('\n').to_owned()
}

/// For a document.
#[must_use]
pub fn markdown(comparison: &Comparison) -> String {
    let mut text = format!("# Plans for {}\n\n{}\n", escaped(&comparison.peak), grid(comparison).to_markdown());
    for (label, says) in beside(comparison) {
        text.push_str(&format!("- **{}**: {}\n", escaped(&label), escaped(&says)));
    }
    text + &findings_markdown(&comparison.findings)
}

/// For a program.
#[must_use]
pub fn json(comparison: &Comparison) -> impl Serialize {
    #[derive(Serialize)]
    struct ComparisonDocument<'a> {
        schema_version: u32,
        #[serde(flatten)]
        comparison: &'a Comparison,
    }
    ComparisonDocument { schema_version: SCHEMA_VERSION, comparison }
}

fn grid(comparison: &Comparison) -> Grid {
    let mut grid = Grid::of(vec![
        Head::words("measured"),
        Head::words("GPU"),
        Head::number("one GPU", "calls/s"),
        Head::number("owned", "GPUs"),
        Head::number("nodes", ""),
        Head::words("binds"),
        Head::number("fleet", "cost/h"),
        Head::number("M tokens", "cost"),
        Head::number("1000 outcomes", "cost"),
    ]);
    for row in &comparison.rows {
        let binds = row.plan.requirements.first().map_or(NONE, |first| resource(first.binding));
        grid.row(vec![
            Cell::new(&*row.name),
            Cell::new(row.kind.as_deref().unwrap_or(NONE)),
            Cell::new(three(row.throughput_per_gpu)),
            Cell::new(grouped(row.gpus as f64)).toned(Tone::Strong),
            Cell::new(row.nodes.map_or_else(|| NONE.to_owned(), |nodes| grouped(nodes as f64))),
            Cell::new(binds).toned(Tone::Faint),
            Cell::new(three_or_none(row.cost_per_hour)).toned(Tone::Strong),
            Cell::new(three_or_none(row.cost_per_million_tokens)),
            Cell::new(three_or_none(row.cost_per_outcome.map(|cost| 1000.0 * cost))),
        ]);
    }
    grid
}

/// Labels of each row, and who is not among them.
fn beside(comparison: &Comparison) -> Vec<(String, String)> {
    let labelled = comparison.rows.iter().filter(|row| !row.plan.inputs.throughput.labels.is_empty());
    let labels = labelled.map(|row| (row.name.clone(), row.plan.inputs.throughput.labels.join(" · ")));
    let codes_of = |row: &Candidate| {
        let codes = row.plan.findings.iter().map(|finding| finding.code.clone()).collect::<Vec<_>>();
        (!codes.is_empty()).then(|| (row.name.clone(), format!("findings: {}; plan from it alone to read them", codes.join(", "))))
    };
    let findings = comparison.rows.iter().filter_map(codes_of);
    let refused = comparison.refused.iter().map(|refused| (refused.name.clone(), format!("not planned: {}", refused.why)));
    labels.chain(findings).chain(refused).collect()
}
