//! Stamps in text and numbers as nanoseconds since 1970 UTC. The usual form is read by hand, the others by `jiff`.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;

use crate::table::cell::StampUnit;
use crate::table::row::CellProblem;

const SECOND: i64 = 1_000_000_000;

/// In the form of RFC 3339.
pub(super) fn written(nanos: i64) -> String {
    Timestamp::from_nanosecond(i128::from(nanos)).map_or_else(|_| nanos.to_string(), |stamp| stamp.to_string())
}

/// Nanoseconds of the unit that is meant.
fn unit_of(magnitude: u64, unit: StampUnit) -> i64 {
    match unit {
        StampUnit::Seconds => SECOND,
        StampUnit::Millis => 1_000_000,
        StampUnit::Micros => 1_000,
        StampUnit::Nanos => 1,
        StampUnit::Guess => match magnitude {
            100_000_000_000_000_000.. => 1,
            100_000_000_000_000.. => 1_000,
            100_000_000_000.. => 1_000_000,
            _ => SECOND,
        },
    }
}

pub(super) fn of_whole(count: i64, unit: StampUnit) -> Result<i64, CellProblem> {
    count.checked_mul(unit_of(count.unsigned_abs(), unit)).ok_or(CellProblem::TooLarge)
}

/// The whole part and the fraction apart, so that a fraction is no less exact than the float is.
pub(super) fn of_number(value: f64, unit: StampUnit) -> Result<i64, CellProblem> {
    if !value.is_finite() {
        return Err(CellProblem::NotATime);
    }
    if value.abs() >= i64::MAX as f64 {
        return Err(CellProblem::TooLarge);
    }
    let whole = value.trunc() as i64;
    let unit = unit_of(whole.unsigned_abs(), unit);
    let fraction = (value.fract() * unit as f64).round() as i64;
    whole.checked_mul(unit).and_then(|nanos| nanos.checked_add(fraction)).ok_or(CellProblem::TooLarge)
}

pub(super) fn of_text(text: &str, unit: StampUnit) -> Result<i64, CellProblem> {
    if let Some(nanos) = calendar(text.as_bytes()) {
        return nanos.ok_or(CellProblem::TooLarge);
    }
    if text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'-' | b'+' | b'e' | b'E')) {
        if let Some(nanos) = decimal(text, unit) {
            return nanos.ok_or(CellProblem::TooLarge);
        }
        if let Ok(value) = text.parse() {
            return of_number(value, unit);
        }
    }
    let stamp = text.parse::<Timestamp>().or_else(|_| TimeZone::UTC.to_timestamp(text.parse::<DateTime>()?));
    let stamp = stamp.or_else(|_| rfc2822::DateTimeParser::new().parse_timestamp(text)).map_err(|_| CellProblem::NotATime)?;
    i64::try_from(stamp.as_nanosecond()).map_err(|_| CellProblem::TooLarge)
}

/// `1767225600`, `-5`, `1767225600.123456789`: exact to the nanosecond. `None` where it is something else, `Some(None)` beyond what fits.
fn decimal(text: &str, unit: StampUnit) -> Option<Option<i64>> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !digits(whole) || !digits(fraction) {
        return None;
    }
    let Ok(whole) = whole.parse::<i64>() else { return Some(None) };
    let unit = unit_of(whole.unsigned_abs(), unit);
    let (mut place, mut below) = (unit, 0);
    for digit in fraction.bytes() {
        place /= 10;
        below += i64::from(digit - b'0') * place;
    }
    let nanos = whole.checked_mul(unit).and_then(|nanos| nanos.checked_add(below));
    Some(nanos.map(|nanos| if negative { -nanos } else { nanos }))
}

/// `2026-03-02T00:00:06.32Z`, with a space for the `T`, without a zone (UTC), with `+01`, `+0100`, `+01:00`, and a space or ` UTC` before or for
/// the zone. `None` where it is anything else, `Some(None)` beyond what fits.
fn calendar(text: &[u8]) -> Option<Option<i64>> {
    let (date, rest) = text.split_first_chunk::<19>()?;
    let [y0, y1, y2, y3, b'-', mo0, mo1, b'-', d0, d1, b'T' | b't' | b' ', h0, h1, b':', mi0, mi1, b':', s0, s1] = *date else {
        return None;
    };
    let pair = |tens: u8, ones: u8| {
        let (tens, ones) = (tens.wrapping_sub(b'0'), ones.wrapping_sub(b'0'));
        (tens < 10 && ones < 10).then(|| i64::from(tens) * 10 + i64::from(ones))
    };
    let year = pair(y0, y1)? * 100 + pair(y2, y3)?;
    let (month, day) = (pair(mo0, mo1)?, pair(d0, d1)?);
    let (hour, minute, second) = (pair(h0, h1)?, pair(mi0, mi1)?, pair(s0, s1)?);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let longest = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    // A leap second is left to jiff.
    if !(1..=12).contains(&month) || !(1..=longest).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (nanos, rest) = fraction(rest)?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let offset = match *rest {
        [] | [b'Z' | b'z'] | [b'U', b'T', b'C'] => 0,
        [sign @ (b'+' | b'-'), h0, h1, ref minutes @ ..] => {
            let minutes = match *minutes {
                [] => 0,
                [b':', m0, m1] | [m0, m1] => pair(m0, m1).filter(|minutes| *minutes < 60)?,
                _ => return None,
            };
            let seconds = pair(h0, h1).filter(|hours| *hours < 24)? * 3600 + minutes * 60;
            if sign == b'-' { -seconds } else { seconds }
        }
        _ => return None,
    };
    // Days since 1970 of a year that begins in March, so that the leap day is its last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (century, of_century) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = century * 146_097 + of_century * 365 + of_century / 4 - of_century / 100 + of_year - 719_468;
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
    Some(seconds.checked_mul(SECOND).and_then(|whole| whole.checked_add(nanos)))
}

/// Nanoseconds of `.123`, and what follows it.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some(digits) = text.strip_prefix(b".").or_else(|| text.strip_prefix(b",")) else { return Some((0, text)) };
    let (mut nanos, mut place, mut count) = (0, SECOND, 0);
    for digit in digits.iter().take_while(|byte| byte.is_ascii_digit()) {
        place /= 10;
        nanos += i64::from(digit - b'0') * place;
        count += 1;
    }
    (count > 0).then_some((nanos, &digits[count..]))
}
