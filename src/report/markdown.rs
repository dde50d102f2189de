//! The report of `bench` as markdown: for a pull request, a wiki, a mail.

use crate::report::grid::{Grid, escaped};
use crate::report::levels::{footnote, generator_audit, invalid, load_latency, probes, sweep, token_audit, whole_levels};
use crate::report::{BenchReport, devices, gpus, headline, plan, planner, servers};

/// The whole report.
#[must_use]
pub fn text(report: &BenchReport<'_>) -> String {
    let run = report.run;
    let mut text = format!("# {}\n\n", escaped(&run.target.model));
    let bullet = |label: &str, value: &str| format!("- **{label}**: {}\n", escaped(value));
    text.extend(headline::header(run).iter().map(|(label, value)| bullet(label, value)));

    text.push_str("\n## Headline\n\n");
    for (index, (_, line)) in headline::lines(run, report.saturation.as_ref()).iter().enumerate() {
        text.push_str(&if index == 0 { format!("**{}**\n\n", escaped(line)) } else { format!("- {}\n", escaped(line)) });
    }

    text.push_str(&section("Load line", &sweep(run)));
    text.push_str(&format!("\n{}\n", escaped(&report.saturation_in_words())));
    text.extend(whole_levels(run).map(|whole| format!("\n{}\n", escaped(&format!("Overall: {whole}")))));
    text.push_str(&section("Latency over load", &load_latency(run)));
    let probes = probes(run).iter().map(|(label, line)| bullet(label, line)).collect::<String>();
    if !probes.is_empty() {
        text.push_str(&format!("\n{probes}"));
    }

    text.push_str(&section("For planners", &planner::grid(run)));
    text.push_str(&section("Devices side by side", &devices::grid(run)));
    text.extend(devices::together(run).map(|together| format!("\n{}\n", escaped(&together))));
    text.push_str(&section("GPUs under load", &gpus::grid(run)));
    text.push_str(&section("Server under load", &servers::grid(run)));

    let audit = generator_audit(run).map(|audit| bullet("generator", &audit));
    let tokens = token_audit(run).map(|audit| bullet("tokens", &audit));
    let audit = audit.into_iter().chain(tokens).chain(invalid(run).iter().map(|line| bullet("invalid", line))).collect::<String>();
    if !audit.is_empty() {
        text.push_str(&format!("\n## Validity\n\n{audit}"));
    }

    text.push_str("\n## Capacity\n\n");
    match &report.capacity {
        Ok(capacity) => text.push_str(&plan::section_markdown(capacity)),
        Err(refused) => text.push_str(&format!("Not planned: {}\n", escaped(&refused.to_string()))),
    }
    text + &plan::findings_markdown(&report.findings())
}

fn section(title: &str, grid: &Grid) -> String {
    if grid.is_empty() {
        return String::new();
    }
    let table = grid.to_markdown();
    let note = footnote(&table).map_or(String::new(), |note| format!("\n{note}\n"));
    format!("\n## {title}\n\n{table}{note}")
}
