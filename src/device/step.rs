//! The flat arrays of one engine step, in the words of nano-vllm: what varies from step to step, and nothing else.
//!
//! Sequences come prefill first, then decode; tokens lie in the order of their sequences. The arrays are plain
//! vectors that the engine clears and fills again, so a step in the steady state allocates nothing.

/// Set in the id of a token that only the device knows so far: it is the one chosen in the row that the other bits say, of
/// the step begun just before.
pub const FED_BACK: u32 = 1 << 31;

/// The most that one step may hold, so that a device can reserve its buffers once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Tokens.
    pub max_tokens: usize,
    /// Sequences, which is also the most rows of logits.
    pub max_sequences: usize,
    /// Entries of all block tables together.
    pub max_block_table_entries: usize,
}

/// How the next token is chosen from logits.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Sampling {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Only the `top_k` highest logits stay; 0 keeps all. Ties at the edge go to the lower id.
    pub top_k: u32,
    /// The fewest highest probabilities that together reach `top_p` stay; 1 keeps all. Applied after `top_k`.
    pub top_p: f32,
    /// Seed of the request.
    pub seed: u64,
    /// Counter: index of the token to be chosen within its sequence. With `seed` it fixes the uniform number,
    /// so a preempted and recomputed sequence makes the same choices.
    pub position: u64,
}

impl Sampling {
    /// The highest logit.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0, position: 0 };
}

/// A row whose logits are wanted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LogitRow {
    /// Row among the step's tokens.
    pub row: u32,
    /// How its token is chosen.
    pub sampling: Sampling,
}

/// One step.
#[derive(Clone, Debug, Default)]
pub struct StepBatch {
    /// Token of each row; on a device that runs ahead, also rows of the step before ([`FED_BACK`]).
    pub token_ids: Vec<u32>,
    /// Position of each row within its sequence.
    pub positions: Vec<u32>,
    /// Slot of each row in the cache: `block * block_size + offset`.
    pub slot_mapping: Vec<u32>,
    /// Rows of sequence `s` are `cu_seqlens_q[s]..cu_seqlens_q[s + 1]`; one more entry than sequences, from 0.
    pub cu_seqlens_q: Vec<u32>,
    /// Cached tokens of each sequence, those of this step included. The step's rows are its last ones.
    pub context_lens: Vec<u32>,
    /// Block numbers of all sequences, end to end.
    pub block_tables: Vec<u32>,
    /// Blocks of sequence `s` are `block_tables[cu_blocks[s]..cu_blocks[s + 1]]`; one more entry than sequences, from 0.
    pub cu_blocks: Vec<u32>,
    /// The first so many sequences are prefill chunks; the others decode one token each.
    pub num_prefill_seqs: usize,
    /// Rows whose logits are wanted, in any order.
    pub logit_rows: Vec<LogitRow>,
}

impl StepBatch {
    /// An empty step. The leading zeros of the cumulative arrays are set.
    #[must_use]
    pub fn new() -> Self {
        let mut batch = Self::default();
        batch.clear();
        batch
    }

    /// Makes it empty and keeps its memory.
    pub fn clear(&mut self) {
        self.token_ids.clear();
        self.positions.clear();
        self.slot_mapping.clear();
        self.cu_seqlens_q.clear();
        self.cu_seqlens_q.push(0);
        self.context_lens.clear();
        self.block_tables.clear();
        self.cu_blocks.clear();
        self.cu_blocks.push(0);
        self.num_prefill_seqs = 0;
        self.logit_rows.clear();
    }

    /// Tokens of the step.
    #[must_use]
    pub fn num_tokens(&self) -> usize {
        self.token_ids.len()
    }

    /// Sequences of the step.
    #[must_use]
    pub fn num_seqs(&self) -> usize {
        self.context_lens.len()
    }

    /// Rows of sequence `sequence`.
    #[must_use]
    pub fn rows(&self, sequence: usize) -> std::ops::Range<usize> {
        self.cu_seqlens_q[sequence] as usize..self.cu_seqlens_q[sequence + 1] as usize
    }

    /// Blocks of sequence `sequence`.
    #[must_use]
    pub fn block_table(&self, sequence: usize) -> &[u32] {
        &self.block_tables[self.cu_blocks[sequence] as usize..self.cu_blocks[sequence + 1] as usize]
    }

    /// Whether the arrays agree with each other; the first contradiction otherwise.
    ///
    /// # Errors
    /// The contradiction, in words.
    pub fn check(&self) -> Result<(), String> {
        let (tokens, seqs) = (self.num_tokens(), self.num_seqs());
        if self.positions.len() != tokens || self.slot_mapping.len() != tokens {
            return Err(format!(
                "`{tokens}` tokens, `{}` positions and `{}` slots are given",
                self.positions.len(),
                self.slot_mapping.len()
            ));
        }
        if self.num_prefill_seqs > seqs {
            return Err(format!("`{}` of `{seqs}` sequences are said to be prefill", self.num_prefill_seqs));
        }
        cumulative("cu_seqlens_q", &self.cu_seqlens_q, seqs, tokens)?;
        cumulative("cu_blocks", &self.cu_blocks, seqs, self.block_tables.len())?;
        for sequence in 0..seqs {
            let (rows, context) = (self.rows(sequence).len(), self.context_lens[sequence] as usize);
            if rows == 0 || rows > context {
                return Err(format!("sequence `{sequence}` has `{rows}` rows in a context of `{context}`"));
            }
            if sequence >= self.num_prefill_seqs && rows != 1 {
                return Err(format!("decode sequence `{sequence}` has `{rows}` rows"));
            }
        }
        match self.logit_rows.iter().find(|wanted| wanted.row as usize >= tokens) {
            Some(wanted) => Err(format!("logits of row `{}` are wanted and there are `{tokens}`", wanted.row)),
            None => Ok(()),
        }
    }
}

/// Whether `sums` rises from 0 to `total` in `parts` steps.
fn cumulative(name: &str, sums: &[u32], parts: usize, total: usize) -> Result<(), String> {
    let rises = sums.windows(2).all(|pair| pair[0] <= pair[1]);
    if sums.len() == parts + 1 && sums[0] == 0 && rises && sums[parts] as usize == total {
        return Ok(());
    }
    Err(format!("`{name}` does not divide `{total}` entries among `{parts}` sequences"))
}
