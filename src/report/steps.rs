//! Steps beside their floor as text and CSV.

use crate::record::ceilings::CeilingKind;
use crate::record::steps::{StepCase, StepTime, StepsRecord};
use crate::report::Look;
use crate::report::grid::{Cell, Grid, Head};
use crate::report::number::{percent, three};
use crate::report::paint::Tone;
use crate::report::prose::labelled;
use crate::report::{ceilings, number};

/// For the terminal.
#[must_use]
pub fn text(record: &StepsRecord, look: Look) -> String {
    let mut text = labelled("model", &format!("{}, {}, on {}", record.model, record.precision, record.device), look);
    let (blocks, size) = record.kv_blocks;
    text.push_str(&labelled(
        "KV cache",
        &format!("{} blocks of {size} tokens, filled by prefill", number::grouped(f64::from(blocks))),
        look,
    ));
    if !record.labels.is_empty() {
        text.push_str(&labelled("labels", &record.labels.join(" · "), look));
    }
    for ceiling in &record.ceilings.ceilings {
        if [CeilingKind::MemoryRead, CeilingKind::MatrixProduct].contains(&ceiling.kind) {
            text.push_str(&labelled("ceiling", &ceilings::line(ceiling), look));
        }
    }
    for note in &record.ceilings.notes {
        text.push_str(&labelled("note", &format!("{}: {}", note.kind.label(), note.why), look));
    }
    text.push('\n');
    text.push_str(&grid(record).to_text(look));
    text.push('\n');
    for skipped in &record.skipped {
        text.push_str(&labelled("left out", &format!("{}: {}", name(skipped.case), skipped.why), look));
    }
    text + &labelled("floor", "bytes / memory read or FLOP / matrix product, whichever is longer; ratio is floor / median", look)
}

/// A step's name.
#[must_use]
pub fn name(case: StepCase) -> String {
    match case {
        StepCase::Decode { batch, context } => format!("decode {batch} x {context}"),
        StepCase::Prefill { tokens } => format!("prefill {tokens}"),
    }
}

/// One row a step, in base units and full precision.
///
/// # Errors
/// When the CSV writer fails, which it does not in memory.
pub fn csv(record: &StepsRecord) -> Result<String, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "step",
        "tokens",
        "median_s",
        "fastest_s",
        "slowest_s",
        "repeats",
        "tokens_per_s",
        "bytes",
        "flops",
        "floor_s",
        "mbu",
        "mfu",
        "ratio",
    ])?;
    for step in &record.steps {
        let numbers = [
            step.median_s,
            step.range_s.0,
            step.range_s.1,
            f64::from(step.repeats),
            step.tokens_per_s(),
            step.bytes,
            step.flops,
            step.floor_s,
            step.mbu,
            step.mfu,
            step.ratio(),
        ];
        let first = [name(step.case), step.case.tokens().to_string()];
        writer.write_record(first.into_iter().chain(numbers.map(|number| number.to_string())))?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn grid(record: &StepsRecord) -> Grid {
    let mut grid = Grid::of(vec![
        Head::words("step"),
        Head::number("median", "ms"),
        Head::number("spread", ""),
        Head::number("tokens", "/s"),
        Head::number("moves", "GB"),
        Head::number("computes", "TFLOP"),
        Head::number("MBU", ""),
        Head::number("MFU", ""),
        Head::number("floor", "ms"),
        Head::number("ratio", ""),
    ]);
    for step in &record.steps {
        grid.row(row(step));
    }
    grid
}

fn row(step: &StepTime) -> Vec<Cell> {
    vec![
        Cell::new(name(step.case)),
        Cell::new(three(step.median_s * 1e3)).toned(Tone::Strong),
        Cell::new(percent(step.spread())),
        Cell::new(three(step.tokens_per_s())),
        Cell::new(three(step.bytes / 1e9)),
        Cell::new(three(step.flops / 1e12)),
        Cell::new(percent(step.mbu)),
        Cell::new(percent(step.mfu)),
        Cell::new(three(step.floor_s * 1e3)),
        Cell::new(three(step.ratio())).toned(Tone::Strong),
    ]
}
