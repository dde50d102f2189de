//! Levels as rows: the sweep, the load-latency curve, the confirmation runs. Columns are metrics of the catalogue.

use crate::record::level::{Distribution, LevelRecord, Offered, Purpose};
use crate::record::metric::{Metric, metric};
use crate::record::run::RunRecord;
use crate::record::server::TokenCounts;
use crate::record::verdict::Outcome;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::number::{NONE, percent, three, three_or_none};
use crate::report::paint::Tone;

/// Requests that a p99 needs at least, with no miss among them, to be claimed (MLPerf's early-stopping count).
const ENOUGH_FOR_P99: u64 = 459;
/// Follows a p99 from fewer requests than that.
const TOO_FEW: char = '†';

/// What the sign means; to be printed where `text` has it.
pub(super) fn footnote(text: &str) -> Option<String> {
    text.contains(TOO_FEW).then(|| format!("{TOO_FEW} p99 from fewer than {ENOUGH_FOR_P99} requests: too few to claim it"))
}

/// The closed-loop sweep by rising concurrency.
pub(super) fn sweep(run: &RunRecord) -> Grid {
    let metrics = ["calls_per_s_per_gpu", "output_tokens_per_s_per_gpu", "ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms"];
    let columns = metrics.into_iter().filter_map(metric).collect::<Vec<_>>();
    let mut heads = vec![Head::number("in flight", "")];
    heads.extend(columns.iter().map(|column| head(column, run)));
    heads.push(Head::words("verdict"));
    let mut grid = Grid::of(heads);
    for (concurrency, level) in sweep_levels(run) {
        let mut row = vec![Cell::new(concurrency.to_string())];
        row.extend(columns.iter().map(|column| cell(column, level)));
        row.push(verdict(level));
        grid.row(row);
    }
    grid
}

/// Levels of the sweep by rising concurrency.
pub(super) fn sweep_levels(run: &RunRecord) -> Vec<(u32, &LevelRecord)> {
    let mut levels = run
        .levels
        .iter()
        .filter(|level| level.purpose == Purpose::Sweep)
        .filter_map(|level| match level.offered {
            Offered::Closed { concurrency } => Some((concurrency, level)),
            Offered::Open { .. } => None,
        })
        .collect::<Vec<_>>();
    levels.sort_by_key(|(concurrency, level)| (*concurrency, level.index));
    levels
}

/// The load-latency curve by rising load, which a quick run leaves to its confirmation in part; all open-loop levels
/// where no curve was measured.
pub(super) fn load_latency(run: &RunRecord) -> Grid {
    let metrics = ["ttft_p50_ms", "ttft_p99_ms", "tpot_p50_ms", "tpot_p99_ms", "joint_attainment"];
    let columns = metrics.into_iter().filter_map(metric).collect::<Vec<_>>();
    let per_device = format!("/s/{}", run.target.device_noun());
    let mut heads = vec![Head::number("offered", &per_device), Head::number("completed", &per_device)];
    heads.extend(columns.iter().map(|column| head(column, run)));
    heads.push(Head::words("verdict"));
    let mut grid = Grid::of(heads);
    let has_curve = run.levels.iter().any(|level| level.purpose == Purpose::Curve);
    let shown = |level: &LevelRecord| match level.purpose {
        Purpose::Curve => true,
        Purpose::Confirmation { .. } => run.quick || !has_curve,
        _ => !has_curve,
    };
    let mut levels = open_levels(run).filter(|(_, level)| shown(level)).collect::<Vec<_>>();
    levels.sort_by(|one, other| one.0.total_cmp(&other.0));
    for (offered, level) in levels {
        let mut row = vec![Cell::new(three(offered)), Cell::new(three(level.throughput.completions_per_s / devices(level)))];
        row.extend(columns.iter().map(|column| cell(column, level)));
        row.push(verdict(level));
        grid.row(row);
    }
    grid
}

