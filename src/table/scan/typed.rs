//! Values of Parquet's types as cells: what a number in a column means.

use half::f16;
use parquet::basic::{ConvertedType, LogicalType, TimeUnit, Type};
use parquet::data_type::{ByteArray, FixedLenByteArray, Int96};
use parquet::schema::types::ColumnDescriptor;

use crate::table::cell::Cell;

const DAY: i64 = 86_400_000_000_000;
/// The Julian day of 1970-01-01, from which the old stamps of 96 bits count.
const EPOCH: i64 = 2_440_588;

/// What the values of a column mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// What they are.
    Plain,
    /// Numbers without a sign.
    Unsigned,
    /// Stamps in units of so many nanoseconds.
    Stamp(i64),
    /// Days since 1970.
    Date,
    /// Numbers with so many digits behind the point.
    Decimal(i32),
    /// Floats of 16 bits.
    Half,
    /// Identifiers of 128 bits.
    Uuid,
}

impl Meaning {
    pub(super) fn of(column: &ColumnDescriptor) -> Self {
        match column.logical_type_ref() {
            Some(LogicalType::Timestamp(stamp)) => Self::Stamp(match stamp.unit {
                TimeUnit::MILLIS => 1_000_000,
                TimeUnit::MICROS => 1_000,
                TimeUnit::NANOS => 1,
            }),
            Some(LogicalType::Date) => Self::Date,
            Some(LogicalType::Decimal(decimal)) => Self::Decimal(decimal.scale),
            Some(LogicalType::Integer(integer)) if !integer.is_signed => Self::Unsigned,
            Some(LogicalType::Float16) => Self::Half,
            Some(LogicalType::Uuid) => Self::Uuid,
            Some(_) => Self::Plain,
            None => match column.converted_type() {
                ConvertedType::TIMESTAMP_MILLIS => Self::Stamp(1_000_000),
                ConvertedType::TIMESTAMP_MICROS => Self::Stamp(1_000),
                ConvertedType::DATE => Self::Date,
                ConvertedType::DECIMAL => Self::Decimal(column.type_scale()),
                ConvertedType::UINT_8 | ConvertedType::UINT_16 | ConvertedType::UINT_32 | ConvertedType::UINT_64 => Self::Unsigned,
                _ => Self::Plain,
            },
        }
    }
}

