//! A cell says the same whatever format it came in, and a stamp is exact to the nanosecond.

use std::collections::HashSet;

use jiff::Timestamp;
use plimsoll::table::cell::{Cell, StampUnit};
use plimsoll::table::row::CellProblem;
use proptest::prelude::*;

fn moment(text: &str) -> Result<i64, CellProblem> {
    Cell::Text(text).moment(StampUnit::Guess)
}

#[test]
fn dates_are_read_in_every_usual_form() {
    let noon = 1_772_452_806_000_000_000;
    for text in [
        "2026-03-02T12:00:06Z",
        " 2026-03-02 12:00:06 ",
        "2026-03-02t12:00:06z",
        "2026-03-02 12:00:06 UTC",
        "2026-03-02 12:00:06+00",
        "2026-03-02T13:00:06+01:00",
        "2026-03-02T13:00:06+0100",
        "2026-03-02 06:30:06 -05:30",
        "2026-03-02T12:00:06.000000000000",
        "2026-03-02T13:00:06+01:00[Europe/Paris]",
        "Mon, 2 Mar 2026 12:00:06 GMT",
        "1772452806",
        "1772452806.0",
        "1772452806000",
        "1772452806000000",
        "1772452806000000000",
        "1.772452806e9",
    ] {
        assert_eq!(moment(text), Ok(noon), "{text}");
    }
    assert_eq!(moment("2026-03-02"), Ok(1_772_409_600_000_000_000));
    assert_eq!(moment("2026-03-02T12:00:06.123456789987Z"), Ok(noon + 123_456_789));
    assert_eq!(moment("2026-03-02T12:00:06,5"), Ok(noon + 500_000_000));
    assert_eq!(moment("1772452806.123456789"), Ok(noon + 123_456_789));
    assert_eq!(moment("1772452806000.5"), Ok(noon + 500_000));
    assert_eq!(moment("1969-12-31T23:59:59.25Z"), Ok(-750_000_000));
    assert_eq!(moment("-0.75"), Ok(-750_000_000));
}

#[test]
fn what_is_no_date_is_told_apart_from_what_does_not_fit() {
    for text in [
        "soon",
        "2026-13-02T12:00:06Z",
        "2026-02-29T12:00:06Z",
        "2026-03-02T24:00:06Z",
        "2026-03-02T12:00:06X",
        "2026-03-02T12:00:06.",
        "-",
        "1-2",
        ".",
    ] {
        assert_eq!(moment(text), Err(CellProblem::NotATime), "{text}");
    }
    for text in ["9999-12-31T00:00:00Z", "0001-01-01T00:00:00Z", "99999999999999999999", "1e30"] {
        assert_eq!(moment(text), Err(CellProblem::TooLarge), "{text}");
    }
    assert_eq!(moment(" "), Err(CellProblem::Missing));
    assert_eq!(Cell::Bool(true).moment(StampUnit::Seconds), Err(CellProblem::NotATime));
    assert_eq!(Cell::Number(f64::NAN).moment(StampUnit::Seconds), Err(CellProblem::NotATime));
    assert_eq!(CellProblem::NotATime.to_string(), "not a date and time");
}

#[test]
fn a_number_is_in_the_unit_that_is_said() {
    for (unit, nanos) in
        [(StampUnit::Seconds, 1_000_000_000), (StampUnit::Millis, 1_000_000), (StampUnit::Micros, 1_000), (StampUnit::Nanos, 1)]
    {
        assert_eq!(Cell::Text("2.5").moment(unit), Ok(nanos * 5 / 2));
        assert_eq!(Cell::Number(2.25).moment(unit), Ok(nanos * 9 / 4));
        assert_eq!(Cell::Whole(-2).moment(unit), Ok(nanos * -2));
    }
    assert_eq!(Cell::Moment(5).moment(StampUnit::Seconds), Ok(5));
    assert_eq!(Cell::Whole(i64::MAX).moment(StampUnit::Millis), Err(CellProblem::TooLarge));
}

#[test]
fn counts_and_numbers_read_as_in_a_row() {
    let whole = |text: &str| Cell::Text(text).whole();
    assert_eq!([whole(" 12 "), whole("12.0"), whole("+5"), whole("18446744073709551615")], [Ok(12), Ok(12), Ok(5), Ok(u64::MAX)]);
    assert_eq!(
        [whole(""), whole("x"), whole("inf")],
        [Err(CellProblem::Missing), Err(CellProblem::NotANumber), Err(CellProblem::NotANumber)]
    );
    assert_eq!(
        [whole("-1"), whole("1.5"), whole("1e17")],
        [Err(CellProblem::Negative), Err(CellProblem::NotWhole), Err(CellProblem::TooLarge)]
    );
    assert_eq!([Cell::Whole(-1).whole(), Cell::Number(3.0).whole()], [Err(CellProblem::Negative), Ok(3)]);
    assert_eq!([Cell::Missing.number(), Cell::Bool(true).number()], [Err(CellProblem::Missing), Err(CellProblem::NotANumber)]);
    assert_eq!(Cell::Number(f64::INFINITY).number(), Err(CellProblem::NotANumber));
}

