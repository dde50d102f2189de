//! Every choice of a campaign before it begins, and how long it will take.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::campaign::closed::ClosedWindows;
use crate::campaign::planner_levels;
use crate::campaign::windows::Windows;
use crate::clock::Nanos;
use crate::load::arrivals::OnCap;
use crate::record::slo::Slo;

/// Shares of the found rate at which the load-latency curve is measured.
const CURVE: [f64; 7] = [0.25, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1];
/// The same for `--quick`; confirmation measures 0.7, 1.0 and 1.3.
const CURVE_QUICK: [f64; 2] = [0.25, 0.5];
/// Percentile of the objectives of `--quick` that are relative to the idle reference.
pub const QUICK_PERCENTILE: f64 = 90.0;

/// What is decided before a run begins. Levels are a function of it and of what they show.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Short windows, p90, SLO relative to the idle reference.
    pub quick: bool,
    /// Lengths and sizes of open-loop levels.
    pub windows: Windows,
    /// Lengths of closed-loop levels.
    pub closed: ClosedWindows,
    /// The objectives; `None`: relative to the idle reference.
    pub slo: Option<Slo>,
    /// First probe of the search, calls/s; `None`: half the plateau.
    pub first_rate: Option<f64>,
    /// Highest concurrency of the sweep.
    pub most_concurrency: u32,
    /// Levels filled in around the knee.
    pub fill_levels: usize,
    /// Shares of the found rate that the load-latency curve is measured at.
    pub curve: Vec<f64>,
    /// Largest accepted change of the reference level.
    pub drift_limit: f64,
    /// Time for the whole campaign, on its clock.
    pub budget: Option<Nanos>,
    /// A request is given up after this long.
    pub timeout: Nanos,
    /// Most requests in flight in open loop.
    pub cap: u32,
    /// What happens to arrivals beyond it.
    pub refuse_at_cap: bool,
    /// Whether answers end when the model ends them: their lengths are then no fault.
    #[serde(default)]
    pub natural_length: bool,
    /// Whether levels for exports to planners are measured too.
    #[serde(default, skip_serializing_if = "is_not")]
    pub for_planner: bool,
    /// Seed of everything random.
    pub seed: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it with a reference")]
fn is_not(flag: &bool) -> bool {
    !flag
}

impl Plan {
    /// The published method.
    #[must_use]
    pub fn full(seed: u64) -> Self {
        Self {
            quick: false,
            windows: Windows::full(),
            closed: ClosedWindows::full(),
            slo: None,
            first_rate: None,
            most_concurrency: 1024,
            fill_levels: 3,
            curve: CURVE.to_vec(),
            drift_limit: 0.02,
            budget: None,
            timeout: Nanos::from_secs(600),
            cap: 4096,
            refuse_at_cap: false,
            natural_length: false,
            for_planner: false,
            seed,
        }
    }

    /// Indicative, under two minutes on a target that answers in tens of milliseconds.
    #[must_use]
    pub fn quick(seed: u64) -> Self {
        Self {
            quick: true,
            windows: Windows::quick(),
            closed: ClosedWindows::quick(),
            most_concurrency: 1024,
            fill_levels: 0,
            curve: CURVE_QUICK.to_vec(),
            // What a shared machine's own clock does from one second to the next.
            drift_limit: 0.20,
            timeout: Nanos::from_secs(30),
            ..Self::full(seed)
        }
    }

    /// The percentiles that are judged, such as `p99`.
    #[must_use]
    pub fn percentiles(&self) -> String {
        let given = self.slo.iter().flat_map(|slo| &slo.objectives).map(|objective| objective.percentile);
        let mut percentiles: Vec<f64> = if self.slo.is_some() { given.collect() } else { vec![QUICK_PERCENTILE] };
        percentiles.sort_by(f64::total_cmp);
        percentiles.dedup();
        percentiles.iter().map(|percentile| format!("p{percentile}")).collect::<Vec<_>>().join(" and ")
    }

