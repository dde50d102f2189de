//! Results of other tools side by side: console, markdown, CSV and JSON, each with its provenance and what it lacks.

use serde::Serialize;

use crate::record::SCHEMA_VERSION;
use crate::record::imported::{Imported, Load, Point, Quantiles};
use crate::report::Look;
use crate::report::grid::{Cell, Grid, Head, escaped};
use crate::report::number::{NONE, grouped, three, three_or_none};
use crate::report::paint::Tone;
use crate::report::prose::labelled;

/// For the terminal.
#[must_use]
pub fn text(results: &[Imported], look: Look) -> String {
    let mut text = String::new();
    for (index, result) in results.iter().enumerate() {
        text.push_str(&labelled(&place(index), &provenance(result), look));
        text.push_str(&labelled("lacks", &lacks(result), look));
    }
    text.push('\n');
    text + &grid(results).to_text(look)
}

/// For a document.
#[must_use]
pub fn markdown(results: &[Imported]) -> String {
    let mut text = "# Imported results\n\n".to_owned();
    for (index, result) in results.iter().enumerate() {
        text.push_str(&format!("- **{}**: {}; lacks: {}\n", place(index), escaped(&provenance(result)), escaped(&lacks(result))));
    }
    text + "\n" + &grid(results).to_markdown()
}

/// For a program.
#[must_use]
pub fn json(results: &[Imported]) -> impl Serialize {
    #[derive(Serialize)]
    struct ImportDocument<'a> {
        schema_version: u32,
        results: Vec<ResultDocument<'a>>,
    }
    #[derive(Serialize)]
    struct ResultDocument<'a> {
        #[serde(flatten)]
        result: &'a Imported,
        /// The same as `lacks`, in words.
        lacks_in_words: Vec<String>,
    }
    let of = |result| ResultDocument { result, lacks_in_words: result.lacks.iter().map(ToString::to_string).collect() };
    ImportDocument { schema_version: SCHEMA_VERSION, results: results.iter().map(of).collect() }
}

/// Every percentile that some file has of a latency is a column; full precision, empty where there is none.
///
/// # Errors
/// When the CSV writer fails, which it does not in memory.
pub fn csv(results: &[Imported]) -> Result<String, csv::Error> {
    let points = || results.iter().flat_map(|result| result.points.iter().map(move |point| (result, point)));
    let mut columns = Vec::<(&str, Latency, f64)>::new();
    for (name, of) in LATENCIES {
        let mut percentiles = points().flat_map(|(_, point)| of(point).at.iter().map(|(at, _)| *at)).collect::<Vec<_>>();
        percentiles.sort_by(f64::total_cmp);
        percentiles.dedup();
        columns.extend(percentiles.into_iter().map(|percentile| (name, of, percentile)));
    }
    let mut writer = csv::Writer::from_writer(Vec::new());
    let first = ["tool", "version", "file", "loop", "concurrency", "offered_calls_per_s", "calls_per_s", "output_tokens_per_s"];
    let last = ["completed", "failed", "gpus", "mean_input_tokens", "mean_output_tokens"];
    let names = columns.iter().map(|(name, _, percentile)| format!("{name}_p{percentile}_ms"));
    writer.write_record(first.map(str::to_owned).into_iter().chain(names).chain(last.map(str::to_owned)).chain(["lacks".to_owned()]))?;
    for (result, point) in points() {
        let number = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let count = |value: Option<u64>| value.map_or(String::new(), |value| value.to_string());
        let (shape, concurrency, offered) = match point.load {
            Load::Closed { concurrency } => ("closed", concurrency.to_string(), String::new()),
            Load::Open { calls_per_s } => ("open", String::new(), calls_per_s.to_string()),
            Load::NotStated => ("", String::new(), String::new()),
        };
        let first = [
            result.tool.to_owned(),
            result.version.clone().unwrap_or_default(),
            result.file.clone(),
            shape.to_owned(),
            concurrency,
            offered,
            point.calls_per_s.to_string(),
            number(point.output_tokens_per_s),
        ];
        let last = [
            count(point.completed),
            count(point.failed),
            count(point.gpus.map(u64::from)),
            number(point.mean_input_tokens),
            number(point.mean_output_tokens),
            lacks(result),
        ];
        let values = columns.iter().map(|(_, of, percentile)| number(of(point).get(*percentile)));
        writer.write_record(first.into_iter().chain(values).chain(last))?;
    }
    let bytes = writer.into_inner().map_err(|error| error.into_error())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

type Latency = fn(&Point) -> &Quantiles;
const LATENCIES: [(&str, Latency); 4] =
    [("ttft", |point| &point.ttft_ms), ("tpot", |point| &point.tpot_ms), ("itl", |point| &point.itl_ms), ("e2e", |point| &point.e2e_ms)];

fn grid(results: &[Imported]) -> Grid {
    let mut heads = vec![Head::words("file"), Head::words("load"), Head::number("calls", "/s"), Head::number("tokens", "/s")];
    for latency in ["TTFT", "TPOT", "E2E"] {
        heads.extend(["p50", "p99"].map(|percentile| Head::number(&format!("{latency} {percentile}"), "ms")));
    }
    heads.extend([Head::number("ITL p99", "ms"), Head::number("done", ""), Head::number("failed", ""), Head::number("GPUs", "")]);
    let mut grid = Grid::of(heads);
    for (index, result) in results.iter().enumerate() {
        for point in &result.points {
            let at = |quantiles: &Quantiles, percentile: f64| Cell::new(three_or_none(quantiles.get(percentile)));
            let count = |count: Option<u64>| Cell::new(count.map_or_else(|| NONE.to_owned(), |count| grouped(count as f64)));
            let mut row = vec![Cell::new(place(index)).toned(Tone::Faint), Cell::new(load(point.load))];
            row.extend([Cell::new(three(point.calls_per_s)).toned(Tone::Strong), Cell::new(three_or_none(point.output_tokens_per_s))]);
            for quantiles in [&point.ttft_ms, &point.tpot_ms, &point.e2e_ms] {
                row.extend([50.0, 99.0].map(|percentile| at(quantiles, percentile)));
            }
            row.extend([at(&point.itl_ms, 99.0), count(point.completed), count(point.failed), count(point.gpus.map(u64::from))]);
            grid.row(row);
        }
    }
    grid
}

/// How a file is told from the others in the table.
fn place(index: usize) -> String {
    format!("[{}]", index + 1)
}

fn provenance(result: &Imported) -> String {
    let version = result.version.as_ref().map_or("version not stated".to_owned(), |version| format!("version {version}"));
    let model = result.model.as_ref().map_or(String::new(), |model| format!(", model {model}"));
    format!("{}, {version}{model}, from `{}`", result.tool, result.file)
}

fn lacks(result: &Imported) -> String {
    result.lacks.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

fn load(load: Load) -> String {
    match load {
        Load::Closed { concurrency } => format!("{concurrency} in flight"),
        Load::Open { calls_per_s } => format!("{} calls/s", three(calls_per_s)),
        Load::NotStated => "not stated".to_owned(),
    }
}
