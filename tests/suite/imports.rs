//! Results of other tools: read by meaning, refused clearly, and planned from with every doubt said.

use std::path::{Path, PathBuf};
use std::process::Output;

use plimsoll::interchange::import::{Format, read};
use plimsoll::record::imported::{Imported, Lack, Load};
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{document, run, stderr, stdout};

const FILES: [&str; 10] = [
    "vllm-infqps-concurrency8.json",
    "vllm-infqps-concurrency16.json",
    "vllm-6.0qps.json",
    "profile_export_aiperf.json",
    "profile_export.jsonl",
    "guidellm-benchmarks.json",
    "agg_gptoss_tp4_conc64.json",
    "agg_split.json",
    "aiperf-0.13.0-saved.json",
    "guidellm-0.8.1-saved.json",
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/interchange").join(name)
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn imported(name: &str) -> Imported {
    read(name, &bytes(name), None).unwrap()
}

#[track_caller]
fn near(value: impl Into<Option<f64>>, wanted: f64) {
    let value = value.into().unwrap_or(f64::NAN);
    assert!((value - wanted).abs() <= 1e-9 * wanted.abs(), "{value} is not {wanted}");
}

#[test]
fn vllm_is_read_in_milliseconds_with_each_percentile_it_has() {
    let closed = imported("vllm-infqps-concurrency8.json");
    let point = &closed.points[0];
    assert_eq!((point.load, point.completed, point.failed), (Load::Closed { concurrency: 8 }, Some(800), Some(2)));
    assert_eq!(point.ttft_ms.at, [(50.0, 58.0), (99.0, 95.25)]);
    assert_eq!(point.itl_ms.get(99.0), Some(41.5));
    assert_eq!((point.mean_input_tokens, point.mean_output_tokens), (Some(1024.0), Some(128.0)));
    for lack in [Lack::FromTheSend, Lack::GpusNotStated, Lack::RampIncluded, Lack::NoInterval, Lack::NoSloVerdict] {
        assert!(closed.lacks.contains(&lack), "{lack}");
    }
    let open = imported("vllm-6.0qps.json");
    assert_eq!(open.points[0].load, Load::Open { calls_per_s: 6.0 });
    assert_eq!(open.points[0].ttft_ms.names(), "p50, p95, p99, p99.9");
}

#[test]
fn a_latency_that_is_zero_throughout_is_none() {
    let mut document = serde_json::from_slice::<Value>(&bytes("vllm-infqps-concurrency8.json")).unwrap();
    for key in ["mean_ttft_ms", "median_ttft_ms", "std_ttft_ms", "p99_ttft_ms"] {
        document[key] = 0.0.into();
    }
    let imported = read("x", document.to_string().as_bytes(), None).unwrap();
    assert!(imported.points[0].ttft_ms.at.is_empty() && imported.lacks.contains(&Lack::NoTtft));
}

#[test]
fn a_figure_that_would_leave_the_numbers_is_refused_with_its_field() {
    let cases = [
        // Seconds become milliseconds, figures of a GPU those of all: what is just below the largest number would be infinite.
        ("agg_gptoss_tp4_conc64.json", "output_tput_per_gpu", 1e308),
        ("agg_gptoss_tp4_conc64.json", "mean_ttft", 1e308),
        ("agg_gptoss_tp4_conc64.json", "osl", 1e-300),
        ("vllm-6.0qps.json", "request_throughput", 1e19),
    ];
    for (file, field, figure) in cases {
        let text = String::from_utf8(bytes(file)).unwrap().replace("Infinity", "null");
        let mut document = serde_json::from_str::<Value>(&text).unwrap();
        document[field] = figure.into();
        let refused = read("x", document.to_string().as_bytes(), None).unwrap_err().to_string();
        assert!(refused.contains(&format!("`{field}` is `")), "{refused}");
    }
}

#[test]
fn arrivals_behind_a_cap_are_said_and_their_wait_is_in_the_end_to_end_latency() {
    // Python's `Infinity` is no JSON.
    let text = String::from_utf8(bytes("vllm-6.0qps.json")).unwrap().replace("Infinity", "null");
    let mut document = serde_json::from_str::<Value>(&text).unwrap();
    document["max_concurrency"] = 4.into();
    document["mean_e2el_including_client_queue_ms"] = 3000.0.into();
    document["p99_e2el_including_client_queue_ms"] = 4000.0.into();
    let imported = read("x", document.to_string().as_bytes(), None).unwrap();
    assert_eq!(imported.points[0].e2e_ms.at, [(99.0, 4000.0)]);
    assert!(imported.lacks.contains(&Lack::ArrivalsCapped) && imported.lacks.contains(&Lack::TtftFromTheSend));
    assert!(!imported.lacks.contains(&Lack::FromTheSend));
}

#[test]
fn aiperf_says_inter_token_latency_and_means_our_tpot() {
    let summary = imported("profile_export_aiperf.json");
    let point = &summary.points[0];
    assert_eq!((point.load, point.completed, point.failed), (Load::Closed { concurrency: 8 }, Some(500), Some(3)));
    near(point.tpot_ms.mean, 12.5);
    near(point.itl_ms.mean, 13.0);
    near(point.ttft_ms.get(99.0), 90.0);
    assert_eq!(summary.version.as_deref(), Some("0.13.0"));
    assert!(summary.lacks.contains(&Lack::GpusNotStated), "GPUs that telemetry saw are not those the deployment owns");

    let records = imported("profile_export.jsonl");
    let point = &records.points[0];
    // Of 20 records 2 are warm-up, one was cut at the end, one failed.
    assert_eq!((point.completed, point.failed, point.load), (Some(16), Some(1), Load::NotStated));
    near(point.ttft_ms.get(50.0), 49.0);
    near(point.itl_ms.get(99.0), 11.7);
    // From the first send at 200 ms to the end of the last that counts: 1700 ms + 57 ms + 15 x 11.7 ms.
    near(point.calls_per_s, 16.0 / 1.7325);
}

#[test]
fn guidellm_says_time_per_output_token_and_its_inter_token_latency_is_our_tpot() {
    let report = imported("guidellm-benchmarks.json");
    let loads = report.points.iter().map(|point| point.load).collect::<Vec<_>>();
    assert_eq!(loads, [Load::Closed { concurrency: 1 }, Load::Closed { concurrency: 8 }, Load::Open { calls_per_s: 5.5 }]);
    let open = &report.points[2];
    near(open.tpot_ms.get(50.0), 12.5);
    near(open.tpot_ms.get(99.9), 31.25);
    near(open.e2e_ms.get(50.0), 1900.0);
    near(report.points[1].e2e_ms.get(50.0), 1600.0);
    assert_eq!((open.completed, open.failed), (Some(300), Some(1)));
    assert_eq!((report.version.as_deref(), report.model.as_deref()), (Some("0.8.1"), Some("Qwen/Qwen3-8B")));
    assert!(report.lacks.contains(&Lack::NoChunkGaps) && report.lacks.contains(&Lack::TtftFromTheSend));
}

#[test]
fn what_the_tools_own_writers_saved_is_read_as_well() {
    let guidellm = imported("guidellm-0.8.1-saved.json");
    let loads = guidellm.points.iter().map(|point| point.load).collect::<Vec<_>>();
    assert_eq!(loads, [Load::Closed { concurrency: 4 }, Load::Open { calls_per_s: 11.25 }]);
    near(guidellm.points[0].calls_per_s, 22.5);
    near(guidellm.points[1].tpot_ms.get(50.0), 2.927_612_538_461_538_3);
    assert_eq!((guidellm.points[1].completed, guidellm.points[1].failed), (Some(39), Some(0)));
    let aiperf = imported("aiperf-0.13.0-saved.json");
    assert_eq!(aiperf.points[0].load, Load::Closed { concurrency: 8 });
    near(aiperf.points[0].calls_per_s, 17.628_205_128_205_128);
    near(aiperf.points[0].tpot_ms.get(50.0), 4.583_095);
}

#[test]
fn inferencex_says_seconds_and_tokens_of_both_kinds_over_gpus() {
    let one = imported("agg_gptoss_tp4_conc64.json");
    let point = &one.points[0];
    near(point.output_tokens_per_s, 4096.0);
    near(point.calls_per_s, 4.0);
    near(point.ttft_ms.get(99.0), 900.0);
    assert_eq!((point.gpus, point.load), (Some(4), Load::Closed { concurrency: 64 }));
    assert!(one.lacks.contains(&Lack::CallsDerived) && one.lacks.contains(&Lack::FailuresNotCounted));
    // 12 GPUs x 2000 tokens/s less 4 x 3000 prompt tokens/s.
    let split = imported("agg_split.json");
    near(split.points[0].output_tokens_per_s, 12_000.0);
    assert_eq!(split.points[0].gpus, Some(12));
}

#[test]
fn what_cannot_be_read_says_file_field_and_remedy() {
    let whole = String::from_utf8(bytes("vllm-infqps-concurrency8.json")).unwrap();
    let aiperf = String::from_utf8(bytes("profile_export_aiperf.json")).unwrap();
    let guidellm = String::from_utf8(bytes("guidellm-benchmarks.json")).unwrap();
    let cases = [
        (whole[..300].to_owned(), "`x` as JSON", "cut short or damaged"),
        (String::new(), "it is empty", "Export it again"),
        ("{\"a\": 1}".to_owned(), "cannot tell the format", "--as"),
        (
            whole.replace("\"request_throughput\": 4.0", "\"request_throughput\": NaN"),
            "`request_throughput` is the text `NaN`",
            "export it again",
        ),
        (whole.replace("\"request_throughput\": 4.0", "\"request_throughput\": -4.0"), "is `-4`", "no less than 0"),
        (whole.replace("\"p99_ttft_ms\": 95.25", "\"p99_ttft_ms\": \"fast\""), "`p99_ttft_ms` is the text `fast`", "no number"),
        (whole.replace("\"completed\": 800", "\"completed\": 1.5"), "`completed` is `1.5`", "no count"),
        (aiperf.replace("\"1.4\"", "\"2.0\""), "schema_version `2.0`", "update plimsoll"),
        (aiperf.replace("\"is_complete\": true", "\"is_complete\": false"), "`is_complete` is `false`", "went to its end"),
        (
            aiperf.replace("\"unit\": \"ms\", \"avg\": 50.0", "\"unit\": \"bananas\", \"avg\": 50.0"),
            "`time_to_first_token.unit` is `bananas`",
            "no unit of time",
        ),
        (guidellm.replace("\"version\": 2", "\"version\": 3"), "metadata.version `3`", "reads version 2"),
        (guidellm.replace("\"streams\": 8", "\"streams\": 0"), "`benchmarks[1].config.strategy.streams` is `0`", "1 or more"),
    ];
    for (text, wrong, remedy) in cases {
        let told = read("x", text.as_bytes(), None).expect_err(wrong).to_string();
        assert!(told.contains(wrong) && told.contains(remedy), "{told}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Cut anywhere, a file is refused: none of it is taken for a smaller result.
    #[test]
    fn a_file_that_is_cut_short_is_refused(file in 0..FILES.len(), share in 0.0..1.0) {
        let whole = bytes(FILES[file]);
        let end = whole.iter().rposition(|byte| !byte.is_ascii_whitespace()).unwrap();
        let cut = (end as f64 * share) as usize;
        // Records are lines: cut between two of them it is a whole file of fewer.
        let between = FILES[file].ends_with("jsonl") && (cut == 0 || matches!(whole[cut - 1], b'\n' | b'}'));
        let result = read("x", &whole[..cut], None);
        prop_assert!(result.is_err() || between, "{} cut at {cut}", FILES[file]);
    }

    /// Bytes that were flipped end in an error or in figures that can be, never in a panic.
    #[test]
    fn flipped_bytes_never_end_in_a_panic_or_an_impossible_figure(file in 0..FILES.len(), flips in prop::collection::vec((0.0..1.0_f64, 0..8_u8), 1..6)) {
        let mut bytes = bytes(FILES[file]);
        for (share, bit) in flips {
            let at = (share * bytes.len() as f64) as usize;
            bytes[at] ^= 1 << bit;
        }
        if let Ok(imported) = read("x", &bytes, None) {
            check(&imported)?;
        }
    }

    /// Any value in place of any other, likewise; in the format that it is, or taken for another.
    #[test]
    fn replaced_values_never_end_in_a_panic_or_an_impossible_figure(file in 0..FILES.len(), place in 0.0..1.0_f64, with in 0..12_usize, named in 0..5_usize) {
        let text = String::from_utf8(bytes(FILES[file])).unwrap().replace("Infinity", "\"Infinity\"");
        let mut documents = serde_json::Deserializer::from_str(&text).into_iter::<Value>().collect::<Result<Vec<_>, _>>().unwrap();
        let mut places = 0;
        documents.iter_mut().for_each(|document| visit(document, &mut |_| places += 1));
        let (wanted, mut seen) = ((place * f64::from(places)) as i32, 0);
        let values = ["null", "true", "-1", "1e308", "0", "1.5", "\"\"", "\"NaN\"", "[]", "{}", "18446744073709551615", "[[[]]]"];
        let value = serde_json::from_str::<Value>(values[with]).unwrap();
        documents.iter_mut().for_each(|document| visit(document, &mut |found| {
            if seen == wanted {
                *found = value.clone();
            }
            seen += 1;
        }));
        let text = documents.iter().map(|document| format!("{document}\n")).collect::<String>();
        let format = [None, Some(Format::Vllm), Some(Format::Aiperf), Some(Format::Guidellm), Some(Format::Inferencex)][named];
        if let Ok(imported) = read("x", text.as_bytes(), format) {
            check(&imported)?;
        }
    }
}

/// Calls for every value of a document, whatever it is; what it puts in place is not looked into.
fn visit(value: &mut Value, act: &mut dyn FnMut(&mut Value)) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(|element| visit(element, act)),
        Value::Object(fields) => fields.values_mut().for_each(|field| visit(field, act)),
        _ => {}
    }
    act(value);
}

fn check(imported: &Imported) -> Result<(), TestCaseError> {
    prop_assert!(!imported.points.is_empty());
    for point in &imported.points {
        let latencies = [&point.ttft_ms, &point.tpot_ms, &point.itl_ms, &point.e2e_ms];
        let figures = latencies.into_iter().flat_map(|quantiles| quantiles.at.iter().map(|(_, value)| *value).chain(quantiles.mean));
        let figures = figures.chain([Some(point.calls_per_s), point.output_tokens_per_s, point.mean_input_tokens].into_iter().flatten());
        for figure in figures {
            prop_assert!(figure >= 0.0, "{figure}");
        }
        prop_assert!(point.gpus != Some(0));
    }
    Ok(())
}

fn file(name: &str) -> String {
    path(name).display().to_string()
}

#[test]
fn foreign_results_are_shown_in_four_forms_with_their_provenance() {
    let names = ["vllm-infqps-concurrency8.json", "guidellm-benchmarks.json"].map(file);
    let shown = |format: &str| run(["import", &names[0], &names[1], "--format", format]);
    let text = stdout(&shown("text"));
    for wanted in
        ["vLLM bench serve, version not stated", "GuideLLM, version 0.8.1", "8 in flight", "latencies from the send", "5.50 calls/s"]
    {
        assert!(text.split_whitespace().collect::<Vec<_>>().join(" ").contains(wanted), "{wanted} is missing in:\n{text}");
    }
    assert!(stdout(&shown("markdown")).starts_with("# Imported results"), "{}", stdout(&shown("markdown")));
    let csv = stdout(&shown("csv"));
    assert_eq!(csv.lines().count(), 5, "heads and four levels: {csv}");
    assert!(csv.lines().next().unwrap().contains("ttft_p99_ms"), "{csv}");
    let document = document(&shown("json"));
    assert_eq!(document["results"][1]["points"][1]["load"]["concurrency"], 8);
    assert_eq!(document["results"][0]["lacks"][0], "from_the_send");
}

#[test]
fn a_foreign_file_that_cannot_be_read_is_bad_input() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{\"request_throughput\": 1.0, \"comp").unwrap();
    for name in [broken.to_str().unwrap(), "no-such-file.json"] {
        let output = run(["import", name, "--format", "json"]);
        assert_eq!(output.status.code(), Some(65));
        assert!(document(&output)["error"]["message"].as_str().unwrap().contains(name));
    }
    assert_eq!(run(["import"]).status.code(), Some(2));
    let taken_for = run(["import", &file("agg_split.json"), "--as", "vllm"]);
    assert!(stderr(&taken_for).contains("`completed` is missing"), "{}", stderr(&taken_for));
}

