//! What an engine promises whatever its shape: the same tokens, no deadlock, no loss, refusals that say why.
//!
//! The model here computes nothing but remembers everything: each cache slot keeps the token that was put there and
//! a hash of all tokens before it, every step checks the whole context it was pointed to, and the next token is a
//! function of that hash. So any mistake of batching, chunking, paging, preemption or reuse changes the answer.

use plimsoll::device::error::DeviceError;
use plimsoll::device::step::StepBatch;
use plimsoll::engine::forward::ForwardPass;
use plimsoll::engine::kv_blocks::PrefixReuse;
use plimsoll::engine::scheduler::EngineShape;
use plimsoll::engine::sequence::{EndOfSequence, EngineRequest};
use plimsoll::engine::{Engine, EngineEvent};
use plimsoll::model::config::ModelConfig;
use plimsoll::model::presets;
use plimsoll::rng;
use plimsoll::workload::request::Sampling;
use proptest::prelude::*;

pub(crate) const VOCAB_SIZE: u64 = 50;
/// The id that ends a sequence.
pub(crate) const END: u32 = 7;

/// The token that follows a prefix of this hash.
fn next_token(prefix: u64, seed: u64, index: u64) -> u32 {
    (rng::mix(prefix ^ rng::at(seed, index)) % VOCAB_SIZE) as u32
}

fn extend(prefix: u64, token: u32) -> u64 {
    rng::mix(prefix ^ u64::from(token))
}

/// What a model with all memory and no batching would answer.
pub(crate) fn answer(request: &EngineRequest) -> Vec<u32> {
    let mut prefix = request.prompt.iter().fold(0, |prefix, token| extend(prefix, *token));
    (0..u64::from(request.max_new_tokens))
        .map(|index| {
            let token = next_token(prefix, request.sampling.seed, index);
            prefix = extend(prefix, token);
            token
        })
        .collect()
}

pub(crate) struct Remembering {
    config: ModelConfig,
    block_size: usize,
    /// Token and hash of the prefix that ends with it, by slot.
    slots: Vec<Option<(u32, u64)>>,
    tokens_most: usize,
    seqs_most: usize,
}

impl Remembering {
    pub(crate) fn boxed(shape: EngineShape) -> Box<Self> {
        let mut config = presets::find("llama-5m").unwrap().config().unwrap();
        config.vocab_size = VOCAB_SIZE as usize;
        config.max_position_embeddings = 300;
        config.eos_token_ids = vec![END];
        let slots = vec![None; shape.num_kv_blocks as usize * shape.block_size];
        let (tokens_most, seqs_most) = (shape.max_num_batched_tokens, shape.max_num_seqs);
        Box::new(Self { config, block_size: shape.block_size, slots, tokens_most, seqs_most })
    }
}

impl ForwardPass for Remembering {
    fn model(&self) -> &ModelConfig {
        &self.config
    }

    fn step(&mut self, batch: &StepBatch, sampled: &mut Vec<u32>) -> Result<(), DeviceError> {
        assert!((1..=self.tokens_most).contains(&batch.token_ids.len()), "the token budget is kept");
        batch.check().unwrap();
        assert!(batch.num_seqs() <= self.seqs_most, "the number of sequences is kept");
        let written: std::collections::BTreeSet<_> = batch.slot_mapping.iter().collect();
        assert_eq!(written.len(), batch.slot_mapping.len(), "no slot is written twice in a step");
        let mut rows = std::collections::BTreeMap::new();
        for sequence in 0..batch.num_seqs() {
            let tokens = batch.cu_seqlens_q[sequence] as usize..batch.cu_seqlens_q[sequence + 1] as usize;
            let blocks = batch.cu_blocks[sequence] as usize..batch.cu_blocks[sequence + 1] as usize;
            let table = &batch.block_tables[blocks];
            let slot = |position: usize| table[position / self.block_size] as usize * self.block_size + position % self.block_size;
            let length = batch.context_lens[sequence] as usize;
            let first = length - tokens.len();
            for (row, position) in tokens.clone().zip(first..) {
                assert_eq!(batch.positions[row] as usize, position);
                assert_eq!(batch.slot_mapping[row] as usize, slot(position), "a token goes where its table says");
                let before = if position == 0 { 0 } else { self.slots[slot(position - 1)].expect("what precedes is computed").1 };
                let token = batch.token_ids[row];
                self.slots[slot(position)] = Some((token, extend(before, token)));
            }
            let mut prefix = 0;
            for position in 0..length {
                let (token, hash) = self.slots[slot(position)].expect("the whole context is computed");
                prefix = extend(prefix, token);
                assert_eq!(prefix, hash, "every slot of the context holds what this sequence put there");
            }
            rows.insert(tokens.end as u32 - 1, prefix);
        }
        sampled.clear();
        sampled.extend(batch.logit_rows.iter().map(|wanted| next_token(rows[&wanted.row], wanted.sampling.seed, wanted.sampling.position)));
        Ok(())
    }

