//! Several measurements under one demand: one row each, the cheapest first.

use serde::Serialize;

use crate::capacity::plan::Plan;
use crate::record::finding::{Finding, Severity};

/// One measurement, planned with.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Run or file, as it was named.
    pub name: String,
    /// GPU, where it is known.
    pub kind: Option<String>,
    /// What a device of it is called.
    pub device_noun: &'static str,
    /// Calls/s per GPU that the plan divides by.
    pub throughput_per_gpu: f64,
    /// GPUs owned, spares included.
    pub gpus: u64,
    /// Nodes of those, where nodes are counted.
    pub nodes: Option<u64>,
    /// Of the fleet; `None` without a price.
    pub cost_per_hour: Option<f64>,
    /// Per million answer tokens at the average load; `None` without a price or a length.
    pub cost_per_million_tokens: Option<f64>,
    /// Per successful outcome at the average load; `None` without a price.
    pub cost_per_outcome: Option<f64>,
    /// The whole plan.
    pub plan: Plan,
}

/// One that cannot be planned with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Run or file, as it was named.
    pub name: String,
    /// Why not.
    pub why: String,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The peak that rows are for: the planned one, else the first scenario.
    pub peak: String,
    /// Those with a price by their cost, then the others by their GPUs.
    pub rows: Vec<Candidate>,
    /// Those that are not among the rows.
    pub refused: Vec<Refused>,
    /// What keeps rows from being compared.
    pub findings: Vec<Finding>,
}

impl Comparison {
    /// Of plans under one demand.
    #[must_use]
    pub fn of(plans: Vec<(String, Plan)>, refused: Vec<Refused>) -> Self {
        let mut rows: Vec<Candidate> = plans.into_iter().filter_map(|(name, plan)| candidate(name, plan)).collect();
        rows.sort_by(|one, other| {
            let cost = |row: &Candidate| row.cost_per_hour.unwrap_or(f64::INFINITY);
            cost(one).total_cmp(&cost(other)).then(one.gpus.cmp(&other.gpus)).then_with(|| one.name.cmp(&other.name))
        });
        let peak = rows.first().and_then(|row| row.plan.requirements.first()).map_or_else(String::new, |first| first.name.clone());
        let findings = findings(&rows);
        Self { peak, rows, refused, findings }
    }
}

fn candidate(name: String, plan: Plan) -> Option<Candidate> {
    let fleet = plan.requirements.first()?.fleet;
    let throughput = &plan.inputs.throughput;
    Some(Candidate {
        name,
        kind: throughput.operating.kind.clone(),
        device_noun: throughput.device_noun,
        throughput_per_gpu: throughput.planned.get(),
        gpus: fleet.gpus,
        nodes: fleet.nodes,
        cost_per_hour: fleet.cost.map(|cost| cost.per_hour),
        cost_per_million_tokens: fleet.cost.and_then(|cost| cost.per_million_tokens_at_average),
        cost_per_outcome: fleet.cost.map(|cost| cost.per_output_at_average),
        plan,
    })
}

/// Rates at different objectives, or of different calls, are not rates of the same thing.
fn findings(rows: &[Candidate]) -> Vec<Finding> {
    let mut found = Vec::new();
    let differ = |of: &dyn Fn(&Candidate) -> Option<String>| {
        let mut all: Vec<String> = rows.iter().map(|row| of(row).unwrap_or_else(|| "none".to_owned())).collect();
        all.sort();
        all.dedup();
        (all.len() > 1).then(|| all.join("; "))
    };
    if let Some(all) = differ(&|row| row.plan.inputs.throughput.slo.clone()) {
        found.push(Finding::new(
            "slo_differs",
            Severity::Serious,
            format!("the rows hold at different objectives: {all}"),
            "Read all of them at one: `--slo`, or measure with it",
        ));
    }
    let mix =
        |row: &Candidate| row.plan.inputs.throughput.mix.map(|mix| format!("{:.0} prompt and {:.0} answer tokens", mix.input, mix.output));
    if let Some(all) = differ(&mix) {
        found.push(Finding::new(
            "workload_differs",
            Severity::Warning,
            format!("the rows were measured with different calls: {all}"),
            "Measure all of them with one workload, the demand's own: `plimsoll demand LOG --workload-out FILE`",
        ));
    }
    if rows.iter().any(|row| row.cost_per_hour.is_none()) && rows.iter().any(|row| row.cost_per_hour.is_some()) {
        found.push(Finding::new(
            "price_unknown",
            Severity::Note,
            "some rows have no price and stand last",
            "Give one with `--price-per-gpu-hour KIND=PRICE`",
        ));
    }
    found
}
