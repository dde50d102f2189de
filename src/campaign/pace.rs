//! What a `--budget` buys: windows shortened until what is expected fits, and time kept back for the last reference.
//!
//! Shorter windows widen brackets and intervals; they move no answer. The pace is part of the run's labels.

/// A step of shortening.
const STEP: f64 = 0.9;
/// The full method is not hurried further: its windows are then as short as those of `--quick`.
const LEAST: f64 = 0.05;
/// `--quick` has little to give away.
const LEAST_QUICK: f64 = 0.5;

/// The factor on all lengths at which `expected_s` seconds fit into `left_s`; the least one where none does.
#[must_use]
pub fn fitting(left_s: f64, quick: bool, expected_s: impl Fn(f64) -> f64) -> f64 {
    let least = if quick { LEAST_QUICK } else { LEAST };
    let mut pace = 1.0;
    while pace > least && expected_s(pace) > left_s {
        pace *= STEP;
    }
    pace.max(least)
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn windows_are_shortened_until_the_expected_time_fits_and_no_further() {
        let expected = |pace: f64| 100.0 + 1000.0 * pace;
        assert_eq!(fitting(2000.0, false, expected), 1.0);
        let pace = fitting(600.0, false, expected);
        assert!(expected(pace) <= 600.0 && expected(pace / super::STEP) > 600.0, "{pace}");
        assert_eq!(fitting(50.0, false, expected), super::LEAST);
        assert_eq!(fitting(50.0, true, expected), super::LEAST_QUICK);
    }
}
