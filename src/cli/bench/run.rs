//! From chosen arguments to a measured and saved run.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;

use anyhow::Context;

use crate::campaign::bench;
use crate::campaign::interrupt::Interrupt;
use crate::campaign::journal::{Journal, KeepRequests};
use crate::campaign::litmus::{Driven, LiveCourse};
use crate::campaign::measure::{Bench, Halt};
use crate::campaign::plan::Plan;
use crate::campaign::progress::{Progress, Watcher};
use crate::campaign::server_meter::ServerMeter;
use crate::campaign::servers::ServerTargets;
use crate::campaign::summary;
use crate::campaign::targets::{EngineTargets, NullTargets, SimulatedTargets, Targets};
use crate::campaign::traffic::{Chosen, Traffic};
use crate::cli::bench::args::{BenchArgs, OnCapArg, TargetKind};
use crate::cli::bench::served::Served;
use crate::cli::bench::watch::Watched;
use crate::cli::bench::{Course, choose, law};
use crate::cli::ceilings::measure as measure_ceilings;
use crate::cli::device::Device;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::progress::Drawn;
use crate::cli::terminal;
use crate::clock::{Clock, Monotonic, Nanos, Virtual, wall_now};
use crate::device::ceilings::CeilingWish;
use crate::engine::loading::{ModelSource, ShapeWish};
use crate::engine::weights::LoadProgress;
use crate::node;
use crate::record::SCHEMA_VERSION;
use crate::record::ceilings::{CeilingKind, CeilingsRecord};
use crate::record::node::NodeRecord;
use crate::record::run::{RunRecord, RunStatus};
use crate::record::slo::{Slo, SloSource};
use crate::record::target::TargetIdentity;
use crate::rng;
use crate::store::atomic;
use crate::store::request_log::writer::RequestLog;
use crate::store::runs::RunStore;
use crate::workload::fit::Limits;

/// Seconds that each ceiling of a GPU may take, and in a quick run, which has a few seconds for all of them.
const CEILING_S: f64 = 1.0;
const QUICK_CEILING_S: f64 = 0.25;
/// Context and vocabulary of targets that know none.
const UNLIMITED: Limits = Limits { max_context: 1 << 20, vocab_size: 1 << 16 };

/// What a run is made on.
pub(super) struct Host {
    pub(super) node: NodeRecord,
    pub(super) clock: Monotonic,
    pub(super) watched: Watched,
}

/// What is measured, where it is not of this process alone.
pub(super) struct Subject {
    /// Where the built-in engine computes.
    pub(super) device: Option<Device>,
    /// A server that answers.
    pub(super) server: Option<Served>,
}

/// Everything but the measuring.
pub(super) struct Prepared {
    args: BenchArgs,
    node: NodeRecord,
    watched: Watched,
    plan: Plan,
    traffic: Chosen,
    targets: Box<dyn Targets>,
    meter: Option<ServerMeter>,
    clock: Box<dyn Clock>,
    /// What the target is made of, beyond its identity: names the plan with it.
    made_of: String,
    /// Of a target that computes in this process.
    busy_threads: Option<u32>,
    drawn: Drawn,
}

/// What is left of a run that is gone on with.
pub(super) type Resumed = Option<(PathBuf, RunRecord)>;

