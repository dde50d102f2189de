//! What the steps of a closed loop are made of, where each client asks again as soon as it is answered.
//!
//! Nobody waits for time to pass there: which tokens a step has follows from the lengths of calls and the limits of a batch alone,
//! whatever a step costs. So what a step costs can be found from what calls felt. The KV cache is taken for large enough.

use std::collections::VecDeque;

use crate::queueing::bands::{BANDS, by_band};

/// Calls that count, of those that are drawn.
const CALLS: u64 = 1_000;
/// Waves of calls that go by before and after them.
const SETTLES: u64 = 4;

/// Limits of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most sequences running at once, 1 or more.
    pub max_batch: u32,
    /// Most tokens in a step, 1 or more.
    pub chunk_tokens: u32,
}

/// A step in means.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StepMix {
    /// Sequences that decode.
    pub decoding: f64,
    /// Their tokens in the cache.
    pub attended: f64,
    /// Prompt tokens.
    pub prefill: f64,
    /// Tokens of either kind, by band.
    pub by_band: [f64; BANDS],
}

impl StepMix {
    /// Of one step.
    #[must_use]
    pub fn of(decoding: u64, attended: u64, prefill: u64) -> Self {
        Self {
            decoding: decoding as f64,
            attended: attended as f64,
            prefill: prefill as f64,
            by_band: by_band(decoding + prefill).map(|count| count as f64),
        }
    }

    /// Adds `share` of `other`.
    pub fn add(&mut self, other: &Self, share: f64) {
        self.decoding += share * other.decoding;
        self.attended += share * other.attended;
        self.prefill += share * other.prefill;
        self.by_band.iter_mut().zip(other.by_band).for_each(|(all, one)| *all += share * one);
    }
}

/// A call of a closed loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopCall {
    /// Prompt length, 1 or more.
    pub prompt: u32,
    /// Tokens to generate, 1 or more.
    pub tokens: u32,
    /// Whether it counts.
    pub counts: bool,
}

/// A call under way.
struct Running {
    call: LoopCall,
    prompt_left: u64,
    out: u32,
    /// Sum of all steps up to the one that brought its first token.
    at_first: StepMix,
}

impl Running {
    fn decodes(&self) -> bool {
        self.prompt_left == 0
    }

    /// Spends what is left of a step's tokens on its prompt; what is left then.
    fn process(&mut self, left: u64) -> u64 {
        let chunk = self.prompt_left.min(left);
        self.prompt_left -= chunk;
        left - chunk
    }

    fn cached(&self) -> u64 {
        u64::from(self.call.prompt) + u64::from(self.out)
    }
}

/// The steps between two tokens of a call, in the mean over its steps, then over the calls that count: what the mean time per output
/// token is the cost of. `clients` ask for one of `calls` after another. `None` where no answer that counts has a second token.
#[must_use]
pub fn felt(clients: u32, limits: Limits, calls: impl IntoIterator<Item = LoopCall>) -> Option<StepMix> {
    let mut calls = calls.into_iter();
    let mut ask = || calls.next().map(|call| Running { call, prompt_left: u64::from(call.prompt), out: 0, at_first: StepMix::default() });
    let mut waiting: VecDeque<Running> = (0..clients.max(1)).map_while(|_| ask()).collect();
    let mut running: Vec<Running> = Vec::new();
    let (mut so_far, mut sum, mut counted) = (StepMix::default(), StepMix::default(), 0_u64);
    while !(waiting.is_empty() && running.is_empty()) {
        let decoding = running.iter().filter(|call| call.decodes());
        let (count, attended) = decoding.fold((0, 0), |(count, attended), call| (count + 1, attended + call.cached()));
        let budget = u64::from(limits.chunk_tokens).saturating_sub(count).max(u64::from(count == 0));
        let mut left = budget;
        let decoded: Vec<bool> = running.iter().map(Running::decodes).collect();
        running.iter_mut().for_each(|call| left = call.process(left));
        while left > 0 && running.len() < limits.max_batch.max(1) as usize {
            let Some(mut next) = waiting.pop_front() else { break };
            left = next.process(left);
            running.push(next);
        }
        so_far.add(&StepMix::of(count, attended, budget - left), 1.0);
        let mut decoded = decoded.into_iter();
        running.retain_mut(|call| {
            let decoded = decoded.next().unwrap_or(false);
            if !call.decodes() {
                return true;
            }
            call.out += 1;
            if !decoded {
                call.at_first = so_far;
            }
            if call.out < call.call.tokens {
                return true;
            }
            if call.call.counts && call.out > 1 {
                let steps = f64::from(call.out - 1);
                sum.add(&so_far, 1.0 / steps);
                sum.add(&call.at_first, -1.0 / steps);
                counted += 1;
            }
            waiting.extend(ask());
            false
        });
    }
    let mut mean = StepMix::default();
    mean.add(&sum, 1.0 / counted as f64);
    (counted > 0).then_some(mean)
}

