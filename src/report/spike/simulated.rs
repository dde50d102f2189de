//! The litmus test of a simulated fleet.

use serde::Serialize;

use crate::capacity::spike::answer::{Both, tried_s};
use crate::capacity::spike::check::Pair;
use crate::capacity::spike::litmus::{Litmus, LitmusVerdict, WithRetries};
use crate::record::SCHEMA_VERSION;
use crate::report::Look;
use crate::report::grid::{Cell, Grid, Head, escaped};
use crate::report::number::{NONE, grouped, three, three_or_none};
use crate::report::paint::Tone;
use crate::report::plan::{findings_markdown, findings_text};
use crate::report::prose::{boxed, labelled, title};
use crate::report::spike::course::{self, duration};
use crate::report::spike::phases;

/// Open-loop levels that are shown beside their simulation.
const CHECKED_SHOWN: usize = 12;

/// For the terminal.
#[must_use]
pub fn text(litmus: &Litmus, look: Look) -> String {
    let (verdict, tone) = verdict(litmus);
    let mut head = vec![(tone, verdict)];
    head.extend(litmus.labels.iter().map(|label| (Tone::Doubtful, label.clone())));
    let mut text = boxed(&head, look);
    text.push_str(&title("Litmus test", &format!("within {}", litmus.slo), look));
    text.push_str(&phases::grid(&litmus.expected, &litmus.trial).to_text(look));
    text.push('\n');
    text.push_str(&course::picture(&litmus.trial, look));
    text.push('\n');
    for (label, says) in answers(litmus) {
        text.push_str(&labelled(label, &says, look));
    }
    for (name, remark, grid) in tables(litmus) {
        text.push_str(&title(name, &remark, look));
        text.push_str(&grid.to_text(look));
    }
    text.push('\n');
    for (label, says) in grounds(litmus) {
        text.push_str(&labelled(label, &says, look));
    }
    text + &findings_text(&litmus.findings, look)
}

/// For a document.
#[must_use]
pub fn markdown(litmus: &Litmus) -> String {
    let mut text = format!("# Litmus test\n\n**{}**\n\n", escaped(&verdict(litmus).0));
    for label in &litmus.labels {
        text.push_str(&format!("- {}\n", escaped(label)));
    }
    text.push_str(&format!("\nWithin `{}`.\n\n{}\n", litmus.slo, phases::grid(&litmus.expected, &litmus.trial).to_markdown()));
    text.push_str(&format!("```\n{}```\n\n", course::picture(&litmus.trial, Look::PLAIN)));
    for (label, says) in answers(litmus).into_iter().chain(grounds(litmus)) {
        text.push_str(&format!("- **{label}**: {}\n", escaped(&says)));
    }
    for (name, remark, grid) in tables(litmus) {
        text.push_str(&format!("\n## {name}\n\n{remark}.\n\n{}", grid.to_markdown()));
    }
    text + &findings_markdown(&litmus.findings)
}

/// One line a stretch of time, under the fitted law and under the slower one.
///
/// # Errors
/// Never in memory; the writer's error type says so.
pub fn csv(litmus: &Litmus) -> Result<String, csv::Error> {
    course::csv(&[("fitted", &litmus.trial), ("slower", &litmus.slower)])
}

/// For a program.
#[must_use]
pub fn json(litmus: &Litmus) -> impl Serialize {
    #[derive(Serialize)]
    struct SpikeDocument<'a> {
        schema_version: u32,
        #[serde(flatten)]
        litmus: &'a Litmus,
    }
    SpikeDocument { schema_version: SCHEMA_VERSION, litmus }
}

