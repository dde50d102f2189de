//! The one quantile rule of the program: nearest rank. No interpolation, so every quantile was really observed.

/// The 1-based nearest rank of quantile `q` in 0..=1 among `count` values: the smallest rank that has at least a share
/// `q` of the values at or under it. 0 when there are none.
#[must_use]
pub fn nearest_rank(count: u64, q: f64) -> u64 {
    if count == 0 {
        return 0;
    }
    // 0.07 * 100 is 7.000000000000001: without the slack it would be rank 8.
    let rank = (q * count as f64 * (1.0 - 4.0 * f64::EPSILON)).ceil();
    (rank as u64).clamp(1, count)
}

/// Quantile `q` in 0..=1 of values in rising order; `None` of none.
#[must_use]
pub fn of_sorted<T: Copy>(sorted: &[T], q: f64) -> Option<T> {
    let rank = nearest_rank(sorted.len() as u64, q) as usize;
    sorted.get(rank.checked_sub(1)?).copied()
}

/// Quantile `q` in 0..=1 of nanoseconds in any order, which it leaves in another order; `None` of none.
#[must_use]
pub fn of_nanos(values: &mut [u64], q: f64) -> Option<u64> {
    let rank = nearest_rank(values.len() as u64, q) as usize;
    let index = rank.checked_sub(1)?;
    Some(*values.select_nth_unstable(index).1)
}

/// Quantile `q` in 0..=1 of numbers in any order, which it leaves in another order; infinities count, NaN ranks last;
/// `None` of none.
#[must_use]
pub fn of_floats(values: &mut [f64], q: f64) -> Option<f64> {
    let rank = nearest_rank(values.len() as u64, q) as usize;
    let index = rank.checked_sub(1)?;
    Some(*values.select_nth_unstable_by(index, f64::total_cmp).1)
}