/// Values of one column, nulls left out.
pub(super) enum Values {
    Bool(Vec<bool>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Int96(Vec<Int96>),
    Float(Vec<f32>),
    Double(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Fixed(Vec<FixedLenByteArray>),
    /// Identifiers, and how they are written.
    Uuid(Vec<FixedLenByteArray>, Vec<u8>),
}

/// Letters of a written UUID.
const UUID: usize = 36;

impl Values {
    pub(super) fn of(physical: Type, meaning: Meaning) -> Self {
        match physical {
            Type::FIXED_LEN_BYTE_ARRAY if meaning == Meaning::Uuid => Self::Uuid(Vec::new(), Vec::new()),
            Type::BOOLEAN => Self::Bool(Vec::new()),
            Type::INT32 => Self::Int32(Vec::new()),
            Type::INT64 => Self::Int64(Vec::new()),
            Type::INT96 => Self::Int96(Vec::new()),
            Type::FLOAT => Self::Float(Vec::new()),
            Type::DOUBLE => Self::Double(Vec::new()),
            Type::BYTE_ARRAY => Self::Bytes(Vec::new()),
            Type::FIXED_LEN_BYTE_ARRAY => Self::Fixed(Vec::new()),
        }
    }

    /// Writes out what cells borrow and the file does not hold as text.
    pub(super) fn write_out(&mut self) {
        let Self::Uuid(values, written) = self else { return };
        written.clear();
        for value in values {
            for (at, byte) in value.data().iter().take(16).enumerate() {
                if matches!(at, 4 | 6 | 8 | 10) {
                    written.push(b'-');
                }
                written.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
            }
        }
    }

    /// Tells the cell of each row in turn, or what is wrong with it. `places`: for each row the number of its value, or none.
    pub(super) fn cells<'a>(
        &'a self,
        meaning: Meaning,
        places: impl Iterator<Item = Option<usize>>,
        mut tell: impl FnMut(usize, Result<Cell<'a>, &'static str>),
    ) {
        // The type is told apart once, and not for each value.
        macro_rules! each {
            (|$at:ident| $cell:expr) => {
                for (row, place) in places.enumerate() {
                    tell(row, place.map_or(Ok(Cell::Missing), |$at| $cell));
                }
            };
        }
        match self {
            Self::Bool(values) => each!(|at| Ok(Cell::Bool(values[at]))),
            Self::Int32(values) if meaning == Meaning::Unsigned => each!(|at| Ok(Cell::Whole(i64::from(values[at] as u32)))),
            Self::Int32(values) => each!(|at| whole(i64::from(values[at]), meaning)),
            Self::Int64(values) => each!(|at| whole(values[at], meaning)),
            Self::Int96(values) => each!(|at| old_stamp(values[at])),
            // By their shortest text, so that 0.1 is 0.1 and not 0.10000000149.
            Self::Float(values) => each!(|at| Ok(Cell::Number(values[at].to_string().parse().unwrap_or(f64::NAN)))),
            Self::Double(values) => each!(|at| Ok(Cell::Number(values[at]))),
            Self::Bytes(values) => each!(|at| of_bytes(values[at].data(), meaning)),
            Self::Fixed(values) => each!(|at| of_bytes(values[at].data(), meaning)),
            Self::Uuid(_, written) => each!(|at| of_bytes(written.get(at * UUID..(at + 1) * UUID).unwrap_or_default(), meaning)),
        }
    }
}

const BEYOND: &str = "is a time outside of the years 1678 to 2261";

fn whole(value: i64, meaning: Meaning) -> Result<Cell<'static>, &'static str> {
    Ok(match meaning {
        Meaning::Stamp(unit) => Cell::Moment(value.checked_mul(unit).ok_or(BEYOND)?),
        Meaning::Date => Cell::Moment(value.checked_mul(DAY).ok_or(BEYOND)?),
        Meaning::Decimal(scale) => Cell::Number(decimal(i128::from(value), scale)),
        Meaning::Unsigned if value < 0 => Cell::Number(value as u64 as f64),
        _ => Cell::Whole(value),
    })
}

fn old_stamp(value: Int96) -> Result<Cell<'static>, &'static str> {
    let [low, high, day] = *value.data() else { return Err(BEYOND) };
    let of_day = (u64::from(high) << 32 | u64::from(low)) as i64;
    let nanos = (i64::from(day) - EPOCH).checked_mul(DAY).and_then(|days| days.checked_add(of_day));
    nanos.map(Cell::Moment).ok_or(BEYOND)
}

fn of_bytes(bytes: &[u8], meaning: Meaning) -> Result<Cell<'_>, &'static str> {
    match (meaning, bytes) {
        (Meaning::Decimal(scale), [first, ..]) if bytes.len() <= 16 => {
            // Big-endian, with the sign in the first bit.
            let sign = if first & 0x80 == 0 { 0 } else { -1 };
            Ok(Cell::Number(decimal(bytes.iter().fold(sign, |value, byte| value << 8 | i128::from(*byte)), scale)))
        }
        (Meaning::Decimal(_), _) => Err("is a decimal of more than 16 bytes"),
        (Meaning::Half, [low, high]) => Ok(Cell::Number(f64::from(f16::from_le_bytes([*low, *high])))),
        _ => std::str::from_utf8(bytes).map(Cell::Text).map_err(|_| "is not UTF-8"),
    }
}

fn decimal(digits: i128, scale: i32) -> f64 {
    digits as f64 / 10_f64.powi(scale)
}
