//! The engine as a target: every request ends exactly once, whatever happens to the engine.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use plimsoll::campaign::targets::{EngineTargets, Targets};
use plimsoll::campaign::traffic::{Chosen, Traffic as _};
use plimsoll::clock::{Clock, Monotonic, Nanos};
use plimsoll::device::cpu::{Arithmetic, CpuDevice, CpuSpec};
use plimsoll::device::error::DeviceError;
use plimsoll::device::step::StepBatch;
use plimsoll::engine::Engine;
use plimsoll::engine::forward::ForwardPass;
use plimsoll::engine::kv_blocks::PrefixReuse;
use plimsoll::engine::loading::{LoadedModel, ModelSource, ShapeWish};
use plimsoll::engine::scheduler::EngineShape;
use plimsoll::model::config::ModelConfig;
use plimsoll::model::presets;
use plimsoll::record::request::FailureKind;
use plimsoll::record::target::{BatchLimits, TargetIdentity};
use plimsoll::target::in_process::InProcess;
use plimsoll::target::{Event, EventKind, Slot, Target};
use plimsoll::workload::fit::Limits;
use plimsoll::workload::request::{Prompt, Request, Sampling};
use plimsoll::workload::spec::Workload;
use plimsoll::workload::traffic::Traffic;

/// What the fake model does after some steps.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Works,
    Panics,
    RunsOutOfMemory,
    Breaks,
}

struct Fated {
    config: ModelConfig,
    fate: Fate,
    steps_left: u64,
    step_takes: Duration,
}

impl ForwardPass for Fated {
    fn model(&self) -> &ModelConfig {
        &self.config
    }

    fn step(&mut self, batch: &StepBatch, sampled: &mut Vec<u32>) -> Result<(), DeviceError> {
        std::thread::sleep(self.step_takes);
        sampled.clear();
        sampled.extend(batch.logit_rows.iter().map(|_| 1));
        if self.steps_left > 0 || self.fate == Fate::Works {
            self.steps_left = self.steps_left.saturating_sub(1);
            return Ok(());
        }
        match self.fate {
            Fate::Works => Ok(()),
            Fate::Panics => panic!("a panic that the test asked for"),
            Fate::RunsOutOfMemory => {
                Err(DeviceError::OutOfMemory { what: "a step".to_owned(), needed: 2, free: 1, remedy: "None in a test".to_owned() })
            }
            Fate::Breaks => Err(DeviceError::Step { reason: "the test asked for it".to_owned() }),
        }
    }

    fn logits(&mut self, _row: usize) -> Result<Vec<f32>, DeviceError> {
        Ok(Vec::new())
    }
}

fn target(fate: Fate, step_takes: Duration) -> InProcess {
    let shape =
        EngineShape { block_size: 16, num_kv_blocks: 64, max_num_seqs: 4, max_num_batched_tokens: 64, prefix_reuse: PrefixReuse::On };
    let config = presets::find("llama-5m").unwrap().config().unwrap();
    let engine = Engine::new(Box::new(Fated { config, fate, steps_left: 3, step_takes }), shape);
    let identity = TargetIdentity {
        kind: "engine".to_owned(),
        model: "fake".to_owned(),
        device: "none".to_owned(),
        precision: "none".to_owned(),
        devices: 1,
        labels: vec!["synthetic weights".to_owned()],
        max_context: 0,
        vocab_size: 0,
        batch: BatchLimits::default(),
    };
    InProcess::start(engine, identity, Monotonic::start()).unwrap()
}

fn request(id: u64, prompt_tokens: u32, output_tokens: u32) -> Request {
    Request { id, prompt: Prompt::unique(id, prompt_tokens), output_tokens, sampling: Sampling::default(), session: None }
}

/// Takes events until `ends` requests ended; panics rather than hangs.
fn events_until(target: &mut InProcess, ends: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let mut clock = Monotonic::start();
    target.wake_this_thread();
    while events.iter().filter(|event: &&Event| is_end(event)).count() < ends {
        assert!(clock.now() < Nanos::from_secs(20), "the target is silent after {events:?}");
        clock.wait(clock.now() + Nanos::from_millis(1), &mut || target.has_events());
        while let Some(event) = target.next_event() {
            events.push(event);
        }
    }
    events
}

fn is_end(event: &Event) -> bool {
    matches!(event.kind, EventKind::Completed | EventKind::Failed(_))
}

#[test]
fn every_request_is_told_from_start_to_end_in_order_of_stamps() {
    let mut target = target(Fate::Works, Duration::ZERO);
    for id in 0..20 {
        target.submit(request(id, 30, 7), Slot(id as u32));
    }
    let events = events_until(&mut target, 20);
    assert!(events.is_sorted_by_key(|event| event.at));
    let mut told = BTreeMap::<u32, Vec<EventKind>>::new();
    events.iter().for_each(|event| told.entry(event.slot.0).or_default().push(event.kind));
    for kinds in told.values() {
        assert_eq!(kinds[0], EventKind::Started { cached_tokens: 0 });
        assert_eq!(kinds[1..8], [EventKind::Tokens(1); 7]);
        assert_eq!(kinds[8..], [EventKind::Completed]);
    }
    // The counters follow at the end of the step.
    let mut clock = Monotonic::start();
    clock.wait(Nanos::from_secs(5), &mut || target.counters().decode_tokens == 140);
    let counters = target.counters();
    assert_eq!((counters.decode_tokens, counters.prefill_tokens, counters.kv_blocks_total), (140, 600, 64));
    assert_eq!(target.events_lost(), 0);
    assert_eq!((target.identity().max_context, target.identity().vocab_size), (64 * 16 + 1, 4096));
    // It parks, and wakes again.
    std::thread::sleep(Duration::from_millis(5));
    target.submit(request(20, 5, 1), Slot(3));
    assert_eq!(events_until(&mut target, 1).len(), 3);
}