    fn logits(&mut self, _row: usize) -> Result<Vec<f32>, DeviceError> {
        Ok(Vec::new())
    }
}

pub(crate) fn shape() -> EngineShape {
    EngineShape { block_size: 4, num_kv_blocks: 64, max_num_seqs: 8, max_num_batched_tokens: 16, prefix_reuse: PrefixReuse::On }
}

fn engine(shape: EngineShape) -> Engine {
    Engine::new(Remembering::boxed(shape), shape)
}

pub(crate) fn request(key: u64, prompt: Vec<u32>, max_new_tokens: u32) -> EngineRequest {
    let sampling = Sampling { seed: key, ..Sampling::default() };
    EngineRequest { key, prompt, max_new_tokens, sampling, end_of_sequence: EndOfSequence::Ignore }
}

/// Serves all, a new one arriving every `gap` steps; the tokens of each, and every other event.
fn serve(engine: &mut Engine, requests: &[EngineRequest], gap: usize) -> (Vec<Vec<u32>>, Vec<EngineEvent>) {
    let mut tokens = vec![Vec::new(); requests.len()];
    let mut others = Vec::new();
    let mut arrivals = requests.iter();
    let work: usize = requests.iter().map(|request| request.prompt.len() + request.max_new_tokens as usize).sum();
    for step in 0.. {
        assert!(step < 20 * work + 20 * gap * requests.len() + 100, "the engine gets nowhere");
        if step % gap.max(1) == 0 {
            let count = if gap == 0 { requests.len() } else { 1 };
            for request in arrivals.by_ref().take(count) {
                engine.add(request.clone()).unwrap();
            }
        }
        let busy = !engine.is_idle();
        let worked = engine
            .step(&mut |event| match event {
                EngineEvent::Token { key, token } => tokens[key as usize].push(token),
                other => others.push(other),
            })
            .unwrap();
        assert_eq!(worked, busy, "an engine with work works");
        if engine.is_idle() && arrivals.len() == 0 {
            break;
        }
    }
    (tokens, others)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn tokens_do_not_depend_on_the_shape_of_the_engine(
        block_size in 1_usize..9,
        spare_blocks in 0_u32..12,
        max_num_seqs in 1_usize..7,
        max_num_batched_tokens in 1_usize..40,
        prefix_reuse in prop_oneof![Just(PrefixReuse::On), Just(PrefixReuse::Off)],
        gap in 0_usize..4,
        lengths in prop::collection::vec((1_usize..40, 1_u32..30, 0_u64..3), 1..12),
    ) {
        let requests: Vec<_> = lengths.iter().enumerate().map(|(key, (prompt, output, kind))| {
            // Prompts of one kind share their beginning.
            let prompt = (0..*prompt as u64).map(|place| (rng::at(*kind, place) % VOCAB_SIZE) as u32).collect();
            request(key as u64, prompt, *output)
        }).collect();
        // Only just enough for the longest request alone, and sometimes a little more: most shapes preempt.
        let longest = requests.iter().map(|request| request.prompt.len() + request.max_new_tokens as usize - 1).max().unwrap();
        let num_kv_blocks = longest.div_ceil(block_size) as u32 + spare_blocks;
        let shape = EngineShape { block_size, num_kv_blocks, max_num_seqs, max_num_batched_tokens, prefix_reuse };
        let mut engine = engine(shape);
        let (tokens, others) = serve(&mut engine, &requests, gap);
        for (request, tokens) in requests.iter().zip(&tokens) {
            prop_assert_eq!(&answer(request), tokens);
        }
        let count = |wanted: fn(&EngineEvent) -> bool| others.iter().filter(|event| wanted(event)).count();
        prop_assert_eq!(count(|event| matches!(event, EngineEvent::Started { .. })), requests.len());
        prop_assert_eq!(count(|event| matches!(event, EngineEvent::Finished { .. })), requests.len());
        let counters = engine.counters();
        prop_assert_eq!(count(|event| matches!(event, EngineEvent::Preempted { .. })) as u64, counters.preemptions);
        prop_assert_eq!(counters.decode_tokens, tokens.iter().map(Vec::len).sum::<usize>() as u64);
        prop_assert_eq!(engine.scheduler().kv_blocks().num_free(), num_kv_blocks as usize, "all blocks come back");
        if prefix_reuse == PrefixReuse::Off {
            prop_assert_eq!(counters.cached_tokens, 0);
        }
    }

    #[test]
    fn a_cancelled_request_leaves_the_others_alone(cancelled in 0_u64..6, after in 0_usize..20, spare_blocks in 0_u32..10) {
        let shape = EngineShape { num_kv_blocks: 12 + spare_blocks, ..shape() };
        let mut engine = engine(shape);
        let requests: Vec<_> = (0..6).map(|key| request(key, vec![key as u32; 9 + key as usize], 20)).collect();
        for request in &requests {
            engine.add(request.clone()).unwrap();
        }
        let mut tokens = vec![Vec::new(); requests.len()];
        for step in 0.. {
            if step == after {
                engine.cancel(cancelled);
                prop_assert!(!engine.cancel(cancelled));
            }
            let worked = engine.step(&mut |event| if let EngineEvent::Token { key, token } = event { tokens[key as usize].push(token) });
            if !worked.unwrap() && step > after {
                break;
            }
        }
        for (request, tokens) in requests.iter().zip(&tokens).filter(|(request, _)| request.key != cancelled) {
            prop_assert_eq!(&answer(request), tokens);
        }
        prop_assert_eq!(engine.scheduler().kv_blocks().num_free(), shape.num_kv_blocks as usize);
    }
}

