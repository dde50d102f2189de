//! The report of `bench` on a terminal. The number and what it means for hardware come last, where a reader looks.

use crate::report::levels::{footnote, generator_audit, invalid, load_latency, probes, sweep, sweep_levels, token_audit, whole_levels};
use crate::report::paint::Tone;
use crate::report::prose::{boxed, labelled, paragraph, title};
use crate::report::{BenchReport, Look, devices, gpus, headline, picture, plan, planner, servers};

/// The whole report.
#[must_use]
pub fn text(report: &BenchReport<'_>, look: Look) -> String {
    let parts = [
        header(report, look),
        load_line(report, look),
        curve(report, look),
        planner(report, look),
        devices(report, look),
        gpus(report, look),
        server(report, look),
        generator(report, look),
        "\n".to_owned() + &boxed(&headline::lines(report.run, report.saturation.as_ref()), look),
        match &report.capacity {
            Ok(capacity) => plan::section(capacity, look),
            Err(refused) => plan::refusal_text(&refused.to_string(), look),
        },
        plan::findings_text(&report.findings(), look),
    ];
    parts.concat()
}

fn header(report: &BenchReport<'_>, look: Look) -> String {
    headline::header(report.run).iter().map(|(label, value)| labelled(label, value, look)).collect()
}

fn load_line(report: &BenchReport<'_>, look: Look) -> String {
    let run = report.run;
    let grid = sweep(run);
    if grid.is_empty() {
        return String::new();
    }
    let table = grid.to_text(look);
    let mut text = title("Load line", "closed loop: rising concurrency, no SLO decided", look);
    text.push_str(&table);
    text.push_str(&notes(&table, look));
    let rate = run.headline.as_ref().and_then(|headline| headline.throughput_per_gpu);
    let picture = picture::load_line(&sweep_levels(run), rate, run.target.device_noun(), look);
    if !picture.is_empty() {
        text.push('\n');
        text.push_str(&picture);
    }
    text.push('\n');
    text.push_str(&paragraph(&report.saturation_in_words(), Tone::Usual, look));
    text + &whole_levels(run).map_or(String::new(), |whole| labelled("overall", &whole, look))
}

fn curve(report: &BenchReport<'_>, look: Look) -> String {
    let grid = load_latency(report.run);
    if grid.is_empty() {
        return String::new();
    }
    let table = grid.to_text(look);
    let probes = probes(report.run).iter().map(|(label, line)| labelled(label, line, look)).collect::<String>();
    let gap = if probes.is_empty() { "" } else { "\n" };
    title("Latency over load", "open loop: arrivals that a slow target never slows", look) + &table + &notes(&table, look) + gap + &probes
}

fn planner(report: &BenchReport<'_>, look: Look) -> String {
    let grid = planner::grid(report.run);
    if grid.is_empty() {
        return String::new();
    }
    title("For planners", "closed loop, fixed lengths: what `plimsoll export` hands on", look) + &grid.to_text(look)
}

fn devices(report: &BenchReport<'_>, look: Look) -> String {
    let grid = devices::grid(report.run);
    if grid.is_empty() {
        return String::new();
    }
    let together = devices::together(report.run).map_or(String::new(), |text| format!("\n{}", paragraph(&text, Tone::Usual, look)));
    title("Devices side by side", "at the busiest step of the load line", look) + &grid.to_text(look) + &together
}

fn gpus(report: &BenchReport<'_>, look: Look) -> String {
    let grid = gpus::grid(report.run);
    if grid.is_empty() {
        return String::new();
    }
    title("GPUs under load", "while the levels above were measured", look) + &grid.to_text(look)
}

fn server(report: &BenchReport<'_>, look: Look) -> String {
    let grid = servers::grid(report.run);
    if grid.is_empty() {
        return String::new();
    }
    title("Server under load", "by its own counters, while the levels above were measured", look) + &grid.to_text(look)
}

fn notes(table: &str, look: Look) -> String {
    footnote(table).map_or(String::new(), |note| paragraph(&note, Tone::Faint, look))
}

fn generator(report: &BenchReport<'_>, look: Look) -> String {
    let mut text = generator_audit(report.run).map_or(String::new(), |audit| "\n".to_owned() + &labelled("generator", &audit, look));
    text.extend(token_audit(report.run).map(|audit| labelled("tokens", &audit, look)));
    for line in invalid(report.run) {
        text.push_str(&paragraph(&line, Tone::Bad, look));
    }
    text
}
