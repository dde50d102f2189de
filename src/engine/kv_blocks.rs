//! The paged key-value cache's bookkeeping: a flat pool of blocks, who holds which, and which can be found by
//! their content.
//!
//! Every operation on a block is O(1): the free list is threaded through the pool. A freed block keeps its
//! content until it is taken, so a later sequence with the same prefix finds it; blocks without findable content
//! are taken first, then the one freed longest ago, and of one sequence the end before the beginning.
//! The numbers themselves are the device's; they were allocated once and are never moved.

use std::collections::HashMap;

use crate::engine::sequence::Sequence;
use crate::rng;

/// Names the tokens of a full block together with all tokens before it. 128 bits: equal hashes are taken to be
/// equal content (among 2^32 blocks a collision has a chance of 2^-65).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ContentHash(u64, u64);

impl ContentHash {
    /// The hash of a block of `tokens` that follows a block of this hash.
    #[must_use]
    pub fn followed_by(self, tokens: &[u32]) -> Self {
        // Two lanes that start apart.
        tokens.iter().fold(Self(rng::mix(self.0), rng::mix(!self.1)), |hash, token| {
            let token = u64::from(*token);
            Self(rng::mix(hash.0 ^ token), rng::mix(hash.1 ^ token))
        })
    }
}

/// Why a sequence did not fit, so far as it tells when to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// How often blocks had been given back.
    releases: u64,
    /// The first block that was not found by content.
    missing: Option<ContentHash>,
}

/// Whether blocks are found again by their content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrefixReuse {
    /// Equal prefixes are computed once, while their blocks last.
    On,
    /// Every prompt is computed.
    Off,
}

/// No block: the end of the free list.
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Block {
    /// Sequences that hold it; 0 is free.
    ref_count: u32,
    /// What it can be found by.
    content: Option<ContentHash>,
    /// Neighbours in the free list, or `NONE`.
    previous: u32,
    next: u32,
}

/// The pool.
#[derive(Debug)]
pub struct KvBlocks {
    block_size: usize,
    prefix_reuse: PrefixReuse,
    blocks: Vec<Block>,
    /// Next to be taken, and last.
    first_free: u32,
    last_free: u32,
    num_free: usize,
    peak: usize,
    /// Times that a sequence gave its blocks back.
    releases: u64,
    by_content: HashMap<ContentHash, u32>,
}

impl KvBlocks {
    /// A pool of `num_blocks` free blocks of `block_size` tokens each.
    #[must_use]
    pub fn new(num_blocks: u32, block_size: usize, prefix_reuse: PrefixReuse) -> Self {
        let free = Block { ref_count: 0, content: None, previous: NONE, next: NONE };
        let findable = if prefix_reuse == PrefixReuse::On { num_blocks as usize } else { 0 };
        let mut pool = Self {
            block_size,
            prefix_reuse,
            blocks: vec![free; num_blocks as usize],
            first_free: NONE,
            last_free: NONE,
            num_free: 0,
            peak: 0,
            releases: 0,
            // Twice what is ever in it, so that removals never make it grow.
            by_content: HashMap::with_capacity(2 * findable),
        };
        (0..num_blocks).for_each(|block| pool.push_last(block));
        pool
    }

    /// Bytes that the bookkeeping of so many blocks takes, the cache itself apart.
    #[must_use]
    pub const fn bytes(num_blocks: u32, prefix_reuse: PrefixReuse) -> u64 {
        // The map has room for twice the blocks, is at most 7/8 full, of a power of two, and keeps a byte an entry beside.
        let found = match prefix_reuse {
            PrefixReuse::On => 4 * (size_of::<(ContentHash, u32)>() + 1),
            PrefixReuse::Off => 0,
        };
        num_blocks as u64 * (size_of::<Block>() + found) as u64
    }

    /// Blocks there are.
    #[must_use]
    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks no sequence holds.
    #[must_use]
    pub fn num_free(&self) -> usize {
        self.num_free
    }

