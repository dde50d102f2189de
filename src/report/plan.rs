//! A plan as text, markdown and JSON: inputs with their provenance, the answer for each peak, what it hangs on.

use serde::Serialize;

use crate::capacity::mix::MixDifference;
use crate::capacity::plan::{Peak, Plan};
use crate::capacity::requirement::Requirement;
use crate::capacity::scenario::Lasts;
use crate::capacity::throughput::{Basis, Provenance, Throughput};
use crate::record::SCHEMA_VERSION;
use crate::record::finding::Finding;
use crate::report::Look;
use crate::report::fleet;
use crate::report::grid::{Cell, Grid, Head, escaped};
use crate::report::headline::severity;
use crate::report::needs;
use crate::report::number::{NONE, grouped, three, three_or_none};
use crate::report::outcome;
use crate::report::paint::Tone;
use crate::report::prose::{labelled, paragraph, title, wrap};
use crate::units::gpus::Groups;

/// The formula as a reader checks it.
const FORMULA: &str = "(peak x recompute) / throughput_per_gpu x (1 + headroom)";

/// For the terminal.
#[must_use]
pub fn text(plan: &Plan, look: Look) -> String {
    let body = section(plan, look) + &findings_text(&plan.findings, look);
    body.trim_start_matches('\n').to_owned()
}

/// For a document.
#[must_use]
pub fn markdown(plan: &Plan) -> String {
    format!("# Capacity plan\n\n{}{}", section_markdown(plan), findings_markdown(&plan.findings))
}

/// For a program.
#[must_use]
pub fn json(plan: &Plan) -> impl Serialize {
    #[derive(Serialize)]
    struct PlanDocument<'a> {
        schema_version: u32,
        #[serde(flatten)]
        plan: &'a Plan,
    }
    PlanDocument { schema_version: SCHEMA_VERSION, plan }
}

/// Without the findings, which a run's report prints together with its own.
pub(super) fn section(plan: &Plan, look: Look) -> String {
    let mut text = title("Capacity", FORMULA, look);
    text.push_str(&inputs(plan).to_text(look));
    text.push('\n');
    text.push_str(&requirements(plan).to_text(look));
    text.push('\n');
    for grid in tables(plan) {
        text.push_str(&grid.to_text(look));
        text.push('\n');
    }
    for (label, says) in beside(plan).into_iter().chain(fleet::beside(plan)).chain(outcome::beside(plan)) {
        text.push_str(&labelled(label, &says, look));
    }
    text
}

/// The same as markdown.
pub(super) fn section_markdown(plan: &Plan) -> String {
    let tables = [inputs(plan), requirements(plan)].into_iter().chain(tables(plan));
    let tables: Vec<String> = tables.map(|grid| grid.to_markdown()).collect();
    let mut text = format!("`{FORMULA}`\n\n{}\n", tables.join("\n"));
    for (label, says) in beside(plan).into_iter().chain(fleet::beside(plan)).chain(outcome::beside(plan)) {
        text.push_str(&format!("- **{label}**: {}\n", escaped(&says)));
    }
    text
}

/// Behind the answer: what it is made of, as machines, their cost, and what each input does to it.
fn tables(plan: &Plan) -> Vec<Grid> {
    let tornado = largest(plan).map(|largest| needs::tornado(largest, plan.inputs.throughput.device_noun));
    [Some(needs::grid(plan)), Some(fleet::grid(plan)), fleet::costs(plan), tornado].into_iter().flatten().collect()
}

/// Findings with their next steps.
pub(super) fn findings_text(findings: &[Finding], look: Look) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let mut text = title("Findings", "", look);
    for finding in findings {
        let (word, tone) = severity(finding);
        text.push_str(&format!("  {}  {}\n", look.paint.apply(tone, format!("{word:<7}")), look.paint.apply(Tone::Strong, &finding.code)));
        let width = usize::from(look.width).saturating_sub(13).max(20);
        for line in wrap(&finding.evidence, width) {
            text.push_str(&format!("           {line}\n"));
        }
        for (index, line) in wrap(&finding.next_step, width).iter().enumerate() {
            text.push_str(&format!("         {} {line}\n", if index == 0 { '→' } else { ' ' }));
        }
    }
    text
}

