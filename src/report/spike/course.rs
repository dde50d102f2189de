//! The picture of a spike: rate, goodput, queue and latency over one axis of time, and the same as CSV.

use crate::capacity::spike::ledger::Trial;
use crate::capacity::spike::moments::Moment;
use crate::report::Look;
use crate::report::number::three;
use crate::report::paint::Tone;
use crate::report::prose::length;

const LEVELS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Columns before a line, and after it.
const BEFORE: usize = 14;
const AFTER: usize = 18;

/// A line for each of them; the highest value stands at its end.
pub(super) fn picture(trial: &Trial, look: Look) -> String {
    let wide = usize::from(look.width).saturating_sub(BEFORE + AFTER).clamp(20, 120);
    let columns = in_columns(trial, wide);
    let mut text = String::new();
    let most_of = |value: &dyn Fn(&Moment) -> f64| columns.iter().map(|column| most(column, value)).collect::<Vec<f64>>();
    let rate = most_of(&|moment| moment.offered_per_s).into_iter().fold(0.0, f64::max);
    text.push_str(&line("offered", &means(&columns, |moment| moment.offered_per_s), rate, "calls/s", Tone::Usual, look));
    text.push_str(&line("within SLO", &means(&columns, |moment| moment.good_per_s), rate, "calls/s", Tone::Good, look));
    if trial.moments.iter().any(|moment| moment.waiting.is_some()) {
        let waiting = most_of(&|moment| moment.waiting.unwrap_or(0) as f64);
        let highest = waiting.iter().copied().fold(0.0, f64::max);
        text.push_str(&line("waiting", &waiting, highest, "calls", Tone::Doubtful, look));
    }
    if trial.moments.iter().any(|moment| moment.in_flight.is_some()) {
        let in_flight = most_of(&|moment| moment.in_flight.unwrap_or(0) as f64);
        let highest = in_flight.iter().copied().fold(0.0, f64::max);
        text.push_str(&line("in flight", &in_flight, highest, "calls", Tone::Usual, look));
    }
    let replicas: Vec<f64> = most_of(&|moment| f64::from(moment.replicas.unwrap_or(0)));
    let (fewest, highest) = replicas.iter().fold((f64::INFINITY, 0.0_f64), |(low, high), one| (low.min(*one), high.max(*one)));
    if highest > fewest {
        text.push_str(&line("replicas", &replicas, highest, "", Tone::Usual, look));
    }
    text.push_str(&latency(&columns, look));
    text.push_str(&axis(trial, wide, look));
    text
}

/// Moments of each column.
fn in_columns(trial: &Trial, wide: usize) -> Vec<Vec<&Moment>> {
    let count = trial.moments.len().max(1);
    let wide = wide.min(count);
    (0..wide).map(|column| trial.moments[column * count / wide..((column + 1) * count / wide).min(count)].iter().collect()).collect()
}

fn most(column: &[&Moment], value: &dyn Fn(&Moment) -> f64) -> f64 {
    column.iter().map(|moment| value(moment)).fold(0.0, f64::max)
}

fn means(columns: &[Vec<&Moment>], value: impl Fn(&Moment) -> f64) -> Vec<f64> {
    columns.iter().map(|column| column.iter().map(|moment| value(moment)).sum::<f64>() / (column.len() as f64).max(1.0)).collect()
}

fn line(label: &str, values: &[f64], highest: f64, unit: &str, tone: Tone, look: Look) -> String {
    let shown: String = values.iter().map(|value| level(value / highest.max(f64::MIN_POSITIVE))).collect();
    format!("  {}  {}  {} {unit}\n", look.paint.apply(Tone::Faint, format!("{label:<10}")), look.paint.apply(tone, shown), three(highest))
        .trim_end()
        .to_owned()
        + "\n"
}

