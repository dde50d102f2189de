//! Traces: four forms, exact sharing, the asked rate, and every way a file can be bad.

use std::io::Write;
use std::path::{Path, PathBuf};

use plimsoll::clock::Nanos;
use plimsoll::table::read::Table;
use plimsoll::table::source::Source;
use plimsoll::workload::fit::{Caps, Limits};
use plimsoll::workload::request::Request;
use plimsoll::workload::trace::format::{TraceFormat, TraceRow};
use plimsoll::workload::trace::options::{AtEnd, TraceOptions};
use plimsoll::workload::trace::survey::{Trace, TraceError};
use plimsoll::workload::traffic::Traffic;
use proptest::prelude::*;
use tempfile::{NamedTempFile, TempDir};

const ROOMY: Limits = Limits { max_context: 1 << 20, vocab_size: 32_000 };

fn survey(path: &Path, options: TraceOptions) -> Result<Trace, TraceError> {
    let source = Source::Path(path.to_owned());
    Trace::survey(move || Table::open(&source), options)
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/traces").join(name)
}

fn surveyed(name: &str) -> Trace {
    survey(&fixture(name), TraceOptions::default()).expect("a good trace")
}

fn rows(trace: &Trace) -> Vec<TraceRow> {
    trace.rows().expect("a good trace").map(|row| row.expect("a good row")).collect()
}

fn requests(trace: &Trace, seed: u64, limits: Limits, count: usize) -> Vec<Request> {
    let mut source = trace.source(seed, 0, limits).expect("a good trace");
    std::iter::from_fn(|| source.next_request()).take(count).collect()
}

fn seconds(schedule: impl Iterator<Item = Nanos>) -> Vec<f64> {
    schedule.map(Nanos::as_secs_f64).collect()
}

/// A file of these bytes.
fn file(bytes: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(bytes.as_ref()).expect("room in the temporary directory");
    file
}

/// A plain CSV trace of these rows.
fn plain(rows: &str) -> NamedTempFile {
    file(format!("arrival_s,input_tokens,output_tokens\n{rows}"))
}

/// Why a file is refused.
fn refusal(file: &NamedTempFile, options: TraceOptions) -> String {
    let message = survey(file.path(), options).expect_err("the file is bad").to_string();
    message.replace(&file.path().display().to_string(), "FILE")
}

#[test]
fn each_format_is_guessed_and_read() {
    for (name, format, rows, failed, inputs, stamps) in [
        ("azure.csv", TraceFormat::Azure, 4, 0, [374, 1396, 879], [0.0, 0.5, 3.0]),
        ("burstgpt.csv", TraceFormat::Burstgpt, 4, 1, [472, 1087, 417], [0.0, 40.0, 113.0]),
        ("mooncake.jsonl", TraceFormat::Mooncake, 4, 0, [1300, 1024, 1800], [0.0, 0.0, 3.0]),
        ("plain.csv", TraceFormat::Plain, 4, 1, [100, 200, 50], [0.0, 0.75, 3.5]),
        ("plain.jsonl", TraceFormat::Plain, 3, 0, [203, 1139, 88], [0.0, 0.5, 9.452]),
    ] {
        let trace = surveyed(name);
        let facts = trace.facts();
        assert_eq!((facts.format, facts.rows, facts.failed), (format, rows, failed), "{name}");
        let prompts: Vec<u32> = requests(&trace, 0, ROOMY, 3).iter().map(|request| request.prompt.len()).collect();
        assert_eq!(prompts, inputs, "{name}");
        assert_eq!(seconds(trace.schedule(trace.own_rate(), 0).expect("a good trace").take(3)), stamps, "{name}");
        let forced = survey(&fixture(name), TraceOptions { format: Some(format), ..TraceOptions::default() }).expect("its own format");
        assert_eq!(forced.facts(), facts);
    }
}

#[test]
fn equal_blocks_are_equal_tokens_and_nothing_else_is() {
    let trace = surveyed("mooncake.jsonl");
    let made = requests(&trace, 1, ROOMY, 4);
    let ids = |at: usize| made[at].prompt.token_ids(32_000).collect::<Vec<_>>();
    assert_eq!(ids(0)[..1024], ids(2)[..1024], "two whole blocks are shared");
    assert_ne!(ids(0)[1024..1040], ids(2)[1024..1040]);
    assert_eq!(ids(0)[..512], ids(1)[..512]);
    assert_ne!(ids(0)[512..528], ids(1)[512..528]);
    assert_ne!(ids(3)[..16], ids(0)[..16]);
    assert_eq!(made.iter().map(|request| request.prompt.len()).collect::<Vec<_>>(), [1300, 1024, 1800, 400]);
    let other = requests(&trace, 2, ROOMY, 1);
    assert_ne!(other[0].prompt.token_ids(32_000).take(16).collect::<Vec<_>>(), ids(0)[..16], "another level finds no warm cache");
}

