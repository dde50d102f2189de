//! How many replicas to own so that enough of them stand.

use crate::stats::special::binomial_at_most;

/// More replicas than anybody owns.
const MOST: u64 = 1 << 20;

/// The smallest number of replicas of which, each standing with probability `availability` by itself, at least `needed` stand with
/// probability `wanted`. `None` where no number does: nothing ever stands, or certainty is asked for.
#[must_use]
pub fn replicas(needed: u64, availability: f64, wanted: f64) -> Option<u64> {
    let can = availability > 0.0 && availability <= 1.0 && wanted < 1.0;
    if !can {
        return (availability == 1.0).then_some(needed);
    }
    (needed..MOST).find(|owned| enough_stand(*owned, needed, availability) >= wanted)
}

/// Probability that at least `needed` of `owned` replicas stand.
#[must_use]
pub fn enough_stand(owned: u64, needed: u64, availability: f64) -> f64 {
    match needed.checked_sub(1) {
        None => 1.0,
        Some(too_few) => 1.0 - binomial_at_most(too_few, owned, availability),
    }
}