/// The same as markdown.
pub(super) fn findings_markdown(findings: &[Finding]) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let line = |finding: &Finding| {
        format!("- **{}** `{}`: {}. *{}.*\n", severity(finding).0, finding.code, escaped(&finding.evidence), escaped(&finding.next_step))
    };
    format!("\n## Findings\n\n{}", findings.iter().map(line).collect::<String>())
}

/// Why there is no plan.
pub(super) fn refusal_text(why: &str, look: Look) -> String {
    title("Capacity", "not planned", look) + &paragraph(why, Tone::Bad, look)
}

/// What the plan depends on, each with its provenance.
fn inputs(plan: &Plan) -> Grid {
    let inputs = &plan.inputs;
    let throughput = &inputs.throughput;
    let mut grid = Grid::of(vec![Head::words("input"), Head::number("value", ""), Head::words("unit"), Head::words("from")]);
    let mut row = |input: &str, value: f64, unit: &str, (from, tone): (String, Tone)| {
        grid.row(vec![Cell::new(input), Cell::new(three(value)), Cell::new(unit).toned(Tone::Faint), Cell::new(from).toned(tone)]);
    };
    row("average load", inputs.average.value.get(), "visible requests/s", provenance(&inputs.average.provenance));
    if let Some(Peak::Planned { rate, window }) = inputs.peak {
        row("planned peak", rate.get(), "visible requests/s", (format!("given, over {} s", three(window.as_secs_f64())), Tone::Usual));
    }
    if let Some(Peak::Logged { rate, of, .. }) = inputs.peak {
        row("planned peak", rate.get(), "visible requests/s", (format!("log, {of}"), Tone::Good));
    }
    if let Some(in_flight) = &inputs.calls_in_flight {
        row("calls in flight", in_flight.value, "at the planned peak", provenance(&in_flight.provenance));
    }
    if let Some(sessions) = inputs.sessions {
        let unit = if sessions.are_calls { "calls in flight, busiest minute" } else { "sessions, busiest minute" };
        row("peak at once", sessions.most, unit, ("log".to_owned(), Tone::Good));
    }
    if let Some(kv) = &inputs.kv_tokens_per_gpu {
        row("KV cache", kv.value, &format!("tokens/{}", throughput.device_noun), provenance(&kv.provenance));
    }
    row("recompute", inputs.recompute.value.get(), "calls/output", provenance(&inputs.recompute.provenance));
    let per_device = format!("calls/s/{}", throughput.device_noun);
    row("throughput_per_gpu", throughput.planned.get(), &per_device, throughput_provenance(throughput));
    row("headroom", inputs.headroom.value.get(), "of the need", provenance(&inputs.headroom.provenance));
    grid
}

fn provenance(provenance: &Provenance) -> (String, Tone) {
    let (word, tone) = match provenance {
        Provenance::Measured { .. } => ("measured", Tone::Good),
        Provenance::Imported { .. } => ("imported", Tone::Doubtful),
        Provenance::Logged { .. } => ("log", Tone::Good),
        Provenance::File { .. } => ("file", Tone::Usual),
        Provenance::Given => ("given", Tone::Usual),
        Provenance::Assumed => ("assumed", Tone::Doubtful),
        Provenance::Default => ("default", Tone::Doubtful),
    };
    (word.to_owned(), tone)
}

fn throughput_provenance(throughput: &Throughput) -> (String, Tone) {
    let (from, tone) = provenance(&throughput.provenance);
    let ends = throughput.ends.map_or(String::new(), |(low, high)| format!("{}–{}", three(low.get()), three(high.get())));
    let basis = match throughput.basis {
        Basis::LowerEnd => format!(", lower end of {ends}"),
        Basis::PassingEnd => format!(", passing end of {ends}"),
        Basis::FromCurve => format!(", read from the curve, lower end of {ends}"),
        Basis::ImportedLevel => ", best level within the SLO".to_owned(),
        Basis::AsGiven => String::new(),
    };
    (from + &basis, tone)
}

