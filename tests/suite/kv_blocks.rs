//! The block pool against a naive model: no block is lost, none has two owners, and what is found by content is it.

use plimsoll::engine::kv_blocks::{KvBlocks, PrefixReuse};
use plimsoll::engine::sequence::{EndOfSequence, EngineRequest, Sequence};
use plimsoll::workload::request::Sampling;
use proptest::prelude::*;

const BLOCK_SIZE: usize = 4;

fn sequence(key: u64, prompt: &[u32]) -> Sequence {
    let end_of_sequence = EndOfSequence::Ignore;
    Sequence::new(EngineRequest { key, prompt: prompt.to_vec(), max_new_tokens: 100, sampling: Sampling::default(), end_of_sequence })
}

/// Allocates `sequence` if it fits; the tokens found by content.
fn take(pool: &mut KvBlocks, sequence: &mut Sequence) -> Option<usize> {
    let found = pool.can_allocate(sequence, 0)?;
    pool.allocate(sequence, found);
    Some(found * BLOCK_SIZE)
}

/// As when all its tokens were computed.
fn compute(pool: &mut KvBlocks, sequence: &mut Sequence) {
    sequence.advance(sequence.num_uncomputed_tokens());
    pool.publish(sequence);
}

#[test]
fn a_computed_prefix_is_found_until_its_blocks_are_taken() {
    let mut pool = KvBlocks::new(6, BLOCK_SIZE, PrefixReuse::On);
    let prompt: Vec<u32> = (0..10).collect();
    let mut first = sequence(0, &prompt);
    assert_eq!(take(&mut pool, &mut first), Some(0));
    let mut second = sequence(1, &prompt);
    assert_eq!(pool.can_allocate(&mut second, 0), Some(0), "nothing is found before it is computed");
    compute(&mut pool, &mut first);
    assert_eq!(take(&mut pool, &mut second), Some(8));
    assert_eq!(second.block_table()[..2], first.block_table()[..2]);
    assert_ne!(second.block_table()[2], first.block_table()[2]);
    pool.deallocate(&mut first);
    pool.deallocate(&mut second);
    assert_eq!(pool.num_free(), 6);
    let mut third = sequence(2, &prompt[..9]);
    assert_eq!(take(&mut pool, &mut third), Some(8), "freed blocks keep their content");
    pool.deallocate(&mut third);
    let mut other = sequence(3, &[77; 24]);
    assert_eq!(take(&mut pool, &mut other), Some(0));
    pool.deallocate(&mut other);
    assert_eq!(pool.can_allocate(&mut sequence(4, &prompt), 0), Some(0), "taken blocks lost it");
    assert_eq!(pool.peak(), 6);
}

#[test]
fn the_block_of_the_last_token_is_always_computed() {
    let mut pool = KvBlocks::new(8, BLOCK_SIZE, PrefixReuse::On);
    let prompt: Vec<u32> = (0..8).collect();
    let mut first = sequence(0, &prompt);
    take(&mut pool, &mut first);
    compute(&mut pool, &mut first);
    assert_eq!(take(&mut pool, &mut sequence(1, &prompt)), Some(4));
}

#[test]
fn the_end_of_a_freed_prefix_is_taken_before_its_beginning() {
    let mut pool = KvBlocks::new(4, BLOCK_SIZE, PrefixReuse::On);
    let prompt: Vec<u32> = (0..16).collect();
    let mut first = sequence(0, &prompt);
    take(&mut pool, &mut first);
    compute(&mut pool, &mut first);
    pool.deallocate(&mut first);
    let mut other = sequence(1, &[99]);
    take(&mut pool, &mut other);
    pool.deallocate(&mut other);
    assert_eq!(pool.can_allocate(&mut sequence(2, &prompt[..13]), 0), Some(3));
}

#[test]
fn without_prefix_reuse_nothing_is_found() {
    let mut pool = KvBlocks::new(8, BLOCK_SIZE, PrefixReuse::Off);
    let mut first = sequence(0, &[5; 12]);
    take(&mut pool, &mut first);
    compute(&mut pool, &mut first);
    assert_eq!(take(&mut pool, &mut sequence(1, &[5; 12])), Some(0));
}