#[test]
fn a_small_cache_preempts_and_a_large_one_does_not() {
    let requests: Vec<_> = (0..6).map(|key| request(key, vec![key as u32; 12], 24)).collect();
    let mut small = engine(EngineShape { num_kv_blocks: 12, ..shape() });
    let (tokens, _) = serve(&mut small, &requests, 0);
    assert!(small.counters().preemptions > 0);
    assert_eq!(small.counters().kv_blocks_peak, 12);
    let mut large = engine(EngineShape { num_kv_blocks: 200, ..shape() });
    assert_eq!(serve(&mut large, &requests, 0).0, tokens);
    assert_eq!(large.counters().preemptions, 0);
}

#[test]
fn a_second_turn_finds_the_first_one_in_the_cache() {
    let mut engine = engine(shape());
    let first = request(0, (0..17).collect(), 8);
    let (tokens, _) = serve(&mut engine, std::slice::from_ref(&first), 0);
    let mut prompt = first.prompt;
    prompt.extend(&tokens[0]);
    prompt.extend([1, 2, 3]);
    let mut started = None;
    engine.add(request(1, prompt, 1)).unwrap();
    let mut observe = |event| {
        if let EngineEvent::Started { cached_tokens, .. } = event {
            started = Some(cached_tokens)
        }
    };
    while engine.step(&mut observe).unwrap() {}
    // 24 tokens of the first turn were computed: all but its last.
    assert_eq!(started, Some(24));
    assert_eq!(engine.counters().cached_tokens, 24);
}

