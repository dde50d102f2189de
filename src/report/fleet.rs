//! The machines of a plan: what binds, spares, nodes, how busy they are, what they cost, and what too few of them would do.

use crate::capacity::plan::Plan;
use crate::capacity::requirement::Requirement;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::number::{NONE, grouped, three, three_or_none};
use crate::report::paint::Tone;

/// One row a peak.
pub(super) fn grid(plan: &Plan) -> Grid {
    let inputs = &plan.inputs.fleet;
    let plural = format!("{}s", plan.inputs.throughput.device_noun);
    let mut heads = vec![Head::words("peak"), Head::number("replicas", ""), Head::number("+ spare", ""), Head::number("owned", &plural)];
    if inputs.gpus_per_node.is_some() {
        heads.push(Head::number("nodes", ""));
    }
    heads.extend([Head::number("busy on average", "%"), Head::number("square root", &plural)]);
    let mut grid = Grid::of(heads);
    for row in &plan.requirements {
        let fleet = &row.fleet;
        let mut cells = vec![
            Cell::new(&*row.name),
            Cell::new(grouped(fleet.replicas as f64)),
            Cell::new(grouped((fleet.replicas_with_spare - fleet.replicas) as f64)),
            Cell::new(grouped(fleet.gpus as f64)).toned(Tone::Strong),
        ];
        if inputs.gpus_per_node.is_some() {
            cells.push(Cell::new(fleet.nodes.map_or_else(|| NONE.to_owned(), |nodes| grouped(nodes as f64))));
        }
        cells.push(Cell::new(three(100.0 * fleet.utilisation_at_average)));
        cells.push(Cell::new(three(fleet.square_root_gpus)).toned(Tone::Faint));
        grid.row(cells);
    }
    grid
}

/// What they cost, one row a peak; `None` where no price was given.
pub(super) fn costs(plan: &Plan) -> Option<Grid> {
    plan.inputs.price()?;
    let mut grid = Grid::of(vec![
        Head::words("cost of"),
        Head::number("fleet", "/h"),
        Head::number("1000 outputs", "average"),
        Head::number("1000 outputs", "peak"),
        Head::number("M tokens", "average"),
        Head::number("M tokens", "peak"),
    ]);
    for row in &plan.requirements {
        let Some(cost) = row.fleet.cost else { continue };
        grid.row(vec![
            Cell::new(&*row.name),
            Cell::new(three(cost.per_hour)),
            Cell::new(three(1000.0 * cost.per_output_at_average)).toned(Tone::Strong),
            Cell::new(three(1000.0 * cost.per_output_at_peak)),
            Cell::new(three_or_none(cost.per_million_tokens_at_average)),
            Cell::new(three_or_none(cost.per_million_tokens_at_peak)),
        ]);
    }
    Some(grid)
}

/// How to read them, and what the largest peak would do to the first fleet.
pub(super) fn beside(plan: &Plan) -> Vec<(&'static str, String)> {
    let Some(first) = plan.requirements.first() else { return Vec::new() };
    let beta = format!(
        "without any headroom {} would be fully busy; the square-root rule adds {:.0} % to that for {}, the fixed headroom {:.0} %",
        three(first.bare.get()),
        100.0 * first.fleet.square_root_headroom,
        first.name,
        100.0 * plan.inputs.headroom.value.get()
    );
    let mut lines = vec![("square root", beta)];
    let worst = plan.requirements.iter().filter_map(|row| Some((row, row.on_first_fleet?)));
    let worst = worst.max_by(|(_, one), (_, other)| one.offered.total_cmp(&other.offered));
    if let Some((row, overload)) = worst {
        lines.push(("too small", too_small(first, row, overload.amplification, overload.lost, plan)));
    }
    lines
}

fn too_small(first: &Requirement, row: &Requirement, amplification: f64, lost: f64, plan: &Plan) -> String {
    format!(
        "{} on the {} of {}: clients that try {} times offer {} times the calls, and {:.0} % of calls are never answered, even if refusing costs nothing",
        row.name,
        grouped(first.fleet.gpus as f64),
        first.name,
        plan.inputs.attempts,
        three(amplification),
        100.0 * lost
    )
}
