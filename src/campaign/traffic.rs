//! Where a campaign gets its requests and schedules from: a workload or a trace, at any rate.

use sha2::{Digest, Sha256};

use crate::clock::Nanos;
use crate::record::run::WorkloadRecord;
use crate::record::slo::{Slo, SloError, SloSource};
use crate::rng;
use crate::workload::arrivals::Schedule;
use crate::workload::fit::Limits;
use crate::workload::mix::Mix;
use crate::workload::request::RequestSource;
use crate::workload::spec::Workload;
use crate::workload::traffic::{Traffic as Source, TrafficError};

/// Makes the traffic of a level from the level's seed: requests and arrivals of one seed belong together. Two seeds share no prompt,
/// unless shared prefixes are declared.
pub trait Traffic {
    /// What it is, for the record.
    fn record(&self) -> WorkloadRecord;

    /// How arrivals come about at a mean of `calls_per_s`.
    fn arrivals(&self, _calls_per_s: f64) -> String {
        self.record().arrivals
    }

    /// Whether prompts begin alike by intention.
    fn shares_prefixes(&self) -> bool {
        false
    }

    /// Requests in order.
    ///
    /// # Errors
    /// When the traffic cannot be made, such as from a trace that cannot be read again.
    fn requests(&self, seed: u64) -> anyhow::Result<Box<dyn RequestSource>>;

    /// Requests of one length each, in tokens, whose prompts begin alike by chance only.
    ///
    /// # Errors
    /// When the target has no room for such a request.
    fn of_lengths(&self, seed: u64, prompt_tokens: u32, output_tokens: u32) -> anyhow::Result<Box<dyn RequestSource>>;

    /// Arrivals at a mean of `calls_per_s`, also over every `steady` of them where they are recorded.
    ///
    /// # Errors
    /// When the traffic cannot be made.
    fn schedule(&self, calls_per_s: f64, seed: u64, steady: Nanos) -> anyhow::Result<Schedule>;
}

/// A workload or trace, fitted to what a model allows.
#[derive(Clone, Debug)]
pub struct Chosen {
    source: Source,
    limits: Limits,
    mix: Mix,
}

impl Chosen {
    /// Fits `source` to `limits`, and draws from it to know its token mix.
    ///
    /// # Errors
    /// When it cannot be read, or cannot fit.
    pub fn new(source: Source, limits: Limits) -> Result<Self, TrafficError> {
        let mix = source.mix(limits)?;
        Ok(Self { source, limits, mix })
    }

    /// Its token mix.
    #[must_use]
    pub fn mix(&self) -> &Mix {
        &self.mix
    }

    /// The SLO that the workload itself states.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn slo(&self) -> Result<Option<Slo>, SloError> {
        let named = SloSource::Workload(self.source.name().to_owned());
        self.source.slo().map(|text| Slo::parse(text, named)).transpose()
    }

    /// Mean rate of a trace's own stamps, sped up as asked, calls/s.
    #[must_use]
    pub fn own_rate(&self) -> Option<f64> {
        match &self.source {
            Source::Drawn(_) => None,
            Source::Recorded(trace) => Some(trace.own_rate()),
        }
    }

    fn labels(&self) -> Vec<String> {
        let mut labels = Vec::new();
        match &self.source {
            Source::Drawn(workload) if (workload.scale - 1.0).abs() > 1e-12 => labels.push(format!("lengths x {}", workload.scale)),
            Source::Recorded(trace) if (trace.options().scale - 1.0).abs() > 1e-12 => {
                labels.push(format!("lengths x {}", trace.options().scale))
            }
            Source::Drawn(_) | Source::Recorded(_) => {}
        }
        if self.mix.capped_share > 0.0 {
            labels.push(format!("{:.1} % of requests shortened to fit", self.mix.capped_share * 100.0));
        }
        labels
    }
}

impl Traffic for Chosen {
    fn record(&self) -> WorkloadRecord {
        let (source, text) = match &self.source {
            Source::Drawn(workload) => (workload.citation.clone(), workload.to_toml()),
            Source::Recorded(trace) => {
                let facts = trace.facts();
                (facts.to_string(), format!("{facts:?} {:?}", trace.options()))
            }
        };
        let digest = Sha256::digest(format!("{text} {:?}", self.limits));
        WorkloadRecord {
            name: self.source.name().to_owned(),
            mean_input_tokens: self.mix.input_tokens.mean,
            mean_output_tokens: self.mix.output_tokens.mean,
            arrivals: match &self.source {
                Source::Drawn(workload) => workload.arrivals.to_string(),
                Source::Recorded(_) => "the trace's own gaps, stretched to the offered rate".to_owned(),
            },
            source,
            mix: Some(self.mix.clone()),
            trace: match &self.source {
                Source::Drawn(_) => None,
                Source::Recorded(trace) => Some(trace.facts().clone()),
            },
            labels: self.labels(),
            hash: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }

    fn arrivals(&self, calls_per_s: f64) -> String {
        self.source.arrivals_note(calls_per_s)
    }

    fn shares_prefixes(&self) -> bool {
        self.source.shares_prefixes()
    }

    fn requests(&self, seed: u64) -> anyhow::Result<Box<dyn RequestSource>> {
        Ok(self.source.source(seed, self.limits)?)
    }

    fn of_lengths(&self, seed: u64, prompt_tokens: u32, output_tokens: u32) -> anyhow::Result<Box<dyn RequestSource>> {
        Ok(Workload::fixed(prompt_tokens, output_tokens)?.source(rng::derive(seed, "requests"), self.limits)?)
    }

    fn schedule(&self, calls_per_s: f64, seed: u64, steady: Nanos) -> anyhow::Result<Schedule> {
        Ok(self.source.schedule(calls_per_s, seed, steady)?)
    }
}
