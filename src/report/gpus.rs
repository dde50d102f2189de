//! What the watched GPUs did under each load: clocks, power, energy, and what held them back.

use crate::record::level::LevelRecord;
use crate::record::metric::metric;
use crate::record::run::RunRecord;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::levels::{cell, head, offered, under_load};
use crate::report::number::percent;

/// A reason that held for less than this is not worth a column.
const WORTH: f64 = 0.01;

/// The sweep and the load-latency curve as the GPUs saw them; confirmation where no curve was measured. Empty where none was watched.
pub(super) fn grid(run: &RunRecord) -> Grid {
    let metrics = [
        "sm_clock_median_mhz",
        "power_w_per_gpu",
        "energy_per_output_token_j",
        "energy_per_output_token_net_j",
        "gpu_temperature_max_c",
        "dram_activity",
    ];
    let columns = metrics.into_iter().filter_map(metric).filter(|metric| run.levels.iter().any(|level| (metric.read)(level).is_some()));
    let columns = columns.collect::<Vec<_>>();
    let mut heads = vec![Head::words("load")];
    heads.extend(columns.iter().map(|column| head(column, run)));
    heads.push(Head::words("clocks held by"));
    let mut grid = Grid::of(heads);
    for level in under_load(run).filter(|level| level.telemetry.measured().is_some()) {
        let mut row = vec![Cell::new(offered(level))];
        row.extend(columns.iter().map(|column| cell(column, level)));
        row.push(Cell::new(held_by(level)));
        grid.row(row);
    }
    grid
}

/// What the driver says held clocks down, and for how much of the window: of several GPUs the one that has it most.
fn held_by(level: &LevelRecord) -> String {
    let mut held = Vec::<(&str, f64)>::new();
    let gpus = level.telemetry.measured().into_iter().flat_map(|summary| &summary.gpus);
    for reason in gpus.filter_map(|gpu| gpu.clock_reasons.value()).flatten().filter(|reason| reason.share >= WORTH) {
        match held.iter_mut().find(|(name, _)| *name == reason.reason.name()) {
            Some((_, share)) => *share = share.max(reason.share),
            None => held.push((reason.reason.name(), reason.share)),
        }
    }
    held.iter().map(|(name, share)| format!("{name} {}", percent(*share))).collect::<Vec<_>>().join(", ")
}
