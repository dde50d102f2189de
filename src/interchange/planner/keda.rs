//! A trigger for KEDA, and the same for a horizontal pod autoscaler: replicas are the rate over the threshold, rounded up.
//!
//! The threshold is what one replica holds at the SLO over 1 + headroom: headroom is inside it, and nothing after it adds any.

use serde_json::json;

use crate::interchange::cohort::file_part;
use crate::interchange::error::ExportError;
use crate::interchange::planner::rate;
use crate::interchange::planner::sidecar::{Comments, Content};
use crate::record::run::RunRecord;

/// The rate of calls, where nobody gives another query.
pub const QUERY: &str = "sum(rate(vllm:request_success_total[1m]))";
/// Decimals of a Kubernetes quantity.
const DECIMALS: usize = 9;

/// The two manifests, and what is said of them.
///
/// # Errors
/// When the run has no rate at its SLO.
pub(super) fn files(run: &RunRecord, headroom: f64, query: Option<&str>, comments: &Comments) -> Result<Content, ExportError> {
    let rate = rate::of(run, "keda")?;
    let threshold = threshold(rate.planned / (1.0 + headroom));
    let name = object_name(&run.target.model);
    let said = format!(
        "{}# One replica holds {} calls/s at {}; threshold = that / (1 + {headroom}).\n\
         # Successes saturate in overload and hide demand: put a query of arrivals at the gateway in place (`--query`).\n",
        comments.text(),
        rate.planned,
        rate.throughput.slo.as_deref().unwrap_or("its SLO"),
    );
    let query = json!(query.unwrap_or(QUERY));
    let keda = format!(
        "{said}apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nmetadata:\n  name: {name}\nspec:\n  scaleTargetRef:\n    name: {name}\n  \
         minReplicaCount: 1\n  triggers:\n    - type: prometheus\n      metricType: AverageValue\n      metadata:\n        \
         serverAddress: \"http://prometheus:9090\"\n        query: {query}\n        threshold: \"{threshold}\"\n        \
         activationThreshold: \"0\"\n"
    );
    let hpa = format!(
        "{said}# The metric is what an adapter makes of {query}.\napiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\n\
         metadata:\n  name: {name}\nspec:\n  scaleTargetRef:\n    apiVersion: apps/v1\n    kind: Deployment\n    name: {name}\n  \
         minReplicas: 1\n  maxReplicas: 100\n  metrics:\n    - type: External\n      external:\n        metric:\n          \
         name: inference_calls_per_second\n        target:\n          type: AverageValue\n          averageValue: \"{threshold}\"\n"
    );
    let details = json!({
        "replica_calls_per_s": rate.planned,
        "headroom": headroom,
        "threshold": threshold,
        "says": "replicas = ceil(calls/s / threshold). Names of workloads and the server's address are to be filled in",
    });
    Ok(Content {
        files: vec![("scaledobject.yaml".to_owned(), keda.into_bytes()), ("hpa.yaml".to_owned(), hpa.into_bytes())],
        details,
        warnings: Vec::new(),
    })
}

/// As a Kubernetes quantity, cut and not rounded: a lower threshold is a replica more, never one less.
fn threshold(calls_per_s: f64) -> String {
    let written = format!("{calls_per_s:.*}", DECIMALS + 3);
    let cut = written.len() - 3;
    written[..cut].trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A model's name as a name of Kubernetes: lower case, digits and hyphens, 63 at most.
fn object_name(model: &str) -> String {
    let plain = file_part(model).to_ascii_lowercase().replace(['.', '_'], "-");
    let plain: String = plain.trim_matches('-').chars().take(63).collect();
    let plain = plain.trim_end_matches('-');
    if plain.is_empty() { "model".to_owned() } else { plain.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::{object_name, threshold};

    #[test]
    fn a_threshold_is_cut_to_what_a_quantity_holds_and_a_name_is_one_of_kubernetes() {
        assert_eq!(threshold(13.0 / 1.25), "10.4");
        assert_eq!(threshold(2.0 / 3.0), "0.666666666");
        assert_eq!(threshold(8.0), "8");
        assert_eq!(object_name("meta-llama/Llama-3.1-8B_x"), "llama-3-1-8b-x");
        assert_eq!(object_name("///"), "model");
    }
}
