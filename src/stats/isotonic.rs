//! The closest non-decreasing sequence: pool adjacent violators.
//!
//! Source: Ayer, Brunk, Ewing, Reid and Silverman, "An empirical distribution function for sampling with incomplete
//! information", Annals of Mathematical Statistics 26 (1955).

/// The non-decreasing values closest to `values` in weighted least squares; `weights` are positive, one a value.
#[must_use]
pub fn non_decreasing(values: &[f64], weights: &[f64]) -> Vec<f64> {
    // Each pool: its mean, its weight, how many values it holds.
    let mut pools: Vec<(f64, f64, usize)> = Vec::with_capacity(values.len());
    for (&value, &weight) in values.iter().zip(weights) {
        let mut pool = (value, weight, 1);
        while let Some(&(mean, earlier, held)) = pools.last()
            && mean > pool.0
        {
            pools.pop();
            let both = earlier + pool.1;
            pool = ((mean * earlier + pool.0 * pool.1) / both, both, held + pool.2);
        }
        pools.push(pool);
    }
    pools.into_iter().flat_map(|(mean, _, held)| std::iter::repeat_n(mean, held)).collect()
}