/// The sweep and the load-latency curve; confirmation where no curve was measured.
pub(super) fn under_load(run: &RunRecord) -> impl Iterator<Item = &LevelRecord> {
    let has_curve = run.levels.iter().any(|level| level.purpose == Purpose::Curve);
    run.levels.iter().filter(move |level| match level.purpose {
        Purpose::Sweep | Purpose::Curve => true,
        Purpose::Confirmation { .. } => !has_curve,
        Purpose::Reference { .. } | Purpose::Search | Purpose::Solo { .. } => false,
        Purpose::PlannerPrefill { .. } | Purpose::PlannerDecode { .. } => false,
    })
}

/// Offered calls/s per device with each open-loop level.
fn open_levels(run: &RunRecord) -> impl Iterator<Item = (f64, &LevelRecord)> {
    run.levels.iter().filter_map(|level| match level.offered {
        Offered::Open { calls_per_s, .. } => Some((calls_per_s / devices(level), level)),
        Offered::Closed { .. } => None,
    })
}

fn devices(level: &LevelRecord) -> f64 {
    f64::from(level.per_device.devices.max(1))
}

/// One line for the search and one for each confirmation run: offered loads in order of measurement and what became of them.
pub(super) fn probes(run: &RunRecord) -> Vec<(String, String)> {
    let line = |wanted: &Purpose| {
        let probes = open_levels(run).filter(|(_, level)| level.purpose == *wanted);
        probes.map(|(offered, level)| format!("{} {}", three(offered), word(level))).collect::<Vec<_>>().join(", ")
    };
    let runs = run.levels.iter().filter_map(|level| if let Purpose::Confirmation { run } = level.purpose { Some(run) } else { None }).max();
    let confirmations = (1..=runs.unwrap_or(0)).map(|run| (format!("confirm {run}"), line(&Purpose::Confirmation { run })));
    [("search".to_owned(), line(&Purpose::Search))].into_iter().chain(confirmations).filter(|(_, line)| !line.is_empty()).collect()
}

/// Tokens/s of whole levels beside those of their windows: the ramp and the drain that a window leaves out.
pub(super) fn whole_levels(run: &RunRecord) -> Option<String> {
    let of = |level: &LevelRecord| {
        let (whole, window) = (level.throughput.whole_level_output_tokens_per_s, level.throughput.output_tokens_per_s);
        (window > 0.0).then_some(whole / window)
    };
    let shares = sweep_levels(run).into_iter().filter_map(|(_, level)| of(level)).collect::<Vec<_>>();
    let (low, high) = (shares.iter().copied().reduce(f64::min)?, shares.iter().copied().reduce(f64::max)?);
    let shares = if high - low < 0.001 { percent(low) } else { format!("{} to {}", percent(low), percent(high)) };
    Some(format!("whole levels, ramp and drain included, gave {shares} of the tokens/s of the windows above"))
}

/// Why levels are invalid, one line each.
pub(super) fn invalid(run: &RunRecord) -> Vec<String> {
    let invalid = run.levels.iter().filter(|level| !level.verdict.is_valid());
    invalid.map(|level| format!("level {} ({}): {}", level.index, offered(level), level.verdict)).collect()
}

pub(super) fn offered(level: &LevelRecord) -> String {
    match &level.offered {
        Offered::Closed { concurrency } => format!("{concurrency} in flight"),
        Offered::Open { calls_per_s, .. } => format!("{} calls/s", three(*calls_per_s)),
    }
}

