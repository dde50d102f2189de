//! A run in the forms of other tools: what each figure means there, and that our own readers find it again.

use std::path::Path;
use std::process::Output;

use plimsoll::clock::Nanos;
use plimsoll::interchange::export::{self, Exporter, Format};
use plimsoll::interchange::import;
use plimsoll::record::imported::{Imported, Load};
use plimsoll::record::level::{Counts, LevelRecord, Offered, Purpose};
use plimsoll::record::request::{Chunk, Ending, FailureKind, RequestRecord};
use plimsoll::record::run::RunRecord;
use plimsoll::store::runs::RunStore;
use serde_json::Value;

use crate::small_run;
use crate::support::{document, run, stderr, stdout, with_file_limit};

const ID: &str = "01JDGSMA11RVN0000000000XYZ";

/// Request `index` of a level whose window begins at 5 s: due at 5 s + 0.1 s each, sent 2 ms late, first token after 20 ms + index,
/// a first chunk of 3 tokens, then 4 chunks of 2 every 10 ms. Ten tokens later in 40 ms: TPOT 5 ms by our definition.
fn request(index: u64) -> RequestRecord {
    let intended = Nanos::from_millis(5_000 + index * 100);
    let first = intended + Nanos::from_millis(20 + index);
    let chunk = |number: u64| Chunk { at: first + Nanos::from_millis(number * 10), tokens: if number == 0 { 3 } else { 2 } };
    let chunks = (0..5).map(chunk).collect::<Vec<_>>();
    RequestRecord {
        id: index,
        intended,
        sent: Some(intended + Nanos::from_millis(2)),
        admitted: None,
        first_byte: Some(first),
        made_tokens: None,
        token_count: None,
        retry_after: None,
        first_token: chunks.first().map(|chunk| chunk.at),
        last_token: chunks.last().map(|chunk| chunk.at),
        end: first + Nanos::from_millis(41),
        prompt_tokens: 100,
        cached_tokens: 0,
        requested_tokens: 11,
        output_tokens: 11,
        preemptions: 0,
        chunks,
        ending: Ending::Completed,
    }
}

/// A hundred requests of a cohort, the last of which failed; one before the window.
fn requests() -> Vec<RequestRecord> {
    let mut requests = (0..100).map(request).collect::<Vec<_>>();
    let failed = requests.last_mut().unwrap();
    failed.ending = Ending::Failed(FailureKind::Refused);
    (failed.first_token, failed.last_token, failed.output_tokens) = (None, None, 0);
    failed.chunks.clear();
    let warm_up = RequestRecord { id: 500, intended: Nanos::from_millis(4_999), ..request(0) };
    requests.insert(0, warm_up);
    requests
}

/// A level that fits them, over two devices.
fn level(record: &RunRecord, offered: Offered) -> LevelRecord {
    let mut level = record.levels.iter().find(|level| level.purpose == Purpose::Sweep).unwrap().clone();
    level.index = 7;
    level.offered = offered;
    level.window = (Nanos::from_secs(5), Nanos::from_secs(15));
    level.window_s = 10.0;
    level.counts = Counts { cohort: 100, completed: 99, whole_level: 101, ..Counts::default() };
    level.throughput.completions_per_s = 9.9;
    level.throughput.output_tokens_per_s = 108.9;
    level.throughput.prompt_tokens_per_s = 990.0;
    level.per_device.devices = 2;
    level
}

/// The files of that level alone.
fn files(format: Format, offered: Offered) -> Vec<export::File> {
    let record = small_run::confirmed();
    let level = level(&record, offered);
    let mut exporter = Exporter::new(&record, format, true).unwrap();
    let mut files = exporter.level(&level, Some(&requests())).unwrap();
    files.extend(exporter.finish().unwrap());
    let names = export::names(format, &record, &[&level], true);
    assert_eq!(files.iter().map(|file| file.name.clone()).collect::<Vec<_>>(), names, "names are known before files are made");
    files
}

fn closed() -> Offered {
    Offered::Closed { concurrency: 8 }
}

fn open() -> Offered {
    Offered::Open { calls_per_s: 10.0, process: "poisson".to_owned() }
}

