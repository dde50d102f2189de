//! The phases of a course in a table, and how it came back.

use crate::capacity::spike::course::Course;
use crate::capacity::spike::ledger::Trial;
use crate::capacity::spike::litmus::ExpectedPhase;
use crate::capacity::spike::moments::Recovery;
use crate::capacity::spike::own;
use crate::capacity::spike::phases::PhaseHeld;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::number::{grouped, three, three_or_none};
use crate::report::paint::Tone;
use crate::report::spike::course::duration;

/// One row a phase: the plan's word first, then the verdict.
pub(super) fn grid(expected: &[ExpectedPhase], trial: &Trial) -> Grid {
    let mut grid = Grid::of(vec![
        Head::words("phase"),
        Head::number("offered", "calls/s"),
        Head::number("calls", ""),
        Head::words("plan says"),
        Head::words("verdict"),
        Head::number("missed", "%"),
        Head::number("failed", "%"),
        Head::number("good", "calls/s"),
        Head::number("TTFT p95", "ms"),
        Head::number("TTFT p99", "ms"),
        Head::number("TPOT p95", "ms"),
    ]);
    for (phase, expected) in trial.phases.iter().zip(expected) {
        let (word, tone) = verdict(phase);
        let missed = phase.objectives.iter().map(|objective| objective.miss_share).fold(0.0, f64::max);
        grid.row(vec![
            Cell::new(&*phase.name),
            Cell::new(offered(expected)),
            Cell::new(grouped(phase.calls as f64)),
            Cell::new(expected.expected.word()).toned(Tone::Faint),
            Cell::new(word).toned(tone),
            Cell::new(three(100.0 * missed)),
            Cell::new(three(100.0 * phase.failed as f64 / (phase.calls as f64).max(1.0))),
            Cell::new(three(phase.goodput_calls_per_s)),
            Cell::new(three_or_none(phase.ttft_ms.p95)),
            Cell::new(three_or_none(phase.ttft_ms.p99)),
            Cell::new(three_or_none(phase.tpot_ms.p95)),
        ]);
    }
    grid
}

/// Of a phase with a shape the mean, and its busiest minute.
fn offered(expected: &ExpectedPhase) -> String {
    let mean = three(expected.calls_per_s);
    expected.peak_calls_per_s.map_or_else(|| mean.clone(), |peak| format!("{mean}, peak {}", three(peak)))
}

/// What the log's own spike of a course is, in multiples of the average.
pub(super) fn own(course: &Course) -> Option<(&'static str, String)> {
    let own = own::in_course(course)?;
    let says = format!(
        "the busiest {} of the log: {}x the average over all of it, {}x in its busiest minute",
        duration(own.seconds),
        three(own.times),
        three(own.peak_times())
    );
    Some(("own spike", says))
}

pub(super) fn verdict(phase: &PhaseHeld) -> (&'static str, Tone) {
    match phase.holds() {
        _ if phase.calls == 0 => ("no calls", Tone::Faint),
        true => ("holds", Tone::Good),
        false => ("breaks", Tone::Bad),
    }
}

/// In words.
pub(super) fn recovery(recovery: Option<Recovery>) -> String {
    match recovery {
        None => "no spike to recover from".to_owned(),
        Some(Recovery::AtOnce) => "at once".to_owned(),
        Some(Recovery::After { seconds }) => format!("{} after the last spike", duration(seconds)),
        Some(Recovery::NotWithin { seconds }) => format!("not within the {} that followed", duration(seconds)),
    }
}
