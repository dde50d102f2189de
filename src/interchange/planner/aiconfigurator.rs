//! AIConfigurator's table for load matching: a row a load level of one replica, a subset of its `ColumnsAgg`
//! (`aiconfigurator_core/sdk/common.py`, 0.12).
//!
//! `pick_load_match` filters on TPOT or request latency, never on TTFT, and multiplies `seq/s` without headroom. So only open-loop levels
//! that met the whole SLO are rows, at no more than the published rate: whichever it picks, a replica holds it. Where no row meets its
//! own target it takes the nearest one all the same.

use serde_json::json;

use crate::interchange::error::ExportError;
use crate::interchange::planner::points::replicas;
use crate::interchange::planner::rate;
use crate::interchange::planner::sidecar::Content;
use crate::record::level::{LevelRecord, ObjectiveJudgement, Offered};
use crate::record::run::RunRecord;
use crate::record::verdict::Outcome;

const COLUMNS: [&str; 23] = [
    "model",
    "isl",
    "osl",
    "prefix",
    "concurrency",
    "request_rate",
    "bs",
    "global_bs",
    "ttft",
    "tpot",
    "request_latency",
    "seq/s",
    "seq/s/gpu",
    "tokens/s",
    "tokens/s/gpu",
    "tokens/s/user",
    "num_total_gpus",
    "tp",
    "pp",
    "dp",
    "parallel",
    "backend",
    "plimsoll_level",
];
/// Rates are the same within this, relative.
const SAME_RATE: f64 = 1e-9;

/// The table, and what is said of it.
///
/// # Errors
/// When the run has no rate at its SLO, or no level that met it.
pub(super) fn files(run: &RunRecord, levels: &[&LevelRecord]) -> Result<Content, ExportError> {
    let rate = rate::of(run, "aic")?;
    let (count, gpus) = replicas(run);
    let held = |level: &&&LevelRecord| match level.offered {
        Offered::Open { calls_per_s, .. } => {
            level.verdict.is_valid() && met(level) && calls_per_s / f64::from(count) <= rate.published * (1.0 + SAME_RATE)
        }
        Offered::Closed { .. } => false,
    };
    let held: Vec<&&LevelRecord> = levels.iter().filter(held).collect();
    let rows: Vec<[String; COLUMNS.len()]> = held.iter().filter_map(|level| row(run, level, f64::from(count), gpus)).collect();
    if rows.is_empty() {
        return Err(ExportError::Lacks {
            run: run.id.clone(),
            format: "aic",
            lacks: "no open-loop level of it met the SLO at or under the published rate, with answers of two tokens and more".to_owned(),
            remedy: "Measure with `plimsoll bench`, without `--quick`: its load-latency curve has such levels".to_owned(),
        });
    }
    let mut text = COLUMNS.join(",") + "\n";
    text.extend(rows.iter().map(|row| row.join(",") + "\n"));
    let details = json!({
        "rows": rows.len(),
        "replica_calls_per_s": {"published": rate.published, "plan_divides_by": rate.planned},
        "says": "ms and calls/s of open-loop levels that met the SLO; latencies are means; concurrency is the mean in flight; \
                 several GPUs of one server are taken for tensor parallel",
    });
    Ok(Content::one("load_match.csv", text.into_bytes(), details))
}

/// A quick run leaves levels undecided that missed less than is allowed.
fn met(level: &LevelRecord) -> bool {
    let within =
        |objective: &ObjectiveJudgement| objective.requests > 0 && objective.miss_share <= objective.objective.allowed_miss_share();
    let objectives = &level.slo.objectives;
    match level.verdict.outcome {
        Outcome::Met => true,
        Outcome::Undecided => !objectives.is_empty() && objectives.iter().all(within),
        _ => false,
    }
}

fn row(run: &RunRecord, level: &LevelRecord, replicas: f64, gpus: u32) -> Option<[String; COLUMNS.len()]> {
    let Offered::Open { calls_per_s, .. } = level.offered else { return None };
    let latency = &level.latency;
    let (ttft, tpot, e2e) = (latency.ttft.raw.mean?, latency.tpot.raw.mean.filter(|tpot| *tpot > 0.0)?, latency.e2e.raw.mean?);
    let made = (level.traffic.made as f64).max(1.0);
    let mean = |tokens: u64, otherwise: f64| if level.traffic.made > 0 { tokens as f64 / made } else { otherwise };
    let concurrency = (level.in_flight.mean / replicas).round().max(1.0);
    // A short window may see a few more end than were sent in it.
    let calls = level.throughput.completions_per_s.min(calls_per_s) / replicas;
    let tokens = level.throughput.output_tokens_per_s / replicas;
    let number = |value: f64| value.to_string();
    Some([
        plain(&run.target.model),
        number(mean(level.traffic.prompt_tokens, run.workload.mean_input_tokens).round()),
        number(mean(level.traffic.output_tokens, run.workload.mean_output_tokens).round()),
        number(0.0),
        number(concurrency),
        number(calls_per_s / replicas),
        number(concurrency),
        number(concurrency),
        number(ttft),
        number(tpot),
        number(e2e),
        number(calls),
        number(calls / f64::from(gpus)),
        number(tokens),
        number(tokens / f64::from(gpus)),
        number(1e3 / tpot),
        gpus.to_string(),
        gpus.to_string(),
        "1".to_owned(),
        "1".to_owned(),
        format!("tp{gpus}pp1"),
        plain(&run.target.kind),
        level.index.to_string(),
    ])
}

/// A name as a field that needs no quotes.
fn plain(name: &str) -> String {
    name.chars().map(|letter| if letter == ',' || letter == '"' || letter.is_control() { ' ' } else { letter }).collect()
}
