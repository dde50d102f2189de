//! Everything that a plan depends on besides the rate, as flags of `plan` and as a file that keeps them.

use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::Deserialize;

use crate::capacity::demand::{self, NoSuchPeak, PeakOf};
use crate::capacity::fleet::FleetInputs;
use crate::capacity::plan::{Input, PlanInputs};
use crate::capacity::throughput::Provenance;
use crate::cli::exit::{Exit, ExitWith};
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
    /// Plan although the demand's calls are far from those that were measured, with a safe bound
    #[arg(long)]
    accept_mix: bool,
    /// Calls in flight at the planned peak, where they are known otherwise than through the rate
    #[arg(long, value_name = "COUNT", value_parser = read_positive)]
    peak_in_flight: Option<f64>,
    /// GPUs of one node
    #[arg(long, value_name = "COUNT")]
    gpus_per_node: Option<NonZeroU32>,
    /// GPUs that fail together [default: those of a node, or of a replica]
    #[arg(long, value_name = "COUNT")]
    gpus_per_domain: Option<NonZeroU32>,
    /// Failure domains that may be lost at once [default: 1]
    #[arg(long, value_name = "COUNT")]
    spare_domains: Option<u32>,
    /// Price of one GPU for an hour, in your money
    #[arg(long, value_name = "PRICE", value_parser = read_positive)]
    price_per_gpu_hour: Option<f64>,
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
    pub(super) fn apply(&self, file: Option<&PlanFile>, inputs: PlanInputs) -> anyhow::Result<PlanInputs> {
        let of_file = file.cloned().unwrap_or_default();
        let accept_mix = self.accept_mix || of_file.accept_mix.unwrap_or(false);
        let in_flight = self.peak_in_flight.or(of_file.peak_in_flight);
        let fleet = FleetInputs {
            gpus_per_node: self.gpus_per_node.or(of_file.gpus_per_node),
            gpus_per_domain: self.gpus_per_domain.or(of_file.gpus_per_domain),
            spare_domains: self.spare_domains.or(of_file.spare_domains).unwrap_or(1),
            price_per_gpu_hour: self.price_per_gpu_hour.or(of_file.price_per_gpu_hour),
        };
        let inputs = PlanInputs {
            accept_mix,
            calls_in_flight: in_flight.map(Input::given),
            fleet,
            attempts: self.attempts.or(of_file.attempts).unwrap_or(inputs.attempts),
            ..inputs
        };
        let told = of_file.peak_of.as_deref().map(str::parse).transpose();
        let peak_of = self.peak_of.or(told.map_err(|error: NoSuchPeak| anyhow::anyhow!(error)).exit_with(Exit::BadInput)?);
        let Some(path) = self.demand.as_ref().or(of_file.demand.as_ref()) else { return Ok(inputs) };
        let demand = read_demand(path)?;
        demand::apply(&demand, &path.display().to_string(), peak_of.unwrap_or_default(), inputs).exit_with(Exit::BadInput)
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

impl PlanFile {
    /// Says where what it gives comes from.
    pub(super) fn provenance(name: &str) -> Provenance {
        Provenance::File { file: name.to_owned() }
    }
}

fn read_peak(text: &str) -> Result<PeakOf, NoSuchPeak> {
    text.parse()
}

fn read_positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().map_err(|_| format!("`{text}` is no number. Write it like 2.5"))?;
    if number > 0.0 && number.is_finite() { Ok(number) } else { Err(format!("`{text}` is not above 0")) }
}