impl Prepared {
    /// Loads the model and makes the traffic.
    pub(super) fn new(
        args: BenchArgs,
        subject: Subject,
        host: Host,
        seed: u64,
        mut drawn: Drawn,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Self> {
        let Host { node, clock, watched } = host;
        let slo = args.method.slo.as_deref().map(|text| Slo::parse(text, SloSource::Flag)).transpose()?;
        // Whatever is wrong with the traffic is said before weights are loaded.
        let traffic = choose::traffic(&args, subject.device.as_ref())?;
        let mut meter = None;
        let busy_threads = subject.device.as_ref().map(Device::busy_threads);
        let (targets, clock, made_of): (Box<dyn Targets>, Box<dyn Clock>, String) = match (&args.target.target, subject.device) {
            (_, Some(device)) => {
                let for_model = device.clone();
                let source = model(&args, &node, &device, seed)?;
                choose::fitted(traffic.clone(), choose::limits(&source.config))?;
                let open = || model(&args, &node, &for_model, seed);
                let engines = engine(open, &args, seed, device, clock, &mut drawn, interrupt)?;
                let made_of = engines.made_of();
                (Box::new(engines), Box::new(clock), made_of)
            }
            (TargetKind::Simulated, None) => {
                let law = law::named(&args.target.law)?;
                let made_of = format!("{law:?}");
                let targets = SimulatedTargets::new(&args.target.law, law, rng::derive(seed, "target"));
                (Box::new(targets), Box::new(Virtual::start()), made_of)
            }
            (TargetKind::Server(_), None) => {
                let Served { reached, page, .. } = subject.server.context("a server is reached before it is measured")?;
                meter = page.map(|page| ServerMeter::start(page, clock, args.quick));
                let servers = ServerTargets::new(reached, clock, interrupt);
                let made_of = servers.made_of();
                (Box::new(servers), Box::new(clock), made_of)
            }
            (_, None) => (Box::new(NullTargets), Box::new(clock), String::new()),
        };
        let identity = targets.identity();
        let limits = Limits {
            max_context: if identity.max_context > 0 { identity.max_context } else { UNLIMITED.max_context },
            vocab_size: if identity.vocab_size > 0 { identity.vocab_size } else { UNLIMITED.vocab_size },
        };
        let traffic = choose::fitted(traffic, limits)?;
        let slo = match slo {
            Some(slo) => Some(slo),
            None => traffic.slo()?.or_else(|| Slo::preset(&identity.model)),
        };
        let first_rate = args.traffic.trace_speed.and_then(|_| traffic.own_rate());
        let plan = Plan { first_rate, ..plan(&args, seed, slo) };
        Ok(Self { args, node, watched, plan, traffic, targets, meter, clock, made_of, busy_threads, drawn })
    }

    /// What is driven.
    pub(super) fn identity(&self) -> TargetIdentity {
        self.targets.identity()
    }

    /// Drives a fresh target through a course.
    pub(super) fn drive(mut self, asked: &Course<'_>, log: &mut RequestLog, interrupt: &Interrupt) -> anyhow::Result<Driven> {
        let mut target = self.targets.fresh()?;
        let live = LiveCourse {
            course: asked.course,
            slo: asked.slo,
            traffic: &self.traffic,
            timeout: self.plan.timeout,
            cap: self.plan.cap,
            seed: asked.seed,
            log,
            interrupt,
            watcher: &mut self.drawn,
        };
        let driven = live.drive(&mut *target, &mut *self.clock);
        self.drawn.clear();
        driven
    }

    fn record(&self, id: &str, command: Vec<String>) -> RunRecord {
        let identity = self.targets.identity();
        let workload = self.traffic.record();
        let mut labels = identity.labels.clone();
        labels.extend(self.plan.label());
        labels.extend(self.args.label.clone());
        labels.extend(self.watched.labels.iter().cloned());
        RunRecord {
            schema_version: SCHEMA_VERSION,
            id: id.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            created: wall_now().to_string(),
            status: RunStatus::Running,
            command,
            labels,
            node: self.node.clone(),
            slo: self.plan.slo.clone(),
            seed: self.plan.seed,
            demand: self.args.demand.record(),
            quick: self.plan.quick,
            plan_hash: self.plan.hash(&[
                &format!("{identity:?}"),
                &self.made_of,
                &workload.hash,
                env!("CARGO_PKG_VERSION"),
                &self.node.hostname,
                &self.node.cpu_model,
                &self.node.cores.to_string(),
            ]),
            cold_start: self.targets.cold_start(),
            generator_ceiling: None,
            server: self.targets.server(),
            ceilings: self.targets.ceilings().cloned(),
            // A decoding request has its prompt and on average half of its answer behind it.
            decode_need: self.targets.decode_need((workload.mean_input_tokens + 0.5 * workload.mean_output_tokens).ceil() as u64),
            idle: Vec::new(),
            drift: None,
            search: None,
            headline: None,
            findings: Vec::new(),
            levels: Vec::new(),
            target: identity,
            workload,
        }
    }
}

/// Measures, saves after each level, and judges.
pub(super) fn measure(
    mut prepared: Prepared,
    place: Place<'_>,
    resumed: Resumed,
    interrupt: &Interrupt,
) -> anyhow::Result<(RunRecord, Option<Halt>)> {
    let mut run = prepared.record(place.id, place.command);
    let folder = match &resumed {
        None => {
            if !prepared.clock.is_virtual() {
                let mean = |tokens: f64| tokens.round() as u32;
                let (prompt, output) = (mean(run.workload.mean_input_tokens), mean(run.workload.mean_output_tokens));
                run.generator_ceiling = prepared.targets.generator_ceiling(prompt, output);
            }
            place.store.create(&run)?
        }
        Some((folder, saved)) => {
            if saved.plan_hash != run.plan_hash {
                let what = format!(
                    "run {} cannot be resumed: model, workload, method, version of plimsoll or node are not what it began with. Start a new run",
                    saved.id
                );
                return Err(anyhow::anyhow!(what)).exit_with(Exit::BadInput);
            }
            let (folder, saved) = place.store.resume(folder)?;
            let cold_start = if saved.cold_start.first_request_ms.is_some() { saved.cold_start } else { run.cold_start };
            let RunRecord { id, created, command, generator_ceiling, idle, .. } = saved;
            prepared.watched.instruments.take_off(&idle);
            run = RunRecord { id, created, command, cold_start, generator_ceiling, idle, ..run };
            folder
        }
    };
    let keep = if prepared.args.method.no_request_log { KeepRequests::No } else { KeepRequests::Yes };
    let mut journal = Journal::open(folder, run.clone(), keep)?;
    if !prepared.clock.is_virtual() {
        // Nothing is known of the target yet; said again after the first reference.
        let (e2e_s, calls_per_s) = if prepared.plan.quick { (0.05, 50.0) } else { (1.0, 1.0) };
        let guess = prepared.plan.expected(e2e_s, calls_per_s, 1.0).total_s();
        let expected_s = prepared.plan.budget.map_or(guess, |budget| guess.min(budget.as_secs_f64()));
        prepared.drawn.tell(Progress::Begins { expected_s });
    }
    let mut bench = Bench {
        plan: &prepared.plan,
        traffic: &prepared.traffic,
        clock: &mut *prepared.clock,
        journal: &mut journal,
        watcher: &mut prepared.drawn,
        interrupt,
        telemetry: &mut prepared.watched.instruments,
        server: prepared.meter.as_ref(),
        ceiling: run.generator_ceiling,
        pace: 1.0,
        first_request_ms: None,
        levels: Vec::new(),
    };
    let measured = bench::run(&mut bench, &mut *prepared.targets);
    run.levels = std::mem::take(&mut bench.levels);
    prepared.drawn.clear();
    if let Some(file) = &prepared.args.watch.save_samples {
        atomic::write(file, prepared.watched.instruments.recording()?.as_bytes())?;
    }
    let result = match measured {
        Ok(result) => result,
        Err(error) => {
            // The first error is the one to report; if saving fails too, the levels are still there.
            let _ = journal.learn(|run| run.status = RunStatus::Aborted);
            return Err(error);
        }
    };
    let halted = result.halted;
    summary::conclude(&mut run, result, &prepared.plan);
    run.findings.extend(prepared.watched.instruments.failure());
    run.findings.append(&mut prepared.watched.findings);
    run.findings.extend(prepared.busy_threads.and_then(|threads| node::findings::of_cores(&run.node, threads)));
    journal.learn(|known| *known = run.clone())?;
    if run.status == RunStatus::Complete {
        journal.finish()?;
    }
    Ok((run, halted))
}

/// Where a run is kept.
pub(super) struct Place<'a> {
    pub(super) store: &'a RunStore,
    pub(super) id: &'a str,
    /// The command line to keep; that of a resumed run stays.
    pub(super) command: Vec<String>,
}

