//! Demand found in a log, as text, markdown, CSV of its hours, and JSON.

use crate::record::demand::{BusiestStretch, ConcurrencySource, Demand, Hour, Lengths, LoadBucket, LogKind, LogToldBy, WindowRates};
use crate::report::Look;
use crate::report::grid::{Cell, Grid, Head, escaped};
use crate::report::number::{grouped, three, three_or_none};
use crate::report::paint::Tone;
use crate::report::plan::{findings_markdown, findings_text};
use crate::report::prose::{labelled, title};
use jiff::Timestamp;

/// Hours that are shown; of a longer log those with the highest peaks.
const HOURS_SHOWN: usize = 24;

/// For the terminal.
#[must_use]
pub fn text(demand: &Demand, look: Look) -> String {
    let mut text = title("Demand", &demand.sources.join(", "), look);
    for (label, says) in facts(demand) {
        text.push_str(&labelled(label, &says, look));
    }
    for (name, remark, grid) in tables(demand) {
        text.push_str(&title(name, &remark, look));
        text.push_str(&grid.to_text(look));
    }
    text.push_str(&findings_text(&demand.findings, look));
    text.trim_start_matches('\n').to_owned()
}

/// For a document.
#[must_use]
pub fn markdown(demand: &Demand) -> String {
    let mut text = format!("# Demand\n\n`{}`\n\n", demand.sources.join("`, `"));
    for (label, says) in facts(demand) {
        text.push_str(&format!("- **{label}**: {}\n", escaped(&says)));
    }
    for (name, remark, grid) in tables(demand) {
        text.push_str(&format!("\n## {name}\n\n{}", grid.to_markdown()));
        if !remark.is_empty() {
            text.push_str(&format!("\n{remark}.\n"));
        }
    }
    text + &findings_markdown(&demand.findings)
}

/// One line an hour.
///
/// # Errors
/// Never in memory; the writer's error type says so.
pub fn csv(demand: &Demand) -> Result<String, csv::Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record([
        "hour",
        "requests",
        "failed",
        "rpm_p95",
        "rpm_p95_of_occupied_minutes",
        "rpm_p95_of_rows",
        "rpm_peak",
        "visible_requests",
        "calls_of_them",
        "successful_outputs",
        "recompute_multiplier",
        "incident",
    ])?;
    for hour in &demand.hours {
        out.write_record([
            date(hour.start_s, "%Y-%m-%dT%H:%M:%SZ"),
            hour.calls.to_string(),
            hour.failed.to_string(),
            hour.rpm.p95.to_string(),
            hour.rpm.p95_of_occupied.to_string(),
            hour.rpm.p95_of_rows.map(|p95| p95.to_string()).unwrap_or_default(),
            hour.rpm.peak.to_string(),
            hour.requests.to_string(),
            hour.calls_of_requests.to_string(),
            hour.succeeded.to_string(),
            hour.multiplier().map(|multiplier| multiplier.to_string()).unwrap_or_default(),
            hour.incident.to_string(),
        ])?;
    }
    let bytes = out.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A stamp as a date in UTC.
fn date(seconds: i64, form: &str) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |stamp| stamp.strftime(form).to_string())
}

