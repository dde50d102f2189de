//! A recorded order of arrivals at a steady mean rate.
//!
//! A level sees a few minutes of a trace, and the rate of a few minutes is not that of the whole: a level that offers 40
//! calls/s would get 20 from a quiet hour. So stamps are stretched piece by piece, each to the asked rate. Bursts shorter
//! than a piece keep their shape; what is slower is demand, which a plan takes from peaks and scenarios, not from a level.

use crate::clock::Nanos;

/// The same arrivals, every `calls` of them (1 or more) taking `calls / rate` seconds. The first is at 0.
pub(super) fn paced(mut stamps: impl Iterator<Item = Nanos>, rate: f64, calls: usize) -> impl Iterator<Item = Nanos> {
    let calls = calls.max(1);
    let mut next = stamps.next();
    let mut piece = Vec::new().into_iter();
    let mut paced = 0_u64;
    std::iter::from_fn(move || {
        if let Some(at) = piece.next() {
            return Some(at);
        }
        let first = next.take()?;
        let own: Vec<Nanos> = std::iter::once(first).chain(stamps.by_ref().take(calls - 1)).collect();
        next = stamps.next();
        let count = own.len() as f64;
        // The gap to the next piece belongs to this one; at the end of a trace it is a mean one.
        let last = own[own.len() - 1].since(first).0 as f64;
        let span = next.map_or(last * count / (count - 1.0).max(1.0), |next| next.since(first).0 as f64);
        let begin = paced as f64 / rate;
        paced += own.len() as u64;
        let seconds = count / rate;
        let at = |(index, stamp): (usize, &Nanos)| {
            // Calls that were all recorded at one moment say nothing of their gaps.
            let share = if span > 0.0 { stamp.since(first).0 as f64 / span } else { index as f64 / count };
            Nanos::from_secs_f64(begin + share * seconds)
        };
        piece = own.iter().enumerate().map(at).collect::<Vec<_>>().into_iter();
        piece.next()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(seconds: &[f64], rate: f64, calls: usize) -> Vec<f64> {
        let stamps: Vec<Nanos> = seconds.iter().map(|at| Nanos::from_secs_f64(*at)).collect();
        paced(stamps.into_iter(), rate, calls).map(Nanos::as_secs_f64).collect()
    }

    #[test]
    fn each_piece_has_the_asked_rate_and_keeps_the_shape_of_its_gaps() {
        // Four calls in 4 s, then four in 40 s: at 2 calls/s each four take 2 s.
        assert_eq!(of(&[0.0, 1.0, 1.0, 3.0, 4.0, 14.0, 14.0, 34.0], 2.0, 4), [0.0, 0.5, 0.5, 1.5, 2.0, 2.5, 2.5, 3.5]);
    }

    #[test]
    fn calls_of_one_moment_are_spread_evenly() {
        assert_eq!(of(&[5.0, 5.0, 5.0, 5.0], 2.0, 8), [0.0, 0.5, 1.0, 1.5]);
        assert_eq!(of(&[7.0], 2.0, 8), [0.0]);
        assert!(of(&[], 2.0, 8).is_empty());
    }
}
