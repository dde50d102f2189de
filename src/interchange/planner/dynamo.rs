//! The profile directory of ai-dynamo's SLA planner, as JSON and as NPZ, and its mocker's table.
//!
//! | There | Means (`dynamo/profiler/utils/profile_{prefill,decode}.py`, 1.0 to 1.4) | Ours |
//! | --- | --- | --- |
//! | `prefill_isl`, `prefill_ttft` | tokens, ms of one request at a time | median from the send |
//! | `prefill_thpt_per_gpu` | isl / ttft / GPUs | the same |
//! | `x_kv_usage` | (isl + osl/2) requests / KV tokens | the same, of one replica |
//! | `y_context_length` | isl + osl/2 | the same |
//! | `z_itl` | ms between tokens of an engine that decodes | median gap: a step that only decodes |
//! | `z_thpt_per_gpu` | output tokens/s per GPU of that engine | sequences / `z_itl` / GPUs |
//! | `max_kv_tokens` | KV tokens of one engine | of one replica |
//!
//! The planner of 1.0 looks rates up in these arrays, that of 1.1 and later fits lines through times alone: the same files give different
//! answers. Neither adds headroom.

use serde_json::{Value, json};

use crate::interchange::error::ExportError;
use crate::interchange::planner::npz::{Array, archive};
use crate::interchange::planner::points::{DecodePoint, Least, Points};
use crate::interchange::planner::sidecar::Content;
use crate::record::run::RunRecord;
use crate::stats::least_squares;

/// What the stricter version wants: 1.0 four lengths for its spline and two contexts for its surface, 1.4 five points a phase.
pub(super) const LEAST: Least = Least { prefill: 5, decode: 5, contexts: 2 };
/// Rows and columns of the mocker's grid.
const GRID: usize = 32;

/// The two lines that ai-dynamo 1.1 and later fits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines {
    /// Seconds: fixed, a prompt token.
    prefill: [f64; 2],
    /// Seconds: fixed, a sequence, a KV token.
    decode: [f64; 3],
}

/// Files of the profile, what is said of it, and what to warn of.
///
/// # Errors
/// When the run has too few points, or nobody knows the size of its KV cache.
pub(super) fn files(run: &RunRecord, points: &Points) -> Result<Content, ExportError> {
    points.require(run, "dynamo", LEAST)?;
    let kv_tokens = kv_tokens(run, points, "dynamo")?;
    let gpus = f64::from(points.gpus_per_replica);
    let isl: Vec<i64> = points.prefill.iter().map(|point| i64::from(point.tokens)).collect();
    let ttft: Vec<f64> = points.prefill.iter().map(|point| point.ttft_ms).collect();
    let prefill_rate: Vec<f64> = points.prefill.iter().map(|point| 1e3 * f64::from(point.tokens) / point.ttft_ms / gpus).collect();
    let of_decode = |of: fn(&DecodePoint) -> f64| points.decode.iter().map(of).collect::<Vec<f64>>();
    let usage: Vec<f64> = points.decode.iter().map(|point| point.concurrency * point.context / kv_tokens as f64).collect();
    let (context, itl) = (of_decode(|point| point.context), of_decode(|point| point.itl_ms));
    let decode_rate: Vec<f64> = points.decode.iter().map(|point| 1e3 * point.concurrency / point.itl_ms / gpus).collect();

    let text = |document: Value| format!("{document}\n").into_bytes();
    let mut files = vec![
        ("prefill_raw_data.json".to_owned(), text(json!({"prefill_isl": isl, "prefill_ttft": ttft, "prefill_thpt_per_gpu": prefill_rate}))),
        (
            "decode_raw_data.json".to_owned(),
            text(json!({
                "x_kv_usage": usage, "y_context_length": context, "z_itl": itl, "z_thpt_per_gpu": decode_rate,
                "max_kv_tokens": kv_tokens,
            })),
        ),
        (
            "selected_prefill_interpolation/raw_data.npz".to_owned(),
            archive(&[
                ("prefill_isl", Array::Integers(isl)),
                ("prefill_ttft", Array::Floats(ttft)),
                ("prefill_thpt_per_gpu", Array::Floats(prefill_rate)),
            ]),
        ),
        (
            "selected_decode_interpolation/raw_data.npz".to_owned(),
            archive(&[
                ("x_kv_usage", Array::Floats(usage)),
                ("y_context_length", Array::Floats(context)),
                ("z_itl", Array::Floats(itl)),
                ("z_thpt_per_gpu", Array::Floats(decode_rate)),
                ("max_kv_tokens", Array::Integers(vec![i64::try_from(kv_tokens).unwrap_or(i64::MAX)])),
            ]),
        ),
    ];
    files.extend(mocker(points).map(|table| ("perf_data.npz".to_owned(), table)));
    let lines = lines(points);
    let mut warnings = doubts(points, lines.as_ref());
    let fullest = points.decode.iter().filter_map(|point| point.kv_usage).fold(0.0, f64::max);
    if fullest < FULL {
        warnings.push(format!(
            "KV usage reaches {:.1} %: ai-dynamo 1.0 looks rates up in steps of 1 %, and takes the nearest point beyond",
            fullest * 100.0
        ));
    }
    Ok(Content {
        files,
        details: json!({"kv_tokens": kv_tokens, "kv_usage_reached": fullest, "fit": lines.map(Lines::document)}),
        warnings,
    })
}

