//! Where a campaign gets its targets from: a fresh one whenever the method asks for a fresh engine.

use anyhow::Context;

use crate::campaign::ceiling;
use crate::clock::Monotonic;
use crate::engine::loading::LoadedModel;
use crate::model::arithmetic::{self, StepSequence};
use crate::queueing::law::ServiceLaw;
use crate::record::ceilings::{CeilingKind, CeilingsRecord};
use crate::record::run::{ColdStart, DecodeNeed};
use crate::record::server::ServerRecord;
use crate::record::target::TargetIdentity;
use crate::rng;
use crate::target::Target;
use crate::target::in_process::InProcess;
use crate::target::null::Null;
use crate::target::several::{self, Several};
use crate::target::simulated::{Simulated, limits_of};

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

    /// What its device can do at most, where that was measured.
    fn ceilings(&self) -> Option<&CeilingsRecord> {
        None
    }

    /// Calls/s that the generator itself can do at most in its way, with requests of these mean lengths; `None` where nothing tells.
    fn generator_ceiling(&self, _prompt_tokens: u32, _output_tokens: u32) -> Option<f64> {
        Some(ceiling::measure())
    }

    /// What is known of the server, where it is one.
    fn server(&self) -> Option<ServerRecord> {
        None
    }

    /// What one token at this context takes of it at least.
    fn decode_need(&self, _context: u64) -> Option<DecodeNeed> {
        None
    }

    /// Most requests that can be in flight to some use: beyond it they only wait.
    fn most_in_flight(&self) -> u32;
}

/// The target that is measured now: made when it is wanted, and anew when it died of a level.
pub struct Held<'a> {
    targets: &'a mut dyn Targets,
    target: Option<Box<dyn Target>>,
}

impl std::fmt::Debug for Held<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Held").field("made", &self.target.is_some()).finish_non_exhaustive()
    }
}

impl<'a> Held<'a> {
    /// None is made yet.
    pub fn of(targets: &'a mut dyn Targets) -> Self {
        Self { targets, target: None }
    }

    /// A target that serves.
    ///
    /// # Errors
    /// When a fresh one cannot be made.
    pub fn alive(&mut self) -> anyhow::Result<&mut dyn Target> {
        // The old engine goes before the new one comes: their caches need not fit side by side.
        let target = match self.target.take().filter(|target| target.is_alive()) {
            Some(target) => target,
            None => self.targets.fresh()?,
        };
        Ok(&mut **self.target.insert(target))
    }

    /// The next one is a fresh one: nothing cached, nothing in flight.
    pub fn renew(&mut self) {
        self.target = None;
    }

    /// What they are.
    #[must_use]
    pub fn identity(&self) -> TargetIdentity {
        self.targets.identity()
    }

    /// Devices that each of them owns, 1 or more.
    #[must_use]
    pub fn devices(&self) -> f64 {
        f64::from(self.targets.identity().devices.max(1))
    }

    /// See [`Targets::most_in_flight`].
    #[must_use]
    pub fn most_in_flight(&self) -> u32 {
        self.targets.most_in_flight()
    }
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
        TargetIdentity { batch: limits_of(&self.law), ..Simulated::identity_of(&self.name) }
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

/// Engines over a loaded model, one on each device: the weights stay, the caches are fresh.
#[derive(Debug)]
pub struct EngineTargets {
    /// The model as each device holds it; one or more.
    models: Vec<LoadedModel>,
    identity: TargetIdentity,
    clock: Monotonic,
    load_s: f64,
    /// Divides arrivals among the devices.
    seed: u64,
    /// Of the first device.
    ceilings: Option<CeilingsRecord>,
}

impl EngineTargets {
    /// Engines over `models`, one or more, whose loading took `load_s` seconds together; their stamps come from `clock`.
    #[must_use]
    pub fn new(models: Vec<LoadedModel>, clock: Monotonic, load_s: f64, seed: u64) -> Self {
        let each: Vec<_> = models.iter().map(InProcess::identity_of).collect();
        Self { models, identity: several::identity_of(&each), clock, load_s, seed, ceilings: None }
    }

    /// The same, beside what the first device can do at most, where that was measured.
    #[must_use]
    pub fn beside(self, ceilings: Option<CeilingsRecord>) -> Self {
        Self { ceilings, ..self }
    }

    /// Model and engine in every detail: a run is resumed on the same ones only.
    #[must_use]
    pub fn made_of(&self) -> String {
        let each = self.models.iter().map(|model| format!("{:?} {:?}", model.config, model.shape));
        each.collect::<Vec<_>>().join(", ")
    }
}

impl Targets for EngineTargets {
    fn identity(&self) -> TargetIdentity {
        self.identity.clone()
    }

    fn fresh(&mut self) -> anyhow::Result<Box<dyn Target>> {
        let start = |model| InProcess::of(model, self.clock).context("cannot start a fresh engine");
        if let [model] = &self.models[..] {
            return Ok(Box::new(start(model)?));
        }
        let engines = self.models.iter().map(|model| Ok(Box::new(start(model)?) as Box<dyn Target>));
        Ok(Box::new(Several::new(engines.collect::<anyhow::Result<_>>()?, self.seed)))
    }

    fn ceilings(&self) -> Option<&CeilingsRecord> {
        self.ceilings.as_ref()
    }

    fn decode_need(&self, context: u64) -> Option<DecodeNeed> {
        let (model, ceilings) = (self.models.first()?, self.ceilings.as_ref()?);
        let need = arithmetic::step_need(&model.config, model.held_bytes(), &[StepSequence { tokens: 1, context }]);
        Some(DecodeNeed {
            context,
            bytes: need.bytes,
            flops: need.flops,
            read_bytes_per_s: ceilings.best(CeilingKind::MemoryRead, None)?,
            flop_per_s: ceilings.best(CeilingKind::MatrixProduct, Some(model.element()))?,
        })
    }

    fn cold_start(&self) -> ColdStart {
        ColdStart { load_s: self.load_s, first_request_ms: None }
    }

    fn most_in_flight(&self) -> u32 {
        // Beyond its largest batch an engine only queues; two doublings more show it, which is what the sweep asks for.
        let sequences: usize = self.models.iter().map(|model| model.shape.max_num_seqs).sum();
        u32::try_from(sequences.saturating_mul(4)).unwrap_or(u32::MAX)
    }
}
