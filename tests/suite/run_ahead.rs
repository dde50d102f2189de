//! An engine that runs one step ahead of what it knows gives the answers of one that waits for every step.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::{Clock, Monotonic, Nanos};
use plimsoll::engine::forward::{Forward, ForwardPass};
use plimsoll::engine::kv_blocks::PrefixReuse;
use plimsoll::engine::loading::ModelSource;
use plimsoll::engine::scheduler::{Counters, EngineShape};
use plimsoll::engine::sequence::{EndOfSequence, EngineRequest};
use plimsoll::engine::weights::Weights;
use plimsoll::engine::{Engine, EngineEvent};
use plimsoll::record::request::FailureKind;
use plimsoll::rng;
use plimsoll::target::in_process::InProcess;
use plimsoll::target::simulated::Simulated;
use plimsoll::target::{EventKind, Slot, Target as _};
use plimsoll::workload::request::{Prompt, Request, Sampling};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::behind::Behind;
use crate::checkpoints::{CHECKPOINTS, answer as answers_of, check, cpu, expected, folder};
use crate::engine::{END, Remembering, VOCAB_SIZE, answer, request, shape};
use crate::engine_shapes::{apart, scarce, shapes, some};

/// An engine over `inner` that runs ahead of it.
fn ahead(inner: Box<dyn ForwardPass>, shape: EngineShape) -> Engine {
    let mut engine = Engine::new(Behind::boxed(inner), shape);
    engine.run_ahead();
    engine
}

fn remembering(shape: EngineShape) -> Engine {
    ahead(Remembering::boxed(shape), shape)
}

/// What `request` is answered: all it asks for, or up to the end id.
fn answer_of(request: &EngineRequest) -> Vec<u32> {
    let mut all = answer(request);
    let end = all.iter().position(|token| *token == END).filter(|_| request.end_of_sequence == EndOfSequence::Stop);
    all.truncate(end.map_or(all.len(), |end| end + 1));
    all
}

/// Another request of the same name.
fn replacement(request: &EngineRequest) -> EngineRequest {
    EngineRequest { prompt: request.prompt.iter().map(|token| 49 - token).collect(), ..request.clone() }
}

/// A request that arrives every `gap` steps. Those that `cancelled` names by step are cancelled in it, and asked for anew with
/// another prompt at once. Tokens by key, and how often each finished.
fn serve(engine: &mut Engine, requests: &mut [EngineRequest], gap: usize, cancelled: &BTreeMap<usize, usize>) -> Vec<(Vec<u32>, usize)> {
    let mut told = vec![(Vec::new(), 0); requests.len()];
    let mut arrived = 0;
    for step in 0.. {
        assert!(step < 100_000, "the engine gets nowhere");
        if step % gap.max(1) == 0 {
            let until = if gap == 0 { requests.len() } else { requests.len().min(arrived + 1) };
            requests[arrived..until].iter().for_each(|request| engine.add(request.clone()).unwrap());
            arrived = until;
        }
        if let Some(key) = cancelled.get(&step).map(|which| which % requests.len())
            && engine.cancel(key as u64)
        {
            requests[key] = replacement(&requests[key]);
            told[key].0.clear();
            engine.add(requests[key].clone()).unwrap();
        }
        let busy = !engine.is_idle();
        let worked = engine.step(&mut |event| match event {
            EngineEvent::Token { key, token } => told[key as usize].0.push(token),
            EngineEvent::Finished { key } => told[key as usize].1 += 1,
            EngineEvent::Started { .. } | EngineEvent::Preempted { .. } => {}
        });
        assert_eq!(worked.unwrap(), busy, "an engine with work works");
        if engine.is_idle() && arrived == requests.len() {
            break;
        }
    }
    told
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn answers_do_not_depend_on_when_the_host_learns_of_them(
        block_size in 1_usize..9,
        spare_blocks in 0_u32..12,
        max_num_seqs in 1_usize..7,
        max_num_batched_tokens in 1_usize..40,
        prefix_reuse in prop_oneof![Just(PrefixReuse::On), Just(PrefixReuse::Off)],
        gap in 0_usize..4,
        lengths in prop::collection::vec((1_usize..40, 1_u32..30, 0_u64..3, any::<bool>()), 1..12),
        cancelled in prop::collection::btree_map(0_usize..60, 0_usize..12, 0..6),
    ) {
        let mut requests: Vec<_> = lengths.iter().enumerate().map(|(key, (prompt, output, kind, stops))| {
            // Prompts of one kind share their beginning.
            let prompt = (0..*prompt as u64).map(|place| (rng::at(*kind, place) % VOCAB_SIZE) as u32).collect();
            let end_of_sequence = if *stops { EndOfSequence::Stop } else { EndOfSequence::Ignore };
            EngineRequest { end_of_sequence, ..request(key as u64, prompt, *output) }
        }).collect();
        let longest = requests.iter().map(|request| request.prompt.len() + request.max_new_tokens as usize - 1).max().unwrap();
        let num_kv_blocks = longest.div_ceil(block_size) as u32 + spare_blocks;
        let shape = EngineShape { block_size, num_kv_blocks, max_num_seqs, max_num_batched_tokens, prefix_reuse };
        let mut engine = remembering(shape);
        for (request, (tokens, finished)) in requests.clone().iter().zip(serve(&mut engine, &mut requests, gap, &cancelled)) {
            let asked = &requests[request.key as usize];
            prop_assert_eq!((answer_of(asked), 1), (tokens, finished), "request {}", request.key);
        }
        prop_assert_eq!(engine.scheduler().kv_blocks().num_free(), num_kv_blocks as usize, "all blocks come back");

        // With known lengths and nothing found by content, the steps are those of an engine that waits.
        requests.iter_mut().for_each(|request| request.end_of_sequence = EndOfSequence::Ignore);
        let shape = EngineShape { prefix_reuse: PrefixReuse::Off, ..shape };
        let counted = |mut engine: Engine| -> Counters {
            serve(&mut engine, &mut requests.clone(), gap, &BTreeMap::new());
            engine.counters()
        };
        prop_assert_eq!(counted(remembering(shape)), counted(Engine::new(Remembering::boxed(shape), shape)));
    }
}

