//! Everything that a plan depends on besides the rate, as flags of `plan` and as a file that keeps them.

use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::capacity::demand::{self, NoSuchPeak, PeakOf};
use crate::capacity::fleet::{Availability, FleetInputs};
use crate::capacity::outcome::{OutcomeInputs, OutcomeObjective, OutcomeObjectiveError};
use crate::capacity::plan::{Input, PlanInputs};
use crate::capacity::throughput::Provenance;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::price::{self, Price};
use crate::record::demand::{DEMAND_SCHEMA_VERSION, Demand};

/// Where demand comes from and where replicas stand.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Demand and fleet")]
pub(super) struct FleetArgs {
    /// Demand that `demand --save` kept: average, peak, recompute multiplier and token mix
    #[arg(long, value_name = "FILE", conflicts_with_all = ["average_rps", "peak_rps", "average_as_peak"])]
    demand: Option<PathBuf>,
    /// Which peak of the demand: p95, p99 or max of windows of 1s, 1m or 1h [default: p99:1m]
    #[arg(long, value_name = "PEAK", requires = "demand", value_parser = read_peak)]
    peak_of: Option<PeakOf>,
    /// Plan although the demand's calls are far from those that were measured: by the cost of tokens where a run tells it, else safely
    #[arg(long)]
    accept_mix: bool,
    /// Calls in flight at the planned peak, where they are known otherwise than through the rate
    #[arg(long, value_name = "COUNT", value_parser = read_positive)]
    peak_in_flight: Option<f64>,
    /// Tokens that the KV cache of one GPU holds [default: what the run's target said]
    #[arg(long, value_name = "COUNT", value_parser = read_positive)]
    kv_tokens_per_gpu: Option<f64>,
    /// How long whole outcomes may take, from the first call to the end of the last, such as 'p95<8s'
    #[arg(long, value_name = "OBJECTIVE", value_parser = read_outcome)]
    outcome_slo: Option<OutcomeObjective>,
    /// GPUs of one node
    #[arg(long, value_name = "COUNT")]
    gpus_per_node: Option<NonZeroU32>,
    /// GPUs that fail together [default: those of a node, or of a replica]
    #[arg(long, value_name = "COUNT")]
    gpus_per_domain: Option<NonZeroU32>,
    /// Failure domains that may be lost at once [default: 1]
    #[arg(long, value_name = "COUNT")]
    spare_domains: Option<u32>,
    /// Probability that a replica stands, such as 0.995
    #[arg(long, value_name = "SHARE", value_parser = read_share, requires = "availability_target")]
    availability: Option<f64>,
    /// Probability with which enough replicas have to stand, such as 0.9999
    #[arg(long, value_name = "SHARE", value_parser = read_share, requires = "availability")]
    availability_target: Option<f64>,
    /// Price of one GPU for an hour, in your money; KIND=PRICE for GPUs, runs or files whose name has KIND in it; several times
    #[arg(long, value_name = "[KIND=]PRICE")]
    price_per_gpu_hour: Vec<Price>,
    /// Tries of a call by its clients, the first included [default: 4]
    #[arg(long, value_name = "COUNT")]
    attempts: Option<NonZeroU32>,
    /// A file with any of these and of the other inputs, in TOML; what is given as a flag goes before it
    #[arg(long = "inputs", visible_alias = "plan", value_name = "FILE")]
    file: Option<PathBuf>,
}

/// What an input file may hold: the names of the flags, with `_` for `-`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlanFile {
    pub(super) average_rps: Option<f64>,
    pub(super) peak_rps: Option<f64>,
    pub(super) peak_window_s: Option<f64>,
    pub(super) recompute: Option<f64>,
    pub(super) headroom: Option<f64>,
    pub(super) gpus_per_replica: Option<u32>,
    #[serde(default)]
    pub(super) scenarios: Vec<FileScenario>,
    demand: Option<PathBuf>,
    peak_of: Option<String>,
    accept_mix: Option<bool>,
    peak_in_flight: Option<f64>,
    gpus_per_node: Option<NonZeroU32>,
    gpus_per_domain: Option<NonZeroU32>,
    spare_domains: Option<u32>,
    price_per_gpu_hour: Option<f64>,
    #[serde(default)]
    prices: BTreeMap<String, f64>,
    kv_tokens_per_gpu: Option<f64>,
    outcome_slo: Option<String>,
    availability: Option<f64>,
    availability_target: Option<f64>,
    attempts: Option<NonZeroU32>,
}