fn verdict(litmus: &Litmus) -> (String, Tone) {
    let replicas = litmus.fleet.replicas;
    let fleet = match (&litmus.sized_for, replicas) {
        (Some(name), _) => format!("{replicas} replicas on {} GPUs, planned for `{name}`,", litmus.gpus),
        (None, _) => format!("{replicas} replicas on {} GPUs", litmus.gpus),
    };
    let broken = litmus.trial.phases.iter().filter(|phase| !phase.holds()).map(|phase| phase.name.as_str());
    match litmus.verdict {
        LitmusVerdict::Holds => (format!("holds: {fleet} stay within the SLO through every phase"), Tone::Good),
        LitmusVerdict::Open => (
            format!(
                "open: {fleet} stay within the SLO under the fitted law, and not under one {:.0} % slower, as far as the fit is off",
                100.0 * (litmus.slower_by - 1.0)
            ),
            Tone::Doubtful,
        ),
        LitmusVerdict::Breaks => (format!("breaks: {fleet} leave the SLO at {}", broken.collect::<Vec<_>>().join(", ")), Tone::Bad),
    }
}

/// The three numbers of a litmus test, and what clients do to them.
fn answers(litmus: &Litmus) -> Vec<(&'static str, String)> {
    let multiple = |multiple: Option<f64>| multiple.map_or_else(|| "not even the average".to_owned(), |times| format!("{}x", three(times)));
    let Both { fitted, slower } = litmus.largest_multiple;
    let load = litmus.average_calls_per_s * fitted.unwrap_or(1.0);
    let tried_s = tried_s(load, litmus.spike_s);
    let tried = if tried_s < litmus.spike_s { format!(", tried for {}", duration(tried_s)) } else { String::new() };
    let mut lines = vec![
        (
            "stands",
            format!(
                "{} the average for {} without a breach ({} under the slower law{tried})",
                multiple(fitted),
                duration(litmus.spike_s),
                multiple(slower)
            ),
        ),
        ("recovers", phases::recovery(litmus.trial.recovery)),
    ];
    if let Some(own) = litmus.largest_own {
        let factor = |factor: Option<f64>| factor.map_or_else(|| "not once".to_owned(), |times| format!("{} times", three(times)));
        let says = format!("{} the log's own spike without a breach ({} under the slower law)", factor(own.fitted), factor(own.slower));
        lines.insert(1, ("stands", says));
        lines.splice(0..0, phases::own(&litmus.trial.course));
    }
    for retries in &litmus.retries {
        lines.push(("retries", with_retries(retries)));
    }
    lines
}

fn with_retries(retries: &WithRetries) -> String {
    let clients = retries.clients;
    let budget = clients.retry_budget.map_or_else(|| "no budget".to_owned(), |share| format!("a budget of {:.0} %", 100.0 * share));
    let timeout = clients.timeout.map_or_else(|| "never".to_owned(), |timeout| format!("after {}", duration(timeout.as_secs_f64())));
    format!(
        "clients that give up {timeout}, {} tries, {budget}: recovers {}, at most {} tries a call, {} % of calls fail",
        clients.attempts,
        phases::recovery(retries.recovery),
        three(retries.tries_per_call),
        three(100.0 * retries.failed_share)
    )
}

/// What the answer rests on.
fn grounds(litmus: &Litmus) -> Vec<(&'static str, String)> {
    let law = &litmus.service.law;
    let cost = |seconds: f64| format!("{} ms", three(1e3 * seconds));
    let prices = law.per_token_s.steps().map(|(price, last)| match last {
        Some(last) => format!("{} to the {last}th", cost(1e3 * price)),
        None => format!("{} beyond", cost(1e3 * price)),
    });
    let prices = prices.collect::<Vec<_>>().join(", ");
    let costs = [
        ("a step", law.step_s, cost(law.step_s)),
        ("each sequence", law.per_sequence_s, cost(law.per_sequence_s)),
        ("a thousand prompt tokens", law.per_prefill_token_s, cost(1e3 * law.per_prefill_token_s)),
        ("a thousand cached tokens", law.per_kv_token_s, cost(1e3 * law.per_kv_token_s)),
        ("a thousand tokens of a step", law.per_token_s.of(u64::MAX), prices),
        ("the way", litmus.service.overhead.as_secs_f64(), cost(litmus.service.overhead.as_secs_f64())),
    ];
    let costs: Vec<String> =
        costs.into_iter().filter(|(_, seconds, _)| *seconds > 0.0).map(|(what, _, cost)| format!("{what} {cost}")).collect();
    let limits = format!(
        "at most {} sequences and {} tokens in a step, {} tokens in the cache",
        grouped(f64::from(law.max_batch)),
        grouped(f64::from(law.chunk_tokens)),
        grouped(law.kv_tokens as f64)
    );
    let fleet = &litmus.fleet;
    let queue =
        fleet.waiting_per_replica.map_or_else(|| "endless queue".to_owned(), |most| format!("{most} calls wait at most, a replica"));
    vec![
        ("law", format!("{}; {limits}", costs.join(", "))),
        (
            "fit",
            format!(
                "off by {:.1} % at most over {} levels, by {:.1} % at most where it was proven; answers stand beside those of a law {:.1} % slower",
                100.0 * litmus.service.error(),
                litmus.service.levels.len(),
                100.0 * crate::capacity::spike::check::speed_error(&litmus.checked),
                100.0 * (litmus.slower_by - 1.0)
            ),
        ),
        ("calls", litmus.lengths.clone()),
        ("fleet", format!("{} routing, {queue}; average {} calls/s", fleet.routing, three(litmus.average_calls_per_s))),
        ("run", litmus.run.clone()),
    ]
}

