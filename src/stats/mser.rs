//! MSER-5: where the warm-up of a series ends.
//!
//! Source: White, Cobb and Spratt, "A comparison of five steady-state truncation heuristics for simulation", Winter
//! Simulation Conference 2000: cut where the standard error of what remains is smallest, on means of five.

/// Observations averaged before the rule is applied.
pub const GROUP: usize = 5;
/// Groups under which the rule says nothing.
pub const GROUPS_MIN: usize = 4;

/// How many observations to cut from the front. `None` when there are too few, or when the best cut lies in the later
/// half: then the series has not settled, and more of it is needed.
#[must_use]
pub fn truncation(series: &[f64]) -> Option<usize> {
    let means: Vec<f64> = series.chunks_exact(GROUP).map(|group| group.iter().sum::<f64>() / GROUP as f64).collect();
    if means.len() < GROUPS_MIN {
        return None;
    }
    // From the back, so that sums of the remainder are running sums (around the last value, against cancellation).
    let origin = means[means.len() - 1];
    let (mut sum, mut squares) = (0.0, 0.0);
    let mut best = (f64::INFINITY, 0);
    for (cut, mean) in means.iter().enumerate().rev() {
        let value = mean - origin;
        sum += value;
        squares += value * value;
        let remaining = (means.len() - cut) as f64;
        // One group alone has no spread and would always win.
        if remaining < 2.0 {
            continue;
        }
        let statistic = (squares - sum * sum / remaining).max(0.0) / (remaining * remaining);
        // On a tie the earlier cut wins: it keeps more.
        if statistic <= best.0 {
            best = (statistic, cut);
        }
    }
    (2 * best.1 <= means.len()).then_some(best.1 * GROUP)
}