#[test]
fn a_scaled_trace_still_shares_its_beginnings() {
    let options = TraceOptions { scale: 0.1, ..TraceOptions::default() };
    let trace = survey(&fixture("mooncake.jsonl"), options).expect("a good trace");
    let made = requests(&trace, 1, ROOMY, 4);
    // 512 tokens become 51, the partial blocks of 276, 264 and 400 become 28, 26 and 40.
    assert_eq!(made.iter().map(|request| request.prompt.len()).collect::<Vec<_>>(), [130, 102, 179, 40]);
    assert_eq!(made[0].prompt.segments[..2], made[2].prompt.segments[..2]);
    assert_eq!(made.iter().map(|request| request.output_tokens).collect::<Vec<_>>(), [5, 5, 8, 1]);
}

#[test]
fn caps_and_context_shorten_requests_and_are_counted() {
    let options = TraceOptions { caps: Caps { prompt_tokens: Some(600), output_tokens: Some(60) }, ..TraceOptions::default() };
    let trace = survey(&fixture("mooncake.jsonl"), options).expect("a good trace");
    let mut source = trace.source(1, 0, Limits { max_context: 640, vocab_size: 100 }).expect("a good trace");
    let made: Vec<Request> = std::iter::from_fn(|| source.next_request()).collect();
    let sizes: Vec<_> = made.iter().map(|request| (request.prompt.len(), request.output_tokens)).collect();
    assert_eq!(sizes, [(590, 50), (591, 49), (580, 60), (400, 8)]);
    assert_eq!((source.tally().made, source.tally().capped), (4, 3));
    assert_eq!(source.tally().broke_off, None);
}

#[test]
fn a_trace_is_stretched_to_the_asked_rate_and_keeps_its_bursts() {
    let trace = surveyed("azure.csv");
    assert!((trace.own_rate() - 0.75).abs() < 1e-12);
    assert_eq!(seconds(trace.schedule(7.5, 0).expect("a good trace")), [0.0, 0.05, 0.3, 0.4]);
    let traffic = Traffic::Recorded(trace.clone());
    assert_eq!(traffic.arrivals_note(7.5), "stamps of the trace, 10.0000 times as fast as recorded: 0.7500 calls/s became 7.5000");
    let fast = survey(&fixture("azure.csv"), TraceOptions { speed: 2.0, ..TraceOptions::default() }).expect("a good trace");
    assert_eq!(seconds(fast.schedule(fast.own_rate(), 0).expect("a good trace")), [0.0, 0.25, 1.5, 2.0]);
    assert!((fast.own_rate() - 1.5).abs() < 1e-12);
    assert_eq!(seconds(fast.schedule(7.5, 0).expect("a good trace")), [0.0, 0.05, 0.3, 0.4]);
    assert!(matches!(trace.schedule(0.0, 0), Err(TraceError::Option { option: "rate", .. })));
}

#[test]
fn a_trace_can_be_entered_anywhere_and_goes_round_once_with_requests_and_arrivals_in_step() {
    let file = plain("0,10,1\n1,20,2\n3,30,0\n4,40,4\n10,50,5\n");
    let trace = survey(file.path(), TraceOptions::default()).expect("a good trace");
    let expected = [
        ([1, 2, 4, 5], [0.0, 1.0, 4.0, 10.0]),
        ([2, 4, 5, 1], [0.0, 3.0, 9.0, 9.0 + 10.0 / 3.0]),
        ([4, 5, 1, 2], [0.0, 6.0, 6.0 + 10.0 / 3.0, 7.0 + 10.0 / 3.0]),
        ([5, 1, 2, 4], [0.0, 10.0 / 3.0, 1.0 + 10.0 / 3.0, 4.0 + 10.0 / 3.0]),
    ];
    for (start, (answers, stamps)) in (0_u64..).zip(expected) {
        let mut source = trace.source(0, start, ROOMY).expect("a good trace");
        let made: Vec<u32> = std::iter::from_fn(|| source.next_request()).map(|request| request.output_tokens).collect();
        assert_eq!(made, answers, "from call {start}");
        let found = seconds(trace.schedule(trace.own_rate(), start).expect("a good trace"));
        assert!(found.len() == 4 && found.iter().zip(stamps).all(|(found, stamp)| (found - stamp).abs() < 1e-8), "{start}: {found:?}");
        let tally = source.tally();
        assert_eq!((tally.made, tally.prompt_tokens, tally.output_tokens, tally.broke_off), (4, 120, 12, None));
        assert_eq!(tally.from_line, Some([2, 3, 5, 6][start as usize]));
    }
}

