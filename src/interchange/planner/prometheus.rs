//! The capacity of a run as gauges in Prometheus' text form (exposition format 0.0.4).

use serde_json::json;

use jiff::Timestamp;

use crate::interchange::error::ExportError;
use crate::interchange::planner::points::replicas;
use crate::interchange::planner::rate;
use crate::interchange::planner::sidecar::{Comments, Content, labels};
use crate::record::node::GpuTelemetry;
use crate::record::run::RunRecord;

/// The gauges, and what is said of them.
///
/// # Errors
/// When the run has no rate at its SLO.
pub(super) fn files(run: &RunRecord, comments: &Comments) -> Result<Content, ExportError> {
    let rate = rate::of(run, "prometheus")?;
    let throughput = &rate.throughput;
    let gpu = run.node.telemetry.gpus().first().filter(|_| throughput.device_noun == "GPU");
    let identity = [("run", run.id.clone()), ("model", run.target.model.clone()), ("device", run.target.device.clone())];
    let facts = [
        ("gpu_uuid", gpu.map(|gpu| gpu.uuid.clone()).unwrap_or_default()),
        ("driver", driver(run).unwrap_or_default()),
        ("precision", run.target.precision.clone()),
        ("slo", throughput.slo.clone().unwrap_or_default()),
        ("counted", throughput.device_noun.to_owned()),
        ("labels", labels(run).join("; ")),
        ("plimsoll", run.version.clone()),
    ];
    let ends = throughput.ends.map_or((throughput.planned, throughput.planned), |ends| ends);
    let created = run.created.parse::<Timestamp>().map_or(f64::NAN, |created| created.as_nanosecond() as f64 / 1e9);
    let gauges = [
        (
            "plimsoll_slo_requests_per_second_per_gpu",
            "Calls per second and GPU at the highest load that meets the SLO, without headroom.",
            throughput.point.get(),
        ),
        ("plimsoll_slo_requests_per_second_per_gpu_lower_bound", "Lower end of its 95 % interval: what a plan divides by.", ends.0.get()),
        ("plimsoll_slo_requests_per_second_per_gpu_upper_bound", "Upper end of its 95 % interval.", ends.1.get()),
        ("plimsoll_slo_gpus_per_replica", "GPUs of one replica.", f64::from(replicas(run).1)),
        ("plimsoll_calibration_timestamp_seconds", "When the run began, in seconds since 1970.", created),
    ];
    let of_run = series(identity.iter());
    let mut text = comments.text();
    text.push_str("# HELP plimsoll_capacity_info What was measured, and under which labels.\n# TYPE plimsoll_capacity_info gauge\n");
    text.push_str(&format!("plimsoll_capacity_info{} 1\n", series(identity.iter().chain(&facts))));
    for (name, help, value) in gauges.into_iter().filter(|(.., value)| value.is_finite()) {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name}{of_run} {value}\n"));
    }
    Ok(Content::one("plimsoll.prom", text.into_bytes(), json!({"says": "no headroom is inside"})))
}

fn driver(run: &RunRecord) -> Option<String> {
    match &run.node.telemetry {
        GpuTelemetry::Available(inventory) => inventory.software.driver.value().cloned(),
        GpuTelemetry::Unavailable { .. } => None,
    }
}

/// Labels as the text form has them.
fn series<'a>(labels: impl Iterator<Item = &'a (&'static str, String)>) -> String {
    let quoted = labels.map(|(name, value)| {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        format!("{name}=\"{value}\"")
    });
    format!("{{{}}}", quoted.collect::<Vec<_>>().join(","))
}
