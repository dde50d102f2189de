//! A table of any form and compression, and a trace in it: rows on rising lines, cells of every type, or an error in words.
#![no_main]

use std::cell::RefCell;
use std::io::{Seek, Write};

use libfuzzer_sys::fuzz_target;
use plimsoll::table::read::{Table, TableError};
use plimsoll::table::source::Source;
use plimsoll::workload::trace::options::TraceOptions;
use plimsoll::workload::trace::rows::TraceRows;
use tempfile::NamedTempFile;

/// More rows than any input has that is not packed: what a packed one has beyond them is the same again.
const ROWS_AT_MOST: usize = 1000;

thread_local! {
    /// A table is opened by its name: every input goes through the same file.
    static FILE: RefCell<NamedTempFile> = RefCell::new(NamedTempFile::new().expect("a temporary file can be made"));
}

fn source_of(bytes: &[u8]) -> Source {
    FILE.with_borrow_mut(|file| {
        file.rewind().and_then(|()| file.write_all(bytes)).expect("the file can be written");
        file.as_file().set_len(bytes.len() as u64).expect("the file can be cut");
        Source::Path(file.path().to_owned())
    })
}

fuzz_target!(|bytes: &[u8]| {
    let source = source_of(bytes);
    let Ok(table) = Table::open(&source) else { return };
    let columns = table.columns().to_vec();
    let mut last = 0;
    for row in table.take(ROWS_AT_MOST) {
        match row {
            Ok(row) => {
                assert!(row.line() > last, "line {} after line {last}", row.line());
                last = row.line();
                for column in &columns {
                    let (number, whole) = (row.number(column), row.whole(column));
                    assert!(number.is_ok() || whole.is_err(), "a count is a number: {row:?}");
                    assert!(number.is_err() || number.is_ok_and(f64::is_finite), "a number is finite: {row:?}");
                    let _ = (row.wholes(column), row.string(column));
                }
            }
            Err(error) => assert!(matches!(&error, TableError::BadLine { .. }) || !error.to_string().is_empty()),
        }
    }
    let Ok(mut calls) = Table::open(&source).map_err(drop).and_then(|table| TraceRows::new(table, &TraceOptions::default()).map_err(drop))
    else {
        return;
    };
    let _ = calls.by_ref().take(ROWS_AT_MOST).count();
    assert!(calls.rejects().first.len() as u64 <= calls.rejects().total());
});