#[test]
fn levels_of_different_seeds_see_different_parts_of_a_trace_and_all_of_it_in_the_end() {
    // Each answer is as long as the number of its row, so the requests say where they come from.
    let calls: String = (0..400).map(|at| format!("{at},10,{}\n", at + 1)).collect();
    let file = plain(&calls);
    let options = TraceOptions { at_end: AtEnd::Repeat, ..TraceOptions::default() };
    let traffic = Traffic::Recorded(survey(file.path(), options).expect("a good trace"));
    let level = |seed| {
        let mut source = traffic.source(seed, ROOMY).expect("a good trace");
        std::iter::from_fn(|| source.next_request()).take(40).map(|request| request.output_tokens).collect::<Vec<_>>()
    };
    assert_eq!(level(7), level(7));
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let made = level(seed);
        for pair in made.windows(2) {
            assert_eq!(pair[1], pair[0] % 400 + 1, "rows stay in order");
        }
        seen.extend(made);
    }
    assert!(seen.len() > 390, "{} of 400 rows", seen.len());
}

#[test]
fn a_burst_arrives_with_the_requests_that_made_it() {
    // Long prompts come close together, short ones far apart: whatever the seed, they still do.
    let mut at = 0.0;
    let rows: String = (0..60)
        .map(|row| {
            let (gap, input) = if row % 10 < 5 { (0.1, 900) } else { (2.0, 30) };
            at += gap;
            format!("{at:.1},{input},1\n")
        })
        .collect();
    let file = plain(&rows);
    let traffic = Traffic::Recorded(survey(file.path(), TraceOptions::default()).expect("a good trace"));
    for seed in 0..20 {
        let mut source = traffic.source(seed, ROOMY).expect("a good trace");
        let prompts: Vec<u32> = std::iter::from_fn(|| source.next_request()).map(|request| request.prompt.len()).collect();
        let stamps = seconds(traffic.schedule(1.0, seed, Nanos::from_secs(40)).expect("a good trace"));
        let close = |pair: &[f64]| pair[1] - pair[0] < 0.5;
        let agree = stamps.windows(2).zip(&prompts[1..]).filter(|(pair, prompt)| close(pair) == (**prompt == 900)).count();
        // Only the gap at which the trace goes round is another one.
        assert!(agree >= 58, "seed {seed}: {agree} of 59 gaps are those of their requests");
    }
}

#[test]
fn a_repeated_trace_goes_on_at_its_rate_with_prompts_of_its_own() {
    let options = TraceOptions { at_end: AtEnd::Repeat, ..TraceOptions::default() };
    let trace = survey(&fixture("mooncake.jsonl"), options).expect("a good trace");
    let stamps = seconds(trace.schedule(trace.own_rate(), 0).expect("a good trace").take(9));
    assert_eq!(stamps, [0.0, 0.0, 3.0, 6.0, 8.0, 8.0, 11.0, 14.0, 16.0]);
    let last = trace.schedule(100.0, 0).expect("a good trace").nth(4_000).expect("it repeats");
    assert_eq!(last, Nanos::from_secs(40));
    let made = requests(&trace, 1, ROOMY, 8);
    assert_eq!(made[4].prompt.len(), made[0].prompt.len());
    assert_ne!(made[4].prompt.segments[0], made[0].prompt.segments[0]);
    assert_eq!(made[4].prompt.segments[..2], made[6].prompt.segments[..2]);
}

#[test]
fn the_first_rows_or_a_window_of_a_trace_can_be_taken() {
    let take = |options| {
        let trace = survey(&fixture("plain.csv"), options).expect("a good trace");
        seconds(trace.schedule(trace.own_rate(), 0).expect("a good trace"))
    };
    assert_eq!(take(TraceOptions { first: Some(2), ..TraceOptions::default() }), [0.0, 0.75]);
    let window = Some((Nanos::from_millis(700), Nanos::from_millis(3_600)));
    assert_eq!(take(TraceOptions { window, ..TraceOptions::default() }), [0.0, 2.75]);
}

