//! Block bootstrap of a share: misses near capacity come in clusters, so whole blocks of time are drawn anew.
//!
//! Source: Kuensch, "The jackknife and the bootstrap for general stationary observations", Annals of Statistics 17
//! (1989), with blocks that do not overlap; percentile interval (Efron 1979).

use rand::Rng;

use crate::stats::interval::Interval;
use crate::stats::quantile::of_floats;
use crate::stats::share::Block;

/// The percentile interval of `sum of misses / sum of requests` over `resamples` draws of as many blocks as there are;
/// `None` without a request.
#[must_use]
pub fn share(blocks: &[Block], confidence: f64, resamples: usize, random: &mut impl Rng) -> Option<Interval> {
    if blocks.iter().all(|block| block.requests == 0) {
        return None;
    }
    let count = blocks.len() as u64;
    let mut shares: Vec<f64> = (0..resamples)
        .filter_map(|_| {
            let (mut misses, mut requests) = (0_u64, 0_u64);
            // One 64-bit draw chooses two blocks; the bias of the multiplication is under 1e-7.
            for pair in 0..count.div_ceil(2) {
                let bits = random.next_u64();
                let halves = [bits >> 32, bits & 0xffff_ffff];
                for half in &halves[..if 2 * pair + 1 == count { 1 } else { 2 }] {
                    let block = &blocks[((half * count) >> 32) as usize];
                    misses += block.misses;
                    requests += block.requests;
                }
            }
            (requests > 0).then(|| misses as f64 / requests as f64)
        })
        .collect();
    let tail = (1.0 - confidence) / 2.0;
    Some(Interval { low: of_floats(&mut shares, tail)?, high: of_floats(&mut shares, 1.0 - tail)?, confidence })
}
