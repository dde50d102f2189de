//! The small run with planner levels of a known law: a pass takes 6 ms, 0.05 ms for each token computed, 0.0001 ms for each token read.

use plimsoll::interchange::error::ExportError;
use plimsoll::interchange::export::File;
use plimsoll::interchange::planner::export::{Asked, PlannerExport};
use plimsoll::interchange::planner::form::Form;
use plimsoll::record::level::{Distribution, LevelRecord, Offered, Purpose};
use plimsoll::record::run::RunRecord;
use serde_json::Value;

use crate::small_run;

/// Milliseconds of a pass, of a computed token, of a read one.
pub(crate) const ALPHA: f64 = 6.0;
pub(crate) const BETA: f64 = 0.05;
pub(crate) const GAMMA: f64 = 1e-4;
/// Tokens of each answer of a decode level.
const ANSWER: u32 = 64;

pub(crate) fn prefill(index: u32, tokens: u32) -> LevelRecord {
    let millis = ALPHA + (BETA + GAMMA) * f64::from(tokens);
    let purpose = Purpose::PlannerPrefill { prompt_tokens: tokens, output_tokens: 2 };
    level(index, purpose, 1, millis, ALPHA)
}

pub(crate) fn decode(index: u32, prompt: u32, concurrency: u32) -> LevelRecord {
    let context = f64::from(prompt) + 0.5 * f64::from(ANSWER);
    let millis = ALPHA + f64::from(concurrency) * (BETA + GAMMA * context);
    level(index, Purpose::PlannerDecode { prompt_tokens: prompt, output_tokens: ANSWER }, concurrency, 3.0 * millis, millis)
}

fn level(index: u32, purpose: Purpose, concurrency: u32, ttft_ms: f64, itl_ms: f64) -> LevelRecord {
    let mut level = small_run::confirmed().levels.swap_remove(1);
    let around = |millis: f64| {
        let (p50, p90) = (Some(millis), Some(millis * 1.1));
        Distribution { count: 500, undefined: 0, mean: p50, p50, p90, p95: p90, p99: p90, max: p90 }
    };
    (level.index, level.purpose, level.offered) = (index, purpose, Offered::Closed { concurrency });
    level.latency.ttft_service.raw = around(ttft_ms);
    level.latency.itl_per_token = around(itl_ms);
    level
}

/// The run: five prompt lengths, three contexts under three concurrencies.
pub(crate) fn run() -> RunRecord {
    let mut run = small_run::confirmed();
    let first = run.levels.len() as u32;
    run.levels.extend([64, 128, 256, 512, 1024].into_iter().zip(first..).map(|(tokens, index)| prefill(index, tokens)));
    let shapes = [128, 512, 960].into_iter().flat_map(|prompt| [1, 4, 16].map(|concurrency| (prompt, concurrency)));
    run.levels.extend(shapes.zip(first + 5..).map(|((prompt, concurrency), index)| decode(index, prompt, concurrency)));
    run
}

/// All files of a form that needs no requests.
pub(crate) fn exported(run: &RunRecord, form: Form, asked: Asked) -> Result<Vec<File>, ExportError> {
    Ok(PlannerExport::new(run, form, run.levels.iter().collect(), asked, false)?.finish()?.0)
}

/// As `exported`, with a headroom of a quarter.
pub(crate) fn files(run: &RunRecord, form: Form) -> Vec<File> {
    exported(run, form, Asked { headroom: 0.25, ..Asked::default() }).unwrap()
}

/// The file whose name ends so.
pub(crate) fn find<'a>(files: &'a [File], ending: &str) -> &'a File {
    let names = files.iter().map(|file| file.name.as_str()).collect::<Vec<_>>();
    files.iter().find(|file| file.name.ends_with(ending)).unwrap_or_else(|| panic!("`{ending}` is not among {names:?}"))
}

pub(crate) fn json(files: &[File], ending: &str) -> Value {
    serde_json::from_slice(&find(files, ending).bytes).unwrap()
}

pub(crate) fn text(files: &[File], ending: &str) -> String {
    String::from_utf8(find(files, ending).bytes.clone()).unwrap()
}

#[track_caller]
pub(crate) fn near(value: f64, wanted: f64, tolerance: f64) {
    assert!((value - wanted).abs() <= tolerance * wanted.abs(), "{value} is not {wanted}");
}
