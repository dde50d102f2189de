//! What a need comes to as machines: replicas, nodes, spares, how busy they are on an average day, and what they cost.

use std::num::NonZeroU32;

use serde::Serialize;

use crate::capacity::plan::PlanInputs;
use crate::capacity::redundancy;
use crate::capacity::staffing::square_root;
use crate::units::gpus::Gpus;
use crate::units::rate::{CallRate, CallRatePerGpu, VisibleRate};

/// How much above the offered load the square-root rule staffs: at 1, in an M/M/c queue of many servers about one call in five waits.
const SQUARE_ROOT_BETA: f64 = 1.0;

/// Where replicas stand and what they cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct FleetInputs {
    /// GPUs of one node; `None` where nodes are not counted.
    pub gpus_per_node: Option<NonZeroU32>,
    /// Failure domains that may be lost at once.
    pub spare_domains: u32,
    /// GPUs that fail together; `None`: a node, or a replica where nodes are not counted.
    pub gpus_per_domain: Option<NonZeroU32>,
    /// Of one GPU, per hour, in whatever money.
    pub price_per_gpu_hour: Option<f64>,
    /// How available replicas are, and the fleet has to be.
    pub availability: Option<Availability>,
}

/// Replicas fail one by one, independently of each other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Availability {
    /// Probability that a replica stands, in (0, 1].
    pub of_replica: f64,
    /// Probability with which enough have to stand, in (0, 1).
    pub of_fleet: f64,
}

impl Default for FleetInputs {
    /// One failure domain may be lost; nothing else is known.
    fn default() -> Self {
        Self { gpus_per_node: None, spare_domains: 1, gpus_per_domain: None, price_per_gpu_hour: None, availability: None }
    }
}

/// Machines that carry a need.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Fleet {
    /// Replicas that carry it.
    pub replicas: u64,
    /// Replicas with the spare failure domains, and no fewer than availability wants.
    pub replicas_with_spare: u64,
    /// Replicas of which enough stand with the wanted probability; `None` where no availability was given, or no number does.
    pub for_availability: Option<u64>,
    /// Probability that enough of those that are owned stand; `None` where no availability was given.
    pub stand: Option<f64>,
    /// GPUs of those.
    pub gpus: u64,
    /// Nodes of those, where nodes are counted.
    pub nodes: Option<u64>,
    /// Share of their throughput that the average load takes, 0 or more.
    pub utilisation_at_average: f64,
    /// What the square-root rule would staff, GPUs, and the headroom that this is.
    pub square_root_gpus: f64,
    /// As a share of the need without any headroom.
    pub square_root_headroom: f64,
    /// What it costs, where a price was given.
    pub cost: Option<Cost>,
}

/// Money, per what is got for it. The fleet costs the same whether it is busy or not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Of the whole fleet.
    pub per_hour: f64,
    /// Per successful output at the average load: the anchor of unit economics.
    pub per_output_at_average: f64,
    /// Per successful output at the peak.
    pub per_output_at_peak: f64,
    /// Per million generated tokens at the average load; `None` where the length of answers is not known.
    pub per_million_tokens_at_average: Option<f64>,
    /// Per million generated tokens at the peak.
    pub per_million_tokens_at_peak: Option<f64>,
}

/// What a fleet has to carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Carries {
    /// The need, exactly, with its margins.
    pub exact: Gpus,
    /// The need with none.
    pub bare: Gpus,
    /// Average visible rate and calls.
    pub average: (VisibleRate, CallRate),
    /// Visible rate and calls at the peak.
    pub peak: (VisibleRate, CallRate),
    /// Of one GPU.
    pub throughput: CallRatePerGpu,
    /// Mean tokens of an answer, where known.
    pub output_tokens: Option<f64>,
}

impl Fleet {
    /// The smallest that carries the need in whole replicas, and still does when the spare failure domains are gone.
    #[must_use]
    pub fn of(carries: &Carries, inputs: &PlanInputs) -> Self {
        let (gpus_per_replica, price, inputs) = (inputs.gpus_per_replica, inputs.price(), &inputs.fleet);
        let per_replica = u64::from(gpus_per_replica.get());
        let replicas = carries.exact.in_groups_of(gpus_per_replica).replicas;
        // A replica that stands on several nodes is lost with any of them.
        let domain = inputs.gpus_per_domain.or(inputs.gpus_per_node).map_or(per_replica, |gpus| u64::from(gpus.get()));
        let replicas_per_domain = (domain / per_replica).max(1);
        let for_availability = inputs.availability.and_then(|wanted| redundancy::replicas(replicas, wanted.of_replica, wanted.of_fleet));
        let with_domains = replicas + u64::from(inputs.spare_domains) * replicas_per_domain;
        let replicas_with_spare = for_availability.unwrap_or(0).max(with_domains);
        let gpus = replicas_with_spare * per_replica;
        let nodes = inputs.gpus_per_node.map(|node| nodes(replicas_with_spare, per_replica, u64::from(node.get())));
        let owned = nodes.zip(inputs.gpus_per_node).map_or(gpus, |(nodes, node)| gpus.max(nodes * u64::from(node.get())));
        let (_, average_calls) = carries.average;
        let bare = carries.bare.get();
        // The rule counts servers, and a server is a replica.
        let servers = bare / per_replica as f64;
        let square_root_gpus = square_root(servers, SQUARE_ROOT_BETA) * per_replica as f64;
        Self {
            replicas,
            replicas_with_spare,
            for_availability,
            stand: inputs.availability.map(|wanted| redundancy::enough_stand(replicas_with_spare, replicas, wanted.of_replica)),
            gpus: owned,
            nodes,
            utilisation_at_average: average_calls.get() / carries.throughput.get() / owned as f64,
            square_root_gpus,
            square_root_headroom: square_root_gpus / bare - 1.0,
            cost: price.map(|price| cost(price * owned as f64, carries)),
        }
    }
}

/// Whole nodes for replicas that are not split where they fit into one.
fn nodes(replicas: u64, per_replica: u64, node: u64) -> u64 {
    if per_replica <= node { replicas.div_ceil(node / per_replica) } else { replicas * per_replica.div_ceil(node) }
}

fn cost(per_hour: f64, carries: &Carries) -> Cost {
    let per_second = per_hour / 3600.0;
    let tokens = |calls: CallRate| carries.output_tokens.map(|tokens| per_second / (calls.get() * tokens) * 1e6);
    let ((average, average_calls), (peak, peak_calls)) = (carries.average, carries.peak);
    Cost {
        per_hour,
        per_output_at_average: per_second / average.get(),
        per_output_at_peak: per_second / peak.get(),
        per_million_tokens_at_average: tokens(average_calls),
        per_million_tokens_at_peak: tokens(peak_calls),
    }
}