#[test]
fn tokens_and_logits_of_real_models_are_those_of_an_engine_that_waits() {
    let models = CHECKPOINTS.map(|name| {
        let source = ModelSource::open(folder(name).to_str().unwrap(), 0).unwrap();
        let weights = Weights::load(&mut cpu(1)().unwrap(), &source.config, &source.weights, 512, &mut |_| {}).unwrap();
        (Arc::new(source.config), Arc::new(weights), expected(name).prompts)
    });
    let (preemptions, cached) = (Cell::new(0), Cell::new(0));
    let case = (0_usize..3, shapes(), some(), any::<bool>());
    let config = Config { failure_persistence: None, ..Config::with_cases(24) };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let run = runner.run(&case, |(checkpoint, (shape, spare), mut chosen, twice)| {
        let (config, weights, prompts) = &models[checkpoint];
        if twice {
            chosen.extend_from_within(..2);
        }
        let asked: Vec<_> = chosen.iter().map(|prompt| prompts[*prompt].clone()).collect();
        let shape = EngineShape { num_kv_blocks: scarce(&asked, 48, shape.block_size, spare), ..shape };
        let forward = || Box::new(Forward::new(cpu(1)().unwrap(), Arc::clone(config), Arc::clone(weights), &shape).unwrap());
        let mut engine = ahead(forward(), shape);
        let answers = answers_of(&mut engine, &asked, 48);
        let waiting = answers_of(&mut Engine::new(forward(), shape), &asked, 48);
        let most = apart(&answers, &waiting);
        prop_assert!(most < if shape.prefix_reuse == PrefixReuse::Off { f32::MIN_POSITIVE } else { 1e-4 }, "logits differ by {most}");
        prop_assert!(check(CHECKPOINTS[checkpoint], &asked, &answers) < 1e-4);
        preemptions.set(preemptions.get() + engine.counters().preemptions);
        cached.set(cached.get() + engine.counters().cached_tokens);
        Ok(())
    });
    run.unwrap();
    let (preemptions, cached) = (preemptions.get(), cached.get());
    assert!(preemptions > 20 && cached > 50, "{preemptions} preemptions and {cached} cached tokens show nothing");
}

#[test]
fn a_token_is_told_one_step_late_and_the_last_one_without_another_request() {
    let mut engine = remembering(shape());
    engine.add(request(0, vec![1, 2, 3], 2)).unwrap();
    let mut told = Vec::new();
    for _ in 0..3 {
        let mut events = Vec::new();
        assert!(!engine.is_idle());
        assert!(engine.step(&mut |event| events.push(event)).unwrap());
        told.push(events);
    }
    let tokens = answer(&request(0, vec![1, 2, 3], 2));
    let token = |place: usize| EngineEvent::Token { key: 0, token: tokens[place] };
    assert_eq!(told[0], [EngineEvent::Started { key: 0, cached_tokens: 0 }]);
    assert_eq!(told[1], [token(0)]);
    assert_eq!(told[2], [token(1), EngineEvent::Finished { key: 0 }]);
    assert!(engine.is_idle() && !engine.step(&mut |_| {}).unwrap());
}

#[test]
fn what_was_computed_beyond_an_end_is_not_told_and_leaves_nothing_wrong_in_the_cache() {
    // A prompt whose answer meets the end id soon.
    let stops = |prompt| EngineRequest { end_of_sequence: EndOfSequence::Stop, ..request(0, vec![prompt; 6], 40) };
    let stopping = (0..50).map(stops).find(|request| (3..20).contains(&answer_of(request).len())).unwrap();
    let told = answer_of(&stopping);
    let mut engine = remembering(EngineShape { block_size: 1, ..shape() });
    assert_eq!(serve(&mut engine, &mut [stopping.clone()], 0, &BTreeMap::new()), [(told.clone(), 1)]);
    assert_eq!(engine.counters().decode_tokens, told.len() as u64);
    // The whole of it again, and more: all is found, also the end, whose keys and values the step beyond it computed.
    let prompt: Vec<u32> = stopping.prompt.iter().chain(&told).chain(&[5, 6]).copied().collect();
    let found = prompt.len() - 2;
    let again = request(0, prompt, 5);
    assert_eq!(serve(&mut engine, &mut [again.clone()], 0, &BTreeMap::new()), [(answer(&again), 1)]);
    assert_eq!(engine.counters().cached_tokens, found as u64);
}