#[test]
fn an_end_id_stops_only_who_asks_for_it() {
    // A prompt whose greedy answer meets the end id, 7, somewhere.
    let ends = |prompt: &u32| answer(&request(0, vec![*prompt], 40)).iter().position(|token| *token == 7).is_some_and(|place| place > 2);
    let prompt = (0..50).find(ends).unwrap();
    let ignoring = request(0, vec![prompt], 40);
    let stopping = EngineRequest { end_of_sequence: EndOfSequence::Stop, ..ignoring.clone() };
    let (all, _) = serve(&mut engine(shape()), std::slice::from_ref(&ignoring), 0);
    assert_eq!(all[0].len(), 40);
    let (stopped, _) = serve(&mut engine(shape()), &[stopping], 0);
    let end = all[0].iter().position(|token| *token == 7).unwrap();
    assert_eq!(stopped[0], all[0][..=end]);
}

#[test]
fn impossible_requests_are_refused_with_the_reason() {
    let mut engine = engine(EngineShape { num_kv_blocks: 20, ..shape() });
    let mut refusal = |request| engine.add(request).unwrap_err().to_string();
    assert!(refusal(request(0, vec![], 5)).starts_with("the prompt has no tokens"));
    assert!(refusal(request(0, vec![1], 0)).contains("asks for `0` tokens"));
    assert!(
        refusal(request(0, vec![1; 290], 11)).contains("prompt of `290` tokens and an answer of `11` exceed the model's context of `300`")
    );
    assert!(refusal(request(0, vec![1; 70], 12)).contains("need `21` KV blocks where there are `20`"));
    assert!(refusal(request(0, vec![1, 50], 5)).contains("token id `50`, but the model's vocabulary ends at `49`"));
    let sampled = |sampling| EngineRequest { sampling, ..request(0, vec![1], 5) };
    assert!(refusal(sampled(Sampling { temperature: f32::NAN, ..Sampling::default() })).contains("`temperature` is `NaN`"));
    assert!(refusal(sampled(Sampling { top_p: 0.0, ..Sampling::default() })).contains("`top_p` is `0`"));
    assert!(engine.is_idle());
    engine.add(request(0, vec![1; 70], 11)).unwrap();
}

#[test]
fn a_newcomer_leaves_every_sequence_the_block_of_its_next_token() {
    // Each prompt fills its blocks to the last slot, so every next token needs a block.
    let mut engine = engine(EngineShape { num_kv_blocks: 12, max_num_batched_tokens: 64, ..shape() });
    for key in 0..4 {
        engine.add(request(key, vec![key as u32; 12], 4)).unwrap();
    }
    let mut preempted = 0;
    while engine.step(&mut |event| preempted += usize::from(matches!(event, EngineEvent::Preempted { .. }))).unwrap() {}
    assert_eq!(preempted, 0, "three of them with a spare block each are all that fit at once");
    assert!(engine.counters().kv_blocks_peak <= 12);
}

#[test]
fn nothing_is_scheduled_after_a_step() {
    let mut engine = engine(shape());
    engine.add(request(0, vec![1, 2, 3], 1)).unwrap();
    engine.step(&mut |_| {}).unwrap();
    assert_eq!((engine.scheduler().scheduled().count(), engine.scheduler().num_scheduled_prefills()), (0, 0));
}

#[test]
fn a_device_that_loses_an_answer_is_found_out() {
    struct Forgetful(Box<Remembering>);
    impl ForwardPass for Forgetful {
        fn model(&self) -> &ModelConfig {
            self.0.model()
        }
        fn step(&mut self, batch: &StepBatch, sampled: &mut Vec<u32>) -> Result<(), DeviceError> {
            self.0.step(batch, sampled)?;
            sampled.pop();
            Ok(())
        }
        fn logits(&mut self, row: usize) -> Result<Vec<f32>, DeviceError> {
            self.0.logits(row)
        }
    }
    let mut engine = Engine::new(Box::new(Forgetful(Remembering::boxed(shape()))), shape());
    engine.add(request(0, vec![1, 2, 3], 2)).unwrap();
    let refusal = engine.step(&mut |_| {}).unwrap_err().to_string();
    assert!(refusal.contains("`0` ids came back for `1` rows of logits"), "{refusal}");
}