#[test]
fn bytes_around_the_rows_do_not_change_the_rows() {
    let text = "arrival_s,input_tokens,output_tokens\n0,10,1\n1,20,2\n2,30,3";
    let gzip = |text: &str| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(text.as_bytes()).expect("memory");
        packed.finish().expect("memory")
    };
    let zstd = |text: &str| zstd::encode_all(text.as_bytes(), 1).expect("memory");
    let read = |bytes: &[u8]| {
        let file = file(bytes);
        rows(&survey(file.path(), TraceOptions::default()).expect("a good trace"))
    };
    let expected = read(text.as_bytes());
    for bytes in [
        format!("{text}\n").into_bytes(),
        format!("\u{feff}{text}").into_bytes(),
        text.replace('\n', "\r\n").into_bytes(),
        text.replace('\n', "\r").into_bytes(),
        text.replace("\n1", "\r1").into_bytes(),
        format!("\u{feff}{}\r\n", text.replace('\n', "\r\n")).into_bytes(),
        text.replace(',', " , ").into_bytes(),
        gzip(text),
        gzip(&format!("\u{feff}{text}\n")),
        zstd(text),
        [gzip("arrival_s,input_tokens,output_tokens\n0,10,1\n"), gzip("1,20,2\n2,30,3")].concat(),
    ] {
        assert_eq!(read(&bytes), expected, "{}", String::from_utf8_lossy(&bytes));
    }
    // Wherever what is read at once ends: a line end that it cuts in two is one.
    for spaces in (1 << 16) - 48..(1 << 16) - 32 {
        let torn = text.replacen("0,10,1\n", &format!("0,10,1{}\r\n", " ".repeat(spaces)), 1);
        assert_eq!(read(torn.as_bytes()), expected, "{spaces} spaces");
    }
    let blank = read(text.replace("1,20", "\r\n\n1,20").as_bytes());
    assert_eq!(blank.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 5, 6], "blank lines are no rows, but lines");
    let json = "\u{feff}{\"arrival_s\": 0, \"input_tokens\": 10, \"output_tokens\": 1}\r\n{\"arrival_s\": 1.0, \"input_tokens\": 20.0, \"output_tokens\": \"2\"}\r\n{\"arrival_s\": 2, \"input_tokens\": 30, \"output_tokens\": 3}";
    let numbered = |rows: Vec<TraceRow>| rows.into_iter().map(|row| TraceRow { line: 0, ..row }).collect::<Vec<_>>();
    assert_eq!(numbered(read(json.as_bytes())), numbered(expected));
}

#[test]
fn a_trace_that_is_not_in_order_is_refused_with_the_lines_or_put_in_order() {
    let file = plain("0,10,1\n2,10,2\n1,10,3\n3,10,4\n");
    assert_eq!(
        refusal(&file, TraceOptions::default()),
        "`FILE` is not in order of arrival: line 4 is 1 s earlier than line 3, with 0 rows held to put them in order. \
         Sort the file by time, or hold more rows with `--trace-reorder`"
    );
    let sorted = survey(file.path(), TraceOptions { reorder: 1, ..TraceOptions::default() }).expect("one place is allowed");
    assert_eq!(requests(&sorted, 0, ROOMY, 4).iter().map(|request| request.output_tokens).collect::<Vec<_>>(), [1, 3, 2, 4]);
    let far = plain("5,10,1\n6,10,1\n7,10,1\n1,10,1\n");
    assert!(refusal(&far, TraceOptions { reorder: 2, ..TraceOptions::default() }).contains("line 5 is 4 s earlier than line 2"));
}