fn json(file: &export::File) -> Value {
    serde_json::from_slice(&file.bytes).unwrap()
}

fn imported(file: &export::File) -> Imported {
    import::read(&file.name, &file.bytes, None).unwrap()
}

#[track_caller]
fn near(value: impl Into<Option<f64>>, wanted: f64) {
    let value = value.into().unwrap_or(f64::NAN);
    assert!((value - wanted).abs() <= 1e-9 * wanted.abs().max(1.0), "{value} is not {wanted}");
}

#[test]
fn vllm_gets_latencies_from_the_send_and_tpot_over_all_tokens_but_one() {
    let files = files(Format::Vllm, closed());
    assert_eq!(files[0].name, "plimsoll-level007-infqps-concurrency8-llama-125m-20261124-034100.json");
    let found = json(&files[0]);
    // First tokens come 20 to 118 ms after the due time, the send is 2 ms after it.
    near(found["median_ttft_ms"].as_f64(), 67.0);
    near(found["mean_tpot_ms"].as_f64(), 4.0);
    near(found["p99_itl_ms"].as_f64(), 10.0);
    near(found["p99_e2el_ms"].as_f64(), 156.0);
    assert_eq!((&found["request_rate"], &found["max_concurrency"]), (&"inf".into(), &8.into()));
    assert_eq!((&found["completed"], &found["failed"], &found["total_output_tokens"]), (&99.into(), &1.into(), &1089.into()));
    assert_eq!(found["ttfts"].as_array().unwrap().len(), 100, "the cohort, without the request before the window");
    near(found["ttfts"][0].as_f64(), 0.018);
    near(found["queue_times"][0].as_f64(), 0.002);
    assert_eq!(found["itls"][0], serde_json::json!([0.01, 0.01, 0.01, 0.01]));
    assert_eq!((&found["errors"][99], &found["output_lens"][99]), (&"refused".into(), &0.into()));
}

#[test]
fn vllm_gets_a_rate_where_arrivals_had_one() {
    let files = files(Format::Vllm, open());
    assert!(files[0].name.starts_with("plimsoll-level007-10.0qps-llama"), "{}", files[0].name);
    let found = json(&files[0]);
    assert_eq!((&found["request_rate"], &found["burstiness"], &found["max_concurrency"]), (&10.0.into(), &1.0.into(), &Value::Null));
    assert_eq!(imported(&files[0]).points[0].load, Load::Open { calls_per_s: 10.0 });
}

#[test]
fn aiperf_gets_our_tpot_as_inter_token_and_our_gaps_as_inter_chunk_latency() {
    let files = files(Format::Aiperf, open());
    let summary = json(&files[0]);
    near(summary["inter_token_latency"]["avg"].as_f64(), 5.0);
    near(summary["inter_chunk_latency"]["p50"].as_f64(), 10.0);
    near(summary["time_to_first_token"]["p50"].as_f64(), 67.0);
    near(summary["effective_latency"]["p50"].as_f64(), 109.0);
    near(summary["request_latency"]["p50"].as_f64(), 107.0);
    assert_eq!((&summary["schema_version"], &summary["error_summary"][0]["count"]), (&"1.4".into(), &1.into()));
    let records = String::from_utf8(files[1].bytes.clone()).unwrap();
    let lines = records.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    assert_eq!(lines.len(), 100);
    let stamp = |name: &str| lines[0]["metadata"][name].as_u64().unwrap();
    assert_eq!(stamp("request_start_ns") - stamp("credit_issued_ns"), 2_000_000, "the credit is the intended start");
    assert_eq!(stamp("credit_issued_ns"), 1_795_491_665_000_000_000, "5 s of warm-up after the date of the level");
    assert_eq!(lines[99]["error"]["type"], "refused");
    // And back: from the summary with the load, from the records without.
    let (summary, records) = (imported(&files[0]), imported(&files[1]));
    assert_eq!((summary.points[0].load, records.points[0].load), (Load::Open { calls_per_s: 10.0 }, Load::NotStated));
    near(summary.points[0].e2e_ms.get(99.0), 158.0);
    near(records.points[0].tpot_ms.get(99.0), 5.0);
    assert_eq!((records.points[0].completed, records.points[0].failed), (Some(99), Some(1)));
}

