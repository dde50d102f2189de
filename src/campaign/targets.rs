//! Where a campaign gets its targets from: a fresh one whenever the method asks for a fresh engine.

use anyhow::Context;

use crate::clock::Monotonic;
use crate::engine::loading::LoadedModel;
use crate::queueing::law::ServiceLaw;
use crate::record::run::ColdStart;
use crate::record::target::TargetIdentity;
use crate::rng;
use crate::target::Target;
use crate::target::in_process::InProcess;
use crate::target::null::Null;
use crate::target::simulated::Simulated;

/// Makes targets of one kind.
pub trait Targets {
    /// What they are.
    fn identity(&self) -> TargetIdentity;

    /// A fresh target: nothing cached, nothing in flight.
    ///
    /// # Errors
    /// When it cannot be made, such as for want of memory.
    fn fresh(&mut self) -> anyhow::Result<Box<dyn Target>>;

    /// What making the first one cost.
    fn cold_start(&self) -> ColdStart {
        ColdStart::default()
    }

    /// Most requests that can be in flight to some use: beyond it they only wait.
    fn most_in_flight(&self) -> u32;
}

/// Replicas under a service law, each with a seed of its own.
#[derive(Debug)]
pub struct SimulatedTargets {
    name: String,
    law: ServiceLaw,
    seed: u64,
    made: u64,
}

impl SimulatedTargets {
    /// Replicas under `law`.
    #[must_use]
    pub fn new(name: &str, law: ServiceLaw, seed: u64) -> Self {
        Self { name: name.to_owned(), law, seed, made: 0 }
    }
}

impl Targets for SimulatedTargets {
    fn identity(&self) -> TargetIdentity {
        Simulated::identity_of(&self.name)
    }

    fn fresh(&mut self) -> anyhow::Result<Box<dyn Target>> {
        self.made += 1;
        Ok(Box::new(Simulated::new(&self.name, self.law.clone(), rng::at(self.seed, self.made))))
    }

    fn most_in_flight(&self) -> u32 {
        1024
    }
}

/// Null targets.
#[derive(Debug, Default)]
pub struct NullTargets;

impl Targets for NullTargets {
    fn identity(&self) -> TargetIdentity {
        Null::default().identity()
    }

    fn fresh(&mut self) -> anyhow::Result<Box<dyn Target>> {
        Ok(Box::new(Null::default()))
    }

    fn most_in_flight(&self) -> u32 {
        1024
    }
}

/// Engines over one loaded model: the weights are shared, the cache is fresh.
#[derive(Debug)]
pub struct EngineTargets {
    model: LoadedModel,
    identity: TargetIdentity,
    clock: Monotonic,
    load_s: f64,
}

impl EngineTargets {
    /// Engines over `model`, whose loading took `load_s` seconds; their stamps come from `clock`.
    #[must_use]
    pub fn new(model: LoadedModel, clock: Monotonic, load_s: f64) -> Self {
        let identity = InProcess::identity_of(&model);
        Self { model, identity, clock, load_s }
    }
}

impl Targets for EngineTargets {
    fn identity(&self) -> TargetIdentity {
        self.identity.clone()
    }

    fn fresh(&mut self) -> anyhow::Result<Box<dyn Target>> {
        Ok(Box::new(InProcess::of(&self.model, self.clock).context("cannot start a fresh engine")?))
    }

    fn cold_start(&self) -> ColdStart {
        ColdStart { load_s: self.load_s, first_request_ms: None }
    }

    fn most_in_flight(&self) -> u32 {
        // Beyond its largest batch an engine only queues; one doubling more shows it.
        u32::try_from(self.model.shape.max_num_seqs.saturating_mul(2)).unwrap_or(u32::MAX)
    }
}
