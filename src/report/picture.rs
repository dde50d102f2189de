//! The load line as a picture: throughput grows and flattens, latency goes on growing.

use crate::record::level::LevelRecord;
use crate::report::Look;
use crate::report::number::{NONE, three};
use crate::report::paint::Tone;
use crate::report::prose::length;

const EIGHTHS: [char; 8] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'];
const MARK: char = '┊';
/// Columns before the first bar of a row.
const BEFORE_BARS: usize = 13;

/// One row a level: a bar of calls/s per device, and one of TTFT p99 on a logarithmic scale. `mark` is drawn through
/// the throughput bars: the rate within the SLO, where it is known, against what the plateau pretends.
pub(super) fn load_line(levels: &[(u32, &LevelRecord)], mark: Option<f64>, noun: &str, look: Look) -> String {
    let shown = levels.iter().filter(|(_, level)| level.verdict.is_valid()).collect::<Vec<_>>();
    let most = shown.iter().map(|(_, level)| level.per_device.calls_per_s).chain(mark).fold(0.0, f64::max);
    if shown.len() < 2 || most <= 0.0 {
        return String::new();
    }
    let latencies = shown.iter().filter_map(|(_, level)| level.latency.ttft.adjusted.p99).filter(|latency| *latency > 0.0);
    let (quickest, slowest) = latencies.fold((f64::INFINITY, 0.0_f64), |(low, high), latency| (low.min(latency), high.max(latency)));
    let wide = (usize::from(look.width).saturating_sub(34) * 2 / 3).clamp(16, 60);
    let narrow = wide / 2;
    let marked = mark.map(|rate| ((rate / most * wide as f64) as usize).min(wide - 1));
    let left = format!("calls/s/{noun}");
    let mut text = format!("  {:>9}  {left:<wide$}  {:>7}   {:<narrow$}\n", "in flight", "", "TTFT p99, ms, log scale");
    for (concurrency, level) in shown {
        let rate = level.per_device.calls_per_s;
        let throughput = with_mark(bar(rate / most, wide), marked);
        let (latency, label) = match level.latency.ttft.adjusted.p99 {
            Some(latency) if latency > 0.0 => (share_of_logs(latency, quickest, slowest), three(latency)),
            _ => (0.0, NONE.to_owned()),
        };
        let latency = bar(latency, narrow).trim_end().to_owned();
        let (throughput, latency) = (look.paint.apply(Tone::Good, throughput), look.paint.apply(Tone::Doubtful, latency));
        text.push_str(&format!("  {concurrency:>9}  {throughput}  {:>7}   {latency} {label}\n", three(rate)));
    }
    if let (Some(at), Some(rate)) = (marked, mark) {
        let says = format!("throughput_per_gpu {}, within the SLO", three(rate));
        // Beside the mark; before it where there is no room beside it, and room there.
        let column = BEFORE_BARS + at;
        let before = column + 2 + length(&says) > usize::from(look.width) && length(&says) < column;
        let line = if before {
            format!("{says:>width$} {MARK}", width = column - 1)
        } else {
            format!("{MARK:>width$} {says}", width = column + 1)
        };
        text.push_str(&format!("{}\n", look.paint.apply(Tone::Strong, line)));
    }
    text
}

/// A bar over `share` of `width` characters, padded to it.
fn bar(share: f64, width: usize) -> String {
    let eighths = (share.clamp(0.0, 1.0) * width as f64 * 8.0).round() as usize;
    let mut bar = "█".repeat(eighths / 8);
    if !eighths.is_multiple_of(8) {
        bar.push(EIGHTHS[eighths % 8]);
    }
    let padding = width.saturating_sub(length(&bar));
    bar + &" ".repeat(padding)
}

fn with_mark(bar: String, at: Option<usize>) -> String {
    bar.chars().enumerate().map(|(index, shown)| if Some(index) == at { MARK } else { shown }).collect()
}

/// Where `value` lies between both ends on a logarithmic scale; the lowest still shows a little.
fn share_of_logs(value: f64, lowest: f64, highest: f64) -> f64 {
    const LEAST: f64 = 0.08;
    if highest <= lowest { LEAST } else { LEAST + (1.0 - LEAST) * (value / lowest).ln() / (highest / lowest).ln() }
}