#[test]
fn guidellm_gets_its_own_tpot_with_prefill_and_our_tpot_comes_back_from_inter_token_latency() {
    let files = files(Format::Guidellm, open());
    let report = json(&files[0]);
    let metrics = &report["benchmarks"][0]["metrics"];
    near(metrics["inter_token_latency_ms"]["successful"]["mean"].as_f64(), 4.0);
    // First request: 58 ms from send to last token, over 11 tokens.
    near(metrics["time_per_output_token_ms"]["successful"]["min"].as_f64(), 58.0 / 11.0);
    near(metrics["request_scheduled_latency"]["successful"]["percentiles"]["p50"].as_f64(), 0.109);
    let requests = &report["benchmarks"][0]["requests"];
    assert_eq!((requests["successful"].as_array().unwrap().len(), requests["errored"].as_array().unwrap().len()), (99, 1));
    let back = imported(&files[0]);
    let point = &back.points[0];
    near(point.tpot_ms.get(50.0), 4.0);
    near(point.e2e_ms.get(50.0), 109.0);
    near(point.calls_per_s, 9.9);
    assert_eq!((point.gpus, point.failed, point.load), (Some(2), Some(1), Load::Open { calls_per_s: 10.0 }));
    assert!(point.itl_ms.at.is_empty(), "it keeps no gaps");
}

#[test]
fn inferencex_gets_seconds_and_rates_over_the_devices() {
    let files = files(Format::Inferencex, closed());
    assert_eq!(files[0].name, format!("agg_plimsoll-{ID}-level007.json"));
    let found = json(&files[0]);
    near(found["median_ttft"].as_f64(), 0.067);
    near(found["median_intvty"].as_f64(), 250.0);
    near(found["tput_per_gpu"].as_f64(), (990.0 + 108.9) / 2.0);
    let point = &imported(&files[0]).points[0];
    near(point.calls_per_s, 9.9);
    assert_eq!((point.gpus, point.load), (Some(2), Load::Closed { concurrency: 8 }));
}

#[test]
fn hdr_logs_have_every_completed_value_within_three_figures() {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let files = files(Format::Hdr, closed());
    let mut found = Vec::new();
    for entry in IntervalLogIterator::new(&files[0].bytes) {
        let LogEntry::Interval(interval) = entry.unwrap() else { continue };
        let encoded = base64_of(interval.encoded_histogram());
        let histogram = Deserializer::new().deserialize::<u64, _>(&mut encoded.as_slice()).unwrap();
        found.push((interval.tag().unwrap().as_str().to_owned(), histogram.len(), histogram.value_at_quantile(0.5) as f64 / 1e6));
        assert!((interval.max() - histogram.max() as f64 / 1e6).abs() < 1e-3, "the column of largest values is in milliseconds");
    }
    let wanted = [("ttft", 99, 69.0), ("tpot", 99, 5.0), ("itl", 396, 10.0), ("e2e", 99, 109.0)];
    for ((tag, count, median), (wanted_tag, wanted_count, wanted_median)) in found.iter().zip(wanted) {
        assert_eq!((tag.as_str(), *count), (wanted_tag, wanted_count));
        assert!((median / wanted_median - 1.0).abs() < 1e-3, "{tag}: {median} is not {wanted_median}");
    }
    assert_eq!(found.len(), 4);
    let text = String::from_utf8_lossy(&files[0].bytes).into_owned();
    assert!(text.contains("Values in nanoseconds") && text.contains("in no histogram: 1]"), "{text}");
}

/// The four letters of three bytes each (RFC 4648), as the log has its histograms.
fn base64_of(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextets = text.bytes().filter(|letter| *letter != b'=');
    let sextets = sextets.map(|letter| LETTERS.iter().position(|known| *known == letter).unwrap() as u32).collect::<Vec<_>>();
    let bytes = sextets.chunks(4).flat_map(|four| {
        let bits = four.iter().enumerate().fold(0, |bits, (index, sextet)| bits | sextet << (18 - 6 * index));
        bits.to_be_bytes()[1..four.len()].to_vec()
    });
    bytes.collect()
}

