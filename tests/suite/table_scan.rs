//! A scan gives what a simple reader gives, whatever the block size and the number of threads, and says exactly what it could not read.

use std::io::Write;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::Path;

use plimsoll::table::cell::Cell;
use plimsoll::table::read::TableError;
use plimsoll::table::scan::pattern::expand;
use plimsoll::table::scan::{Reject, Scan, Scanned};
use plimsoll::table::source::Source;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::{NamedTempFile, TempDir};

const NEVER: &str = "this decoder always panics";

pub(crate) fn file(bytes: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes.as_ref()).expect("room in the temporary directory");
    file
}

pub(crate) fn open(path: &Path) -> Result<Scan, TableError> {
    Scan::open(&Source::Path(path.to_owned()))
}

fn some(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("one at least")
}

/// Rows as written, rejects with their lines, and how it ended.
type Read = (Vec<Vec<String>>, Vec<(u64, Reject<String>)>, Result<Scanned, TableError>);

/// All cells of the wanted columns; a cell `bad` is what the decoder objects to.
pub(crate) fn read(scan: Scan, wanted: &[String], threads: usize, block: usize) -> Read {
    let decode = |cells: &[Cell<'_>]| {
        let row = cells.iter().map(|cell| format!("{cell:?}")).collect::<Vec<_>>();
        if row.iter().any(|cell| cell == "Text(\"bad\")") { Err("a bad cell".to_owned()) } else { Ok(row) }
    };
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    let scanned = scan.with_block(some(block)).run(wanted, some(threads), decode, |batch| {
        rows.append(&mut batch.rows);
        rejected.append(&mut batch.rejected);
        ControlFlow::Continue(())
    });
    (rows, rejected, scanned)
}

fn every(bytes: impl AsRef<[u8]>) -> Read {
    let file = file(bytes);
    let scan = open(file.path()).expect("a table");
    let wanted = scan.columns().to_vec();
    read(scan, &wanted, 2, 1 << 16)
}

fn texts(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| format!("{:?}", Cell::Text(cell))).collect()
}

const OPEN: &str = "a quote that opens in it is never closed";

/// LF, CRLF, and a CR alone, which ends a record too.
fn line_ends(bytes: &[u8]) -> u64 {
    let ends = |(at, byte): (usize, &u8)| *byte == b'\n' || (*byte == b'\r' && bytes.get(at + 1) != Some(&b'\n'));
    bytes.iter().enumerate().filter(|pair| ends(*pair)).count() as u64
}

/// What the `csv` crate reads behind the header: rows, and the lines of those that are none.
fn simple_csv(bytes: &[u8]) -> (Vec<Vec<String>>, Vec<u64>) {
    let (mut rows, mut rejected) = (Vec::new(), Vec::new());
    let mut reader = csv::ReaderBuilder::new().flexible(true).from_reader(bytes);
    let header = reader.byte_headers().expect("memory").len();
    for record in reader.byte_records() {
        let record = record.expect("memory");
        let from = record.position().expect("it was read").byte() as usize;
        let begin = bytes[from..].iter().position(|byte| !b"\r\n".contains(byte)).map_or(bytes.len(), |skip| from + skip);
        let line = 1 + line_ends(&bytes[..begin]);
        let cells = record.iter().map(|cell| std::str::from_utf8(cell).map(|text| format!("{:?}", Cell::Text(text)))).collect();
        match cells {
            Ok(cells) if record.len() == header && record.iter().all(|cell| cell != b"bad") => rows.push(cells),
            Ok::<Vec<String>, _>(_) | Err(_) => rejected.push(line),
        }
    }
    (rows, rejected)
}

fn agrees_with_the_csv_crate(bytes: &[u8], threads: usize, block: usize) -> Result<(), TestCaseError> {
    let file = file(bytes);
    let (rows, rejected, scanned) = read(open(file.path()).expect("a header"), &["a".to_owned(), "b".to_owned()], threads, block);
    let (mut expected, mut lines) = simple_csv(bytes);
    if rejected.last().is_some_and(|(_, reject)| *reject == Reject::NotARow(OPEN.to_owned())) {
        // The crate takes the end of the file for the missing quote.
        if lines.len() < rejected.len() {
            expected.pop();
            lines.extend(rejected.last().map(|(line, _)| *line));
        }
    }
    prop_assert_eq!(rows, expected);
    prop_assert_eq!(rejected.iter().map(|(line, _)| *line).collect::<Vec<_>>(), lines);
    let open = bytes.last().is_some_and(|last| !b"\r\n".contains(last));
    prop_assert_eq!(scanned.expect("memory").lines, line_ends(bytes) + u64::from(open));
    Ok(())
}

