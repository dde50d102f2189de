//! llm-d's two models of a replica: queue-analysis with three parameters, and the four of its variant autoscaler before 2026, which are
//! legacy.
//!
//! queue-analysis (`pkg/analyzer/queueanalyzer.go`): an iteration takes `alpha + beta x tokens computed + gamma x tokens read`, ms. So a
//! prefill alone takes `alpha + (beta + gamma) x tokens`, and a decoded token `alpha + n (beta + gamma x context)`: both are fitted at
//! once, every residual as a share of its value, no parameter below 0. The older one: ITL is `alpha + beta x batch`, TTFT
//! `gamma + delta x tokens x batch`.

use serde_json::json;

use crate::interchange::error::ExportError;
use crate::interchange::planner::points::{DecodePoint, Least, Points};
use crate::interchange::planner::rate;
use crate::interchange::planner::sidecar::{Comments, Content};
use crate::record::run::RunRecord;
use crate::record::slo::SloMetric;
use crate::stats::least_squares;

/// A line needs two points, and one more to be seen as wrong.
const LEAST: Least = Least { prefill: 3, decode: 3, contexts: 1 };

/// The request of queue-analysis, and what is said of it.
///
/// # Errors
/// When the run has too few points, or no rate at its SLO.
pub(super) fn queue(run: &RunRecord, points: &Points) -> Result<Content, ExportError> {
    let rate = rate::of(run, "llmd-queue")?;
    points.require(run, "llmd-queue", Least { contexts: 2, ..LEAST })?;
    let prefill = points.prefill.iter().map(|point| {
        let tokens = f64::from(point.tokens);
        ([1.0, tokens, tokens], point.ttft_ms)
    });
    let decode = points.decode.iter().map(|point| ([1.0, point.concurrency, point.concurrency * point.context], point.itl_ms));
    let rows: Vec<_> = prefill.chain(decode).map(|(factors, millis)| (factors.map(|factor| factor / millis), 1.0)).collect();
    let terms = least_squares::costs(&rows).ok_or_else(|| untold(run, "llmd-queue"))?;
    let [alpha, beta, gamma] = terms;
    let limit = |metric| {
        let objectives = run.slo.iter().flat_map(|slo| &slo.objectives).filter(|objective| objective.metric == metric);
        objectives.map(|objective| objective.limit.as_millis_f64()).fold(0.0, f64::max)
    };
    let (ttft, itl) = (limit(SloMetric::Ttft), limit(SloMetric::Tpot));
    // What can be answered within the limit is worth queueing.
    let queue = (rate.planned * ttft / 1e3).ceil().max(1.0);
    let request = json!({
        "RPS": rate.planned,
        "maxBatchSize": batch(run, points),
        "AvgInputTokens": run.workload.mean_input_tokens,
        "AvgOutputTokens": run.workload.mean_output_tokens,
        "alpha": alpha,
        "beta": beta,
        "gamma": gamma,
        "maxQueueSize": queue as u64,
        "targetTTFT": ttft,
        "targetITL": itl,
    });
    let details = json!({
        "worst_residual_share": least_squares::worst(&rows, &terms),
        "says": "RPS is what one replica holds at the measured SLO, the lower end of its interval. The targets are the limits of percentiles; \
                 the model knows means only, so it says more than a percentile allows",
    });
    Ok(Content::one("request.json", format!("{request:#}\n").into_bytes(), details))
}

/// The legacy parameters, and what is said of them.
///
/// # Errors
/// When the run has too few points.
pub(super) fn perfparms(run: &RunRecord, points: &Points, comments: &Comments) -> Result<Content, ExportError> {
    points.require(run, "llmd-perfparms", LEAST)?;
    let lines = Lines::of(run, points).ok_or_else(|| untold(run, "llmd-perfparms"))?;
    let [gamma, delta] = lines.prefill;
    let [alpha, beta] = lines.decode;
    let text = format!(
        "{}# Legacy: gone from the custom resource in February 2026. The decode line is at a context of {} tokens.\n\
         modelProfile:\n  accelerators:\n    - acc: {}\n      accCount: {}\n      maxBatchSize: {}\n      perfParms:\n        \
         decodeParms: {{alpha: \"{alpha}\", beta: \"{beta}\"}}\n        prefillParms: {{gamma: \"{gamma}\", delta: \"{delta}\"}}\n",
        comments.text(),
        lines.context,
        json!(accelerator(run)),
        points.gpus_per_replica,
        batch(run, points),
    );
    let details = json!({"context": lines.context, "worst_residual_share": lines.worst});
    Ok(Content::one("perfparms.yaml", text.into_bytes(), details))
}

/// Idle TTFT over prompt length, and ITL over sequences at one context, in ms.
pub(super) struct Lines {
    pub(super) prefill: [f64; 2],
    pub(super) decode: [f64; 2],
    /// The context that lies nearest to the traffic's.
    pub(super) context: f64,
    /// Residual of the worst point, as a share of it.
    pub(super) worst: f64,
}

impl Lines {
    /// `None` where the points do not tell them.
    pub(super) fn of(run: &RunRecord, points: &Points) -> Option<Self> {
        let mean = run.workload.mean_input_tokens + 0.5 * run.workload.mean_output_tokens;
        let apart = |context: &f64| (context / mean).ln().abs();
        let several = |context: &f64| points.decode.iter().filter(|point| point.context == *context).count() > 1;
        let context = points.contexts().into_iter().filter(several).min_by(|one, other| apart(one).total_cmp(&apart(other)))?;
        let prefill: Vec<_> = points.prefill.iter().map(|point| ([1.0, f64::from(point.tokens)], point.ttft_ms)).collect();
        let at = |point: &&DecodePoint| point.context == context;
        let decode: Vec<_> = points.decode.iter().filter(at).map(|point| ([1.0, point.concurrency], point.itl_ms)).collect();
        let (of_prefill, of_decode) = (least_squares::costs(&prefill)?, least_squares::costs(&decode)?);
        let worst = least_squares::worst(&prefill, &of_prefill).max(least_squares::worst(&decode, &of_decode));
        Some(Self { prefill: of_prefill, decode: of_decode, context, worst })
    }
}

/// Points that lie so that no line is told.
pub(super) fn untold(run: &RunRecord, format: &'static str) -> ExportError {
    ExportError::Lacks {
        run: run.id.clone(),
        format,
        lacks: "its points do not tell a fixed cost from one of each token and sequence".to_owned(),
        remedy: format!("{} with room for more concurrency (`--max-concurrency`, a larger KV cache)", super::points::MEASURE),
    }
}

/// Most sequences at once: as the target says, else as many as were measured.
pub(super) fn batch(run: &RunRecord, points: &Points) -> u32 {
    let measured = points.decode.iter().map(|point| point.concurrency).fold(1.0, f64::max);
    run.target.batch.max_sequences.unwrap_or(measured.round() as u32)
}

fn accelerator(run: &RunRecord) -> String {
    let gpu = run.node.telemetry.gpus().first().filter(|_| run.target.device_noun() == "GPU");
    gpu.map_or_else(|| run.target.device.clone(), |gpu| gpu.name.clone())
}