fn plan(args: &BenchArgs, seed: u64, slo: Option<Slo>) -> Plan {
    let base = if args.quick { Plan::quick(seed) } else { Plan::full(seed) };
    let length = |time: std::time::Duration| Nanos::from_secs_f64(time.as_secs_f64());
    let mut plan = Plan {
        slo: slo.or_else(|| (!args.quick).then(Slo::default_limits)),
        most_concurrency: args.method.max_concurrency.unwrap_or(base.most_concurrency),
        budget: args.budget.map(length),
        timeout: args.method.timeout.map_or(base.timeout, length),
        cap: args.method.in_flight_cap,
        refuse_at_cap: args.method.on_cap == OnCapArg::Refuse,
        natural_length: args.server.natural_length,
        for_planner: args.method.for_planner,
        ..base
    };
    if let Some(runs) = args.method.confirmations {
        plan.windows.confirmation_runs = runs;
    }
    plan
}

fn model(args: &BenchArgs, node: &NodeRecord, device: &Device, seed: u64) -> anyhow::Result<ModelSource> {
    args.engine.open(&choose::model(args, node, device), rng::derive(seed, "weights"))
}

/// What the first device can do at most, measured while it is empty. A quick run has no time for a CPU's.
fn ceilings(device: &Device, args: &BenchArgs, drawn: &mut Drawn) -> anyhow::Result<Option<CeilingsRecord>> {
    if args.quick && device.is_cpu() {
        return Ok(None);
    }
    let seconds_each = if args.quick { QUICK_CEILING_S } else { CEILING_S };
    drawn.tell(Progress::Note("measuring what the device can do at most".to_owned()));
    let kinds = Some(vec![CeilingKind::MemoryRead, CeilingKind::MatrixProduct]);
    let wish = CeilingWish { seconds_each, kinds, element: device.element() };
    measure_ceilings(&device.first(), args.device.libraries(), &wish, terminal::Progress::Silent).map(Some)
}

