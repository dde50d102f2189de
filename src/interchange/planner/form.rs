//! The forms: what each is called, who reads it, and with which version of the reader such a file was checked.

/// A form for a planner, an autoscaler or a simulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Profile directory of ai-dynamo's SLA planner, and the table of its mocker.
    Dynamo,
    /// Records of forward passes, as ai-dynamo's `get_perf_metrics` gives them.
    DynamoFpm,
    /// AIConfigurator's table for load matching.
    Aic,
    /// Request of queue-analysis, with its three parameters.
    LlmdQueue,
    /// `perfParms` of llm-d's variant autoscaler before February 2026.
    LlmdPerfparms,
    /// Latency profile of llm-d's inference simulator.
    InferenceSim,
    /// Training entries of llm-d's latency predictor.
    LatencyPredictor,
    /// Trace of Vidur.
    Vidur,
    /// `ScaledObject` of KEDA, and the same for a horizontal pod autoscaler.
    Keda,
    /// Gauges in Prometheus' text form.
    Prometheus,
    /// A row a level.
    Csv,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Dynamo,
        Self::DynamoFpm,
        Self::Aic,
        Self::LlmdQueue,
        Self::LlmdPerfparms,
        Self::InferenceSim,
        Self::LatencyPredictor,
        Self::Vidur,
        Self::Keda,
        Self::Prometheus,
        Self::Csv,
    ];

    /// As it is named on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dynamo => "dynamo",
            Self::DynamoFpm => "dynamo-fpm",
            Self::Aic => "aic",
            Self::LlmdQueue => "llmd-queue",
            Self::LlmdPerfparms => "llmd-perfparms",
            Self::InferenceSim => "inference-sim",
            Self::LatencyPredictor => "latency-predictor",
            Self::Vidur => "vidur",
            Self::Keda => "keda",
            Self::Prometheus => "prometheus",
            Self::Csv => "csv",
        }
    }

    /// Who reads it, as of which source its meaning was taken.
    #[must_use]
    pub const fn consumer(self) -> &'static str {
        match self {
            Self::Dynamo => "ai-dynamo SLA planner (profile directory, 0.7 to 1.4) and mocker (perf_data.npz)",
            Self::DynamoFpm => "ai-dynamo planner, as the answer of get_perf_metrics (1.1 and later)",
            Self::Aic => "aiconfigurator load matching (aiconfigurator.sdk.picking.pick_load_match)",
            Self::LlmdQueue => "llm-inferno queue-analysis (/solve, /target), source of 2026-06",
            Self::LlmdPerfparms => "llm-d workload-variant-autoscaler of October 2025: legacy, gone from its CRD in February 2026",
            Self::InferenceSim => "llm-d-inference-sim (per-token latency calculator), source of 2026-08",
            Self::LatencyPredictor => "llm-d-latency-predictor (TrainingEntry), source of 2026-06",
            Self::Vidur => "Vidur (trace request generator), source of 2024-11",
            Self::Keda => "KEDA (prometheus trigger) and Kubernetes' horizontal pod autoscaler (autoscaling/v2)",
            Self::Prometheus => "Prometheus text exposition, such as node_exporter's textfile collector",
            Self::Csv => "people and spreadsheets",
        }
    }

    /// Versions whose own code has read such a file; empty where nobody's has.
    #[must_use]
    pub const fn checked_with(self) -> &'static [&'static str] {
        match self {
            Self::Dynamo => &["ai-dynamo 1.0.2", "ai-dynamo 1.4.2"],
            Self::DynamoFpm => &["ai-dynamo 1.4.2"],
            Self::Aic => &["aiconfigurator 0.12.0"],
            Self::Prometheus => &["prometheus_client 0.26.0"],
            _ => &[],
        }
    }

    /// The same in words.
    #[must_use]
    pub fn checked(self) -> String {
        match (self, self.checked_with()) {
            (Self::Csv, _) => "our own form".to_owned(),
            (_, []) => "checked with none: no installable consumer".to_owned(),
            (_, versions) => format!("checked with {}", versions.join(", ")),
        }
    }

    /// Whether it is made of requests.
    #[must_use]
    pub const fn needs_requests(self) -> bool {
        matches!(self, Self::LatencyPredictor | Self::Vidur)
    }
}
