//! One cell as a format gives it, borrowed from the bytes it was read in, and read as a type. It does not know its column.

use std::borrow::Cow;

use crate::table::moment;
use crate::table::row::CellProblem;

/// One cell. Text formats give text, or what JSON has; typed formats what their type means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    /// Nothing: no such key, `null`, or a list or an object where one value is expected.
    Missing,
    /// As it stands, with spaces around it.
    Text(&'a str),
    /// A whole number.
    Whole(i64),
    /// Any other number.
    Number(f64),
    /// True or false.
    Bool(bool),
    /// Nanoseconds since 1970 UTC: typed formats only.
    Moment(i64),
}

/// What a number without a unit means as a stamp: time since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampUnit {
    /// Seconds.
    Seconds,
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
    /// By magnitude: from 10^17 nanoseconds, from 10^14 microseconds, from 10^11 milliseconds, below it seconds.
    /// Each unit then covers 1973 to 5138, and dates of this century are never mistaken.
    Guess,
}

/// The longest text of a number or a stamp.
const LONGEST: usize = 400;

impl Cell<'_> {
    /// The cell as a count.
    ///
    /// # Errors
    /// Where it is missing, no number, negative, broken, or above 9 * 10^15 and not written as a whole number.
    pub fn whole(&self) -> Result<u64, CellProblem> {
        match self {
            Self::Whole(count) => return u64::try_from(*count).map_err(|_| CellProblem::Negative),
            Self::Text(text) => {
                if let Ok(count) = trim(text).parse() {
                    return Ok(count);
                }
            }
            _ => {}
        }
        match self.number()? {
            below if below < 0.0 => Err(CellProblem::Negative),
            broken if broken.fract() != 0.0 => Err(CellProblem::NotWhole),
            // Counts above 2^53 are not exact as floats, and no token count is that large.
            large if large > 9e15 => Err(CellProblem::TooLarge),
            whole => Ok(whole as u64),
        }
    }

    /// The cell as a finite number.
    ///
    /// # Errors
    /// Where it is missing or not a number.
    pub fn number(&self) -> Result<f64, CellProblem> {
        let value = match self {
            Self::Missing => return Err(CellProblem::Missing),
            Self::Whole(count) => Some(*count as f64),
            Self::Number(value) => Some(*value),
            Self::Bool(_) | Self::Moment(_) => None,
            Self::Text(text) => match trim(text) {
                "" => return Err(CellProblem::Missing),
                text => short_decimal(text.as_bytes()).or_else(|| text.parse().ok()),
            },
        };
        value.filter(|value| value.is_finite()).ok_or(CellProblem::NotANumber)
    }

    /// The cell as text, without spaces around it; `None` where it is missing or empty.
    #[must_use]
    pub fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Missing => None,
            Self::Text(text) => Some(trim(text)).filter(|text| !text.is_empty()).map(Cow::Borrowed),
            Self::Whole(count) => Some(Cow::Owned(count.to_string())),
            Self::Number(value) => Some(Cow::Owned(value.to_string())),
            Self::Bool(true) => Some(Cow::Borrowed("true")),
            Self::Bool(false) => Some(Cow::Borrowed("false")),
            Self::Moment(nanos) => Some(Cow::Owned(moment::written(*nanos))),
        }
    }

    /// A well mixed hash of the cell's text, whatever its type: the same in every run, on every thread and machine. Two of 10
    /// million different texts share one with a chance of 3 in a million. `None` where it is missing or empty.
    #[must_use]
    pub fn key(&self) -> Option<u64> {
        match self {
            Self::Missing => None,
            Self::Text(text) => Some(trim(text)).filter(|text| !text.is_empty()).map(|text| mix(text.as_bytes())),
            Self::Whole(count) => {
                let (mut digits, mut at, mut left) = ([b'-'; 20], 20, count.unsigned_abs());
                while left > 0 || at == 20 {
                    at -= 1;
                    digits[at] = b'0' + (left % 10) as u8;
                    left /= 10;
                }
                Some(mix(&digits[at - usize::from(*count < 0)..]))
            }
            other => other.text().map(|text| mix(text.as_bytes())),
        }
    }

    /// The cell as nanoseconds since 1970 UTC. A date and time without a zone is UTC, a number is in `unit`; digits beyond the
    /// nanosecond are dropped. A number that came as a float (a JSON number with a fraction) is as exact as a float is.
    ///
    /// # Errors
    /// Where it is missing, neither a number nor a date and time, or outside of the years 1678 to 2261.
    pub fn moment(&self, unit: StampUnit) -> Result<i64, CellProblem> {
        match self {
            Self::Missing => Err(CellProblem::Missing),
            Self::Bool(_) => Err(CellProblem::NotATime),
            Self::Moment(nanos) => Ok(*nanos),
            Self::Whole(count) => moment::of_whole(*count, unit),
            Self::Number(value) => moment::of_number(*value, unit),
            Self::Text(text) => match trim(text) {
                "" => Err(CellProblem::Missing),
                text if text.len() > LONGEST => Err(CellProblem::NotATime),
                text => moment::of_text(text, unit),
            },
        }
    }
}

/// `str::trim`, quick where there is nothing to trim.
fn trim(text: &str) -> &str {
    let plain = |byte: &u8| byte.is_ascii_graphic();
    let bytes = text.as_bytes();
    if bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain) { text } else { text.trim() }
}

/// Decimals of up to 15 digits, `-12.5`: digits and power of ten are exact as floats, so their quotient is rounded right. Others are left to
/// the standard library, which agrees.
fn short_decimal(text: &[u8]) -> Option<f64> {
    const POWERS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
    let (negative, text) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    if text.is_empty() || text.len() > 16 {
        return None;
    }
    let (mut digits, mut count, mut point) = (0_u64, 0, None);
    for byte in text {
        match byte {
            b'0'..=b'9' => {
                digits = digits * 10 + u64::from(byte - b'0');
                count += 1;
            }
            b'.' if point.is_none() => point = Some(count),
            _ => return None,
        }
    }
    if count == 0 || count > 15 {
        return None;
    }
    let value = digits as f64 / POWERS[count - point.unwrap_or(count)];
    Some(if negative { -value } else { value })
}

/// A hash by folded products, after wyhash: for texts of up to 16 bytes, and their lengths, nothing is lost before the last product.
fn mix(text: &[u8]) -> u64 {
    const FIRST: u64 = 0xa076_1d64_78bd_642f;
    const SECOND: u64 = 0xe703_7ed1_a0b4_28db;
    let fold = |one: u64, other: u64| {
        let product = u128::from(one) * u128::from(other);
        (product >> 64) as u64 ^ product as u64
    };
    let length = text.len() as u64;
    let mut seed = FIRST;
    let (low, high) = if text.len() > 16 {
        // All but the last 1 to 16 bytes, whose 16 are then taken with those before them.
        let (pairs, _) = text[..text.len() - 1].as_chunks::<16>();
        for pair in pairs {
            seed = fold(word(&pair[..8]) ^ SECOND, word(&pair[8..]) ^ seed);
        }
        let last = &text[text.len() - 16..];
        (word(&last[..8]), word(&last[8..]))
    } else if text.len() >= 8 {
        (word(&text[..8]), word(&text[text.len() - 8..]))
    } else {
        (word(&text[..text.len() / 2]), word(&text[text.len() / 2..]))
    };
    fold(SECOND ^ length, fold(low ^ SECOND, high ^ seed))
}

/// Up to 8 bytes as a number.
fn word(bytes: &[u8]) -> u64 {
    match bytes {
        [a, b, c, d, e, f, g, h] => u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]),
        _ => bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte)),
    }
}