fn plan(arguments: &[&str], names: &[&str]) -> Output {
    let names = names.iter().map(|name| file(name)).collect::<Vec<_>>();
    run(["plan", "--format", "json"]
        .iter()
        .map(|word| (*word).to_owned())
        .chain(names)
        .chain(arguments.iter().map(|word| (*word).to_owned())))
}

fn codes(document: &Value) -> Vec<String> {
    document["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_plan_takes_the_best_level_that_meets_the_slo_over_the_gpus_that_are_owned() {
    let both = ["vllm-infqps-concurrency8.json", "vllm-infqps-concurrency16.json"];
    let made = document(&plan(&["--slo", "ttft:p99<100ms,tpot:p99<20ms", "--gpus", "2", "--average-rps", "40"], &both));
    let throughput = &made["inputs"]["throughput"];
    assert_eq!((&throughput["point"], &throughput["basis"]), (&2.0.into(), &"imported_level".into()), "4 calls/s over 2 GPUs");
    assert_eq!(throughput["provenance"]["from"], "imported");
    assert_eq!(throughput["labels"][0], "measured by vLLM bench serve, not by plimsoll");
    for code in ["imported_closed_loop", "imported_from_the_send", "imported_no_interval", "imported_ramp_included"] {
        assert!(codes(&made).contains(&code.to_owned()), "{code}: {:?}", codes(&made));
    }
    assert!(!codes(&made).contains(&"imported_gpus_not_stated".to_owned()), "they were given");
    assert!(!codes(&made).contains(&"imported_bound_unknown".to_owned()), "a higher load broke the SLO");
    // A looser SLO takes the higher level, of which nothing says that it is the highest.
    let looser = document(&plan(&["--slo", "ttft:p99<300ms", "--gpus", "2"], &both));
    assert_eq!(looser["inputs"]["throughput"]["point"], 3.25);
    assert!(codes(&looser).contains(&"imported_bound_unknown".to_owned()));
    // InferenceX says its GPUs.
    let stated = document(&plan(&["--slo", "ttft:p99<2s"], &["agg_gptoss_tp4_conc64.json"]));
    assert_eq!(stated["inputs"]["throughput"]["point"], 1.0);
}

#[test]
fn an_open_loop_level_of_another_tool_is_no_plateau() {
    let made = document(&plan(&["--slo", "ttft:p99<200ms", "--gpus", "1"], &["guidellm-benchmarks.json"]));
    near(made["inputs"]["throughput"]["point"].as_f64(), 5.45 * 1.05);
    assert!(!codes(&made).contains(&"imported_closed_loop".to_owned()));
    assert!(codes(&made).contains(&"imported_few_requests".to_owned()), "300 requests claim no p99: {:?}", codes(&made));
}

#[test]
fn what_a_foreign_plan_lacks_is_asked_for_with_the_right_code() {
    let one = ["vllm-infqps-concurrency8.json"];
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--slo", "ttft:p99<100ms"], 2, "--gpus"),
        (&["--gpus", "2"], 2, "--slo"),
        (&["--gpus", "2", "--slo", "ttft:p95<100ms"], 65, "has p50, p99 of ttft"),
        (&["--gpus", "2", "--slo", "ttft:p99<10ms"], 3, "at 8 in flight"),
        (&["--gpus", "2", "--slo", "ttft:p50<100ms,e2e:p99<3s"], 0, ""),
        (&["latest", "--slo", "ttft:p99<100ms"], 2, "--gpus"),
    ];
    for (arguments, code, told) in cases {
        let output = plan(arguments, &one);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(told), "{arguments:?}: {}", stderr(&output));
    }
    let of_a_run = run(["plan", "latest", "--gpus", "2"]);
    assert_eq!(of_a_run.status.code(), Some(2), "{}", stderr(&of_a_run));
}

#[test]
fn calls_that_failed_are_misses() {
    let folder = tempfile::tempdir().unwrap();
    let text = String::from_utf8(bytes("vllm-infqps-concurrency8.json")).unwrap().replace("\"failed\": 2", "\"failed\": 20");
    let path = folder.path().join("x.json");
    std::fs::write(&path, text).unwrap();
    let output = run(["plan", path.to_str().unwrap(), "--slo", "ttft:p99<1s", "--gpus", "1"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("2.44 % of the calls, which failed"), "{}", stderr(&output));
}
