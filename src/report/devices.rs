//! A node's devices side by side, where there are several: what each did at the busiest step, and what they cost each other.

use crate::curve::scaling;
use crate::record::level::{LevelRecord, Purpose};
use crate::record::run::RunRecord;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::number::{percent, three};

/// Each device at the step of the sweep with the highest throughput. Empty where there is one device.
pub(super) fn grid(run: &RunRecord) -> Grid {
    let mut grid =
        Grid::of(vec![Head::words("device"), Head::number("output", "tok/s"), Head::number("share", "%"), Head::number("preempted", "")]);
    let sweep = run.levels.iter().filter(|level| level.purpose == Purpose::Sweep && level.verdict.is_valid());
    let tokens = |level: &&LevelRecord| level.throughput.output_tokens_per_s;
    let Some(busiest) = sweep.max_by(|a, b| tokens(a).total_cmp(&tokens(b))) else { return grid };
    for device in &busiest.by_device {
        let share = device.output_tokens_per_s / busiest.throughput.output_tokens_per_s.max(f64::MIN_POSITIVE);
        grid.row(vec![
            Cell::new(device.device.clone()),
            Cell::new(three(device.output_tokens_per_s)),
            Cell::new(percent(share)),
            Cell::new(device.preemptions.to_string()),
        ]);
    }
    grid
}

/// One alone beside the same one among all, in a sentence.
pub(super) fn together(run: &RunRecord) -> Option<String> {
    let scaling = scaling::of(&run.levels)?;
    Some(format!(
        "with all at work a device gives {} tok/s, {} of the {} tok/s of {} alone, {} requests in flight on each",
        three(scaling.together_tokens_per_s),
        percent(scaling.ratio),
        three(scaling.alone_tokens_per_s),
        scaling.device,
        scaling.concurrency
    ))
}