/// A scenario of an input file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileScenario {
    pub(super) name: String,
    pub(super) times_average: f64,
    pub(super) lasts: Option<String>,
    pub(super) recompute: Option<f64>,
}

impl FleetArgs {
    /// The input file, if one is named, with the demand's path beside it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn file(&self) -> anyhow::Result<Option<(PlanFile, String)>> {
        let Some(path) = &self.file else { return Ok(None) };
        let name = path.display().to_string();
        let read = fs::read_to_string(path).with_context(|| format!("cannot read `{name}`. Check the path and that it may be read"));
        let text = read.exit_with(Exit::BadInput)?;
        let mut file: PlanFile =
            toml::from_str(&text).with_context(|| format!("`{name}` is no file of plan inputs")).exit_with(Exit::BadInput)?;
        // A path in a file is meant from where the file lies.
        file.demand = file.demand.map(|demand| path.parent().unwrap_or(Path::new("")).join(demand));
        Ok(Some((file, name)))
    }

    /// The inputs with what was given in place of what is assumed: demand first, so that flags go before it.
    ///
    /// # Errors
    /// When the demand cannot be read or planned from.
    pub(super) fn apply(&self, file: Option<&PlanFile>, name: &str, inputs: PlanInputs) -> anyhow::Result<PlanInputs> {
        let of_file = file.cloned().unwrap_or_default();
        of_file.check()?;
        let accept_mix = self.accept_mix || of_file.accept_mix.unwrap_or(false);
        let in_flight = self.peak_in_flight.or(of_file.peak_in_flight);
        let fleet = FleetInputs {
            gpus_per_node: self.gpus_per_node.or(of_file.gpus_per_node),
            gpus_per_domain: self.gpus_per_domain.or(of_file.gpus_per_domain),
            spare_domains: self.spare_domains.or(of_file.spare_domains).unwrap_or(inputs.fleet.spare_domains),
            price_per_gpu_hour: price::of(&names(name, &inputs), &self.price_per_gpu_hour, &of_file.prices, of_file.price_per_gpu_hour),
            availability: self
                .availability
                .or(of_file.availability)
                .zip(self.availability_target.or(of_file.availability_target))
                .map(|(of_replica, of_fleet)| Availability { of_replica, of_fleet }),
        };
        let objective = of_file.outcome_slo.as_deref().map(str::parse::<OutcomeObjective>).transpose().exit_with(Exit::BadInput)?;
        let outcome = OutcomeInputs { objective: self.outcome_slo.or(objective), ..inputs.outcome.clone() };
        let kv_tokens = self.kv_tokens_per_gpu.or(of_file.kv_tokens_per_gpu);
        let inputs = PlanInputs {
            accept_mix,
            calls_in_flight: in_flight.map(Input::given),
            fleet,
            outcome,
            kv_tokens_per_gpu: kv_tokens.map(Input::given).or_else(|| inputs.kv_tokens_per_gpu.clone()),
            attempts: self.attempts.or(of_file.attempts).unwrap_or(inputs.attempts),
            ..inputs
        };
        let told = of_file.peak_of.as_deref().map(str::parse).transpose();
        let peak_of = self.peak_of.or(told.map_err(|error: NoSuchPeak| anyhow::anyhow!(error)).exit_with(Exit::BadInput)?);
        let Some((demand, name)) = self.demand_beside(&of_file)? else { return Ok(inputs) };
        demand::apply(&demand, &name, peak_of.unwrap_or_default(), inputs).exit_with(Exit::BadInput)
    }

    /// The demand that is planned from, and its file; `None` where none is named.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn demand(&self) -> anyhow::Result<Option<(Demand, String)>> {
        self.demand_beside(&self.file()?.map(|(file, _)| file).unwrap_or_default())
    }

    fn demand_beside(&self, file: &PlanFile) -> anyhow::Result<Option<(Demand, String)>> {
        let path = self.demand.as_ref().or(file.demand.as_ref());
        path.map(|path| Ok((read_demand(path)?, path.display().to_string()))).transpose()
    }
}

