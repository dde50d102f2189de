//! Which levels `--for-planner` measures: prompt lengths alone, and contexts under several concurrencies, within what the target holds.
//!
//! A planner of an inference fleet interpolates, or fits lines, over two things: what a prefill of so many tokens takes by itself, and
//! what a decoded token takes at a context with so many sequences in the batch. Its least demands are kept with room to spare: Dynamo's
//! spline wants four prompt lengths and its regression five points a phase, its surface two contexts.

/// Prompt lengths, each twice the one before.
const PROMPTS: u32 = 5;
/// The longest prompt is at least so long, where the target has room.
const PROMPT_LEAST: u32 = 64;
/// Contexts, the prompts of each twice as long as those before.
const CONTEXTS: u32 = 3;
/// Answers of the prefill levels: the first token ends the prefill, and a second one tells servers from those that only count.
pub const PREFILL_ANSWER: u32 = 2;
/// Answers of the decode levels are at least and at most so long, quick and not: as long as much concurrency needs.
const ANSWERS_QUICK: (u32, u32) = (32, 128);
const ANSWERS: (u32, u32) = (64, 1024);
/// Steps that carry a piece of another sequence's prompt are at most one in so many: the median gap is then of a step that only decodes.
const ONE_PREFILL_IN: u32 = 4;
/// Share of the KV cache that is filled at most: above, sequences would be preempted.
const KV_SHARE: f64 = 0.9;
/// Levels there are, about.
pub const ABOUT: u32 = PROMPTS + 3 * CONTEXTS;

/// What the levels must fit into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Room {
    /// Longest prompt plus answer, tokens; `None` where there is no limit.
    pub context: Option<u32>,
    /// Tokens that the KV cache of one replica holds, where that is known.
    pub kv_tokens: Option<u64>,
    /// Most sequences that one replica runs at once, or that may be in flight.
    pub sequences: u32,
    /// Most tokens of one step of a replica, where that is known.
    pub step_tokens: Option<u32>,
    /// A long prompt of the traffic, tokens: levels reach to twice its length.
    pub long_prompt: u32,
    /// Short answers.
    pub quick: bool,
}

/// One decode level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecodeLevel {
    /// Tokens of each prompt.
    pub prompt_tokens: u32,
    /// Tokens of each answer.
    pub output_tokens: u32,
    /// In flight at one replica.
    pub concurrency: u32,
}

/// The levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannerLevels {
    /// Prompt lengths, rising.
    pub prefill: Vec<u32>,
    /// By rising prompt length, then by rising concurrency.
    pub decode: Vec<DecodeLevel>,
}

impl PlannerLevels {
    /// Those that fit. Fewer lengths or concurrencies than wanted come out where there is no room for more.
    #[must_use]
    pub fn within(room: &Room) -> Self {
        let kv = |share: f64| room.kv_tokens.map_or(u32::MAX, |tokens| (tokens as f64 * share).min(f64::from(u32::MAX)) as u32);
        let most = room.context.unwrap_or(u32::MAX).min(kv(KV_SHARE));
        let longest = room.long_prompt.saturating_mul(2).max(PROMPT_LEAST).min(most.saturating_sub(PREFILL_ANSWER)).max(1);

        // The most at once under an answer of this length.
        let at_once = |prompt: u32, answer: u32| {
            let steps = room.step_tokens.map_or(1, |tokens| prompt.div_ceil(tokens.max(1)));
            room.sequences.min(kv(KV_SHARE) / prompt.saturating_add(answer)).min(answer / ONE_PREFILL_IN / steps)
        };
        let (least, most_answer) = if room.quick { ANSWERS_QUICK } else { ANSWERS };
        let answers = || std::iter::successors(Some(least), |answer| Some(answer * 2)).take_while(|answer| *answer <= most_answer);
        let answers: Vec<u32> = answers().map(|answer| answer.min(most / 2).max(1)).collect();
        let deepest = longest.min(most.saturating_sub(*answers.last().unwrap_or(&1))).max(1);
        let decode = halved(deepest, CONTEXTS).into_iter().flat_map(|prompt_tokens| {
            // The shortest answer that allows the most: `max_by_key` would take the last of equals.
            let best = answers.iter().rev().max_by_key(|answer| at_once(prompt_tokens, **answer));
            let output_tokens = best.copied().unwrap_or(1);
            concurrencies(at_once(prompt_tokens, output_tokens).max(1)).into_iter().map(move |concurrency| DecodeLevel {
                prompt_tokens,
                output_tokens,
                concurrency,
            })
        });
        Self { prefill: halved(longest, PROMPTS), decode: decode.collect() }
    }
}

/// `longest` and its halves, `count` of them where they differ, rising.
fn halved(longest: u32, count: u32) -> Vec<u32> {
    let mut lengths: Vec<u32> = (0..count).rev().map(|times| (longest >> times).max(1)).collect();
    lengths.dedup();
    lengths
}

/// One alone, `most`, and one between them that is as many times more than the one as less than the other.
fn concurrencies(most: u32) -> Vec<u32> {
    let mut levels = vec![1, (f64::from(most).sqrt().round() as u32).clamp(1, most), most];
    levels.dedup();
    levels
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PlannerLevels, Room};

    const ROOM: Room =
        Room { context: Some(8192), kv_tokens: Some(200_000), sequences: 256, step_tokens: Some(2048), long_prompt: 2000, quick: false };

    #[test]
    fn a_large_target_gets_five_lengths_and_three_contexts_under_three_concurrencies() {
        let levels = PlannerLevels::within(&ROOM);
        assert_eq!(levels.prefill, [250, 500, 1000, 2000, 4000]);
        let shapes: Vec<_> = levels.decode.iter().map(|level| (level.prompt_tokens, level.concurrency)).collect();
        // 180,000 tokens of the cache hold 119 of 1,000 + 512, and one prefill in four steps allows 128.
        assert_eq!(shapes, [(1000, 1), (1000, 11), (1000, 119), (2000, 1), (2000, 8), (2000, 71), (4000, 1), (4000, 6), (4000, 39)]);
        let answers: Vec<_> = levels.decode.iter().step_by(3).map(|level| level.output_tokens).collect();
        assert_eq!(answers, [512, 512, 512]);
    }

    proptest! {
        #[test]
        fn every_level_fits_context_cache_and_batch(
            context in 16_u32..200_000, kv in 64_u64..10_000_000, sequences in 1_u32..1024, step in 16_u32..8192,
            long_prompt in 1_u32..100_000, quick: bool,
        ) {
            let room = Room {
                context: Some(context), kv_tokens: Some(kv), sequences, step_tokens: Some(step), long_prompt, quick,
            };
            let levels = PlannerLevels::within(&room);
            let mut rising = levels.prefill.clone();
            rising.sort_unstable();
            rising.dedup();
            prop_assert_eq!(&rising, &levels.prefill);
            prop_assert!(levels.prefill.iter().all(|tokens| tokens + super::PREFILL_ANSWER <= context));
            for level in &levels.decode {
                let each = level.prompt_tokens + level.output_tokens;
                prop_assert!(each <= context && level.concurrency >= 1 && level.concurrency <= sequences);
                prop_assert!(u64::from(each) * u64::from(level.concurrency) <= kv);
            }
        }
    }
}
