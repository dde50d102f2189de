//! Ceilings of a device as text and CSV: one line a ceiling, what it was measured with, and how far passes lay apart.

use crate::record::ceilings::{Ceiling, CeilingUnit, CeilingsRecord};
use crate::report::Look;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::number::{percent, three};
use crate::report::paint::Tone;
use crate::report::prose::labelled;

/// For the terminal.
#[must_use]
pub fn text(record: &CeilingsRecord, look: Look) -> String {
    let mut text = labelled("device", &format!("{} ({})", record.device, record.instructions), look);
    if !record.labels.is_empty() {
        text.push_str(&labelled("labels", &record.labels.join(" · "), look));
    }
    text.push('\n');
    text.push_str(&grid(record).to_text(look));
    text.push('\n');
    for note in &record.notes {
        text.push_str(&labelled("note", &format!("{}: {}", note.kind.label(), note.why), look));
    }
    let took = format!("{} s; the best pass is the ceiling; nine in ten passes took no longer than `spread` more", three(record.seconds));
    text + &labelled("measured", &took, look)
}

/// One ceiling in a few words, for progress.
#[must_use]
pub fn line(ceiling: &Ceiling) -> String {
    let (value, unit) = value(ceiling, ceiling.best);
    format!("{} {value} {unit} ({}, {})", name(ceiling), ceiling.by, ceiling.size)
}

/// One row a ceiling, in base units and full precision.
///
/// # Errors
/// When the CSV writer fails, which it does not in memory.
pub fn csv(record: &CeilingsRecord) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(["ceiling", "element", "by", "size", "unit", "best", "median", "repeats", "spread"])?;
    for ceiling in &record.ceilings {
        let unit = match ceiling.unit {
            CeilingUnit::BytesPerS => "bytes/s",
            CeilingUnit::FlopPerS => "flop/s",
            CeilingUnit::Seconds => "s",
        };
        writer.write_record([
            ceiling.kind.label(),
            ceiling.element.as_deref().unwrap_or_default(),
            &ceiling.by,
            &ceiling.size,
            unit,
            &ceiling.best.to_string(),
            &ceiling.median.to_string(),
            &ceiling.repeats.to_string(),
            &ceiling.spread.to_string(),
        ])?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn grid(record: &CeilingsRecord) -> Grid {
    let mut grid = Grid::of(vec![
        Head::words("ceiling"),
        Head::number("best", ""),
        Head::number("median", ""),
        Head::words("unit"),
        Head::words("size"),
        Head::words("by"),
        Head::number("passes", ""),
        Head::number("spread", ""),
    ]);
    for ceiling in &record.ceilings {
        let ((best, unit), (median, _)) = (value(ceiling, ceiling.best), value(ceiling, ceiling.median));
        grid.row(vec![
            Cell::new(name(ceiling)),
            Cell::new(best).toned(Tone::Strong),
            Cell::new(median),
            Cell::new(unit).toned(Tone::Faint),
            Cell::new(&*ceiling.size),
            Cell::new(&*ceiling.by),
            Cell::new(ceiling.repeats.to_string()),
            Cell::new(percent(ceiling.spread)),
        ]);
    }
    grid
}

fn name(ceiling: &Ceiling) -> String {
    let element = ceiling.element.as_ref().map_or(String::new(), |element| format!(" {element}"));
    format!("{}{element}", ceiling.kind.label())
}

/// In the unit that a reader expects.
fn value(ceiling: &Ceiling, value: f64) -> (String, &'static str) {
    match ceiling.unit {
        CeilingUnit::BytesPerS => (three(value / 1e9), "GB/s"),
        CeilingUnit::FlopPerS if ceiling.best < 1e12 => (three(value / 1e9), "GFLOP/s"),
        CeilingUnit::FlopPerS => (three(value / 1e12), "TFLOP/s"),
        CeilingUnit::Seconds => (three(value * 1e6), "us"),
    }
}
