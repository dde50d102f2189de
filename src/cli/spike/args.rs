//! What `spike` is asked.

use std::num::NonZeroU32;
use std::str::FromStr;
use std::time::Duration;

use crate::capacity::spike::course::{Course, Lengths, Phase};
use crate::capacity::spike::own;
use crate::cli::bench::args::TargetKind;
use crate::cli::demand::options::read_share;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::length_of_time;
use crate::cli::plan::read_slo;
use crate::cli::plan_file::FleetArgs;
use crate::cli::plan_inputs::PlanInputArgs;
use crate::clock::Nanos;
use crate::queueing::fleet::clients::Clients;
use crate::queueing::fleet::routing::{NoSuchRouting, Routing};
use crate::queueing::fleet::scaling::{Scaling, Signal};
use crate::record::slo::Slo;

/// `spike` with every other flag refused beside `--judge`: what was driven is judged as it was asked.
pub(in crate::cli) fn judging_alone(spike: clap::Command) -> clap::Command {
    let ids = spike.get_arguments().map(|argument| argument.get_id().clone());
    let others = ids.filter(|id| id != "judge").collect::<Vec<_>>();
    spike.mut_arg("judge", |judge| judge.conflicts_with_all(others))
}

/// Arguments of `spike`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    plimsoll spike --run latest --plan plan.toml\n  \
    plimsoll spike --average-rps 40 --recompute 1.3 --sized-for 'Viral moment'\n  \
    plimsoll spike --average-rps 40 --replicas 12 --times 3,6 --routing power-of-two --queue 32\n  \
    plimsoll spike --average-rps 40 --replicas 4 --scale-to 40 --lead-time 3m\n  \
    plimsoll spike --live --plan plan.toml --spike-for 5m\n  \
    plimsoll spike --demand demand.json --times own,10 --format csv > course.csv\n  \
    plimsoll spike --judge latest\n\n\
    Exit code 0: every phase is within the SLO; 3: one is not; 5: only if the service law fits exactly.")]
pub struct SpikeArgs {
    /// Run whose levels give the service law: an id, its first letters, `latest`, or a run folder
    #[arg(long, value_name = "RUN", default_value = "latest")]
    pub(super) run: String,
    /// Objectives to hold [default: the run's]
    #[arg(long, value_name = "SLO", value_parser = read_slo)]
    pub(super) slo: Option<Slo>,
    /// Replicas to simulate [default: those that the plan needs, spare ones lost]
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["sized_for", "with_spare"])]
    pub(super) replicas: Option<NonZeroU32>,
    /// Peak of the plan whose replicas are simulated [default: the planned peak, else the largest]
    #[arg(long, value_name = "PEAK")]
    pub(super) sized_for: Option<String>,
    /// Simulate with the plan's spare replicas too
    #[arg(long)]
    pub(super) with_spare: bool,
    /// Drive the real target of the run through the course, with its part of the fleet's load
    #[arg(long)]
    pub(super) live: bool,
    /// Drive this target in its place, such as the address of the whole fleet
    #[arg(long, value_name = "TARGET", requires = "live")]
    pub(super) target: Option<TargetKind>,
    /// Show a litmus test that was driven live, also one that was killed: `latest`, an id, its first letters, or its folder
    #[arg(long, value_name = "ID", num_args = 0..=1, default_missing_value = "latest")]
    pub(super) judge: Option<String>,
    /// GPUs behind that target [default: as many as the run had]
    #[arg(long, value_name = "COUNT", requires = "target")]
    pub(super) target_gpus: Option<NonZeroU32>,
    /// Of arrivals, lengths and routing
    #[arg(long, value_name = "SEED", default_value_t = 1)]
    pub(super) seed: u64,
    #[command(flatten)]
    pub(super) course: CourseArgs,
    #[command(flatten)]
    pub(super) behaviour: BehaviourArgs,
    #[command(flatten)]
    pub(super) scaling: ScalingArgs,
    #[command(flatten)]
    pub(super) demand: PlanInputArgs,
    #[command(flatten)]
    pub(super) fleet: FleetArgs,
}

/// A spike, as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Spike {
    /// So many times the average.
    Times(f64),
    /// The one that the log had.
    Own,
}

impl FromStr for Spike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().eq_ignore_ascii_case(own::NAME) { Ok(Self::Own) } else { read_multiple(text).map(Self::Times) }
    }
}

/// What comes when.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Course")]
pub(super) struct CourseArgs {
    /// Spikes, as multiples of the average; `own` is the log's own, from the `--demand` that plans are made with
    #[arg(long, value_name = "MULTIPLE|own,...", value_delimiter = ',', default_value = "5,10")]
    times: Vec<Spike>,
    /// Length of each spike; of the log's own the busiest part
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = length_of_time::read)]
    spike_for: Duration,
    /// Length of the average before them
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = length_of_time::read)]
    before_for: Duration,
    /// Length of the average after them
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = length_of_time::read)]
    after_for: Duration,
}