/// The tail of the time to first token, on a logarithmic scale; a cross where calls failed, and where the SLO is broken in colour.
fn latency(columns: &[Vec<&Moment>], look: Look) -> String {
    let value = |column: &Vec<&Moment>| {
        let finite = column.iter().map(|moment| if moment.offered_per_s > 0.0 { moment.ttft_p95_ms } else { Some(0.0) });
        finite.collect::<Option<Vec<f64>>>().map(|values| values.into_iter().fold(0.0, f64::max))
    };
    let values: Vec<Option<f64>> = columns.iter().map(value).collect();
    let finite = || values.iter().flatten().copied().filter(|value| *value > 0.0);
    let (quickest, slowest) = finite().fold((f64::INFINITY, 0.0_f64), |(low, high), one| (low.min(one), high.max(one)));
    let scale = (slowest / quickest).ln().max(f64::MIN_POSITIVE);
    let mut shown = String::new();
    for (value, column) in values.iter().zip(columns) {
        let sign = match value {
            None => '×',
            Some(value) if *value > 0.0 && slowest > quickest => level((value / quickest).ln() / scale),
            Some(_) => LEVELS[0],
        };
        let tone = if column.iter().any(|moment| moment.broken) { Tone::Bad } else { Tone::Good };
        shown.push_str(&look.paint.apply(tone, sign));
    }
    let highest = if slowest > 0.0 { format!("{} ms, log", three(slowest)) } else { "no token".to_owned() };
    let broken: String = columns.iter().map(|column| if column.iter().any(|moment| moment.broken) { '!' } else { ' ' }).collect();
    let mut text = format!("  {}  {shown}  {highest}\n", look.paint.apply(Tone::Faint, format!("{:<10}", "TTFT p95")));
    if broken.contains('!') {
        let label = look.paint.apply(Tone::Faint, format!("{:<10}", "broken"));
        text.push_str(format!("  {label}  {}", look.paint.apply(Tone::Bad, &broken)).trim_end());
        text.push('\n');
    }
    text
}

/// The names of the phases where they begin.
fn axis(trial: &Trial, wide: usize, look: Look) -> String {
    let wide = wide.min(trial.moments.len().max(1));
    let seconds = trial.course.seconds();
    let mut text = String::new();
    for phase in &trial.phases {
        let column = |at_s: f64| (at_s / seconds * wide as f64).round() as usize;
        let (from, to) = (column(phase.span_s.0), column(phase.span_s.1));
        text.push_str(&" ".repeat(from.saturating_sub(length(&text))));
        // A name that does not fit is cut.
        text.extend(format!("|{}", phase.name).chars().take(to.saturating_sub(from)));
    }
    format!("  {:<10}  {}  {}\n", "", look.paint.apply(Tone::Faint, format!("{text:<wide$}")), duration(seconds))
}

/// `90 s`, `17 min`.
pub(super) fn duration(seconds: f64) -> String {
    if seconds < 120.0 { format!("{} s", three(seconds)) } else { format!("{} min", three(seconds / 60.0)) }
}

fn level(share: f64) -> char {
    LEVELS[((share.clamp(0.0, 1.0) * 7.0).round()) as usize]
}

/// One line a stretch of time.
///
/// # Errors
/// Never in memory; the writer's error type says so.
pub(super) fn csv(courses: &[(&str, &Trial)]) -> Result<String, csv::Error> {
    let mut out = csv::Writer::from_writer(Vec::new());
    out.write_record([
        "course",
        "at_s",
        "offered_calls_per_s",
        "good_calls_per_s",
        "completed_calls_per_s",
        "waiting",
        "in_flight",
        "replicas",
        "ttft_p95_ms",
        "broken",
    ])?;
    let known = |value: Option<u64>| value.map(|value| value.to_string()).unwrap_or_default();
    for (course, trial) in courses {
        for moment in &trial.moments {
            out.write_record([
                (*course).to_owned(),
                moment.at_s.to_string(),
                moment.offered_per_s.to_string(),
                moment.good_per_s.to_string(),
                moment.completed_per_s.to_string(),
                known(moment.waiting),
                known(moment.in_flight),
                known(moment.replicas.map(u64::from)),
                moment.ttft_p95_ms.map(|value| value.to_string()).unwrap_or_default(),
                moment.broken.to_string(),
            ])?;
        }
    }
    let bytes = out.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