#[test]
fn a_failing_engine_fails_every_request_and_hangs_none() {
    let fates = [
        (Fate::Panics, FailureKind::TargetGone),
        (Fate::RunsOutOfMemory, FailureKind::OutOfMemory),
        (Fate::Breaks, FailureKind::TargetGone),
    ];
    for (fate, failure) in fates {
        let mut target = target(fate, Duration::ZERO);
        for id in 0..6 {
            target.submit(request(id, 30, 700), Slot(id as u32));
        }
        let events = events_until(&mut target, 6);
        let ends: BTreeMap<_, _> = events.iter().filter(|event| is_end(event)).map(|event| (event.slot.0, event.kind)).collect();
        assert_eq!(ends.len(), 6, "each slot ends once");
        assert!(ends.values().all(|kind| matches!(kind, EventKind::Failed(kind) if *kind == failure || *kind == FailureKind::TargetGone)));
        assert!(ends.values().any(|kind| *kind == EventKind::Failed(failure)));
        target.submit(request(6, 30, 7), Slot(0));
        let later = events_until(&mut target, 1);
        assert_eq!(later[0].kind, EventKind::Failed(FailureKind::TargetGone));
    }
}

#[test]
fn a_request_beyond_the_limits_is_rejected_and_the_others_go_on() {
    let mut target = target(Fate::Works, Duration::ZERO);
    target.submit(request(0, 9000, 7), Slot(0));
    target.submit(request(1, 30, 7), Slot(1));
    let events = events_until(&mut target, 2);
    let end = |slot: u32| events.iter().find(|event| event.slot.0 == slot && is_end(event)).unwrap().kind;
    assert_eq!(end(0), EventKind::Failed(FailureKind::Rejected));
    assert_eq!(end(1), EventKind::Completed);
}

#[test]
fn traffic_is_fitted_to_the_cache_of_an_engine_and_not_to_the_context_of_its_model_alone() {
    let wish = ShapeWish { num_kv_blocks: Some(8), ..ShapeWish::default() };
    let spec = CpuSpec::new(NonZeroUsize::MIN, Arithmetic::F32);
    let source = ModelSource::open("llama-5m", 0).unwrap();
    let model = LoadedModel::load(source, move || CpuDevice::open(spec), &wish, &mut |_| {}).unwrap();
    let mut targets = EngineTargets::new(vec![model], Monotonic::start(), 0.0, 1);
    let identity = targets.identity();
    assert_eq!((identity.max_context, identity.vocab_size, identity.device.as_str()), (8 * 16 + 1, 4096, "cpu"));
    let limits = Limits { max_context: identity.max_context, vocab_size: identity.vocab_size };
    let traffic = Chosen::new(Traffic::Drawn(Workload::preset("chat").unwrap()), limits).unwrap();
    assert!(traffic.mix().capped_share > 0.1, "shortened requests are counted");
    let mut target = targets.fresh().unwrap();
    assert_eq!(target.identity(), identity);
    let mut requests = traffic.requests(1).unwrap();
    for slot in 0..20 {
        target.submit(requests.next_request().unwrap(), Slot(slot));
    }
    let mut clock = Monotonic::start();
    let mut ends = Vec::new();
    while ends.len() < 20 {
        assert!(clock.now() < Nanos::from_secs(60), "the target is silent");
        clock.wait(clock.now() + Nanos::from_millis(1), &mut || target.has_events());
        while let Some(event) = target.next_event() {
            ends.extend(is_end(&event).then_some(event.kind));
        }
    }
    assert!(ends.iter().all(|end| *end == EventKind::Completed), "{ends:?}");
}

#[test]
fn a_cancelled_request_ends_once_and_its_slot_can_be_used_again() {
    let mut target = target(Fate::Works, Duration::from_micros(200));
    target.submit(request(0, 30, 900), Slot(0));
    target.submit(request(1, 30, 50), Slot(1));
    std::thread::sleep(Duration::from_millis(3));
    target.cancel(Slot(0));
    target.cancel(Slot(0));
    target.cancel(Slot(7));
    let events = events_until(&mut target, 2);
    assert_eq!(events.iter().filter(|event| event.slot.0 == 0 && is_end(event)).count(), 1);
    target.submit(request(2, 30, 2), Slot(0));
    let later = events_until(&mut target, 1);
    assert_eq!(later.last().map(|event| event.kind), Some(EventKind::Completed));
}

#[test]
fn dropping_a_busy_target_ends_its_thread() {
    let mut target = target(Fate::Works, Duration::from_millis(1));
    target.submit(request(0, 30, 900), Slot(0));
    let clock = Monotonic::start();
    drop(target);
    assert!(clock.now() < Nanos::from_millis(500), "it does not serve to the end first");
}
