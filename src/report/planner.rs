//! The levels that exports to planners are made of: a prefill alone, a decoded token at a context under a concurrency.

use crate::record::level::{LevelRecord, Offered, Purpose};
use crate::record::run::RunRecord;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::levels::verdict;
use crate::report::number::{three, three_or_none};

/// One row a level, in order of measurement. Empty where none was measured.
pub(super) fn grid(run: &RunRecord) -> Grid {
    let mut grid = Grid::of(vec![
        Head::words("phase"),
        Head::number("prompt", "tok"),
        Head::number("answer", "tok"),
        Head::number("in flight", ""),
        Head::number("TTFT p50", "ms"),
        Head::number("a token p50", "ms"),
        Head::number("output", "tok/s"),
        Head::words("verdict"),
    ]);
    for level in &run.levels {
        let Some((phase, prompt, answer)) = phase(level) else { continue };
        let Offered::Closed { concurrency } = level.offered else { continue };
        grid.row(vec![
            Cell::new(phase.to_owned()),
            Cell::new(prompt.to_string()),
            Cell::new(answer.to_string()),
            Cell::new(concurrency.to_string()),
            Cell::new(three_or_none(level.latency.ttft_service.raw.p50)),
            Cell::new(three_or_none(level.latency.itl_per_token.p50)),
            Cell::new(three(level.throughput.output_tokens_per_s)),
            verdict(level),
        ]);
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
