//! Linear least squares with coefficients that may not be negative, for a handful of unknowns.

/// The coefficients, each 0 or more, that bring `rows x coefficients` nearest to `values`; `None` where nothing determines them.
///
/// Every row has as many terms as there are unknowns, five at most. A negative coefficient is set to 0 and the rest is solved again
/// (an active-set method: exact for so few unknowns, because every set of them is tried and the nearest kept).
#[must_use]
pub fn non_negative<const N: usize>(rows: &[[f64; N]], values: &[f64]) -> Option<[f64; N]> {
    let mut nearest: Option<(f64, [f64; N])> = None;
    for set in 1_u32..1 << N {
        let members: Vec<usize> = (0..N).filter(|unknown| set >> unknown & 1 == 1).collect();
        let Some(solved) = solve(rows, values, &members) else { continue };
        if solved.iter().any(|coefficient| *coefficient < 0.0) {
            continue;
        }
        let off: f64 = rows
            .iter()
            .zip(values)
            .map(|(row, value)| (row.iter().zip(&solved).map(|(term, coefficient)| term * coefficient).sum::<f64>() - value).powi(2))
            .sum();
        if nearest.is_none_or(|(least, _)| off < least) {
            nearest = Some((off, solved));
        }
    }
    nearest.map(|(_, solved)| solved)
}

/// Least squares in the unknowns of `members`, by the normal equations and Gauss with pivots; the others are 0.
fn solve<const N: usize>(rows: &[[f64; N]], values: &[f64], members: &[usize]) -> Option<[f64; N]> {
    let count = members.len();
    if rows.len() < count {
        return None;
    }
    // Columns of very different size would make small pivots look like none.
    let size = |unknown: usize| rows.iter().map(|row| row[unknown].powi(2)).sum::<f64>().sqrt();
    let sizes: Vec<f64> = members.iter().map(|unknown| size(*unknown)).collect();
    if sizes.iter().any(|size| *size <= 0.0 || !size.is_finite()) {
        return None;
    }
    let mut matrix = vec![vec![0.0; count + 1]; count];
    for (row, value) in rows.iter().zip(values) {
        for (i, one) in members.iter().enumerate() {
            let left = row[*one] / sizes[i];
            for (j, other) in members.iter().enumerate() {
                matrix[i][j] += left * row[*other] / sizes[j];
            }
            matrix[i][count] += left * value;
        }
    }
    for column in 0..count {
        let pivot = (column..count).max_by(|one, other| matrix[*one][column].abs().total_cmp(&matrix[*other][column].abs()))?;
        if matrix[pivot][column].abs() < 1e-9 {
            return None;
        }
        matrix.swap(column, pivot);
        for row in 0..count {
            if row != column {
                let factor = matrix[row][column] / matrix[column][column];
                let above = matrix[column].clone();
                for (target, source) in matrix[row].iter_mut().zip(above) {
                    *target -= factor * source;
                }
            }
        }
    }
    let mut solved = [0.0; N];
    for (i, unknown) in members.iter().enumerate() {
        solved[*unknown] = matrix[i][count] / matrix[i][i] / sizes[i];
    }
    solved.iter().all(|coefficient| coefficient.is_finite()).then_some(solved)
}

#[cfg(test)]
mod tests {
    use super::non_negative;

    #[test]
    fn an_exact_law_is_found_exactly() {
        let rows: Vec<[f64; 3]> = (1..9).map(|n| [1.0, f64::from(n), f64::from(n * n % 7)]).collect();
        let values: Vec<f64> = rows.iter().map(|row| 0.005 + 0.0002 * row[1] + 3e-6 * row[2]).collect();
        let found = non_negative(&rows, &values).unwrap();
        for (found, law) in found.iter().zip([0.005, 0.0002, 3e-6]) {
            assert!((found / law - 1.0).abs() < 1e-6, "{found} instead of {law}");
        }
    }

    #[test]
    fn what_would_be_negative_is_nothing_and_the_rest_fits_as_well_as_it_can() {
        // 2 - x: the nearest without a negative slope is its mean.
        let rows = [[1.0, 0.0], [1.0, 1.0]];
        assert_eq!(non_negative(&rows, &[2.0, 1.0]), Some([1.5, 0.0]));
        assert_eq!(non_negative::<2>(&[], &[]), None);
    }
}