#[test]
fn rows_have_every_request_with_its_stamps_in_both_forms() {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    use parquet::record::RowAccessor;
    let lines = String::from_utf8(files(Format::Jsonl, closed()).remove(0).bytes).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).collect::<Vec<_>>();
    let table = bytes::Bytes::from(files(Format::Parquet, closed()).remove(0).bytes);
    let reader = SerializedFileReader::new(table).unwrap();
    let columns = reader.metadata().file_metadata().schema().get_fields().iter().map(|field| field.name().to_owned()).collect::<Vec<_>>();
    let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!((lines.len(), rows.len()), (101, 101));
    let column = |name: &str| columns.iter().position(|known| known == name).unwrap();
    for (line, row) in lines.iter().zip(&rows) {
        assert_eq!(line["intended_ns"].as_i64(), Some(row.get_long(column("intended_ns")).unwrap()));
        assert_eq!(line["in_cohort"].as_bool(), Some(row.get_bool(column("in_cohort")).unwrap()));
        assert_eq!(line["first_token_ns"].as_i64(), row.get_long(column("first_token_ns")).ok());
        assert_eq!(line["tpot_ms"].as_f64(), row.get_double(column("tpot_ms")).ok());
        assert_eq!(line["failure"].as_str(), row.get_string(column("failure")).ok().map(String::as_str));
        assert_eq!(row.get_list(column("chunk_tokens")).unwrap().len(), if line["ending"] == "completed" { 5 } else { 0 });
    }
    assert_eq!((&lines[0]["in_cohort"], &lines[0]["level"], &lines[100]["ending"]), (&false.into(), &7.into(), &"failed".into()));
    assert!(
        columns.iter().filter(|name| name.contains("_at") || name.contains("token_ns")).all(|name| name.ends_with("_ns")),
        "{columns:?}"
    );
}

/// A quick run of the simulated target, with its request log.
fn measured(data: &Path) -> String {
    let folder = data.to_str().unwrap();
    run(["bench", "--quick", "--target", "simulated", "--law", "mm1", "--slo", "ttft:p90<400ms", "--seed", "1", "--data-dir", folder]);
    let listed = document(&run(["runs", "list", "--format", "json", "--data-dir", folder]));
    listed["runs"][0]["id"].as_str().unwrap().to_owned()
}

fn export(data: &Path, arguments: &[&str]) -> Output {
    run(["export", "--data-dir", data.to_str().unwrap()].iter().chain(arguments))
}

#[test]
fn a_run_is_exported_in_every_form_and_never_over_what_is_there() {
    let data = tempfile::tempdir().unwrap();
    let id = measured(data.path());
    let out = data.path().join("out");
    let out = out.to_str().unwrap();
    for format in ["vllm", "aiperf", "guidellm", "inferencex", "hdr", "jsonl", "parquet"] {
        let output = export(data.path(), &["latest", "--as", format, "--out", out, "--format", "json"]);
        assert_eq!(output.status.code(), Some(0), "{format}: {}", stderr(&output));
        let said = document(&output);
        assert_eq!((&said["run"], &said["format"]), (&id.as_str().into(), &format.into()));
        for file in said["files"].as_array().unwrap() {
            let length = std::fs::metadata(file["path"].as_str().unwrap()).unwrap().len();
            assert_eq!(file["bytes"].as_u64(), Some(length), "{file}");
        }
        let again = export(data.path(), &["latest", "--as", format, "--out", out]);
        assert_eq!(again.status.code(), Some(73), "{format}");
        assert!(stderr(&again).contains("--force"), "{}", stderr(&again));
        assert_eq!(export(data.path(), &["latest", "--as", format, "--out", out, "--force"]).status.code(), Some(0), "{format}");
    }
    let one = export(data.path(), &["latest", "--as", "hdr", "--out", out, "--level", "1", "--force"]);
    assert_eq!(stdout(&one).lines().count(), 1, "{}", stdout(&one));
    let absent = export(data.path(), &["latest", "--as", "hdr", "--out", out, "--level", "999"]);
    assert_eq!(absent.status.code(), Some(65));
    assert!(stderr(&absent).contains("no level 999"), "{}", stderr(&absent));
}