/// One row a peak.
fn requirements(plan: &Plan) -> Grid {
    let plural = format!("{}s", plan.inputs.throughput.device_noun);
    let in_groups = plan.inputs.gpus_per_replica.get() > 1;
    let mut heads = vec![
        Head::words("peak"),
        Head::number("load", ""),
        Head::words("lasts"),
        Head::number("visible", "req/s"),
        Head::number("calls", "/s"),
        Head::number("exact", &plural),
        Head::number("needed", &plural),
    ];
    if in_groups {
        heads.push(Head::number("in groups", &format!("of {}", plan.inputs.gpus_per_replica)));
    }
    heads.extend([Head::number("at best", &plural), Head::number("bare", &plural)]);
    let mut grid = Grid::of(heads);
    for row in &plan.requirements {
        let mut cells = vec![
            Cell::new(&*row.name),
            Cell::new(row.times_average.map_or_else(|| NONE.to_owned(), |times| format!("{}x", times.get()))),
            Cell::new(lasts(row.lasts)),
            Cell::new(three(row.peak.get())),
            Cell::new(three(row.calls.get())),
            Cell::new(three(row.exact.get())),
            Cell::new(grouped(row.whole_gpus as f64)).toned(Tone::Strong),
        ];
        if in_groups {
            let groups = row.groups;
            cells.push(Cell::new(format!("{} = {}", grouped(groups.gpus as f64), groups_of(groups))).toned(Tone::Strong));
        }
        cells.push(Cell::new(three_or_none(row.range.map(|(few, _)| few.get()))));
        cells.push(Cell::new(three(row.bare.get())).toned(Tone::Faint));
        grid.row(cells);
    }
    grid
}

/// `6 x 4`.
fn groups_of(groups: Groups) -> String {
    format!("{} x {}", grouped(groups.replicas as f64), groups.gpus_per_replica)
}

fn lasts(lasts: Lasts) -> &'static str {
    match lasts {
        Lasts::Hours => "hours",
        Lasts::Days => "days",
        Lasts::NotStated => NONE,
    }
}

/// How to read the answer, where its rate comes from, and what the largest need hangs on.
fn beside(plan: &Plan) -> Vec<(&'static str, String)> {
    let throughput = &plan.inputs.throughput;
    let mut lines = Vec::new();
    let slo = throughput.slo.as_ref().map_or(String::new(), |slo| format!(", within {slo}"));
    match &throughput.provenance {
        Provenance::Measured { run } => lines.push(("measured", format!("run {run}{slo}"))),
        Provenance::Imported { tool, file } => lines.push(("imported", format!("from {tool}, `{file}`{slo}"))),
        _ => {}
    }
    if let (Some((_, high)), Some(largest)) = (throughput.ends, largest(plan)) {
        let point = three(throughput.point.get());
        lines.push(("at best", format!("if throughput_per_gpu is at its upper end, {}", three(high.get()))));
        let without = largest.margins.iter().map(|margin| format!("without {} {}", margin.name, three(margin.without.get())));
        let without = without.collect::<Vec<_>>().join(", ");
        lines.push(("bare", format!("no headroom, published throughput {point}. {}: {without}", largest.name)));
    } else if let Some(largest) = largest(plan) {
        lines.push((
            "bare",
            format!("no headroom. {}: {} without it, {} with it", largest.name, three(largest.bare.get()), three(largest.exact.get())),
        ));
    }
    if let Some(largest) = largest(plan) {
        lines.push(("inputs", format!("a tenth less and more of each, and both ends of what it may be, as they change {}", largest.name)));
    }
    if let Some(mix) = &plan.mix {
        lines.push(("token mix", token_mix(mix, plan)));
    }
    lines
}

/// What the measured rate is taken times, and why.
fn token_mix(mix: &MixDifference, plan: &Plan) -> String {
    let (low, high) = (three(mix.low_end()), three(mix.high_end()));
    match (&plan.inputs.throughput.operating.step, mix.by_cost) {
        (Some(step), Some(cost)) => format!(
            "the rate is taken times {}: a call costs in / P + out / D, and the measured one {} of the asked one, at P = {} prompt and D = {} answer tokens/s (fitted to {} levels within {:.0} %); without them at worst times {low}, at best times {high}",
            three(mix.factor()),
            three(cost),
            three(step.prompt_tokens_per_s()),
            three(step.answer_tokens_per_s()),
            step.levels,
            100.0 * step.worst
        ),
        _ => {
            format!("the rate is taken times {}, which is safe whatever prefill and decode cost; at best times {high}", three(mix.factor()))
        }
    }
}

fn largest(plan: &Plan) -> Option<&Requirement> {
    plan.requirements.iter().max_by(|one, other| one.exact.get().total_cmp(&other.exact.get()))
}
