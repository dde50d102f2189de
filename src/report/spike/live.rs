//! The litmus test of a real target: what was said before, what happened, and both beside each other.

use crate::capacity::spike::check::Pair;
use crate::capacity::spike::live::{Audit, LiveLitmus, LiveVerdict};
use crate::report::Look;
use crate::report::grid::{Cell, Grid, Head, escaped};
use crate::report::number::{NONE, grouped, three, three_or_none};
use crate::report::paint::Tone;
use crate::report::plan::{findings_markdown, findings_text};
use crate::report::prose::{boxed, labelled, title};
use crate::report::spike::{course, phases};

/// For the terminal.
#[must_use]
pub fn text(litmus: &LiveLitmus, look: Look) -> String {
    let (verdict, tone) = verdict(litmus);
    let mut head = vec![(tone, verdict)];
    head.extend(litmus.begun.labels.iter().map(|label| (Tone::Doubtful, label.clone())));
    let mut text = boxed(&head, look);
    text.push_str(&title("Litmus test, live", &format!("within {}", litmus.slo), look));
    text.push_str(&phases::grid(&litmus.begun.expected, &litmus.measured).to_text(look));
    text.push_str(&title("Measured", "", look));
    text.push_str(&course::picture(&litmus.measured, look));
    text.push_str(&title("Simulated", "", look));
    text.push_str(&course::picture(&litmus.begun.simulated, look));
    text.push_str(&title("Simulated beside measured", "p95 of each phase", look));
    text.push_str(&compared(litmus).to_text(look));
    text.push('\n');
    for (label, says) in facts(litmus) {
        text.push_str(&labelled(label, &says, look));
    }
    text + &findings_text(&litmus.findings, look)
}

/// For a document.
#[must_use]
pub fn markdown(litmus: &LiveLitmus) -> String {
    let mut text = format!("# Litmus test, live\n\n**{}**\n\n", escaped(&verdict(litmus).0));
    for label in &litmus.begun.labels {
        text.push_str(&format!("- {}\n", escaped(label)));
    }
    text.push_str(&format!("\nWithin `{}`.\n\n{}\n", litmus.slo, phases::grid(&litmus.begun.expected, &litmus.measured).to_markdown()));
    for (name, trial) in [("Measured", &litmus.measured), ("Simulated", &litmus.begun.simulated)] {
        text.push_str(&format!("## {name}\n\n```\n{}```\n\n", course::picture(trial, Look::PLAIN)));
    }
    text.push_str(&format!("## Simulated beside measured\n\n{}\n", compared(litmus).to_markdown()));
    for (label, says) in facts(litmus) {
        text.push_str(&format!("- **{label}**: {}\n", escaped(&says)));
    }
    text + &findings_markdown(&litmus.findings)
}

/// One line a stretch of time, measured and simulated.
///
/// # Errors
/// Never in memory; the writer's error type says so.
pub fn csv(litmus: &LiveLitmus) -> Result<String, csv::Error> {
    course::csv(&[("measured", &litmus.measured), ("simulated", &litmus.begun.simulated)])
}

fn verdict(litmus: &LiveLitmus) -> (String, Tone) {
    let target = &litmus.begun.target;
    match litmus.verdict {
        LiveVerdict::Holds => (format!("holds: {target} stayed within the SLO through every phase"), Tone::Good),
        LiveVerdict::Breaks => {
            let broken = litmus.measured.phases.iter().filter(|phase| !phase.holds()).map(|phase| phase.name.as_str());
            (format!("breaks: {target} left the SLO at {}", broken.collect::<Vec<_>>().join(", ")), Tone::Bad)
        }
        LiveVerdict::Invalid => (format!("invalid: {}", litmus.invalid.join("; ")), Tone::Bad),
    }
}

fn facts(litmus: &LiveLitmus) -> Vec<(&'static str, String)> {
    let mut facts: Vec<(&str, String)> = phases::own(&litmus.measured.course).into_iter().collect();
    facts.extend([
        ("recovers", recovers(litmus)),
        ("simulated", format!("recovers {}", phases::recovery(litmus.begun.simulated.recovery))),
        (
            "load",
            format!(
                "{} calls/s on average for each of {} planned GPUs; {} driven",
                three(litmus.begun.average_calls_per_s_per_gpu),
                grouped(litmus.begun.planned_gpus as f64),
                litmus.begun.driven_gpus
            ),
        ),
        ("generator", generator(&litmus.audit)),
        ("run", format!("{}, driven {}", litmus.begun.run, litmus.begun.created)),
    ]);
    facts
}

/// What it did, as far as that is known of one that was killed.
fn generator(audit: &Audit) -> String {
    let mut did =
        vec![format!("send lag p99 {} ms", three(audit.send_lag_p99_ms)), format!("{} calls failed", grouped(audit.failed as f64))];
    did.extend(audit.cpu_share.map(|share| format!("{:.0} % of one core", 100.0 * share)));
    did.extend(audit.waited_at_cap.map(|calls| format!("{} arrivals waited at the cap", grouped(calls as f64))));
    did.extend(audit.unlogged.filter(|calls| *calls > 0).map(|calls| format!("{} calls are not in its log", grouped(calls as f64))));
    did.join(", ")
}

fn recovers(litmus: &LiveLitmus) -> String {
    let is_over = litmus.measured.recovery.is_some() || litmus.measured.course.spikes_end().is_none();
    if is_over { phases::recovery(litmus.measured.recovery) } else { "stopped before it could be told".to_owned() }
}

fn compared(litmus: &LiveLitmus) -> Grid {
    let mut heads = vec![Head::words("phase"), Head::words("same verdict")];
    for (name, unit) in [("good", "calls/s"), ("TTFT", "ms"), ("TPOT", "ms"), ("E2E", "ms")] {
        heads.extend([Head::number(name, unit), Head::number("simulated", unit), Head::number("off", "%")]);
    }
    let mut grid = Grid::of(heads);
    for phase in &litmus.compared {
        let (same, tone) = if phase.same_verdict { ("yes", Tone::Good) } else { ("no", Tone::Bad) };
        let mut cells = vec![Cell::new(&*phase.phase), Cell::new(same).toned(tone)];
        for pair in [phase.goodput, phase.ttft_p95, phase.tpot_p95, phase.e2e_p95] {
            let value = |of: fn(&Pair) -> f64| three_or_none(pair.as_ref().map(of));
            cells.extend([Cell::new(value(|pair| pair.measured)), Cell::new(value(|pair| pair.simulated))]);
            cells.push(Cell::new(pair.map_or_else(|| NONE.to_owned(), |pair| format!("{:+.1}", 100.0 * pair.off()))).toned(Tone::Strong));
        }
        grid.row(cells);
    }
    grid
}
