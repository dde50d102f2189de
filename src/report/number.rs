//! Numbers for people: three significant figures, whole numbers in full, no exponent where one can be avoided.

/// What stands where there is no value.
pub(super) const NONE: &str = "-";

/// Three significant figures; whole part never rounded away, in groups of three from 10,000 on.
pub(super) fn three(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            NONE.to_owned()
        } else if value > 0.0 {
            "inf".to_owned()
        } else {
            "-inf".to_owned()
        };
    }
    // Rounding first, so that 9.996 counts as 10.0 and not as 10.00.
    let rounded = format!("{:.2e}", value.abs());
    let exponent = rounded.split_once('e').and_then(|(_, digits)| digits.parse::<i32>().ok()).unwrap_or(0);
    if value == 0.0 {
        "0".to_owned()
    } else if exponent < -6 {
        format!("{value:.2e}")
    } else if exponent >= 2 {
        grouped(value)
    } else {
        format!("{value:.*}", (2 - exponent) as usize)
    }
}

/// [`three`], or a dash.
pub(super) fn three_or_none(value: Option<f64>) -> String {
    value.map_or_else(|| NONE.to_owned(), three)
}

/// With a sign, for changes.
pub(super) fn signed(value: f64) -> String {
    if value < 0.0 { format!("-{}", three(-value)) } else { format!("+{}", three(value)) }
}

/// A share as a percentage.
pub(super) fn percent(share: f64) -> String {
    format!("{} %", three(share * 100.0))
}

/// A whole number in groups of three from 10,000 on.
pub(super) fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let sign = if value < 0.0 { "-" } else { "" };
    if digits.len() < 5 {
        return format!("{sign}{digits}");
    }
    let mut text = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_figures_are_three_figures_at_every_size() {
        let rows = [
            (0.0, "0"),
            (20.3125, "20.3"),
            (9.996, "10.0"),
            (99.96, "100"),
            (0.012_345, "0.0123"),
            (1.0, "1.00"),
            (8765.4, "8765"),
            (12_345.6, "12,346"),
            (1_234_567.0, "1,234,567"),
            (-2.5, "-2.50"),
            (1e-9, "1.00e-9"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "-"),
        ];
        for (value, text) in rows {
            assert_eq!(three(value), text);
        }
        assert_eq!(signed(0.5), "+0.500");
        assert_eq!(signed(-0.5), "-0.500");
        assert_eq!(percent(0.9871), "98.7 %");
    }
}