/// Single figures, each with what it means.
fn facts(demand: &Demand) -> Vec<(&'static str, String)> {
    let noun = match demand.log {
        LogKind::Calls => "calls",
        LogKind::VisibleRequests => "visible requests",
    };
    let told = match demand.log_told_by {
        LogToldBy::Flag => "as told",
        LogToldBy::Ids => "by their ids",
        LogToldBy::Assumed => "assumed",
    };
    let second = |nanos: i64| date(nanos.div_euclid(1_000_000_000), "%Y-%m-%d %H:%M:%S");
    let span_h = (demand.last_ns - demand.first_ns) as f64 / 3.6e12;
    let mut facts = vec![
        (
            "log",
            format!(
                "{} {noun} ({told}), {} UTC to {}, {} h",
                grouped(demand.calls as f64),
                second(demand.first_ns),
                second(demand.last_ns),
                three(span_h)
            ),
        ),
        ("columns", demand.columns.iter().map(|(role, column)| format!("{role}=`{column}`")).collect::<Vec<_>>().join(", ")),
        (
            "failed",
            format!("{} of {noun}, {} %", grouped(demand.failed as f64), three(100.0 * demand.failed as f64 / demand.calls.max(1) as f64)),
        ),
    ];
    facts.retain(|(_, says)| !says.is_empty());
    if let Some(recompute) = demand.recompute {
        let number = |value: Option<f64>| value.map_or_else(|| "none".to_owned(), |value| format!("{value:.3}"));
        let incident = match recompute.incident_multiplier() {
            Some(multiplier) => format!("; {multiplier:.3} in hours of an incident"),
            None => String::new(),
        };
        facts.push((
            "recompute",
            format!(
                "{} calls for each of {} successful outputs{incident}; {} for each of {} visible requests",
                number(recompute.multiplier()),
                grouped(recompute.succeeded as f64),
                number(recompute.calls_per_request()),
                grouped(recompute.requests as f64)
            ),
        ));
    }
    if let Some(concurrency) = &demand.concurrency {
        let what = match concurrency.source {
            ConcurrencySource::Column => "as the log says",
            ConcurrencySource::Counted => "calls in flight, counted from latencies",
        };
        let within = |most: u64| format!("{} within the busiest minute, ", grouped(most as f64));
        let at_peak = concurrency.at_peak_minute.map_or_else(String::new, within);
        facts
            .push(("at once", format!("{at_peak}{} at most, {} at p99 ({what})", grouped(concurrency.max as f64), three(concurrency.p99))));
    }
    if let Some(cv) = demand.gap_cv {
        facts.push(("gaps", format!("coefficient of variation {}; Poisson arrivals have 1", three(cv))));
    }
    if let Some(stretch) = &demand.busiest {
        let slices = stretch.slices_of(f64::from(BusiestStretch::MINUTE_S));
        let at = stretch.busiest(slices);
        let most: u64 = stretch.calls.iter().skip(at).take(slices).sum();
        let kept_min = f64::from(stretch.slice_s) * stretch.calls.len() as f64 / 60.0;
        facts.push((
            "own spike",
            format!(
                "{} {noun} in the busiest minute, from {} UTC; {} min around it are kept for `spike --times own`",
                grouped(most as f64),
                date(stretch.start_s + at as i64 * i64::from(stretch.slice_s), "%Y-%m-%d %H:%M:%S"),
                three(kept_min)
            ),
        ));
    }
    facts
}

fn tables(demand: &Demand) -> Vec<(&'static str, String, Grid)> {
    let mut tables = vec![("Rates", "windows aligned to the clock, empty ones included".to_owned(), rates(&demand.rates))];
    if !demand.visible_rates.is_empty() {
        tables.push(("Rates of visible requests", "the first call of each".to_owned(), rates(&demand.visible_rates)));
    }
    tables.push(("Lengths", "of what succeeded".to_owned(), lengths(demand)));
    if let Some(concurrency) = &demand.concurrency {
        tables.push(("Latency by load", "by what was going on at once when a call began".to_owned(), buckets(&concurrency.buckets)));
    }
    let remark = if demand.hours.len() > HOURS_SHOWN {
        format!("the {HOURS_SHOWN} with the highest peaks of {}; `--format csv` lists all", demand.hours.len())
    } else {
        String::new()
    };
    tables.push(("Hours", remark, hours(demand)));
    tables
}

fn rates(rates: &[WindowRates]) -> Grid {
    let mut grid = Grid::of(vec![
        Head::number("window", "s"),
        Head::number("windows", ""),
        Head::number("mean", "/s"),
        Head::number("p50", "/s"),
        Head::number("p95", "/s"),
        Head::number("p99", "/s"),
        Head::number("peak", "/s"),
        Head::number("peak/mean", ""),
        Head::number("by chance", ""),
        Head::number("dispersion", ""),
    ]);
    for rates in rates {
        let of_rate = [rates.mean_rps, rates.p50_rps, rates.p95_rps, rates.p99_rps, rates.max_rps];
        let mut cells = vec![Cell::new(three(rates.window_s)), Cell::new(grouped(rates.windows as f64))];
        cells.extend(of_rate.map(|rate| Cell::new(three(rate))));
        cells.push(Cell::new(three(rates.peak_over_mean)).toned(Tone::Strong));
        cells.push(Cell::new(three(rates.poisson_peak_over_mean)).toned(Tone::Faint));
        cells.push(Cell::new(three(rates.index_of_dispersion)));
        grid.row(cells);
    }
    grid
}

