//! Records of forward passes as ai-dynamo's workers answer `get_perf_metrics`, schema 1 (`dynamo/common/forward_pass_metrics.py`).
//!
//! One record a point: the median pass of a level. A prompt longer than a step took several passes, and its record has the time of all.

use serde_json::{Value, json};

use crate::interchange::error::ExportError;
use crate::interchange::planner::dynamo::{self, LEAST};
use crate::interchange::planner::points::Points;
use crate::interchange::planner::sidecar::Content;
use crate::record::run::RunRecord;

/// The answer, what is said of it, and what to warn of.
///
/// # Errors
/// When the run has too few points.
pub(super) fn files(run: &RunRecord, points: &Points) -> Result<Content, ExportError> {
    points.require(run, "dynamo-fpm", LEAST)?;
    let prefill = points.prefill.iter().map(|point| {
        let scheduled = json!({"num_prefill_requests": 1, "sum_prefill_tokens": point.tokens});
        ("prefill", point.ttft_ms, scheduled)
    });
    let decode = points.decode.iter().map(|point| {
        // Sequences of one level are spread evenly over their answers: contexts from the prompt to prompt and answer.
        let answer = run.levels.iter().find(|level| level.index == point.level).and_then(|level| level.purpose.lengths());
        let variance = answer.map_or(0.0, |(_, output)| f64::from(output).powi(2) / 12.0);
        let scheduled = json!({
            "num_decode_requests": point.concurrency.round() as u64,
            "sum_decode_kv_tokens": (point.concurrency * point.context).round() as u64,
            "var_decode_kv_tokens": if point.concurrency > 1.0 { variance } else { 0.0 },
        });
        ("decode", point.itl_ms, scheduled)
    });
    let record = |(index, (kind, millis, scheduled)): (usize, (&str, f64, Value))| {
        json!({
            "point": {"point_type": kind},
            "fpms": [{
                "version": 1,
                "worker_id": format!("plimsoll-{}", run.id),
                "dp_rank": 0,
                "counter_id": index + 1,
                "wall_time": millis / 1e3,
                "scheduled_requests": scheduled,
                "queued_requests": {},
            }],
        })
    };
    let results: Vec<Value> = prefill.chain(decode).enumerate().map(record).collect();
    let lines = dynamo::lines(points);
    let warnings = dynamo::doubts(points, lines.as_ref());
    let text = format!("{:#}\n", json!({"results": results})).into_bytes();
    Ok(Content {
        files: vec![("get_perf_metrics.json".to_owned(), text)],
        details: json!({"fit": lines.map(dynamo::Lines::document)}),
        warnings,
    })
}
