//! The exponential function in a form that compilers turn into vector code.

/// `e^x` within 2 units in the last place; 0 below -87.3, the largest numbers from 88.7 on. NaN is not kept.
///
/// Range reduction to 2^n e^r with |r| <= ln(2)/2 and the degree-6 polynomial of Cephes `expf` (Moshier).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.336_54, 88.722_83);
    // Adding and taking away 1.5 * 2^23 rounds to the nearest whole number.
    let magic = 12_582_912.0_f32;
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, magic);
    let whole = shifted - magic;
    let rest = whole.mul_add(-355.0 / 512.0, clamped);
    let rest = whole.mul_add(2.121_944_4e-4, rest);
    let mut sum = 1.987_569_1e-4_f32;
    sum = sum.mul_add(rest, 1.398_199_9e-3);
    sum = sum.mul_add(rest, 8.333_452e-3);
    sum = sum.mul_add(rest, 4.166_579_6e-2);
    sum = sum.mul_add(rest, 0.166_666_66);
    sum = sum.mul_add(rest, 0.5);
    let fraction = (sum * rest).mul_add(rest, rest) + 1.0;
    // The whole number sits in the low bits of `shifted`; two factors keep the extremes of the range exact.
    let power = (shifted.to_bits() as i32).wrapping_sub(magic.to_bits() as i32);
    let half = power >> 1;
    let factor = |power: i32| f32::from_bits(((power + 127) << 23) as u32);
    let result = fraction * factor(half) * factor(power - half);
    if x < -87.336_54 { 0.0 } else { result }
}

/// `x / (1 + e^-x)`.
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        let mut worst = 0.0_f64;
        for step in -873_000..=887_000 {
            let x = step as f32 * 1e-4;
            let exact = f64::from(x).exp();
            worst = worst.max(((f64::from(exp(x)) - exact) / exact).abs());
        }
        assert!(worst < 2.4e-7, "{worst:e}");
        assert_eq!((exp(0.0), exp(-1e9), exp(f32::NEG_INFINITY)), (1.0, 0.0, 0.0));
        assert!(silu(-1e9).abs() < 1e-28 && silu(-1e9) <= 0.0, "{}", silu(-1e9));
    }
}
