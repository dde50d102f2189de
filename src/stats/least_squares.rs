//! Small linear least-squares fits: a handful of terms, of any sign or, where they are costs, none below 0.
//!
//! Rows that are divided by their value, which then is 1, weigh relative errors. Columns are scaled before they are solved for, because a fixed cost of 1 and a count of 100,000 tokens stand side by side.

/// A pivot smaller than this share of its column's largest is none: the columns say the same.
const SINGULAR: f64 = 1e-12;
/// What is measured is never better known than this, as a share.
const NOISE: f64 = 0.005;

/// The terms, a dozen at most, that make the sum of squared residuals smallest, each row a set of factors and a value. `None` where rows do not tell the
/// terms apart.
#[must_use]
pub fn any_sign<const N: usize>(rows: &[([f64; N], f64)]) -> Option<[f64; N]> {
    over(rows, [true; N])
}

/// The same with no term below 0: costs. Every set of terms that are held at 0 is tried, and the nearest kept.
#[must_use]
pub fn costs<const N: usize>(rows: &[([f64; N], f64)]) -> Option<[f64; N]> {
    best(rows, |terms| squares(rows, terms))
}

/// The same with as few terms as explain the values: of all sets of terms, the one that the Bayesian information criterion prefers. Errors below
/// [`NOISE`] of a value earn no term more.
#[must_use]
pub fn fewest_costs<const N: usize>(rows: &[([f64; N], f64)]) -> Option<[f64; N]> {
    let count = rows.len() as f64;
    let value = rows.iter().map(|(_, value)| value * value).sum::<f64>() / count;
    let score = |terms: &[f64; N]| {
        let free = terms.iter().filter(|term| **term > 0.0).count() as f64;
        count * (squares(rows, terms) / count + NOISE * NOISE * value).ln() + free * count.ln()
    };
    best(rows, score)
}

/// Residual of the worst row, as a share of its value.
#[must_use]
pub fn worst<const N: usize>(rows: &[([f64; N], f64)], terms: &[f64; N]) -> f64 {
    rows.iter().map(|(factors, value)| ((at(factors, terms) - value) / value).abs()).fold(0.0, f64::max)
}

/// What the terms say of a set of factors.
#[must_use]
pub fn at<const N: usize>(factors: &[f64; N], terms: &[f64; N]) -> f64 {
    factors.iter().zip(terms).map(|(factor, term)| factor * term).sum()
}

/// Of the fits of all sets of terms that have none below 0, the one with the lowest score.
fn best<const N: usize>(rows: &[([f64; N], f64)], score: impl Fn(&[f64; N]) -> f64) -> Option<[f64; N]> {
    let sets = (1..1_u32 << N).map(|set| std::array::from_fn(|column| set >> column & 1 == 1));
    let fits = sets.filter_map(|free| over(rows, free)).filter(|terms| terms.iter().all(|term| *term >= 0.0));
    fits.map(|terms| (score(&terms), terms)).min_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, terms)| terms)
}

fn squares<const N: usize>(rows: &[([f64; N], f64)], terms: &[f64; N]) -> f64 {
    rows.iter().map(|(factors, value)| (at(factors, terms) - value).powi(2)).sum()
}

/// Over the terms that are free; the others are 0. Householder would be finer: normal equations of scaled columns do for so few terms.
fn over<const N: usize>(rows: &[([f64; N], f64)], free: [bool; N]) -> Option<[f64; N]> {
    let scale: [f64; N] = std::array::from_fn(|column| rows.iter().map(|(factors, _)| factors[column].abs()).fold(0.0, f64::max));
    let columns: Vec<usize> = (0..N).filter(|column| free[*column]).collect();
    if rows.len() < columns.len() || columns.iter().any(|column| scale[*column] <= 0.0) {
        return None;
    }
    let scaled = |factors: &[f64; N], column: usize| factors[column] / scale[column];
    let mut system: Vec<Vec<f64>> = columns
        .iter()
        .map(|row| {
            let products = columns.iter().map(|column| rows.iter().map(|(f, _)| scaled(f, *row) * scaled(f, *column)).sum::<f64>());
            products.chain([rows.iter().map(|(f, value)| scaled(f, *row) * value).sum()]).collect()
        })
        .collect();
    let solved = solve(&mut system)?;
    let mut terms = [0.0; N];
    for (column, value) in columns.into_iter().zip(solved) {
        terms[column] = value / scale[column];
    }
    Some(terms)
}