/// Calls for `clients` whose own are not known, `lengths` of the k-th: the first of each client is cut, or all would go on in step, and
/// some waves go by before one counts.
pub fn others_like_them(clients: u32, lengths: impl Fn(u64) -> (u32, u32)) -> impl Iterator<Item = LoopCall> {
    let clients = u64::from(clients.max(1));
    (0..CALLS + 2 * SETTLES * clients).map(move |k| {
        let (prompt, tokens) = lengths(k);
        let tokens = if k < clients { 1 + (u64::from(tokens.max(1) - 1) * (k + 1) / clients) as u32 } else { tokens };
        LoopCall { prompt, tokens, counts: k >= SETTLES * clients && k < CALLS + SETTLES * clients }
    })
}

#[cfg(test)]
mod tests {
    use super::{Limits, LoopCall, StepMix, felt, others_like_them};

    fn of(clients: u32, limits: Limits, lengths: impl Fn(u64) -> (u32, u32)) -> Option<StepMix> {
        felt(clients, limits, others_like_them(clients, lengths))
    }

    const WIDE: Limits = Limits { max_batch: 256, chunk_tokens: 2048 };

    #[test]
    fn one_client_decodes_alone() {
        let mix = of(1, WIDE, |_| (100, 21)).unwrap();
        assert!((mix.decoding - 1.0).abs() < 1e-6 && mix.prefill.abs() < 1e-6, "{mix:?}");
        // Each step reads the prompt and what came out before.
        assert!((mix.attended - 110.5).abs() < 1e-6, "{mix:?}");
        assert_eq!(of(3, WIDE, |_| (100, 1)), None);
    }

    #[test]
    fn what_does_not_count_is_felt_by_what_does() {
        let call = |prompt, tokens, counts| LoopCall { prompt, tokens, counts };
        // The second client's calls begin with the first one's second and fourth step.
        let calls = [call(10, 5, true), call(1, 2, false), call(7, 2, false), call(9, 1, false)];
        let mix = felt(2, WIDE, calls).unwrap();
        assert_eq!((mix.prefill, mix.decoding), (16.0 / 4.0, 6.0 / 4.0));
    }

    #[test]
    fn calls_feel_the_prompts_of_the_others() {
        // Of 8 calls with 20 steps of their own and one for the prompt, 7 others begin while one lasts.
        let mix = of(8, WIDE, |_| (50, 21)).unwrap();
        assert!((mix.prefill - 7.0 * 50.0 / 20.0 * 20.0 / 21.0).abs() < 1.5, "{mix:?}");
        assert!((mix.decoding - 7.6).abs() < 0.3, "{mix:?}");
        let all: f64 = mix.by_band.iter().sum();
        assert!((all - mix.decoding - mix.prefill).abs() < 1e-6, "{mix:?}");
    }

    #[test]
    fn a_step_has_no_more_tokens_and_a_batch_no_more_sequences_than_it_may() {
        let mix = of(64, Limits { max_batch: 4, chunk_tokens: 16 }, |k| (10 + (k % 50) as u32, 20)).unwrap();
        assert!(mix.decoding <= 4.0 && mix.decoding + mix.prefill <= 16.0 && mix.by_band[2] == 0.0, "{mix:?}");
    }
}
