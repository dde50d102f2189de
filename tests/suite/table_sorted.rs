//! Rows come back in order whatever fits into memory, and a folder that takes none is an error.

use std::path::Path;

use plimsoll::table::sorted::Sorter;
use proptest::prelude::*;
use tempfile::TempDir;

fn key(row: &[i64; 2]) -> i64 {
    row[0]
}

fn sorted(rows: &[[i64; 2]], in_memory: usize, folder: &Path) -> Vec<[i64; 2]> {
    let mut sorter = Sorter::new(in_memory, folder, key);
    for row in rows {
        sorter.push(*row).expect("room in the temporary directory");
    }
    sorter.finish().expect("room in the temporary directory").map(|row| row.expect("a row")).collect()
}

fn numbered(keys: impl IntoIterator<Item = i64>) -> Vec<[i64; 2]> {
    keys.into_iter().enumerate().map(|(at, key)| [key, at as i64]).collect()
}

proptest! {
    #[test]
    fn any_rows_come_as_from_a_stable_sort_whatever_fits_into_memory(
        keys in prop::collection::vec(prop_oneof![-3_i64..3, any::<i64>()], 0..300), in_memory in 0_usize..350,
    ) {
        let folder = TempDir::new().expect("a temporary directory");
        let rows = numbered(keys);
        let mut expected = rows.clone();
        expected.sort_by_key(key);
        prop_assert_eq!(sorted(&rows, in_memory, folder.path()), expected);
    }
}

#[test]
fn chunks_far_larger_than_what_is_read_at_once_are_merged_whole() {
    let folder = TempDir::new().expect("a temporary directory");
    let rows = numbered((0..200_000_u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50) as i64));
    let mut expected = rows.clone();
    expected.sort_by_key(key);
    assert_eq!(sorted(&rows, 9_000, folder.path()), expected);
}

#[test]
fn nothing_is_written_where_everything_fits_and_nothing_has_a_name_where_it_does_not() {
    let rows = numbered([3, 1, 2]);
    assert_eq!(sorted(&rows, 3, Path::new("no/such/folder")), [[1, 1], [2, 2], [3, 0]]);
    let folder = TempDir::new().expect("a temporary directory");
    let mut sorter = Sorter::new(1, folder.path(), key);
    for row in rows {
        sorter.push(row).expect("room in the temporary directory");
        assert_eq!(folder.path().read_dir().expect("it is there").count(), 0);
    }
    assert_eq!(sorter.finish().expect("room").count(), 3);
}

#[test]
fn a_folder_that_takes_no_file_is_an_error_of_the_system() {
    let mut sorter = Sorter::new(1, Path::new("no/such/folder"), key);
    sorter.push([1, 1]).expect("it fits");
    assert_eq!(sorter.push([2, 2]).expect_err("it does not").kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn rows_that_are_a_little_late_come_in_order_and_those_that_are_later_are_told() {
    use plimsoll::table::reorder::{Reorder, TooLate};
    let mut late = Reorder::new(10, |row: &(i64, usize)| row.0);
    // Every seventh row is three behind, and keys repeat.
    let rows: Vec<(i64, usize)> = (0..500).map(|at| ((at as i64) / 2 - if at % 7 == 0 { 3 } else { 0 }, at)).collect();
    let mut given = Vec::new();
    for chunk in rows.chunks(3) {
        late.push(chunk, |rows| given.extend_from_slice(rows)).unwrap();
    }
    late.finish(|rows| given.extend_from_slice(rows)).unwrap();
    let mut wanted = rows;
    wanted.sort_by_key(|row| row.0);
    assert_eq!(given, wanted, "equal keys in the order in which they came");
    let mut late = Reorder::new(2, |row: &i64| *row);
    late.push(&[5, 6, 7, 8, 9], |_| ()).unwrap();
    assert_eq!(late.push(&[1, 10, 11], |_| ()), Err(TooLate));
}