fn json_cell(value: Option<&Value>) -> String {
    let cell = match value {
        None | Some(Value::Null | Value::Array(_) | Value::Object(_)) => Cell::Missing,
        Some(Value::Bool(value)) => Cell::Bool(*value),
        Some(Value::String(text)) => Cell::Text(text),
        Some(Value::Number(number)) => match number.as_i64() {
            Some(whole) => Cell::Whole(whole),
            None => Cell::Number(number.as_f64().unwrap_or(f64::NAN)),
        },
    };
    format!("{cell:?}")
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e300..1e300).prop_map(Value::from),
        "[a-z\"\\\\\né ]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::btree_map("[abx\"é]{1,2}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_text_gives_the_rows_and_the_bad_lines_of_the_csv_crate(
        text in "([ab\u{e9},;]|bad|\"|\"\"|\n|\r\n|\r|,\"|\",\"){0,80}", threads in 1_usize..4, block in 1_usize..60,
    ) {
        agrees_with_the_csv_crate(format!("a,b\n{text}").as_bytes(), threads, block)?;
    }

    #[test]
    fn any_rows_come_back_whatever_stands_in_them(
        rows in prop::collection::vec(("[a-z0-9, \"\n\r\u{e9}]{0,12}", "[0-9]{0,4}"), 0..40),
        crlf in any::<bool>(), always in any::<bool>(), threads in 1_usize..4, block in 1_usize..400,
    ) {
        let terminator = if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') };
        let style = if always { csv::QuoteStyle::Always } else { csv::QuoteStyle::Necessary };
        let mut out = csv::WriterBuilder::new().terminator(terminator).quote_style(style).from_writer(Vec::new());
        out.write_record(["a", "b"]).expect("memory");
        for (one, other) in &rows {
            out.write_record([one, other]).expect("memory");
        }
        agrees_with_the_csv_crate(&out.into_inner().expect("memory"), threads, block)?;
    }

    #[test]
    fn bytes_that_are_no_text_spoil_their_own_row_only(
        rows in prop::collection::vec(prop::sample::select(vec![&b"1,2\n"[..], b"\xff,2\n", b"\"\xc3\",2\r\n", b"\xc3\xa9,\n", b"\n"]), 0..30),
        threads in 1_usize..4, block in 1_usize..40,
    ) {
        agrees_with_the_csv_crate(&[b"a,b\n", rows.concat().as_slice()].concat(), threads, block)?;
    }

    #[test]
    fn any_json_lines_give_what_a_simple_reader_gives(
        records in prop::collection::vec(prop_oneof![4 => any_json().prop_map(|value| value.to_string()), 1 => "[a-z{}\":1,]{0,9}"], 0..30),
        end in prop_oneof![Just("\n"), Just("\r\n"), Just("\n\n")], threads in 1_usize..4, block in 1_usize..300,
    ) {
        let wanted = ["a", "b", "x.a", "x.b.a", "\u{e9}", "b"].map(str::to_owned);
        let mut text = "{\"first\": 1}\n".to_owned();
        let (mut rows, mut lines) = (vec![vec!["Missing".to_owned(); 6]], Vec::new());
        for record in &records {
            let line = 1 + text.bytes().filter(|byte| *byte == b'\n').count() as u64;
            text.push_str(record);
            text.push_str(end);
            match serde_json::from_str::<Value>(record) {
                _ if record.trim_ascii().is_empty() => {}
                Ok(value @ Value::Object(_)) => {
                    let row = wanted.iter().map(|path| json_cell(path.split('.').try_fold(&value, |value, key| value.get(key)))).collect::<Vec<_>>();
                    if row.iter().any(|cell| cell == "Text(\"bad\")") { lines.push(line) } else { rows.push(row) }
                }
                _ => lines.push(line),
            }
        }
        let file = file(&text);
        let (found, rejected, scanned) = read(open(file.path()).expect("a record"), &wanted, threads, block);
        prop_assert_eq!(found, rows);
        prop_assert_eq!(rejected.iter().map(|(line, _)| *line).collect::<Vec<_>>(), lines);
        prop_assert_eq!(scanned.expect("memory").lines, text.lines().count() as u64);
    }
}

#[test]
fn comma_semicolon_tab_and_bar_divide_fields_and_the_header_says_which() {
    for delimiter in [",", ";", "\t", "|"] {
        let text = ["\u{feff}one, two ,\"th,r;ee\"", "1,x y,", "\"2\",\"a\"\"b\",\"3\n4\""].join("\n").replace(',', delimiter);
        let (rows, rejected, scanned) = every(&text);
        assert_eq!((rows, rejected), (vec![texts(&["1", "x y", ""]), texts(&["2", "a\"b", "3\n4"])], Vec::new()), "{text}");
        assert_eq!(scanned.expect("a table").lines, 4);
        let header = open(file(&text).path()).expect("a table").columns().join("/");
        assert_eq!(header, "one/two/th,r;ee".replace(',', delimiter));
    }
    assert_eq!(every("alone\n1\n\n2").0, [texts(&["1"]), texts(&["2"])]);
}

