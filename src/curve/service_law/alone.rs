//! What a prompt costs, from requests that had the target to themselves.

use crate::queueing::closed_loop::StepMix;

/// Groups of requests of about one length: the median of each stands for it, which a few slow ones do not move.
const GROUPS: usize = 8;
/// The median prompts of the groups differ by this factor or more, or what comes with every request cannot be told from what its prompt costs.
const LENGTHS_DIFFER: f64 = 1.5;

/// One request that was alone in the target.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Alone {
    /// Its prompt, tokens.
    pub prompt_tokens: u32,
    /// Time to its first token from its sending, seconds.
    pub ttft_s: f64,
}

/// The median request of each group, by length of prompt.
pub(super) fn groups(alone: &[Alone]) -> Vec<Alone> {
    let mut sorted = alone.to_vec();
    sorted.sort_by_key(|one| one.prompt_tokens);
    let size = sorted.len().div_ceil(GROUPS).max(1);
    sorted.chunks_mut(size).filter_map(median).collect()
}

/// Of a group in order of its prompts.
fn median(group: &mut [Alone]) -> Option<Alone> {
    let middle = group.len() / 2;
    let prompt_tokens = group.get(middle)?.prompt_tokens;
    group.sort_by(|one, other| one.ttft_s.total_cmp(&other.ttft_s));
    let ttft_s = group[middle].ttft_s;
    (ttft_s > 0.0 && prompt_tokens > 0).then_some(Alone { prompt_tokens, ttft_s })
}

/// Whether lengths tell the way to the target from the work on a prompt.
pub(super) fn tell_the_way(groups: &[Alone]) -> bool {
    match (groups.first(), groups.last()) {
        (Some(first), Some(last)) => f64::from(last.prompt_tokens) >= LENGTHS_DIFFER * f64::from(first.prompt_tokens),
        _ => false,
    }
}

/// The steps that a prompt takes, in chunks of at most `chunk_tokens`: how many, and all of them together.
pub(super) fn steps(prompt_tokens: u32, chunk_tokens: u32) -> (f64, StepMix) {
    let (prompt, chunk) = (u64::from(prompt_tokens), u64::from(chunk_tokens.max(1)));
    let mut all = StepMix::default();
    all.add(&StepMix::of(0, 0, chunk), (prompt / chunk) as f64);
    all.add(&StepMix::of(0, 0, prompt % chunk), 1.0);
    (prompt.div_ceil(chunk) as f64, all)
}

#[cfg(test)]
mod tests {
    use super::{Alone, groups, steps, tell_the_way};

    #[test]
    fn a_few_slow_requests_do_not_move_what_a_prompt_costs() {
        let alone: Vec<Alone> = (0..200)
            .map(|k| {
                let prompt_tokens = 20 + k % 100;
                let slow = if k % 11 == 0 { 5.0 } else { 0.0 };
                Alone { prompt_tokens, ttft_s: 0.002 + 0.001 * f64::from(prompt_tokens) + slow }
            })
            .collect();
        let groups = groups(&alone);
        assert_eq!(groups.len(), 8);
        for one in &groups {
            let due = 0.002 + 0.001 * f64::from(one.prompt_tokens);
            assert!((one.ttft_s / due - 1.0).abs() < 0.1, "{one:?}, {due} due");
        }
        assert!(tell_the_way(&groups) && !tell_the_way(&groups[7..]) && !tell_the_way(&[]));
    }

    #[test]
    fn a_long_prompt_takes_several_steps() {
        let (count, all) = steps(100, 40);
        assert_eq!((count, all.prefill), (3.0, 100.0));
        assert_eq!(all.by_band, [12.0, 36.0, 52.0, 0.0, 0.0, 0.0]);
    }
}
