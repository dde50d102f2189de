//! The levels that exports to planners are made of: a prefill alone, a decoded token at a context under a concurrency.

use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::metric::metric;
use crate::record::run::RunRecord;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::levels::{cell, head, verdict};

/// One row a level, in order of measurement. Empty where none was measured.
pub(super) fn grid(run: &RunRecord) -> Grid {
    let mut heads = vec![Head::words("phase"), Head::number("prompt", "tok"), Head::number("answer", "tok"), Head::number("in flight", "")];
    let metrics = ["ttft_service_p50_ms", "itl_per_token_p50_ms", "output_tokens_per_s_per_gpu"];
    let columns = metrics.into_iter().filter_map(metric).collect::<Vec<_>>();
    heads.extend(columns.iter().map(|column| head(column, run)));
    heads.push(Head::words("verdict"));
    let mut grid = Grid::of(heads);
    for level in &run.levels {
        let Some((phase, prompt, answer)) = phase(level) else { continue };
        let Offered::Closed { concurrency } = level.offered else { continue };
        let mut row = [phase.to_owned(), prompt.to_string(), answer.to_string(), concurrency.to_string()].map(Cell::new).to_vec();
        row.extend(columns.iter().map(|column| cell(column, level)));
        row.push(verdict(level));
        grid.row(row);
    }
    grid
}

fn phase(level: &LevelRecord) -> Option<(&'static str, u32, u32)> {
    match level.purpose {
        Purpose::PlannerPrefill { prompt_tokens, output_tokens } => Some(("prefill", prompt_tokens, output_tokens)),
        Purpose::PlannerDecode { prompt_tokens, output_tokens } => Some(("decode", prompt_tokens, output_tokens)),
        _ => None,
    }
}