#[test]
fn a_bad_row_is_named_with_its_line_and_the_scan_goes_on() {
    let text = b"\r\na,b\r\n1,2\r\n\r\n1\r\n\"x\r\ny\",2,3\r\nbad,2\r\n\xff,2\r\n3,4\r\n5,\"open\r\n6,7\r\n";
    let (rows, rejected, scanned) = every(text);
    assert_eq!(rows, [texts(&["1", "2"]), texts(&["3", "4"])]);
    let words = |text: &str| Reject::NotARow(text.to_owned());
    let expected = [
        (5, words("it has 1 fields, the header 2")),
        (6, words("it has 3 fields, the header 2")),
        (8, Reject::Cell("a bad cell".to_owned())),
        (9, words("it is not UTF-8")),
        (11, words(OPEN)),
    ];
    assert_eq!(rejected, expected);
    assert_eq!(scanned.expect("a table").lines, 12);
    let (rows, rejected, _) = every("{\"a\": 1}\n\n[1]\n{\"a\": \n{\"a\": 2}");
    assert_eq!(rows, [["Whole(1)"], ["Whole(2)"]]);
    let lines = rejected.iter().map(|(line, reject)| format!("{line} {reject:?}")).collect::<Vec<_>>();
    assert_eq!(lines[0], "3 NotARow(\"it is JSON, but not an object\")");
    assert!(lines[1].starts_with("4 NotARow(\"it is not JSON (EOF while parsing"), "{lines:?}");
}

#[test]
fn nested_json_is_named_by_dotted_path_and_a_key_may_have_dots_itself() {
    let text = "{\"usage\": {\"prompt\": 5, \"all\": {\"n\": 1}}, \"l\": [1]}\n{\"usage.prompt\": 6, \"id\": \"a\\nb\"}\n{\"usage.all\": {\"n\": null}}\n";
    let file = file(text);
    let scan = open(file.path()).expect("records");
    assert_eq!(scan.columns(), ["id", "usage.all.n", "usage.prompt"]);
    let wanted = ["usage.prompt", "usage.all.n", "id", "elsewhere", "l"].map(str::to_owned);
    let (rows, rejected, _) = read(scan, &wanted, 1, 1 << 16);
    assert_eq!(rows[0], ["Whole(5)", "Whole(1)", "Missing", "Missing", "Missing"]);
    assert_eq!(rows[1], ["Whole(6)", "Missing", "Text(\"a\\nb\")", "Missing", "Missing"]);
    assert_eq!((rows[2].as_slice(), rejected.len()), (["Missing"; 5].map(str::to_owned).as_slice(), 0));
}

#[test]
fn a_first_record_of_megabytes_still_names_the_columns() {
    let long = "x".repeat(3 << 20);
    let (rows, _, scanned) = every(format!("{{\"prompt\": \"{long}\", \"n\": 1}}\n{{\"n\": 2}}\n"));
    assert_eq!(rows[1], ["Whole(2)", "Missing"]);
    assert_eq!((rows[0][0].as_str(), rows[0][1].len()), ("Whole(1)", long.len() + "Text(\"\")".len()));
    assert_eq!(scanned.expect("records").lines, 2);
    let (rows, _, _) = every(format!("n,{long}\n1,2\n"));
    assert_eq!(rows, [texts(&["1", "2"])]);
}

fn packed(text: &[u8]) -> [Vec<u8>; 2] {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text).expect("memory");
    [gzip.finish().expect("memory"), zstd::encode_all(text, 1).expect("memory")]
}