    /// Most blocks held at once so far.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.peak
    }

    /// Whether all of `sequence` fits now and leaves `spare` blocks free, and if so how many of its leading blocks are
    /// found by content. The block of its last token is always computed, as the next token is chosen from it.
    ///
    /// A sequence that did not fit is not looked up again before it may: blocks that were taken since make it no better,
    /// so it takes blocks given back (only then may `spare` become less, too), or the block that it did not find.
    pub fn can_allocate(&self, sequence: &mut Sequence, spare: usize) -> Option<usize> {
        if let Some(Refusal { releases, missing }) = sequence.refusal
            && releases == self.releases
            && missing.is_none_or(|missing| !self.by_content.contains_key(&missing))
        {
            return None;
        }
        let (mut found, mut found_free, mut missing) = (0, 0, None);
        if self.prefix_reuse == PrefixReuse::On {
            self.hash_full_blocks(sequence);
            for hash in sequence.block_hashes.iter().take((sequence.len() - 1) / self.block_size) {
                let Some(block) = self.by_content.get(hash) else {
                    missing = Some(*hash);
                    break;
                };
                found += 1;
                found_free += usize::from(self.blocks[*block as usize].ref_count == 0);
            }
        }
        let taken = sequence.num_blocks(self.block_size) - found + found_free;
        let fits = taken + spare <= self.num_free;
        sequence.refusal = (!fits).then_some(Refusal { releases: self.releases, missing });
        fits.then_some(found)
    }

    /// Gives `sequence` blocks for all its tokens, the first `found` of them by content (as [`Self::can_allocate`]
    /// has just said); those need not be computed.
    pub fn allocate(&mut self, sequence: &mut Sequence, found: usize) {
        debug_assert!(sequence.block_table.is_empty(), "a sequence is allocated once");
        sequence.block_table.reserve(sequence.num_blocks(self.block_size));
        for hash in &sequence.block_hashes[..found] {
            let block = self.by_content[hash];
            if self.blocks[block as usize].ref_count == 0 {
                self.unlink(block);
            }
            self.blocks[block as usize].ref_count += 1;
            sequence.block_table.push(block);
        }
        sequence.num_computed_tokens = found * self.block_size;
        sequence.num_published_blocks = found;
        while sequence.block_table.len() < sequence.num_blocks(self.block_size) {
            self.append_block(sequence);
        }
    }

    /// Whether there is room for the newest token of `sequence`.
    #[must_use]
    pub fn can_append(&self, sequence: &Sequence) -> bool {
        sequence.num_blocks(self.block_size) <= sequence.block_table.len() || self.num_free > 0
    }

    /// Gives `sequence` a block where its newest token begins one.
    pub fn may_append(&mut self, sequence: &mut Sequence) {
        if sequence.num_blocks(self.block_size) > sequence.block_table.len() {
            self.append_block(sequence);
        }
    }

    /// Makes the full, computed blocks of `sequence` findable whose tokens are known. That a step under way computes them is
    /// enough: who finds them is computed after it.
    pub fn publish(&mut self, sequence: &mut Sequence) {
        let full = sequence.num_computed_tokens.min(sequence.num_known_tokens) / self.block_size;
        if self.prefix_reuse == PrefixReuse::Off || full == sequence.num_published_blocks {
            return;
        }
        self.hash_full_blocks(sequence);
        for index in sequence.num_published_blocks..full {
            let (hash, block) = (sequence.block_hashes[index], sequence.block_table[index]);
            // Where two sequences computed the same content at once, the first stays the one that is found.
            if let std::collections::hash_map::Entry::Vacant(vacant) = self.by_content.entry(hash) {
                vacant.insert(block);
                self.blocks[block as usize].content = Some(hash);
            }
        }
        sequence.num_published_blocks = full;
    }

    /// Finds no content again that was computed so far. Who holds blocks keeps them.
    pub fn forget(&mut self) {
        self.by_content.clear();
        self.blocks.iter_mut().for_each(|block| block.content = None);
    }

    /// Takes all blocks from `sequence`, if it has any; those nobody else holds are free.
    pub fn deallocate(&mut self, sequence: &mut Sequence) {
        self.releases += u64::from(!sequence.block_table.is_empty());
        // What it is asked for next, it is asked anew.
        sequence.refusal = None;
        for block in sequence.block_table.drain(..).rev() {
            let held = &mut self.blocks[block as usize];
            debug_assert!(held.ref_count > 0, "a block in a table is held");
            held.ref_count -= 1;
            if held.ref_count == 0 {
                if held.content.is_some() { self.push_last(block) } else { self.push_first(block) }
            }
        }
        sequence.num_computed_tokens = 0;
        sequence.num_published_blocks = 0;
    }

    fn hash_full_blocks(&self, sequence: &mut Sequence) {
        for block in sequence.block_hashes.len()..sequence.num_known_tokens / self.block_size {
            let before = sequence.block_hashes.last().copied().unwrap_or_default();
            let tokens = &sequence.token_ids[block * self.block_size..][..self.block_size];
            sequence.block_hashes.push(before.followed_by(tokens));
        }
    }

    /// Takes the first free block; the caller has seen that there is one.
    fn append_block(&mut self, sequence: &mut Sequence) {
        let block = self.first_free;
        debug_assert_ne!(block, NONE, "asked for before it is taken");
        self.unlink(block);
        let taken = &mut self.blocks[block as usize];
        taken.ref_count = 1;
        if let Some(content) = taken.content.take() {
            self.by_content.remove(&content);
        }
        sequence.block_table.push(block);
    }

    fn push_first(&mut self, block: u32) {
        let next = self.first_free;
        self.link(NONE, block, next);
    }

    fn push_last(&mut self, block: u32) {
        let previous = self.last_free;
        self.link(previous, block, NONE);
    }

    fn link(&mut self, previous: u32, block: u32, next: u32) {
        (self.blocks[block as usize].previous, self.blocks[block as usize].next) = (previous, next);
        *self.after(previous) = block;
        *self.before(next) = block;
        self.num_free += 1;
    }

    fn unlink(&mut self, block: u32) {
        let Block { previous, next, .. } = self.blocks[block as usize];
        *self.after(previous) = next;
        *self.before(next) = previous;
        self.num_free -= 1;
        self.peak = self.peak.max(self.blocks.len() - self.num_free);
    }

    /// The place that says what follows `block` in the free list.
    fn after(&mut self, block: u32) -> &mut u32 {
        if block == NONE { &mut self.first_free } else { &mut self.blocks[block as usize].next }
    }

    /// The place that says what precedes `block` in the free list.
    fn before(&mut self, block: u32) -> &mut u32 {
        if block == NONE { &mut self.last_free } else { &mut self.blocks[block as usize].previous }
    }
}