#[test]
fn a_key_is_that_of_the_text_and_the_same_in_every_run() {
    assert_eq!(Cell::Whole(-5).key(), Cell::Text(" -5 ").key());
    for count in [0, 9, 10, i64::MAX, i64::MIN] {
        assert_eq!(Cell::Whole(count).key(), Cell::Text(&count.to_string()).key());
    }
    assert_eq!(Cell::Number(1.5).key(), Cell::Text("1.5").key());
    assert_eq!(Cell::Bool(true).key(), Cell::Text("true").key());
    assert_eq!(Cell::Moment(0).key(), Cell::Text("1970-01-01T00:00:00Z").key());
    assert_eq!([Cell::Missing.key(), Cell::Text(" ").key()], [None, None]);
    assert_eq!(Cell::Moment(0).text().as_deref(), Some("1970-01-01T00:00:00Z"));
    assert_eq!(Cell::Text("request-1").key(), Some(KEY));
}

/// The key of `request-1` for ever: files of two runs must agree.
const KEY: u64 = 17_739_594_272_927_587_852;

#[test]
fn keys_of_numbers_letters_and_long_names_never_meet_and_fill_their_range() {
    let mut keys = HashSet::new();
    let mut ones = [0_u32; 64];
    let mut count = 0;
    for at in 0..200_000_i64 {
        let long = format!("018f-{at:032x}-{}", at % 7);
        for cell in [Cell::Whole(at), Cell::Text(&format!("r{at}")), Cell::Text(&long), Cell::Text(&"\0".repeat(at as usize % 100 + 1))] {
            let key = cell.key().expect("a text");
            count += u32::from(keys.insert(key));
            (0..64).for_each(|bit| ones[bit] += u32::from(keys.len() as u32 == count && key >> bit & 1 == 1));
        }
    }
    assert_eq!(count, 600_000 + 100);
    // Of 800,000 keys, half have each bit; those that come again weigh as one in a hundred.
    assert!(ones.iter().all(|ones| (360_000..440_000).contains(ones)), "{ones:?}");
}

proptest! {
    #[test]
    fn any_moment_reads_back_exactly(nanos in any::<i64>(), digits in 0_usize..10) {
        let stamp = Timestamp::from_nanosecond(i128::from(nanos)).expect("it fits");
        prop_assert_eq!(moment(&stamp.to_string()), Ok(nanos));
        prop_assert_eq!(Cell::Text(&nanos.to_string()).moment(StampUnit::Nanos), Ok(nanos));
        let shorter = format!("{stamp:.digits$}");
        prop_assert_eq!(moment(&shorter).map(i128::from), Ok(shorter.parse::<Timestamp>().expect("a stamp").as_nanosecond()));
    }

    #[test]
    fn any_date_reads_as_jiff_reads_it(
        year in 1600_i16..2300, month in 0_u8..14, day in 0_u8..33, hour in 0_u8..25, minute in 0_u8..61, zone in -1_439_i32..1_440,
    ) {
        let (sign, size) = (if zone < 0 { '-' } else { '+' }, zone.abs());
        let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:07.25{sign}{:02}:{:02}", size / 60, size % 60);
        let expected = text.parse::<Timestamp>().map_err(|_| CellProblem::NotATime);
        let expected = expected.and_then(|stamp| i64::try_from(stamp.as_nanosecond()).map_err(|_| CellProblem::TooLarge));
        prop_assert_eq!(moment(&text), expected, "{}", text);
    }

    #[test]
    fn any_number_is_the_one_that_the_standard_library_reads(text in prop_oneof!["-?[0-9]{0,17}[.]?[0-9]{0,17}(e-?[0-9]{1,2})?", "[-+.0-9e]{0,6}"]) {
        let expected = match text.parse::<f64>() {
            _ if text.is_empty() => Err(CellProblem::Missing),
            Ok(value) if value.is_finite() => Ok(value.to_bits()),
            _ => Err(CellProblem::NotANumber),
        };
        prop_assert_eq!(Cell::Text(&text).number().map(f64::to_bits), expected);
    }
}