#[test]
fn a_cancelled_request_is_forgotten_by_the_step_under_way() {
    for after in 1..6 {
        let mut engine = remembering(shape());
        engine.add(request(0, vec![1, 2, 3], 4)).unwrap();
        (0..after).for_each(|_| assert!(engine.step(&mut |_| {}).unwrap()));
        let there = engine.cancel(0);
        assert_eq!(there, after < 5, "after {after} steps");
        assert!(!engine.cancel(0));
        assert_eq!(engine.scheduler().kv_blocks().num_free(), 64);
        let mut events = 0;
        while engine.step(&mut |_| events += 1).unwrap() {}
        assert_eq!((events, engine.is_idle()), (0, true));
    }
}

#[test]
fn logits_are_those_of_the_token_just_told() {
    let config = ModelSource::open(folder("qwen3").to_str().unwrap(), 0).unwrap();
    let weights = Arc::new(Weights::load(&mut cpu(1)().unwrap(), &config.config, &config.weights, 512, &mut |_| {}).unwrap());
    let forward = Forward::new(cpu(1)().unwrap(), Arc::new(config.config), weights, &shape()).unwrap();
    let mut engine = ahead(Box::new(forward), shape());
    engine.add(request(0, vec![1, 2, 3], 3)).unwrap();
    engine.add(request(1, vec![4], 5)).unwrap();
    let mut told = BTreeSet::new();
    loop {
        let mut chosen = BTreeMap::new();
        let worked = engine.step(&mut |event| {
            if let EngineEvent::Token { key, token } = event {
                chosen.insert(key, token);
            }
        });
        if !worked.unwrap() {
            break;
        }
        for key in 0..2 {
            let logits = engine.last_logits(key).unwrap();
            let best = logits.map(|logits| (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap() as u32);
            assert_eq!(best, chosen.get(&key).copied());
        }
        told.extend(chosen);
    }
    assert!(!told.is_empty());
}

/// An engine of this pass on a thread of its own.
fn target(forward: Box<dyn ForwardPass>) -> InProcess {
    InProcess::start(Engine::new(forward, shape()), Simulated::identity_of("ahead"), Monotonic::start()).unwrap()
}

fn ask(target: &mut InProcess, slot: u32, output_tokens: u32) {
    let prompt = Prompt::unique(u64::from(slot), 9);
    target.submit(Request { id: u64::from(slot), prompt, output_tokens, sampling: Sampling::default(), session: None }, Slot(slot));
}

/// What is told until `ends` requests ended.
fn told(target: &mut InProcess, ends: usize) -> Vec<(u32, EventKind)> {
    let (mut clock, mut events) = (Monotonic::start(), Vec::new());
    target.wake_this_thread();
    let is_end = |(_, kind): &&(u32, EventKind)| matches!(kind, EventKind::Completed | EventKind::Failed(_));
    while events.iter().filter(is_end).count() < ends {
        assert!(clock.now() < Nanos::from_secs(20), "the target is silent after {events:?}");
        clock.wait(clock.now() + Nanos::from_millis(1), &mut || target.has_events());
        events.extend(std::iter::from_fn(|| target.next_event()).map(|event| (event.slot.0, event.kind)));
    }
    events
}

#[test]
fn a_target_runs_ahead_and_keeps_no_token_back_when_it_falls_idle() {
    let mut target = target(Behind::boxed(Remembering::boxed(shape())));
    for slot in 0..3 {
        ask(&mut target, slot, 4);
        let kinds: Vec<_> = told(&mut target, 1).into_iter().map(|(_, kind)| kind).collect();
        assert_eq!(
            kinds[1..],
            [EventKind::Tokens(1), EventKind::Tokens(1), EventKind::Tokens(1), EventKind::Tokens(1), EventKind::Completed]
        );
    }
    // One that is cancelled ends once, and its slot is free.
    ask(&mut target, 7, 200);
    std::thread::sleep(Duration::from_micros(300));
    target.cancel(Slot(7));
    assert!(told(&mut target, 1).len() <= 202);
    ask(&mut target, 7, 2);
    assert_eq!(told(&mut target, 1).last(), Some(&(7, EventKind::Completed)));
}

#[test]
fn a_step_that_fails_when_it_is_finished_fails_every_request() {
    let mut forward = Behind::boxed(Remembering::boxed(shape()));
    forward.finishes = 3;
    let mut target = target(forward);
    (0..4).for_each(|slot| ask(&mut target, slot, 100));
    let events = told(&mut target, 4);
    let failed: BTreeSet<_> =
        events.iter().filter(|(_, kind)| *kind == EventKind::Failed(FailureKind::TargetGone)).map(|(slot, _)| slot).collect();
    assert_eq!(failed.len(), 4, "{events:?}");
}
