//! Parquet gives cells by what its types mean, the same for any range of rows and any number of threads.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::Compression;
use parquet::data_type::{
    BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArrayType, FloatType, Int32Type, Int64Type, Int96, Int96Type,
};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::FileReader;
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use plimsoll::table::read::TableError;
use plimsoll::table::source::Source;
use tempfile::NamedTempFile;

use crate::table_scan::{file, open, read};

type Group<'a> = SerializedRowGroupWriter<'a, Vec<u8>>;

fn written(schema: &str, compression: Compression, groups: &[&dyn Fn(&mut Group<'_>)]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type(schema).expect("a schema"));
    // Small pages, so that ranges begin in the middle of some and behind others.
    let properties = WriterProperties::builder().set_compression(compression).set_data_page_row_count_limit(700).set_write_batch_size(100);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties.build())).expect("memory");
    for group in groups {
        let mut out = writer.next_row_group().expect("memory");
        group(&mut out);
        out.close().expect("memory");
    }
    writer.into_inner().expect("memory")
}

/// One column: values that are there, and the levels where some are not.
fn column<T: DataType>(group: &mut Group<'_>, values: &[T::T], levels: Option<&[i16]>) {
    let mut column = group.next_column().expect("memory").expect("a column is left");
    column.typed::<T>().write_batch(values, levels, None).expect("memory");
    column.close().expect("memory");
}

fn fixed(bytes: &[u8]) -> parquet::data_type::FixedLenByteArray {
    ByteArray::from(bytes.to_vec()).into()
}

const EVERY_TYPE: &str = "message log {
    optional binary name (string); required boolean cached; required int32 tokens; optional int32 small (integer(8, false));
    required int64 id (integer(64, false)); required float speed; optional double latency;
    required int64 at_ms (timestamp(millis, true)); optional int64 at_us (timestamp(micros, false)); required int64 at_ns (timestamp(nanos, true));
    required int64 old_ms (timestamp_millis); required int96 older; required int32 day (date); required int32 price (decimal(9, 2));
    required int64 cost (decimal(18, 3)); required binary sum (decimal(30, 1)); required fixed_len_byte_array(16) key (uuid);
    required fixed_len_byte_array(2) half (float16); required binary raw;
    optional group usage { optional int64 prompt; required int64 answer; }
    required group tags (list) { repeated group list { required int64 element; } }
}";

fn every_type(group: &mut Group<'_>) {
    let there = Some(&[1_i16, 0][..]);
    column::<ByteArrayType>(group, &[ByteArray::from("ok é")], there);
    column::<BoolType>(group, &[true, false], None);
    column::<Int32Type>(group, &[-5, 7], None);
    column::<Int32Type>(group, &[200], there);
    column::<Int64Type>(group, &[-1, 9], None);
    column::<FloatType>(group, &[0.1, 2.0], None);
    column::<DoubleType>(group, &[1.5], there);
    column::<Int64Type>(group, &[1_700_000_000_123, -1], None);
    column::<Int64Type>(group, &[1_700_000_000_123_456], there);
    column::<Int64Type>(group, &[1_700_000_000_123_456_789, 0], None);
    column::<Int64Type>(group, &[1, 2], None);
    column::<Int96Type>(group, &[Int96::from(vec![5, 0, 2_440_589]), Int96::from(vec![0, 0, 2_440_588])], None);
    column::<Int32Type>(group, &[1, -1], None);
    column::<Int32Type>(group, &[1234, -5], None);
    column::<Int64Type>(group, &[1234, 0], None);
    column::<ByteArrayType>(group, &[ByteArray::from(vec![0xff, 0x38]), ByteArray::from(vec![1, 0, 0, 0, 0, 0, 0, 0, 0])], None);
    column::<FixedLenByteArrayType>(group, &[fixed(&[0xab; 16]), fixed(&(0..16).collect::<Vec<_>>())], None);
    column::<FixedLenByteArrayType>(group, &[fixed(&[0, 0x3e]), fixed(&[0, 0xc0])], None);
    column::<ByteArrayType>(group, &[ByteArray::from("x"), ByteArray::from(vec![0xff])], None);
    column::<Int64Type>(group, &[11], Some(&[2, 0]));
    column::<Int64Type>(group, &[12], there);
    let mut tags = group.next_column().expect("memory").expect("a column is left");
    tags.typed::<Int64Type>().write_batch(&[1, 2], Some(&[1, 1, 0]), Some(&[0, 1, 0])).expect("memory");
    tags.close().expect("memory");
}

#[test]
fn each_type_is_read_by_what_it_means_and_lists_are_left_out() {
    let file = file(written(EVERY_TYPE, Compression::SNAPPY, &[&every_type]));
    let scan = open(file.path()).expect("a table");
    let names = "name cached tokens small id speed latency at_ms at_us at_ns old_ms older day price cost sum key half raw usage.prompt usage.answer";
    assert_eq!(scan.columns().join(" "), names);
    let wanted = scan.columns().iter().filter(|name| *name != "raw").cloned().collect::<Vec<_>>();
    let (rows, rejected, scanned) = read(scan, &wanted, 2, 1 << 16);
    let expected = [
        "Text(\"ok é\") Bool(true) Whole(-5) Whole(200) Number(1.8446744073709552e19) Number(0.1) Number(1.5) Moment(1700000000123000000) \
         Moment(1700000000123456000) Moment(1700000000123456789) Moment(1000000) Moment(86400000000005) Moment(86400000000000) Number(12.34) \
         Number(1.234) Number(-20.0) Text(\"abababab-abab-abab-abab-abababababab\") Number(1.5) Whole(11) Whole(12)",
        "Missing Bool(false) Whole(7) Missing Whole(9) Number(2.0) Missing Moment(-1000000) Missing Moment(0) Moment(2000000) Moment(0) \
         Moment(-86400000000000) Number(-0.05) Number(0.0) Number(1.8446744073709553e18) Text(\"00010203-0405-0607-0809-0a0b0c0d0e0f\") \
         Number(-2.0) Missing Missing",
    ];
    assert_eq!(rows.iter().map(|row| row.join(" ")).collect::<Vec<_>>(), expected);
    assert_eq!((rejected.len(), scanned.expect("a table").lines), (0, 2));
    let (rows, rejected, _) = read(open(file.path()).expect("a table"), &["raw".to_owned()], 1, 1 << 16);
    assert_eq!(
        (rows, format!("{rejected:?}")),
        (vec![vec!["Text(\"x\")".to_owned()]], "[(2, NotARow(\"`raw` is not UTF-8\"))]".to_owned())
    );
}