    /// What stands beside every number of a quick run.
    #[must_use]
    pub fn label(&self) -> Option<String> {
        self.quick.then(|| format!("quick: {}, indicative", self.percentiles()))
    }

    /// What arrivals do at the cap.
    #[must_use]
    pub fn on_cap(&self) -> OnCap {
        if self.refuse_at_cap { OnCap::Refuse } else { OnCap::Wait }
    }

    /// A guess at what there is to do, when a request takes `e2e_s` seconds alone and the target serves up to
    /// `calls_per_s`, with all lengths multiplied by `pace`.
    #[must_use]
    pub fn expected(&self, e2e_s: f64, calls_per_s: f64, pace: f64) -> Expected {
        let (windows, closed) = (self.windows.scaled(pace), self.closed.scaled(pace));
        let closed_s = closed.min.as_secs_f64().max(3.0 * e2e_s) * 1.5 + 2.0 * e2e_s;
        let sweep_levels = 7.0 + self.fill_levels as f64;
        let allowed = self.slo.as_ref().map_or(if self.quick { 0.1 } else { 0.01 }, |slo| {
            slo.objectives.iter().map(crate::record::slo::Objective::allowed_miss_share).fold(1.0, f64::min)
        });
        let requests = 4.6 / allowed / calls_per_s.max(1e-9);
        let warm_up = 4.0 * e2e_s;
        let look = windows.window_min.as_secs_f64().max(20.0 * windows.block_min.as_secs_f64().max(2.0 * e2e_s)).max(requests);
        let look = look.min(windows.window_max.as_secs_f64().max(3.0 * e2e_s));
        let fixed = windows.confirmation.as_secs_f64().max(3.0 * e2e_s);
        let confirmed = f64::from(windows.confirmation_runs) * 3.0;
        Expected {
            sweep_s: sweep_levels * closed_s,
            search_s: SEARCH_LEVELS * (look * 1.5 + warm_up),
            confirmation_s: confirmed * (fixed + warm_up),
            curve_s: self.curve.len() as f64 * (windows.curve.as_secs_f64().max(3.0 * e2e_s) + warm_up),
            planner_s: if self.for_planner { planner_levels::ABOUT as f64 * closed_s } else { 0.0 },
            reference_s: closed_s,
        }
    }

    /// Names the plan, and what it is carried out on: a run is resumed only where all of it is the same. Not its budget:
    /// more time may be given to a run that had too little.
    #[must_use]
    pub fn hash(&self, circumstances: &[&str]) -> String {
        let text = serde_json::to_string(&Self { budget: None, ..self.clone() }).unwrap_or_default();
        let digest = circumstances.iter().fold(Sha256::new().chain_update(text), |digest, each| {
            // Its length first: two texts shall not run into each other.
            digest.chain_update((each.len() as u64).to_le_bytes()).chain_update(each)
        });
        digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Probes that a search takes, about.
const SEARCH_LEVELS: f64 = 7.0;

/// Under a budget: three rates in each confirmation run, and room for three more.
pub const ROOM: f64 = 2.0;

/// Seconds that the stages of a campaign will take, about.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expected {
    /// Rising concurrency.
    pub sweep_s: f64,
    /// Open-loop search.
    pub search_s: f64,
    /// All confirmation runs.
    pub confirmation_s: f64,
    /// The load-latency curve.
    pub curve_s: f64,
    /// Levels for exports to planners.
    pub planner_s: f64,
    /// One reference level.
    pub reference_s: f64,
}

impl Expected {
    /// What has to be done after the sweep; the curve moves no number, and gets what is left.
    #[must_use]
    pub fn after_sweep_s(&self) -> f64 {
        self.search_s + ROOM * self.confirmation_s + self.planner_s + self.reference_s
    }

    /// A whole campaign.
    #[must_use]
    pub fn total_s(&self) -> f64 {
        2.0 * self.reference_s + self.sweep_s + self.search_s + self.confirmation_s + self.curve_s + self.planner_s
    }
}