fn tables(litmus: &Litmus) -> Vec<(&'static str, String, Grid)> {
    let mut tables = Vec::new();
    if !litmus.scenarios.is_empty() {
        tables.push(("Smallest fleet", format!("fewest replicas within the SLO for {}", duration(litmus.spike_s)), scenarios(litmus)));
    }
    if !litmus.checked.is_empty() {
        tables.push(("Proof of the law", "open-loop levels that it was not fitted to".to_owned(), checked(litmus)));
    }
    tables
}

fn scenarios(litmus: &Litmus) -> Grid {
    let mut grid = Grid::of(vec![
        Head::words("peak"),
        Head::number("calls", "/s"),
        Head::number("planned", "replicas"),
        Head::number("simulated", "replicas"),
        Head::number("slower law", "replicas"),
    ]);
    let count = |replicas: Option<u32>| replicas.map_or_else(|| "none".to_owned(), |replicas| grouped(f64::from(replicas)));
    for scenario in &litmus.scenarios {
        let enough = scenario.needed.slower.is_some_and(|needed| u64::from(needed) <= scenario.planned);
        grid.row(vec![
            Cell::new(&*scenario.name),
            Cell::new(three(scenario.calls_per_s)),
            Cell::new(grouped(scenario.planned as f64)).toned(if enough { Tone::Good } else { Tone::Bad }),
            Cell::new(count(scenario.needed.fitted)).toned(Tone::Strong),
            Cell::new(count(scenario.needed.slower)),
        ]);
    }
    grid
}

fn checked(litmus: &Litmus) -> Grid {
    let mut grid = Grid::of(vec![
        Head::number("level", ""),
        Head::number("offered", "calls/s"),
        Head::number("requests", ""),
        Head::number("TTFT p95", "ms"),
        Head::number("simulated", "ms"),
        Head::number("off", "%"),
        Head::number("TPOT p95", "ms"),
        Head::number("simulated", "ms"),
        Head::number("off", "%"),
    ]);
    let every = litmus.checked.len().div_ceil(CHECKED_SHOWN).max(1);
    for level in litmus.checked.iter().step_by(every) {
        let mut cells =
            vec![Cell::new(level.index.to_string()), Cell::new(three(level.calls_per_s)), Cell::new(grouped(level.requests as f64))];
        for pair in [level.ttft_p95, level.tpot_p95] {
            let value = |of: fn(&Pair) -> f64| three_or_none(pair.as_ref().map(of));
            cells.push(Cell::new(value(|pair| pair.measured)));
            cells.push(Cell::new(value(|pair| pair.simulated)));
            let off = pair.map_or_else(|| NONE.to_owned(), |pair| format!("{:+.1}", 100.0 * pair.off()));
            cells.push(Cell::new(off).toned(Tone::Strong));
        }
        grid.row(cells);
    }
    grid
}