#[test]
fn each_compression_gives_the_same_and_what_is_cut_short_gives_the_rows_before_the_cut() {
    let mut text = "a,b\n".to_owned();
    for at in 0..200_000_u64 {
        text.push_str(&format!("{at},{}\n", at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20));
    }
    let whole = every(&text).0;
    assert_eq!(whole.len(), 200_000);
    for (bytes, name) in packed(text.as_bytes()).into_iter().zip(["gzip", "zstd"]) {
        assert_eq!(every(&bytes).0, whole, "{name}");
        let (rows, rejected, scanned) = every(&bytes[..bytes.len() / 2]);
        assert!(rejected.is_empty() && rows.len() > 10_000 && rows.len() < 200_000, "{name}: {}", rows.len());
        assert_eq!(rows, whole[..rows.len()], "{name}");
        match scanned.expect_err("half of it") {
            TableError::Damaged { compression, line, .. } => assert_eq!((compression, line), (name, rows.len() as u64 + 1)),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn what_is_no_table_is_refused_with_what_to_do() {
    let pipe = TempDir::new().expect("a temporary directory");
    for (bytes, expected) in [
        (&b""[..], "`FILE` is empty. Give a CSV file"),
        (b"\xef\xbb\xbf\r\n ", "`FILE` is empty."),
        (b"a,b,a\n1,2,3\n", "the header of `FILE` names the column `a` twice"),
        (b"[\n{\"a\": 1}]", "`FILE` is one JSON list, not JSON lines. Make a line of each record with `jq -c '.[]'`"),
        (b"\x1f\x8b\x08\x00nonsense", "its gzip data end early or are damaged"),
        (b"\x28\xb5\x2f\xfdnonsense", "its zstd data end early or are damaged"),
        (b"PAR1nonsense", "its Parquet data end early or are damaged"),
        (b"\"a,b\n1,2\n", "line 1 of `FILE` is not a row: its header is not UTF-8 or has an open quote"),
    ] {
        let file = file(bytes);
        let message = open(file.path()).expect_err("no table").to_string().replace(&file.path().display().to_string(), "FILE");
        assert!(message.contains(expected), "{message}");
    }
    let absent = open(&pipe.path().join("absent.csv")).expect_err("no such file").to_string();
    assert!(absent.starts_with("cannot open `"), "{absent}");
    let file = file("a,b\n1,2\n");
    let refused = read(open(file.path()).expect("a table"), &["c".to_owned()], 1, 1).2.expect_err("no such column").to_string();
    assert!(refused.ends_with("has no column `c`; it has `a`, `b`. Name one of them"), "{refused}");
}

#[test]
fn a_record_that_never_ends_ends_the_scan_with_its_line() {
    let mut text = b"a,b\n1,2\n3,\"".to_vec();
    text.resize(20 << 20, b'\n');
    let (rows, _, scanned) = every(&text);
    assert_eq!(rows, [texts(&["1", "2"])]);
    let message = scanned.expect_err("too long").to_string();
    assert!(message.contains("beyond line 2: a line is longer than 8388608 bytes"), "{message}");
}

#[test]
fn a_scan_ends_where_it_is_told_and_a_panic_of_the_decoder_is_passed_on() {
    let file = file(format!("a\n{}", "1\n".repeat(1_000_000)));
    let mut batches = 0;
    let wanted = ["a".to_owned()];
    let scan = open(file.path()).expect("a table").with_block(some(1000));
    let scanned = scan.run(
        &wanted,
        some(3),
        |_| Ok::<_, ()>(()),
        |batch| {
            batches += 1;
            assert_eq!(batch.rows.len(), 500);
            assert!(batch.bytes > 0 && batch.bytes <= 2_000_002);
            if batches == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        },
    );
    assert_eq!((batches, scanned.expect("a table")), (7, Scanned { lines: 3501 }));
    for in_decoder in [true, false] {
        let scan = open(file.path()).expect("a table").with_block(some(1000));
        let decode = |_: &[Cell<'_>]| if in_decoder { panic!("{NEVER}") } else { Ok::<_, ()>(()) };
        let each = |_: &mut _| if in_decoder { ControlFlow::Continue(()) } else { panic!("{NEVER}") };
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| scan.run(&wanted, some(2), decode, each)));
        let panic = caught.expect_err("it panics");
        assert_eq!(panic.downcast_ref::<String>().map(String::as_str), Some(NEVER));
    }
}

#[test]
fn a_pattern_means_its_files_in_order_and_a_plain_name_means_itself() {
    let folder = TempDir::new().expect("a temporary directory");
    for name in ["b.csv", "a.csv", "c.txt", "[x].csv", "sub/d.csv"] {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("room");
        std::fs::write(path, "a\n").expect("room");
    }
    let names = |pattern: &str| -> Vec<String> {
        let sources = expand(&folder.path().join(pattern).display().to_string()).expect("files");
        sources.iter().map(|source| source.to_string().replace(&format!("{}/", folder.path().display()), "")).collect()
    };
    assert_eq!(names("?.csv"), ["a.csv", "b.csv"]);
    assert_eq!(names("[x].csv"), ["[x].csv"]);
    assert_eq!(names("**/*.csv"), ["[x].csv", "a.csv", "b.csv", "sub/d.csv"]);
    assert_eq!(expand("-").expect("standard input"), [Source::Stdin]);
    let message = expand("no/such/*.csv").expect_err("nothing").to_string();
    assert!(message.starts_with("no file matches `no/such/*.csv`. Check the path"), "{message}");
    assert!(expand("a[").expect_err("no pattern").to_string().starts_with("`a[` is no pattern of paths: "));
}