#[test]
fn a_sequence_that_did_not_fit_is_taken_as_soon_as_it_does() {
    let mut pool = KvBlocks::new(6, BLOCK_SIZE, PrefixReuse::On);
    let prompt: Vec<u32> = (0..16).collect();
    let (mut first, mut other) = (sequence(0, &prompt), sequence(1, &[50; 4]));
    take(&mut pool, &mut first);
    take(&mut pool, &mut other);
    let mut waiting = sequence(2, &prompt);
    assert_eq!(pool.can_allocate(&mut waiting, 0), None, "4 blocks where 1 is free");
    assert_eq!(pool.can_allocate(&mut waiting, 0), None);
    // The blocks it did not find are found once they are computed: it takes one more.
    compute(&mut pool, &mut first);
    assert_eq!(pool.can_allocate(&mut waiting, 1), None, "none would be spare");
    assert_eq!(pool.can_allocate(&mut sequence(3, &prompt), 0), Some(3));
    pool.deallocate(&mut other);
    assert_eq!(pool.can_allocate(&mut waiting, 1), Some(3));
    pool.allocate(&mut waiting, 3);
    assert_eq!(pool.num_free(), 1);
}

/// Recounts everything from the block tables.
fn recount(pool: &KvBlocks, live: &[Sequence]) {
    let mut holders = std::collections::BTreeMap::<u32, Vec<(usize, &Sequence)>>::new();
    for sequence in live {
        assert_eq!(sequence.block_table().len(), sequence.num_blocks(BLOCK_SIZE));
        for (place, block) in sequence.block_table().iter().enumerate() {
            holders.entry(*block).or_default().push((place, sequence));
        }
    }
    assert_eq!(holders.len() + pool.num_free(), pool.total(), "a block is held or free");
    for holders in holders.values() {
        let (place, one) = holders[0];
        let end = (place + 1) * BLOCK_SIZE;
        for (other_place, other) in &holders[1..] {
            assert_eq!(place, *other_place, "a shared block has one position");
            assert!(one.len() >= end && other.len() >= end, "a shared block is full");
            assert_eq!(one.token_ids()[..end], other.token_ids()[..end], "a shared block has one content");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_block_is_lost_or_has_two_owners(
        blocks in 1_u32..24,
        reuse in prop_oneof![Just(PrefixReuse::On), Just(PrefixReuse::Off)],
        acts in prop::collection::vec((0_u8..4, any::<prop::sample::Index>(), 1_usize..24, 0_u32..3), 1..120),
    ) {
        let mut pool = KvBlocks::new(blocks, BLOCK_SIZE, reuse);
        let mut live: Vec<Sequence> = Vec::new();
        // One that waits all the while and is asked again and again: the answer is that of one asked for the first time.
        let long: Vec<u32> = (0..21).map(|place| if place < 8 { 1 } else { 2 }).collect();
        let mut waiting = sequence(u64::MAX, &long);
        for (key, (act, which, length, token)) in acts.into_iter().enumerate() {
            match act {
                0 => {
                    // Few kinds of tokens, so that prefixes often meet.
                    let prompt: Vec<u32> = (0..length).map(|place| if place < 8 { 1 } else { token }).collect();
                    let mut sequence = sequence(key as u64, &prompt);
                    if take(&mut pool, &mut sequence).is_some() {
                        live.push(sequence);
                    }
                }
                1 if !live.is_empty() => {
                    let chosen = which.index(live.len());
                    compute(&mut pool, &mut live[chosen]);
                }
                2 if !live.is_empty() => {
                    let chosen = which.index(live.len());
                    let sequence = &mut live[chosen];
                    sequence.append_fed_back(0);
                    sequence.learn(token);
                    if pool.can_append(sequence) {
                        pool.may_append(sequence);
                    } else {
                        pool.deallocate(sequence);
                        live.swap_remove(chosen);
                    }
                }
                3 if !live.is_empty() => {
                    let mut gone = live.swap_remove(which.index(live.len()));
                    pool.deallocate(&mut gone);
                }
                _ => {}
            }
            recount(&pool, &live);
            prop_assert_eq!(pool.can_allocate(&mut waiting, 1), pool.can_allocate(&mut sequence(u64::MAX, &long), 1));
        }
        for mut gone in live {
            pool.deallocate(&mut gone);
        }
        prop_assert_eq!(pool.num_free(), pool.total());
    }
}
