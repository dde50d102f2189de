//! A table scanned through: however it is cut into blocks and divided among threads, the same rows, the same lines that are none, the same end.
#![no_main]

use std::cell::RefCell;
use std::io::{Seek, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;

use libfuzzer_sys::fuzz_target;
use plimsoll::table::cell::Cell;
use plimsoll::table::scan::Scan;
use plimsoll::table::source::Source;
use tempfile::NamedTempFile;

/// More rows than any input has that is not packed: what a packed one has beyond them is the same again.
const ROWS_AT_MOST: usize = 1000;

thread_local! {
    /// A table is opened by its name: every input goes through the same file.
    static FILE: RefCell<NamedTempFile> = RefCell::new(NamedTempFile::new().expect("a temporary file can be made"));
}

/// What a scan tells: rows, lines that are none, how it ended; and whether it went to the end.
#[derive(Debug, PartialEq)]
struct Told {
    rows: Vec<String>,
    rejected: Vec<(u64, String)>,
    ended: Result<u64, String>,
    whole: bool,
}

fn source_of(bytes: &[u8]) -> Source {
    FILE.with_borrow_mut(|file| {
        file.rewind().and_then(|()| file.write_all(bytes)).expect("the file can be written");
        file.as_file().set_len(bytes.len() as u64).expect("the file can be cut");
        Source::Path(file.path().to_owned())
    })
}

fn told(source: &Source, block: usize, threads: usize) -> Option<Told> {
    let number = |number| NonZeroUsize::new(number).expect("it is not 0");
    let scan = Scan::open(source).ok()?.with_block(number(block));
    let wanted = scan.columns().to_vec();
    let mut told = Told { rows: Vec::new(), rejected: Vec::new(), ended: Ok(0), whole: true };
    let decode = |cells: &[Cell<'_>]| {
        assert_eq!(cells.len(), wanted.len(), "a cell for each column that was wanted");
        Ok::<String, String>(format!("{cells:?}"))
    };
    let scanned = scan.run(&wanted, number(threads), decode, |batch| {
        told.rows.append(&mut batch.rows);
        told.rejected.extend(batch.rejected.drain(..).map(|(line, reject)| (line, format!("{reject:?}"))));
        if told.rows.len() + told.rejected.len() > ROWS_AT_MOST {
            told.whole = false;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    told.ended = scanned.map(|scanned| scanned.lines).map_err(|error| error.to_string());
    Some(told)
}

fuzz_target!(|bytes: &[u8]| {
    let source = source_of(bytes);
    let Some(known) = told(&source, 1 << 18, 1) else { return };
    assert!(known.rejected.windows(2).all(|pair| pair[0].0 < pair[1].0), "lines rise: {:?}", known.rejected);
    for (block, threads) in [(1, 1), (7, 2), (64, 3)] {
        let other = told(&source, block, threads).expect("it was opened before");
        if known.whole && other.whole {
            assert_eq!(other, known, "in blocks of {block} on {threads} threads");
        } else {
            let rows = known.rows.len().min(other.rows.len());
            assert_eq!(other.rows[..rows], known.rows[..rows], "in blocks of {block} on {threads} threads");
        }
    }
});