fn engine(
    open: impl Fn() -> anyhow::Result<ModelSource> + Sync,
    args: &BenchArgs,
    seed: u64,
    device: Device,
    clock: Monotonic,
    drawn: &mut Drawn,
    interrupt: &Interrupt,
) -> anyhow::Result<EngineTargets> {
    let wish = ShapeWish {
        num_kv_blocks: args.target.kv_blocks,
        host_cache: u64::from(args.target.kv_cache_gib) << 30,
        ..args.engine.wish(device.is_cpu())
    };
    let ceilings = ceilings(&device, args, drawn)?;
    let began = clock.now();
    let mut told = |at: LoadProgress| {
        drawn.tell(Progress::Loading { done: at.done, total: at.total });
        if let Some(signal) = interrupt.raised() {
            // The loader has no other way to be told, and nothing of it outlives the unwinding.
            resume_unwind(Box::new(Halt::Signal(signal)));
        }
    };
    let loaded = catch_unwind(AssertUnwindSafe(|| device.load(args.device.libraries(), open, &wish, &mut told)));
    let models = match loaded {
        Ok(models) => models.context("cannot load the model")?,
        Err(stopped) => match stopped.downcast::<Halt>() {
            Ok(halt) => return Err(*halt).context("stopped while the model was loaded, before anything was measured"),
            Err(panic) => resume_unwind(panic),
        },
    };
    for model in &models {
        let (blocks, gib) = (model.shape.num_kv_blocks, model.memory.kv_cache as f64 / f64::from(1 << 30));
        let (device, size) = (model.device.label(), model.shape.block_size);
        let cache =
            format!("the KV cache on {device} has {blocks} blocks of {size} tokens, {gib:.2} GiB (`--kv-blocks`, `--kv-cache-gib`)");
        drawn.tell(Progress::Note(cache));
    }
    Ok(EngineTargets::new(models, clock, clock.now().since(began).as_secs_f64(), rng::derive(seed, "devices")).beside(ceilings))
}