/// A demand that was kept; of a newer schema it is refused untouched.
fn read_demand(path: &Path) -> anyhow::Result<Demand> {
    #[derive(Deserialize)]
    struct Version {
        demand_schema_version: u32,
    }
    let name = path.display();
    let bytes = fs::read(path).with_context(|| format!("cannot read `{name}`. Give a file that `plimsoll demand --save` wrote"));
    let bytes = bytes.exit_with(Exit::BadInput)?;
    let none = || format!("`{name}` is no demand. Give a file that `plimsoll demand --save` wrote");
    let version: Version = serde_json::from_slice(&bytes).with_context(none).exit_with(Exit::BadInput)?;
    if version.demand_schema_version > DEMAND_SCHEMA_VERSION {
        let newer = version.demand_schema_version;
        let error = anyhow::anyhow!(
            "`{name}` has version {newer} of the demand schema, and this plimsoll reads up to {DEMAND_SCHEMA_VERSION}. Use the version that wrote it, or a newer one"
        );
        return Err(error).exit_with(Exit::BadInput);
    }
    serde_json::from_slice(&bytes).with_context(none).exit_with(Exit::BadInput)
}

/// By which a price may be meant for it: run or file, and GPU.
fn names(name: &str, inputs: &PlanInputs) -> Vec<String> {
    let throughput = &inputs.throughput;
    let of = match &throughput.provenance {
        Provenance::Measured { run } => Some(run.clone()),
        Provenance::Imported { file, .. } => Some(file.clone()),
        _ => None,
    };
    [Some(name.to_owned()), throughput.operating.kind.clone(), of].into_iter().flatten().collect()
}

impl PlanFile {
    /// Flags are checked as they are read; what stands in a file is checked here.
    fn check(&self) -> anyhow::Result<()> {
        let positive = [
            ("peak_in_flight", self.peak_in_flight),
            ("price_per_gpu_hour", self.price_per_gpu_hour),
            ("kv_tokens_per_gpu", self.kv_tokens_per_gpu),
        ];
        let prices = self.prices.values().map(|price| ("prices", Some(*price)));
        for (name, value) in positive.into_iter().chain(prices) {
            if let Some(value) = value.filter(|value| !(*value > 0.0 && value.is_finite())) {
                return Err(anyhow::anyhow!("`{name}` of a plan cannot be `{value}`. Give a number above 0")).exit_with(Exit::BadInput);
            }
        }
        if self.availability.is_some() != self.availability_target.is_some() {
            let error = anyhow::anyhow!("of `availability` and `availability_target` a plan has one. Give both, or neither");
            return Err(error).exit_with(Exit::BadInput);
        }
        for (name, value) in [("availability", self.availability), ("availability_target", self.availability_target)] {
            if let Some(value) = value {
                read_share(&value.to_string()).map_err(|why| anyhow::anyhow!("`{name}` of a plan: {why}")).exit_with(Exit::BadInput)?;
            }
        }
        Ok(())
    }

    /// Says where what it gives comes from.
    pub(super) fn provenance(name: &str) -> Provenance {
        Provenance::File { file: name.to_owned() }
    }
}

fn read_peak(text: &str) -> Result<PeakOf, NoSuchPeak> {
    text.parse()
}

fn read_outcome(text: &str) -> Result<OutcomeObjective, OutcomeObjectiveError> {
    text.parse()
}

fn read_share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().map_err(|_| format!("`{text}` is no number. Write it like 0.995"))?;
    if share > 0.0 && share < 1.0 { Ok(share) } else { Err(format!("`{text}` is not between 0 and 1. Write it like 0.995")) }
}

fn read_positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|_| format!("`{text}` is no number. Write it like 2.5"))?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err(format!("`{text}` is not above 0")) }
}
