//! What the server under test said of itself under each load: what ran, what waited, how full its cache was.

use crate::record::metric::metric;
use crate::record::run::RunRecord;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::levels::{cell, head, offered, under_load};

/// The sweep and the load-latency curve by the server's own counters; confirmation where no curve was measured. Empty where none were read.
pub(super) fn grid(run: &RunRecord) -> Grid {
    let metrics = ["server_running_mean", "server_waiting_mean", "server_kv_usage_max", "server_preemptions", "server_prefix_hit_share"];
    let columns = metrics.into_iter().filter_map(metric).filter(|metric| run.levels.iter().any(|level| (metric.read)(level).is_some()));
    let columns = columns.collect::<Vec<_>>();
    let mut heads = vec![Head::words("load")];
    heads.extend(columns.iter().map(|column| head(column, run)));
    let mut grid = Grid::of(heads);
    for level in under_load(run).filter(|level| level.server.is_some_and(|server| server.samples > 0)) {
        let mut row = vec![Cell::new(offered(level))];
        row.extend(columns.iter().map(|column| cell(column, level)));
        grid.row(row);
    }
    grid
}
