//! The need of a plan by each thing that GPUs run out of, and what each input does to it.

use crate::capacity::plan::Plan;
use crate::capacity::requirement::{Requirement, Resource};
use crate::capacity::sensitivity::Sensitivity;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::number::{NONE, signed, three, three_or_none};
use crate::report::paint::Tone;

/// Characters on each side of the middle of a picture.
const HALF: usize = 12;

/// What GPUs run out of, in words.
pub(super) fn resource(resource: Resource) -> &'static str {
    match resource {
        Resource::Rate => "calls/s",
        Resource::CallsInFlight => "in flight",
        Resource::KvTokens => "KV tokens",
    }
}

/// One row a peak: how much of each thing, the GPUs for it, and which binds.
pub(super) fn grid(plan: &Plan) -> Grid {
    let plural = format!("{}s", plan.inputs.throughput.device_noun);
    let mut grid = Grid::of(vec![
        Head::words("need by"),
        Head::number("calls", "/s"),
        Head::number("for it", &plural),
        Head::number("in flight", "calls"),
        Head::number("for it", &plural),
        Head::number("in KV caches", "tokens"),
        Head::number("for it", &plural),
        Head::words("binds"),
    ]);
    for row in &plan.requirements {
        let by = |of: Resource| row.needs.iter().find(|need| need.of == of).map(|need| need.gpus.get());
        let need = |of: Resource| Cell::new(three_or_none(by(of))).toned(if row.binding == of { Tone::Strong } else { Tone::Usual });
        grid.row(vec![
            Cell::new(&*row.name),
            Cell::new(three(row.calls.get())),
            need(Resource::Rate),
            Cell::new(three_or_none(row.calls_in_flight)),
            need(Resource::CallsInFlight),
            Cell::new(three_or_none(row.resident_kv_tokens)),
            need(Resource::KvTokens),
            Cell::new(resource(row.binding)),
        ]);
    }
    grid
}

/// One row an input, the one that does most first, of one peak: a picture of a tenth less and a tenth more.
pub(super) fn tornado(row: &Requirement, noun: &str) -> Grid {
    let plural = format!("{noun}s");
    let has_price = row.sensitivity.iter().any(|change| change.cost.is_some());
    let mut heads =
        vec![Head::words("10 % of"), Head::number("less", &plural), Head::words("less \u{b7} more"), Head::number("more", &plural)];
    if has_price {
        heads.extend([Head::number("less", "cost/h"), Head::number("more", "cost/h")]);
    }
    heads.extend([Head::words("may be"), Head::number("then", &plural), Head::number("to", &plural)]);
    let mut grid = Grid::of(heads);
    let mut changes: Vec<&Sensitivity> = row.sensitivity.iter().collect();
    changes.sort_by(|one, other| other.swing().total_cmp(&one.swing()));
    let largest = changes.first().map_or(0.0, |change| change.swing());
    for change in changes {
        let mut cells = vec![
            Cell::new(change.input),
            Cell::new(signed_or_none(change.gpus_less)),
            Cell::new(picture(change, largest)).toned(Tone::Faint),
            Cell::new(signed_or_none(change.gpus)),
        ];
        if has_price {
            let (more, less) = change.cost.unwrap_or_default();
            cells.extend([Cell::new(signed_or_none(less)), Cell::new(signed_or_none(more))]);
        }
        match change.interval {
            Some(over) => cells.extend([
                Cell::new(format!("{}\u{2013}{}", three(over.ends.0), three(over.ends.1))),
                Cell::new(signed_or_none(over.gpus.0)),
                Cell::new(signed_or_none(over.gpus.1)),
            ]),
            None => cells.extend([Cell::new(NONE), Cell::new(NONE), Cell::new(NONE)]),
        }
        grid.row(cells);
    }
    grid
}

fn signed_or_none(value: f64) -> String {
    if value == 0.0 { NONE.to_owned() } else { signed(value) }
}

/// What makes the need smaller stands left of the middle, what makes it larger on the right.
fn picture(change: &Sensitivity, largest: f64) -> String {
    let cells = |gpus: f64| if largest > 0.0 { (gpus.abs() / largest * HALF as f64).round() as usize } else { 0 };
    let fewer = [change.gpus, change.gpus_less].into_iter().fold(0.0, f64::min);
    let more = [change.gpus, change.gpus_less].into_iter().fold(0.0, f64::max);
    let (left, right) = (cells(fewer), cells(more));
    format!("{}{}\u{2502}{}{}", " ".repeat(HALF - left), "\u{2588}".repeat(left), "\u{2588}".repeat(right), " ".repeat(HALF - right))
}
