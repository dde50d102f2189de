//! From the built-in engine to the server that is deployed: what one of them gives beside the other at the same objectives.
//!
//! A plan for vLLM from the built-in engine's figure is a plan for another program. The transfer ratio, measured once on
//! the same GPU with the same traffic, turns one into the other. What is not known compares with nothing.

use serde::{Deserialize, Serialize};

use crate::capacity::operating::Operating;
use crate::capacity::throughput::{NoCapacity, Throughput};
use crate::record::SCHEMA_VERSION;
use crate::record::run::RunRecord;
use crate::units::rate::CallRatePerGpu;

/// A server's throughput over the built-in engine's, at equal objectives and traffic on the same node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transfer {
    /// See [`SCHEMA_VERSION`].
    pub schema_version: u32,
    /// Run of the built-in engine.
    pub built_in: String,
    /// Run of the server.
    pub server: String,
    /// The server by name and version.
    pub server_name: String,
    /// Both at these objectives.
    pub slo: String,
    /// Both under this workload.
    pub workload: String,
    /// Where both were measured.
    pub node: String,
    /// Server / built-in, of the published rates per GPU.
    pub ratio: f64,
    /// The lowest and the highest ratio that the ends of both intervals allow.
    pub ends: (f64, f64),
    /// What is not known of one of them, and so was not compared.
    pub unknown: Vec<String>,
}

/// Why two runs make no ratio.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoTransfer {
    /// One has no number.
    #[error(transparent)]
    NoCapacity(#[from] NoCapacity),
    /// They are not of the kinds that are compared.
    #[error(
        "run `{run}` is of {kind}, where one of {wanted} is compared. Give the run of the built-in engine first, then that of the server"
    )]
    Kind {
        /// Which run.
        run: String,
        /// Of what it is.
        kind: String,
        /// Of what it should be.
        wanted: &'static str,
    },
    /// They differ where they must not.
    #[error("the runs differ: {differences}. Measure both with the same flags, on the same node")]
    Differ {
        /// Each difference.
        differences: String,
    },
    /// What is not known compares with nothing.
    #[error("not known of the server: {unknown}. Where you know that it is the same, say so with `--accept-unknown`")]
    Unknown {
        /// Each fact.
        unknown: String,
    },
    /// A transfer of another version.
    #[error("the transfer has version {found} of its form, and this plimsoll knows {SCHEMA_VERSION}. Take the plimsoll that wrote it")]
    Newer {
        /// Its version.
        found: u32,
    },
}

impl Transfer {
    /// The ratio of two runs.
    ///
    /// # Errors
    /// When they cannot be compared; unknown facts are let pass with `accept_unknown`.
    pub fn of(built_in: &RunRecord, server: &RunRecord, accept_unknown: bool) -> Result<Self, NoTransfer> {
        let is = |run: &RunRecord, kind: &str, wanted| {
            let wrong = || NoTransfer::Kind { run: run.id.clone(), kind: run.target.kind.clone(), wanted };
            if run.target.kind == kind { Ok(()) } else { Err(wrong()) }
        };
        is(built_in, "engine", "the built-in engine")?;
        is(server, "server", "a server")?;
        let (one, other) = (Throughput::measured(built_in)?, Throughput::measured(server)?);
        let mut differences = Vec::new();
        let mut same = |what: &str, one: &str, other: &str| {
            if one != other {
                differences.push(format!("{what} `{one}` and `{other}`"));
            }
        };
        let objectives = |run: &RunRecord| run.slo.as_ref().map_or_else(String::new, |slo| format!("{:?}", slo.objectives));
        same("objectives", &objectives(built_in), &objectives(server));
        same("workload", &built_in.workload.hash, &server.workload.hash);
        same("node", &built_in.node.hostname, &server.node.hostname);
        same("quick", &built_in.quick.to_string(), &server.quick.to_string());
        if !differences.is_empty() {
            return Err(NoTransfer::Differ { differences: differences.join("; ") });
        }
        let unknown = unknown(built_in, server);
        if !unknown.is_empty() && !accept_unknown {
            return Err(NoTransfer::Unknown { unknown: unknown.join("; ") });
        }
        let known = server.server.as_ref();
        let name = known.and_then(|server| server.name.clone()).unwrap_or_else(|| "unknown server".to_owned());
        let version = known.and_then(|server| server.version.as_deref()).map_or(String::new(), |version| format!(" {version}"));
        let ends = |throughput: &Throughput| throughput.ends.unwrap_or((throughput.point, throughput.point));
        let ((one_low, one_high), (other_low, other_high)) = (ends(&one), ends(&other));
        Ok(Self {
            schema_version: SCHEMA_VERSION,
            built_in: built_in.id.clone(),
            server: server.id.clone(),
            server_name: format!("{name}{version}"),
            slo: one.slo.unwrap_or_default(),
            workload: built_in.workload.name.clone(),
            node: built_in.node.hostname.clone(),
            ratio: other.point.get() / one.point.get(),
            ends: (other_low.get() / one_high.get(), other_high.get() / one_low.get()),
            unknown,
        })
    }

    /// A built-in engine's throughput as the server's: the rate by the ratio, the interval by its ends.
    ///
    /// # Errors
    /// When this transfer is of a newer form, or its figures are none.
    pub fn apply(&self, throughput: Throughput) -> Result<Throughput, NoTransfer> {
        if self.schema_version > SCHEMA_VERSION {
            return Err(NoTransfer::Newer { found: self.schema_version });
        }
        let by = |rate: CallRatePerGpu, ratio: f64| {
            CallRatePerGpu::new(rate.get() * ratio).map_err(|wrong| {
                NoTransfer::from(NoCapacity::Invalid {
                    run: self.server.clone(),
                    why: wrong.to_string(),
                    remedy: "Measure the ratio again",
                })
            })
        };
        let (low, high) = self.ends;
        let ends = throughput.ends.map(|(from, to)| Ok::<_, NoTransfer>((by(from, low)?, by(to, high)?))).transpose()?;
        let mut labels = throughput.labels.clone();
        labels.push(format!(
            "carried over to {} by a measured ratio of {:.3} ({low:.3} to {high:.3}, runs {} and {})",
            self.server_name, self.ratio, self.built_in, self.server
        ));
        // Its cache, its latencies and its cost of a token are the built-in engine's, and say nothing of the server's.
        let operating = Operating { kind: throughput.operating.kind.clone(), ..Operating::default() };
        let (planned, point) = (by(throughput.planned, low)?, by(throughput.point, self.ratio)?);
        Ok(Throughput { planned, point, ends, labels, operating, ..throughput })
    }
}

/// Facts that make two engines comparable, as far as one of them does not tell.
fn unknown(built_in: &RunRecord, server: &RunRecord) -> Vec<String> {
    let mut unknown = Vec::new();
    if server.target.precision == "unknown" {
        unknown.push(format!("its precision (the built-in engine's is {})", built_in.target.precision));
    }
    if server.target.model != built_in.target.model {
        unknown.push(format!("whether its `{}` is the model `{}`", server.target.model, built_in.target.model));
    }
    if server.target.labels.iter().any(|label| label.contains("not stated")) {
        unknown.push("how many GPUs are behind it".to_owned());
    }
    unknown
}