#[test]
fn what_a_run_measured_comes_back_from_each_form_that_is_read() {
    let data = tempfile::tempdir().unwrap();
    measured(data.path());
    let folder = RunStore::at(data.path()).find("latest").unwrap();
    let record = plimsoll::store::runs::load(&folder).unwrap();
    let level = record.levels.iter().find(|level| level.purpose == Purpose::Search).unwrap();
    let index = level.index.to_string();
    for format in ["vllm", "aiperf", "guidellm"] {
        let out = data.path().join(format);
        let said = document(&export(data.path(), &["--as", format, "--level", &index, "--out", out.to_str().unwrap(), "--format", "json"]));
        let file = said["files"][0]["path"].as_str().unwrap();
        let back = import::read(file, &std::fs::read(file).unwrap(), None).unwrap();
        let point = &back.points[0];
        near(point.calls_per_s, level.throughput.completions_per_s);
        near(point.output_tokens_per_s, level.throughput.output_tokens_per_s);
        assert_eq!(point.completed, Some(level.counts.completed), "{format}");
        // The level kept TTFT from the send in three figures, the file has it exactly.
        let (ours, theirs) = (level.latency.ttft_service.raw.p50.unwrap(), point.ttft_ms.get(50.0).unwrap());
        assert!((theirs / ours - 1.0).abs() < 2e-3, "{format}: {theirs} is not {ours}");
    }
}

#[test]
fn a_run_without_a_request_log_gives_summaries_and_is_refused_where_every_request_is_needed() {
    let data = tempfile::tempdir().unwrap();
    let record = small_run::confirmed();
    let store = RunStore::open(data.path()).unwrap();
    let folder = store.create(&record).unwrap();
    for level in &record.levels {
        folder.save_level(level).unwrap();
    }
    folder.finish().unwrap();
    let out = data.path().join("out");
    let export = |format: &str| export(data.path(), &["--as", format, "--level", "3", "--out", out.to_str().unwrap(), "--format", "json"]);
    for format in ["vllm", "aiperf", "inferencex"] {
        let output = export(format);
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        assert!(stderr(&output).contains("no request log"), "{}", stderr(&output));
        let file = document(&output)["files"][0]["path"].as_str().unwrap().to_owned();
        let back = import::read(&file, &std::fs::read(&file).unwrap(), None).unwrap();
        near(back.points[0].tpot_ms.get(99.0), record.levels[3].latency.tpot.raw.p99.unwrap());
    }
    for format in ["guidellm", "hdr", "jsonl", "parquet"] {
        let output = export(format);
        assert_eq!(output.status.code(), Some(65), "{format}");
        assert!(stderr(&output).contains("no request log"), "{}", stderr(&output));
    }
}

#[test]
fn a_disk_that_is_full_and_a_folder_that_cannot_be_made_have_their_own_codes() {
    let data = tempfile::tempdir().unwrap();
    measured(data.path());
    let folder = data.path().to_str().unwrap();
    let out = data.path().join("out");
    let full = with_file_limit(1, ["export", "--as", "jsonl", "--data-dir", folder, "--out", out.to_str().unwrap()]);
    assert_eq!(full.status.code(), Some(74), "{}", stderr(&full));
    assert!(std::fs::read_dir(&out).unwrap().next().is_none(), "no half file is left");
    let taken = data.path().join("a file");
    std::fs::write(&taken, "").unwrap();
    let refused = export(data.path(), &["--as", "jsonl", "--out", taken.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(73), "{}", stderr(&refused));
}

#[test]
fn a_damaged_log_is_bad_input() {
    let data = tempfile::tempdir().unwrap();
    measured(data.path());
    let log = RunStore::at(data.path()).find("latest").unwrap().join("requests.jsonl.zst");
    let mut bytes = std::fs::read(&log).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xff);
    std::fs::write(&log, bytes).unwrap();
    let output = export(data.path(), &["--as", "jsonl", "--out", data.path().join("out").to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(65), "{}", stderr(&output));
    assert!(stderr(&output).contains("requests.jsonl.zst"), "{}", stderr(&output));
}