impl CourseArgs {
    pub(super) fn lengths(&self) -> Lengths {
        Lengths { before: self.before_for.as_secs_f64(), after: self.after_for.as_secs_f64() }
    }

    /// Its spikes in order.
    ///
    /// # Errors
    /// When the log's own is asked for, and the demand of `fleet` does not tell it.
    pub(super) fn spikes(&self, fleet: &FleetArgs) -> anyhow::Result<Vec<Phase>> {
        let phase = |spike: &Spike| match spike {
            Spike::Times(times) => Ok(Phase::spike(*times, self.spike_s())),
            Spike::Own => self.own(fleet),
        };
        self.times.iter().map(phase).collect()
    }

    fn own(&self, fleet: &FleetArgs) -> anyhow::Result<Phase> {
        let none = || anyhow::anyhow!("`--times own` is the spike of a log, and there is none. Give its demand with `--demand`");
        let (demand, file) = fleet.demand()?.ok_or_else(none).exit_with(Exit::Usage)?;
        own::phase(&demand, &file, self.spike_s()).exit_with(Exit::BadInput)
    }

    pub(super) fn spike_s(&self) -> f64 {
        self.spike_for.as_secs_f64()
    }
}

/// Router, queue and clients.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Router, queue and clients")]
pub(super) struct BehaviourArgs {
    /// round-robin, least-loaded or power-of-two
    #[arg(long, value_name = "ROUTING", default_value_t, value_parser = read_routing)]
    pub(super) routing: Routing,
    /// Calls that wait at most, per replica; others are refused [default: any number]
    #[arg(long, value_name = "COUNT")]
    pub(super) queue: Option<u32>,
    /// Calls that a replica has at most; others wait before the fleet [default: any number]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) in_flight: Option<u32>,
    /// Clients give up a try after this [default: never, and 30s where they try again]
    #[arg(long, value_name = "TIME", value_parser = length_of_time::read)]
    client_timeout: Option<Duration>,
    /// Retries at most for each first try, over all clients [default: none within the course; 0.1 where it is compared]
    #[arg(long, value_name = "SHARE", value_parser = read_share)]
    retry_budget: Option<f64>,
    /// Replicas work on for clients that gave up
    #[arg(long)]
    ignore_aborts: bool,
    /// Replicas that are lost together in the middle of the last spike
    #[arg(long, value_name = "COUNT", default_value_t = 0)]
    lose_replicas: u32,
}

impl BehaviourArgs {
    /// Clients of the course itself: they wait as long as they are told to, and do not try again.
    pub(super) fn clients(&self) -> Clients {
        Clients {
            timeout: self.client_timeout.map(nanos),
            retry_budget: self.retry_budget,
            abort_is_seen: !self.ignore_aborts,
            ..Clients::default()
        }
    }

    /// In the middle of the last spike, which comes before the average again.
    pub(super) fn loss(&self, course: &Course) -> Option<(Nanos, u32)> {
        let (from, to) = course.span(course.phases.len().saturating_sub(2));
        let middle = from.as_secs_f64().midpoint(to.as_secs_f64());
        (self.lose_replicas > 0).then_some((Nanos::from_secs_f64(middle), self.lose_replicas))
    }
}

/// An autoscaler.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Autoscaler")]
pub(super) struct ScalingArgs {
    /// Replicas that an autoscaler grows to [default: there is none]
    #[arg(long, value_name = "COUNT")]
    scale_to: Option<NonZeroU32>,
    /// Calls/s that it aims at for each replica [default: what one sustains within the SLO]
    #[arg(long, value_name = "RATE", requires = "scale_to", value_parser = read_multiple)]
    scale_target: Option<f64>,
    /// From its decision to a replica that serves: node, image, weights, warm-up
    #[arg(long, value_name = "TIME", requires = "scale_to", default_value = "3m", value_parser = length_of_time::read)]
    lead_time: Duration,
}

impl ScalingArgs {
    pub(super) fn of(&self, replicas: u32, per_replica: f64) -> Option<Scaling> {
        let most = self.scale_to?.get().max(replicas);
        let target = self.scale_target.unwrap_or(per_replica);
        Some(Scaling::usual(Signal::CallsPerSecond(target), most, nanos(self.lead_time)))
    }
}

fn nanos(length: Duration) -> Nanos {
    Nanos::from_secs_f64(length.as_secs_f64())
}

fn read_routing(text: &str) -> Result<Routing, NoSuchRouting> {
    text.parse()
}

fn read_multiple(text: &str) -> Result<f64, String> {
    let number =
        text.trim().trim_end_matches(['x', 'X']).parse::<f64>().map_err(|_| format!("`{text}` is no number. Write it like 5 or 2.5"))?;
    if number > 0.0 && number < 1e6 { Ok(number) } else { Err(format!("`{text}` is not above 0 and below 1,000,000")) }
}