const LONG: &str = "message log { required int64 id; optional binary status (string); optional group usage { optional int32 tokens; } }";

fn long(from: i64, rows: i64) -> impl Fn(&mut Group<'_>) {
    move |group| {
        let ids = (from..from + rows).collect::<Vec<_>>();
        let there = |id: &&i64| *id % 3 != 0;
        let words = ids.iter().filter(there).map(|id| ByteArray::from(if id % 7 == 1 { "bad" } else { "ok" })).collect::<Vec<_>>();
        let levels = ids.iter().map(|id| i16::from(there(&id))).collect::<Vec<_>>();
        let tokens = ids.iter().filter(there).map(|id| (id * 7 % 4096) as i32).collect::<Vec<_>>();
        let deep = levels.iter().map(|level| level * 2).collect::<Vec<_>>();
        column::<Int64Type>(group, &ids, None);
        column::<ByteArrayType>(group, &words, Some(&levels));
        column::<Int32Type>(group, &tokens, Some(&deep));
    }
}

#[test]
fn any_range_of_rows_and_any_number_of_threads_give_the_same() {
    for compression in
        [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(Default::default()), Compression::GZIP(Default::default())]
    {
        let file = file(written(LONG, compression, &[&long(0, 5000), &long(5000, 1), &long(5001, 0), &long(5001, 2345)]));
        let wanted = ["usage.tokens", "id", "status"].map(str::to_owned);
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        for id in 0..7346_i64 {
            match id {
                id if id % 3 == 0 => rows.push(vec!["Missing".to_owned(), format!("Whole({id})"), "Missing".to_owned()]),
                id if id % 7 == 1 => bad.push(id as u64 + 1),
                id => rows.push(vec![format!("Whole({})", id * 7 % 4096), format!("Whole({id})"), "Text(\"ok\")".to_owned()]),
            }
        }
        for (threads, block) in [(1, 1), (1, 64 * 333), (3, 64 * 97), (2, 1 << 20), (4, 1)] {
            let (found, rejected, scanned) = read(open(file.path()).expect("a table"), &wanted, threads, block);
            assert!(found == rows, "{compression:?}, {threads} threads, {block} bytes");
            assert_eq!(rejected.iter().map(|(row, _)| *row).collect::<Vec<_>>(), bad);
            assert_eq!(scanned.expect("a table").lines, 7346);
        }
    }
}

#[test]
fn damage_gives_the_rows_before_it_and_a_pipe_is_refused() {
    let mut bytes = written(LONG, Compression::ZSTD(Default::default()), &[&long(0, 5000), &long(5000, 5000)]);
    let metadata = SerializedFileReader::new(Bytes::from(bytes.clone())).expect("it is whole").metadata().clone();
    let (from, length) = metadata.row_group(1).column(1).byte_range();
    bytes[from as usize..(from + length) as usize].fill(0xff);
    let file = file(bytes);
    let wanted = ["id", "status", "usage.tokens"].map(str::to_owned);
    let (rows, rejected, scanned) = read(open(file.path()).expect("a table"), &wanted, 2, 64 * 500);
    let before = rows.len() + rejected.len();
    assert_eq!(before, 5000);
    match scanned.expect_err("damage") {
        TableError::Damaged { compression: "Parquet", line, .. } => assert_eq!(line, before as u64),
        other => panic!("{other}"),
    }
    let mut short = NamedTempFile::new().expect("a temporary file");
    short.write_all(b"PAR1").expect("room");
    assert!(matches!(open(short.path()), Err(TableError::Damaged { compression: "Parquet", .. })));
    let message = TableError::ParquetStream { name: Source::Stdin.to_string() }.to_string();
    assert_eq!(message, "`standard input` is Parquet, which cannot be read from a pipe. Save it to a file and give its path");
}

#[test]
fn a_byte_that_is_wrong_anywhere_makes_an_error_or_another_value_and_no_panic() {
    let whole = written(LONG, Compression::UNCOMPRESSED, &[&long(0, 10)]);
    let wanted = ["id", "status", "usage.tokens"].map(str::to_owned);
    let mut damaged = 0;
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] = !bytes[at];
        let file = file(bytes);
        let Ok(scan) = open(file.path()) else { continue };
        if !wanted.iter().all(|name| scan.columns().contains(name)) {
            continue;
        }
        // A row at a time: after one that fails the next is asked for too.
        damaged += u32::from(read(scan, &wanted, 1, 1).2.is_err());
    }
    assert!(damaged > 10, "{damaged} of {} bytes", whole.len());
}