#[test]
fn bad_lines_are_counted_by_reason_and_more_than_one_percent_are_refused() {
    for (line, reason) in [
        ("5,0,7", "zero-length prompt"),
        ("5,-3,7", "negative"),
        ("-5,3,7", "negative"),
        ("5,3.5,7", "not a whole number"),
        ("5,many,7", "not a number"),
        ("5,NaN,7", "not a number"),
        ("soon,3,7", "not a date and time"),
        ("5,,7", "missing"),
        ("5,3", "not a row"),
        ("5,99999999999,7", "too large"),
        ("5,99999999999999999999999,7", "too large"),
    ] {
        let good = |from: u32, to: u32| (from..to).map(|at| format!("{at},10,5\n")).collect::<String>();
        let many = plain(&format!("{}{line}\n{}", good(0, 5), good(5, 120)));
        let trace = survey(many.path(), TraceOptions::default()).expect("one bad line of 121");
        assert_eq!(trace.facts().rejected.iter().collect::<Vec<_>>(), [(&reason.to_owned(), &1)], "{line}");
        assert_eq!((trace.facts().rows, trace.schedule(trace.own_rate(), 0).expect("a good trace").count()), (120, 120), "{line}");
        assert!(trace.facts().to_string().ends_with(&format!("1 lines rejected: {reason}")), "{}", trace.facts());
        let message = refusal(&plain(&format!("{}{line}\n{}", good(0, 5), good(5, 50))), TraceOptions::default());
        assert!(message.starts_with("1 of 51 lines of `FILE` are no call, more than 1 % (1 "), "{message}");
        assert!(message.contains("line 7") && message.contains("Mend these lines"), "{message}");
    }
}

#[test]
fn bad_json_lines_are_counted_by_reason() {
    let good = |at: u32| format!("{{\"timestamp\": {at}, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [1, {at}]}}\n");
    for (line, reason) in [
        ("{\"timestamp\": 3, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": [1]}", "blocks and length disagree"),
        ("{\"timestamp\": 3, \"input_length\": 600, \"output_length\": 5, \"hash_ids\": 1}", "not a list of whole numbers"),
        ("{\"timestamp\": 3, \"input_length\": 600, \"output_length\": 5}", "missing"),
        ("{\"timestamp\": 3, \"input_length\": -600, \"output_length\": 5, \"hash_ids\": [1]}", "negative"),
        ("{\"timestamp\": 3, \"input_len", "not a row"),
        ("[3, 600, 5]", "not a row"),
    ] {
        let lines: String = (10..130).map(good).collect();
        let trace = survey(file(format!("{}{line}\n{lines}", good(2))).path(), TraceOptions::default()).expect("one bad line of 122");
        assert_eq!(trace.facts().rejected.iter().collect::<Vec<_>>(), [(&reason.to_owned(), &1)], "{line}");
    }
}

#[test]
fn files_that_are_no_trace_are_refused_with_what_to_do() {
    let truncated = || {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        let rows: String = (0..5_000).map(|at| format!("{at},10,5\n")).collect();
        packed.write_all(format!("arrival_s,input_tokens,output_tokens\n{rows}").as_bytes()).expect("memory");
        let whole = packed.finish().expect("memory");
        whole[..whole.len() / 2].to_vec()
    };
    for (bytes, expected) in [
        (Vec::new(), "`FILE` is empty. Give a CSV file with a header line, or JSON lines"),
        (b"\xef\xbb\xbf \r\n".to_vec(), "`FILE` is empty."),
        (b"arrival_s,input_tokens,output_tokens\n".to_vec(), "`FILE` has 0 calls to replay and no time between them."),
        (b"arrival_s,input_tokens,output_tokens\n1,5,5\n".to_vec(), "`FILE` has 1 calls to replay and no time between them."),
        (b"arrival_s,input_tokens,output_tokens\n1,5,5\n1,5,5\n".to_vec(), "`FILE` has 2 calls to replay and no time between them."),
        (b"arrival_s,input_tokens,output_tokens\n1,5,0\n2,5,0\n".to_vec(), "`FILE` has 0 calls to replay"),
        (
            b"when,input_tokens,output_tokens\n1,5,5\n".to_vec(),
            "`FILE` has the columns `when`, `input_tokens`, `output_tokens`, which is none of the known traces. Rename them to `arrival_s`",
        ),
        (
            b"arrival_s,input_tokens,input_tokens\n1,5,5\n".to_vec(),
            "the header of `FILE` names the column `input_tokens` twice. Rename one",
        ),
        (b"{nonsense\n".to_vec(), "which is none of the known traces"),
        (truncated(), "its gzip data end early or are damaged"),
        (b"\x1f\x8b\x08\x00nonsense".to_vec(), "its gzip data end early or are damaged"),
        (b"\x28\xb5\x2f\xfdnonsense".to_vec(), "its zstd data end early or are damaged"),
    ] {
        let message = refusal(&file(&bytes), TraceOptions::default());
        assert!(message.contains(expected), "{message}");
    }
    let forced = TraceOptions { format: Some(TraceFormat::Azure), ..TraceOptions::default() };
    let message = refusal(&plain("1,5,5\n2,5,5\n"), forced);
    assert!(message.contains("lacks `TIMESTAMP`, `ContextTokens`, `GeneratedTokens`, which a trace of the form `azure` has"), "{message}");
    let absent = survey(Path::new("no/such/trace.csv"), TraceOptions::default()).expect_err("no such file").to_string();
    assert!(
        absent.starts_with("cannot open `no/such/trace.csv`: ") && absent.ends_with("Check the path and that it may be read"),
        "{absent}"
    );
    let folder = TempDir::new().expect("a temporary directory");
    assert!(survey(folder.path(), TraceOptions::default()).is_err(), "a folder is no trace");
    for options in [TraceOptions { speed: 0.0, ..TraceOptions::default() }, TraceOptions { scale: f64::NAN, ..TraceOptions::default() }] {
        assert!(matches!(survey(&fixture("azure.csv"), options), Err(TraceError::Option { .. })));
    }
    assert_eq!(
        "azur".parse::<TraceFormat>().expect_err("no such form").to_string(),
        "`azur` is no form of a trace. Take `azure`, `burstgpt`, `mooncake` or `plain`"
    );
}