/// Gaussian elimination with the largest pivot first.
fn solve(system: &mut [Vec<f64>]) -> Option<Vec<f64>> {
    let size = system.len();
    let largest = system.iter().flatten().fold(0.0_f64, |largest, value| largest.max(value.abs()));
    for column in 0..size {
        let pivot = (column..size).max_by(|one, other| system[*one][column].abs().total_cmp(&system[*other][column].abs()))?;
        system.swap(column, pivot);
        if system[column][column].abs() <= SINGULAR * largest {
            return None;
        }
        for row in 0..size {
            if row != column {
                let times = system[row][column] / system[column][column];
                let (from, to) = if row < column {
                    let (before, after) = system.split_at_mut(column);
                    (&after[0], &mut before[row])
                } else {
                    let (before, after) = system.split_at_mut(row);
                    (&before[column], &mut after[0])
                };
                to.iter_mut().zip(from).for_each(|(value, subtracted)| *value -= times * subtracted);
            }
        }
    }
    Some((0..size).map(|row| system[row][size] / system[row][row]).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{any_sign, costs, fewest_costs};

    proptest! {
        #[test]
        fn planted_terms_come_back(a in 1e-4..1e-1_f64, b in 1e-6..1e-3_f64, c in 1e-9..1e-6_f64) {
            let rows: Vec<_> = [1.0, 8.0, 60.0].into_iter().flat_map(|n| {
                [300.0, 1200.0, 5000.0].map(|context| ([1.0, n, n * context], a + b * n + c * n * context))
            }).collect();
            for found in [any_sign(&rows).unwrap(), costs(&rows).unwrap()] {
                for (found, planted) in found.into_iter().zip([a, b, c]) {
                    prop_assert!((found / planted - 1.0).abs() < 1e-5, "{found} is not {planted}");
                }
            }
        }
    }

    #[test]
    fn terms_that_explain_only_noise_are_left_out() {
        let due = |n: f64| 2.0 + 0.5 * n;
        let noisy = |k: usize, n: f64| due(n) * (1.0 + 0.01 * ((k * 7 % 5) as f64 - 2.0) / 2.0);
        let rows: Vec<_> =
            (1..=12).map(|k| (k, k as f64)).map(|(k, n)| ([1.0, n, n.sqrt(), n * n].map(|term| term / noisy(k, n)), 1.0)).collect();
        let [fixed, linear, root, square] = fewest_costs(&rows).unwrap();
        assert_eq!((root, square), (0.0, 0.0));
        assert!((fixed / 2.0 - 1.0).abs() < 0.03 && (linear / 0.5 - 1.0).abs() < 0.03, "{fixed} + {linear} n");
        assert!(costs(&rows).unwrap().iter().filter(|term| **term > 0.0).count() >= 2);
    }

    #[test]
    fn a_cost_is_never_below_nothing_and_columns_that_say_the_same_have_no_fit() {
        let falling: Vec<_> = [1.0, 2.0, 3.0].map(|x| ([1.0, x], 5.0 - x)).to_vec();
        assert!(any_sign(&falling).unwrap()[1] < -0.9);
        let [fixed, slope] = costs(&falling).unwrap();
        assert!((fixed - 3.0).abs() < 1e-12 && slope == 0.0);
        assert_eq!(any_sign(&[([1.0, 2.0], 1.0), ([2.0, 4.0], 2.0), ([3.0, 6.0], 3.0)]), None);
    }
}