/// The generator's own doing at its worst over all levels, in a sentence.
pub(super) fn generator_audit(run: &RunRecord) -> Option<String> {
    if run.levels.is_empty() {
        return None;
    }
    let worst = |read: fn(&LevelRecord) -> Option<f64>| run.levels.iter().filter_map(read).reduce(f64::max);
    let lag = worst(|level| level.latency.send_lag.p99).map_or_else(|| NONE.to_owned(), |lag| format!("{} ms", three(lag)));
    let busy = worst(|level| Some(level.generator.cpu_share)).unwrap_or(0.0);
    let sent = -worst(|level| Some(-level.generator.achieved_over_offered)).unwrap_or(-1.0);
    let lost = run.levels.iter().map(|level| level.generator.events_lost).sum::<u64>();
    let over_http = run.generator_ceiling.filter(|_| run.server.is_some());
    let protocol = run.server.as_ref().and_then(|server| server.protocol.as_deref()).unwrap_or("HTTP");
    let figure = over_http.map_or(String::new(), |ceiling| format!(" of {} calls/s over {protocol}", three(ceiling)));
    let ceiling = worst(|level| level.generator.ceiling_share)
        .map_or(String::new(), |share| format!(" · {} of its own ceiling{figure}", percent(share)));
    Some(format!(
        "at worst: send lag p99 {lag} · {} of one core · {} of the schedule sent · {lost} events lost{ceiling}",
        percent(busy),
        percent(sent)
    ))
}

/// Who counted the tokens of a server's answers, and where two who counted did not agree.
pub(super) fn token_audit(run: &RunRecord) -> Option<String> {
    let server = run.server.as_ref()?;
    let counts = || run.levels.iter().filter_map(|level| level.token_counts);
    let sum = |of: fn(&TokenCounts) -> u64| counts().map(|counts| of(&counts)).sum::<u64>();
    let (answers, with_usage) = (sum(|counts| counts.answers), sum(|counts| counts.with_usage));
    let mut text = format!("counted by {}: {with_usage} of {answers} answers with a usage", server.token_source.words());
    for (count, what) in [
        (sum(|counts| counts.by_tokenizer), "counted by the local tokenizer"),
        (sum(|counts| counts.disagreeing), "with other tokens than events"),
        (sum(|counts| counts.tokenizer_disagreeing), "that the local tokenizer counts otherwise than the server"),
    ] {
        if count > 0 {
            text.push_str(&format!(" · {count} {what}"));
        }
    }
    Some(text)
}

pub(super) fn head(metric: &Metric, run: &RunRecord) -> Head {
    let (label, unit) = (metric.label.replace("GPU", run.target.device_noun()), metric.unit);
    // `calls/s/GPU` says its unit already.
    if label.contains('/') {
        Head::number(label.split('/').next().unwrap_or(&label), &format!("/s/{}", run.target.device_noun()))
    } else {
        Head::number(&label, unit)
    }
}

/// A metric as a cell: a quantile that falls on a failure is infinite, a p99 from too few requests is marked.
pub(super) fn cell(metric: &Metric, level: &LevelRecord) -> Cell {
    let mut text = three_or_none((metric.read)(level));
    if let Some(distribution) = judged_distribution(metric.id, level) {
        if text == NONE && distribution.count > 0 {
            text = three(f64::INFINITY);
        }
        if metric.id.contains("_p99") {
            text.push(if (1..ENOUGH_FOR_P99).contains(&distribution.count) { TOO_FEW } else { ' ' });
        }
    }
    Cell::new(text)
}

/// The adjusted set that a latency metric is a quantile of.
fn judged_distribution<'a>(id: &str, level: &'a LevelRecord) -> Option<&'a Distribution> {
    let latency = &level.latency;
    match id.split("_p").next()? {
        "ttft" => Some(&latency.ttft.adjusted),
        "ttft_service" => Some(&latency.ttft_service.adjusted),
        "tpot" => Some(&latency.tpot.adjusted),
        "e2e" => Some(&latency.e2e.adjusted),
        _ => None,
    }
}

/// One word for a level.
fn word(level: &LevelRecord) -> &'static str {
    if level.verdict.is_valid() { level.verdict.outcome.name() } else { "INVALID" }
}

pub(super) fn verdict(level: &LevelRecord) -> Cell {
    let tone = match (level.verdict.is_valid(), level.verdict.outcome) {
        (true, Outcome::Met) => Tone::Good,
        (true, Outcome::Measured) => Tone::Usual,
        (true, Outcome::Undecided) => Tone::Doubtful,
        _ => Tone::Bad,
    };
    Cell::new(if word(level) == "measured" { "valid" } else { word(level) }).toned(tone)
}