#[test]
fn rows_are_given_before_the_file_is_read_to_its_end() {
    // 40 MB of rows, then damage: whoever collects first would meet the damage first.
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(b"arrival_s,input_tokens,output_tokens\n").expect("memory");
    for at in 0..2_500_000_u64 {
        writeln!(packed, "{at}.000000,10,5").expect("memory");
    }
    let mut bytes = packed.finish().expect("memory");
    bytes.truncate(bytes.len() - 100);
    let file = file(bytes);
    let mut table = Table::open(&Source::Path(file.path().to_owned())).expect("a header");
    let first: Vec<u64> = table.by_ref().take(1_000).map(|row| row.expect("a row").line()).collect();
    assert_eq!(first, (2..1_002).collect::<Vec<_>>());
}

#[test]
fn a_trace_that_changes_while_it_is_replayed_is_not_taken_for_its_end() {
    let mut file = plain("0,10,1\n1,10,2\n2,10,3\n");
    let trace = survey(file.path(), TraceOptions::default()).expect("a good trace");
    file.as_file_mut().set_len("arrival_s,input_tokens,output_tokens\n0,10,1\n1,10,2\n".len() as u64).expect("an open file");
    let mut source = trace.source(0, 0, ROOMY).expect("it still opens");
    assert_eq!(std::iter::from_fn(|| source.next_request()).count(), 2);
    assert!(source.tally().broke_off.expect("it broke off").ends_with("changed while it was replayed"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_trace_is_replayed_at_the_asked_rate_within_caps_and_context(
        calls in prop::collection::vec((0.0_f64..5.0, 1_u32..3_000, 0_u32..500), 2..60),
        rate in 0.01_f64..1e5,
        scale in 0.01_f64..3.0,
        cap in 1_u32..400,
        max_context in 2_u32..2_000,
    ) {
        let mut at = 0.0;
        let mut rows = String::new();
        for (gap, input, output) in &calls {
            at += gap;
            rows.push_str(&format!("{at},{input},{output}\n"));
        }
        let file = plain(&rows);
        let options = TraceOptions { scale, caps: Caps { prompt_tokens: Some(cap), output_tokens: None }, ..TraceOptions::default() };
        let good = calls.iter().filter(|call| call.2 > 0).count();
        let Ok(trace) = survey(file.path(), options) else {
            prop_assert!(good < 2);
            return Ok(());
        };
        let stamps: Vec<Nanos> = trace.schedule(rate, 0).expect("a good trace").collect();
        prop_assert_eq!(stamps.len(), good);
        prop_assert!(stamps.is_sorted());
        let last = stamps.last().expect("two calls or more").as_secs_f64();
        prop_assert!((last - (good - 1) as f64 / rate).abs() < 1e-6 * last + 1e-8);
        let made = requests(&trace, 0, Limits { max_context, vocab_size: 100 }, usize::MAX);
        prop_assert_eq!(made.len(), good);
        for request in made {
            prop_assert!(!request.prompt.is_empty() && request.prompt.len() <= cap);
            prop_assert!(request.output_tokens >= 1 && request.prompt.len() + request.output_tokens <= max_context);
        }
    }
}