fn lengths(demand: &Demand) -> Grid {
    let mut grid = Grid::of(vec![
        Head::words("of"),
        Head::words("unit"),
        Head::number("mean", ""),
        Head::number("p50", ""),
        Head::number("p95", ""),
        Head::number("p99", ""),
        Head::number("most", ""),
    ]);
    let of_all = |lengths: &Option<Lengths>| lengths.clone().filter(|_| demand.failed > 0);
    let (all_input, all_output) = (of_all(&demand.all_input_tokens), of_all(&demand.all_output_tokens));
    let rows: [(&str, &str, &Option<Lengths>); 6] = [
        ("prompts", "tokens", &demand.input_tokens),
        ("answers", "tokens", &demand.output_tokens),
        ("prompts, with failed", "tokens", &all_input),
        ("answers, with failed", "tokens", &all_output),
        ("calls", "ms", &demand.latency_ms),
        ("outcomes", "ms", &demand.outcome_ms),
    ];
    for (of, unit, lengths) in rows {
        let Some(lengths) = lengths else { continue };
        let mut cells = vec![Cell::new(of), Cell::new(unit).toned(Tone::Faint)];
        cells.extend([lengths.mean, lengths.p50, lengths.p95, lengths.p99, lengths.max].map(|value| Cell::new(grouped(value.round()))));
        grid.row(cells);
    }
    grid
}

fn buckets(buckets: &[LoadBucket]) -> Grid {
    let mut grid = Grid::of(vec![Head::words("at once"), Head::number("calls", ""), Head::number("latency p95", "ms")]);
    for bucket in buckets {
        grid.row(vec![Cell::new(range(bucket)), Cell::new(grouped(bucket.calls as f64)), Cell::new(three_or_none(bucket.p95_ms))]);
    }
    grid
}

/// As the capacity model writes it: `<100`, `100-500`, `500+`.
fn range(bucket: &LoadBucket) -> String {
    match (bucket.from, bucket.to) {
        (0, Some(to)) => format!("<{to}"),
        (from, Some(to)) => format!("{from}-{to}"),
        (from, None) => format!("{from}+"),
    }
}

fn hours(demand: &Demand) -> Grid {
    let with_requests = demand.recompute.is_some();
    let mut heads = vec![
        Head::words("hour, UTC"),
        Head::number("requests", ""),
        Head::number("p95", "/min"),
        Head::number("peak", "/min"),
        Head::number("failed", "%"),
    ];
    if with_requests {
        heads.push(Head::number("recompute", ""));
    }
    heads.push(Head::words(""));
    let mut grid = Grid::of(heads);
    for hour in shown(&demand.hours) {
        let mut cells = vec![
            Cell::new(date(hour.start_s, "%Y-%m-%d %H:%M")),
            Cell::new(grouped(hour.calls as f64)),
            Cell::new(three(hour.rpm.p95)),
            Cell::new(grouped(hour.rpm.peak as f64)).toned(Tone::Strong),
            Cell::new(three(100.0 * hour.failed_share())),
        ];
        if with_requests {
            cells.push(Cell::new(three_or_none(hour.multiplier())));
        }
        cells.push(Cell::new(if hour.incident { "incident" } else { "" }).toned(Tone::Bad));
        grid.row(cells);
    }
    grid
}

/// In order of time.
fn shown(hours: &[Hour]) -> Vec<&Hour> {
    let mut shown: Vec<&Hour> = hours.iter().collect();
    shown.sort_by_key(|hour| std::cmp::Reverse(hour.rpm.peak));
    shown.truncate(HOURS_SHOWN);
    shown.sort_by_key(|hour| hour.start_s);
    shown
}