/// KV usage that a look-up table should reach.
const FULL: f64 = 0.3;
/// A cost that makes less than this share of a step at most is told from nothing by rounding alone.
const ROUNDING: f64 = 1e-6;

/// Whether ai-dynamo 1.1 and later takes these lines: it refuses those that fall with tokens.
pub(super) fn doubts(points: &Points, lines: Option<&Lines>) -> Vec<String> {
    let Some(Lines { prefill, decode }) = lines else { return vec![format!("no line can be told through these points: {REJECTED}")] };
    let most = points.decode.iter().map(|point| point.concurrency * point.context).fold(0.0, f64::max);
    let longest = points.prefill.iter().map(|point| f64::from(point.tokens)).fold(0.0, f64::max);
    let mut doubts = Vec::new();
    if prefill[1] * longest <= ROUNDING * prefill[0].abs() {
        doubts.push(format!("TTFT does not rise with prompt tokens: {REJECTED}"));
    }
    if prefill[0] < 0.0 {
        doubts.push(format!(
            "TTFT rises faster than in proportion to tokens, so that its line begins at {:.3} s: ai-dynamo 1.1 and later takes short prompts to cost nothing",
            prefill[0]
        ));
    }
    if decode[2] * most <= ROUNDING * decode[0].abs() {
        doubts.push(format!("ITL does not rise with tokens of the KV cache: {REJECTED}"));
    }
    doubts
}

const REJECTED: &str =
    "ai-dynamo 1.1 and later may take no such profile. Measure longer on a quiet machine, or a model whose contexts matter";

/// Tokens of the KV cache.
///
/// # Errors
/// When nobody knows.
pub(super) fn kv_tokens(run: &RunRecord, points: &Points, format: &'static str) -> Result<u64, ExportError> {
    points.kv_tokens.ok_or_else(|| ExportError::Lacks {
        run: run.id.clone(),
        format,
        lacks: "how many tokens the KV cache of its target holds is not known".to_owned(),
        remedy: "State it with `--kv-tokens N`: the server's log has it".to_owned(),
    })
}

/// The lines, where the points tell them.
pub(super) fn lines(points: &Points) -> Option<Lines> {
    let prefill: Vec<_> = points.prefill.iter().map(|point| ([1.0, f64::from(point.tokens)], point.ttft_ms / 1e3)).collect();
    let decode: Vec<_> = points.decode.iter().map(decode_row).collect();
    Some(Lines { prefill: least_squares::any_sign(&prefill)?, decode: least_squares::any_sign(&decode)? })
}

/// As the planner rebuilds it: whole sequences, and their tokens; seconds.
fn decode_row(point: &DecodePoint) -> ([f64; 3], f64) {
    ([1.0, point.concurrency.round(), (point.concurrency * point.context).round()], point.itl_ms / 1e3)
}

impl Lines {
    /// As the sidecar has them.
    pub(super) fn document(self) -> Value {
        let Self { prefill, decode } = self;
        json!({
            "says": "ordinary least squares, as ai-dynamo 1.1 and later fits them; it sets a cost of a sequence below 0 to 0",
            "prefill_s": {"fixed": prefill[0], "prompt_token": prefill[1]},
            "decode_s": {"fixed": decode[0], "sequence": decode[1], "kv_token": decode[2]},
        })
    }
}

/// What the mocker looks up: measured TTFT over length, and ITL on a grid of KV tokens by context, inside what was measured. Its own
/// converter goes down to a context of one token, where a line says absurd things. `None` where the points tell no plane.
fn mocker(points: &Points) -> Option<Vec<u8>> {
    let between = |low: f64, high: f64| (0..GRID).map(|step| low + (high - low) * step as f64 / (GRID - 1) as f64).collect::<Vec<_>>();
    let rows: Vec<_> = points.decode.iter().map(decode_row).collect();
    let terms = least_squares::costs(&rows)?;
    let contexts = points.contexts();
    let kv = between(0.0, rows.iter().map(|(factors, _)| factors[2]).fold(0.0, f64::max));
    let context = between(contexts.first().copied()?, contexts.last().copied()?);
    let itl = |kv: f64, context: f64| 1e3 * least_squares::at(&[1.0, (kv / context).max(1.0), kv.max(context)], &terms);
    let grid = kv.iter().flat_map(|kv| context.iter().map(|context| itl(*kv, *context)).collect::<Vec<_>>()).collect();
    Some(archive(&[
        ("prefill_isl", Array::Floats(points.prefill.iter().map(|point| f64::from(point.tokens)).collect())),
        ("prefill_ttft_ms", Array::Floats(points.prefill.iter().map(|point| point.ttft_ms).collect())),
        ("decode_active_kv_tokens", Array::Floats(kv)),
        ("decode_context_length", Array::Floats(context)),
        ("decode_itl", Array::Grid(GRID, grid)),
    ]))
}
