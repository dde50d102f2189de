//! Service level objectives: a list of percentile limits, each judged on its own.
//!
//! Written `ttft:p99<2000ms,tpot:p95<50ms`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;

/// MLPerf Inference, server scenario: model, TTFT and TPOT at p99, milliseconds.
const PRESETS: [(&str, u64, u64); 6] = [
    ("llama-3.1-8b", 2000, 100),
    ("llama-3.1-8b-interactive", 500, 30),
    ("llama2-70b", 2000, 200),
    ("llama2-70b-interactive", 450, 40),
    ("gpt-oss-120b", 3000, 80),
    ("gpt-oss-120b-interactive", 2000, 15),
];

/// A latency an objective can limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SloMetric {
    /// Time to first token, from the intended start.
    Ttft,
    /// Time per output token after the first chunk.
    Tpot,
    /// End to end, from the intended start.
    E2e,
}

impl SloMetric {
    /// As it is written in an SLO.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ttft => "ttft",
            Self::Tpot => "tpot",
            Self::E2e => "e2e",
        }
    }
}

/// At least `percentile` percent of the cohort stays under `limit`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Objective {
    /// What is limited.
    pub metric: SloMetric,
    /// In (0, 100), such as 99.
    pub percentile: f64,
    /// A request at or over it is a miss.
    pub limit: Nanos,
}

impl Objective {
    /// The share of misses that is still allowed, in (0, 1): 0.01 for p99.
    #[must_use]
    pub fn allowed_miss_share(&self) -> f64 {
        (100.0 - self.percentile) / 100.0
    }
}

impl fmt::Display for Objective {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.limit.as_millis_f64();
        write!(out, "{}:p{}<{}ms", self.metric.name(), self.percentile, (millis * 1000.0).round() / 1000.0)
    }
}

/// Where an SLO came from: the order in which sources win.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "from", content = "name")]
pub enum SloSource {
    /// Given on the command line.
    Flag,
    /// From the workload file of that name.
    Workload(String),
    /// From the preset of that model.
    ModelPreset(String),
    /// A multiple of the idle reference (`--quick`).
    IdleReference,
    /// Nothing better was known: labelled `default SLO`.
    Default,
}

/// All objectives of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slo {
    /// Each judged on its own; at least one.
    pub objectives: Vec<Objective>,
    /// Who says so.
    pub source: SloSource,
}

/// The text is not an SLO.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "cannot read `{text}` as an SLO: {wrong}. Write objectives as 'ttft:p99<2000ms,tpot:p95<50ms', in quotes on a command line (metrics ttft, tpot, e2e; units us, ms, s), or name a preset such as `llama2-70b-interactive`"
)]
pub struct SloError {
    text: String,
    wrong: String,
}

impl Slo {
    /// Reads `ttft:p99<2000ms,tpot:p95<50ms`, or the name of a preset.
    ///
    /// # Errors
    /// When the text is not a list of objectives, or one limit is named twice.
    pub fn parse(text: &str, source: SloSource) -> Result<Self, SloError> {
        if let Some(preset) = Self::preset(text) {
            return Ok(preset);
        }
        let refuse = |wrong: String| SloError { text: text.to_owned(), wrong };
        let objectives = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(|part| part.parse::<Objective>().map_err(refuse))
            .collect::<Result<Vec<_>, _>>()?;
        if objectives.is_empty() {
            return Err(refuse("it names no objective".to_owned()));
        }
        for (index, one) in objectives.iter().enumerate() {
            if objectives[..index].iter().any(|other| other.metric == one.metric && other.percentile == one.percentile) {
                return Err(refuse(format!("`{}:p{}` is limited twice", one.metric.name(), one.percentile)));
            }
        }
        Ok(Self { objectives, source })
    }

    /// The server limits that MLPerf sets for a model, also in their interactive variant: 99th percentiles of TTFT and TPOT.
    #[must_use]
    pub fn preset(name: &str) -> Option<Self> {
        let plain = |name: &str| name.trim().to_ascii_lowercase().replace(['-', '.'], "");
        let (name, ttft, tpot) = PRESETS.iter().find(|(known, ..)| plain(known) == plain(name))?;
        Some(Self { objectives: p99(*ttft, *tpot), source: SloSource::ModelPreset((*name).to_owned()) })
    }

    /// Method section 2: what holds where nothing else was said.
    #[must_use]
    pub fn default_limits() -> Self {
        Self { objectives: p99(2000, 100), source: SloSource::Default }
    }
}

/// TTFT and TPOT at p99, milliseconds.
fn p99(ttft: u64, tpot: u64) -> Vec<Objective> {
    let objective = |metric, millis| Objective { metric, percentile: 99.0, limit: Nanos::from_millis(millis) };
    vec![objective(SloMetric::Ttft, ttft), objective(SloMetric::Tpot, tpot)]
}

impl fmt::Display for Slo {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, objective) in self.objectives.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(out, "{separator}{objective}")?;
        }
        Ok(())
    }
}

impl FromStr for Objective {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (left, limit) = text.split_once('<').ok_or_else(|| format!("`{text}` has no `<`"))?;
        let (metric, percentile) = left.split_once(':').ok_or_else(|| format!("`{left}` has no `:`"))?;
        let metric = match metric.trim() {
            "ttft" => SloMetric::Ttft,
            "tpot" => SloMetric::Tpot,
            "e2e" => SloMetric::E2e,
            other => return Err(format!("`{other}` is no metric")),
        };
        let percentile = percentile
            .trim()
            .strip_prefix('p')
            .and_then(|digits| digits.parse::<f64>().ok())
            .filter(|percentile| *percentile >= 50.0 && *percentile < 100.0)
            .ok_or_else(|| format!("`{}` is no percentile from p50 to below p100", percentile.trim()))?;
        let limit = parse_length(limit.trim()).ok_or_else(|| format!("`{}` is no length of time above 0", limit.trim()))?;
        Ok(Self { metric, percentile, limit })
    }
}

/// `50ms`, `1.5s`, `800us`.
fn parse_length(text: &str) -> Option<Nanos> {
    let unit_at = text.find(|letter: char| letter.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        _ => return None,
    };
    let length = number.trim().parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0)? * seconds;
    Some(Nanos::from_secs_f64(length)).filter(|length| length.0 > 0)
}
