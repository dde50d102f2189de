//! Exports to planners: what each figure means there, what is refused, what stands beside it.

use plimsoll::interchange::planner::export::Asked;
use plimsoll::interchange::planner::form::Form;
use plimsoll::record::level::{LevelRecord, Offered, Purpose};
use plimsoll::record::reading::Reading;
use plimsoll::record::run::{HeadlineStatus, RunRecord};
use plimsoll::record::server_window::{MeanMax, ServerWindow};
use plimsoll::record::target::BatchLimits;
use plimsoll::record::verdict::{Invalid, Outcome};
use proptest::prelude::*;

use crate::report::assert_golden;
use crate::support::planner_run::{ALPHA, BETA, GAMMA, decode, exported, files, find, json, near, prefill, run, text};

/// Forms that are made without requests.
fn plain() -> impl Iterator<Item = Form> {
    Form::ALL.into_iter().filter(|form| !form.needs_requests() && *form != Form::Csv)
}

#[test]
fn exports_to_planners_are_as_they_were() {
    let run = run();
    let text: String = plain()
        .flat_map(|form| files(&run, form))
        .filter(|file| !file.name.ends_with(".npz"))
        .map(|file| format!("=== {}\n{}\n", file.name, String::from_utf8(file.bytes).unwrap()))
        .collect();
    assert_golden("tests/golden/planner-exports.txt", &text);
}

#[test]
fn beside_every_export_stands_whose_numbers_they_are_who_read_such_files_and_whether_headroom_is_inside() {
    let run = run();
    for form in plain() {
        let beside = json(&files(&run, form), "plimsoll-export.json");
        assert_eq!((&beside["form"], &beside["run"]), (&form.name().into(), &run.id.as_str().into()));
        assert_eq!(beside["labels"], serde_json::json!(["synthetic weights", "CPU device: no GPU measurement"]));
        assert_eq!(beside["headroom"]["inside"], form == Form::Keda, "{}", form.name());
        let checked = beside["checked"].as_str().unwrap();
        assert_eq!(checked.contains("checked with none: no installable consumer"), form.checked_with().is_empty());
        assert!(form.checked_with().iter().all(|version| checked.contains(version)), "{checked}");
    }
}

#[test]
fn a_dynamo_profile_has_the_units_of_its_profiler_and_planted_costs_come_back() {
    let files = files(&run(), Form::Dynamo);
    let (prefill, decode) = (json(&files, "prefill_raw_data.json"), json(&files, "decode_raw_data.json"));
    assert_eq!(prefill["prefill_isl"], serde_json::json!([64, 128, 256, 512, 1024]));
    let floats = |of: &serde_json::Value| of.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect::<Vec<_>>();
    for ((tokens, ttft), rate) in
        floats(&prefill["prefill_isl"]).into_iter().zip(floats(&prefill["prefill_ttft"])).zip(floats(&prefill["prefill_thpt_per_gpu"]))
    {
        near(ttft, ALPHA + (BETA + GAMMA) * tokens, 1e-12);
        near(rate, tokens / (ttft / 1e3), 1e-12);
    }
    let (usage, context) = (floats(&decode["x_kv_usage"]), floats(&decode["y_context_length"]));
    let (itl, rate) = (floats(&decode["z_itl"]), floats(&decode["z_thpt_per_gpu"]));
    assert_eq!((decode["max_kv_tokens"].as_u64(), context.len()), (Some(65_536), 9));
    for index in 0..9 {
        let sequences = usage[index] * 65_536.0 / context[index];
        near(sequences, [1.0, 4.0, 16.0][index % 3], 1e-12);
        near(itl[index], ALPHA + sequences * (BETA + GAMMA * context[index]), 1e-12);
        near(rate[index], sequences / (itl[index] / 1e3), 1e-12);
    }
    let fit = &json(&files, "plimsoll-export.json")["details"]["fit"];
    near(fit["prefill_s"]["prompt_token"].as_f64().unwrap(), (BETA + GAMMA) / 1e3, 1e-9);
    for (name, planted) in [("fixed", ALPHA), ("sequence", BETA), ("kv_token", GAMMA)] {
        near(fit["decode_s"][name].as_f64().unwrap(), planted / 1e3, 1e-8);
    }
}

#[test]
fn forward_passes_have_seconds_and_the_tokens_of_all_sequences() {
    let answer = json(&files(&run(), Form::DynamoFpm), "get_perf_metrics.json");
    let results = answer["results"].as_array().unwrap();
    assert_eq!(results.iter().filter(|result| result["point"]["point_type"] == "prefill").count(), 5);
    let last = &results[13]["fpms"][0];
    let scheduled = &last["scheduled_requests"];
    assert_eq!((&scheduled["num_decode_requests"], &scheduled["sum_decode_kv_tokens"]), (&16.into(), &(16 * (960 + 32)).into()));
    near(last["wall_time"].as_f64().unwrap(), (ALPHA + 16.0 * (BETA + GAMMA * 992.0)) / 1e3, 1e-12);
}

#[test]
fn queue_analysis_gets_the_planted_parameters_and_what_one_replica_holds() {
    let request = json(&files(&run(), Form::LlmdQueue), "request.json");
    for (name, planted) in [("alpha", ALPHA), ("beta", BETA), ("gamma", GAMMA), ("RPS", 9.7), ("targetTTFT", 2000.0), ("targetITL", 100.0)]
    {
        near(request[name].as_f64().unwrap(), planted, 1e-8);
    }
    assert_eq!((&request["maxBatchSize"], &request["maxQueueSize"]), (&64.into(), &20.into()));
}

#[test]
fn older_models_get_a_line_over_prompt_tokens_and_one_over_sequences() {
    let run = run();
    let yaml = text(&files(&run, Form::LlmdPerfparms), "perfparms.yaml");
    let quoted = |name: &str| yaml.split(&format!("{name}: \"")).nth(1).unwrap().split('"').next().unwrap().parse::<f64>().unwrap();
    // The traffic's 256 + 32 tokens lie nearest to the context of 160.
    for (name, planted) in [("alpha", ALPHA), ("beta", BETA + GAMMA * 160.0), ("gamma", ALPHA), ("delta", BETA + GAMMA)] {
        near(quoted(name), planted, 1e-9);
    }
    let profile = text(&files(&run, Form::InferenceSim), "latency-profile.yaml");
    let nanos = |name: &str| {
        let line = profile.lines().find(|line| line.starts_with(&format!("{name}: "))).unwrap();
        line.split(' ').nth(1).unwrap().strip_suffix("ns").unwrap().parse::<f64>().unwrap()
    };
    let (alone, each) = (ALPHA + BETA + GAMMA * 160.0, BETA + GAMMA * 160.0);
    near(nanos("inter-token-latency"), alone * 1e6, 1e-6);
    near(nanos("prefill-overhead"), ALPHA * 1e6, 1e-6);
    near(nanos("prefill-time-per-token"), (BETA + GAMMA) * 1e6, 1e-4);
    assert!(nanos("inter-token-latency-std-dev") <= 0.3 * nanos("inter-token-latency"), "more is refused there");
    assert!(nanos("prefill-time-std-dev") <= 0.3 * nanos("prefill-overhead"), "more is refused there");
    let factor = profile.lines().find(|line| line.starts_with("time-factor")).unwrap().split(' ').nth(1).unwrap().parse::<f64>().unwrap();
    near(factor, (ALPHA + 64.0 * each) / alone, 1e-3);
}

#[test]
fn load_matching_gets_open_loop_levels_that_met_the_slo_and_none_above_the_published_rate() {
    let run = run();
    let table = text(&files(&run, Form::Aic), "load_match.csv");
    let mut rows = csv::Reader::from_reader(table.as_bytes());
    let heads = rows.headers().unwrap().clone();
    let column = |name: &str| heads.iter().position(|head| head == name).unwrap();
    let mut levels = Vec::new();
    for row in rows.records().map(Result::unwrap) {
        let number = |name: &str| row[column(name)].parse::<f64>().unwrap();
        let level = &run.levels[number("plimsoll_level") as usize];
        let Offered::Open { calls_per_s, .. } = level.offered else { panic!("a closed loop is no rate at an SLO") };
        assert!(level.verdict.outcome == Outcome::Met && number("seq/s") <= 10.0);
        near(number("request_rate"), calls_per_s, 1e-12);
        near(number("tokens/s/user"), 1e3 / number("tpot"), 1e-12);
        near(number("tpot"), level.latency.tpot.raw.mean.unwrap(), 1e-12);
        levels.push(level.index);
    }
    let held = |level: &&LevelRecord| matches!(level.offered, Offered::Open { calls_per_s, .. } if calls_per_s <= 10.0);
    assert_eq!(levels, run.levels.iter().filter(held).map(|level| level.index).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn enough_replicas_of_the_threshold_hold_the_rate_with_headroom(
        low in 0.001..1e5_f64, headroom in 0.0..3.0_f64, demand in 0.001..1e6_f64, gpus in 1_u32..9,
    ) {
        let mut run = run();
        (run.target.devices, run.demand.gpus_per_replica) = (gpus, Some(gpus));
        let headline = run.headline.as_mut().unwrap();
        headline.throughput_per_gpu = Some(low * 1.1);
        let interval = headline.interval.as_mut().unwrap();
        (interval.low, interval.high) = (low, low * 1.2);
        let files = exported(&run, Form::Keda, Asked { headroom, ..Asked::default() }).unwrap();
        let (keda, hpa) = (text(&files, "scaledobject.yaml"), text(&files, "hpa.yaml"));
        let threshold = value(&keda, "threshold");
        prop_assert_eq!(&threshold, &value(&hpa, "averageValue"));
        prop_assert!(threshold.split_once('.').is_none_or(|(_, decimals)| decimals.len() <= 9), "a quantity has nine decimals");
        let replicas = (demand / threshold.parse::<f64>().unwrap()).ceil();
        prop_assert!(replicas * low * f64::from(gpus) >= demand * (1.0 + headroom) * (1.0 - 1e-9));
    }
}

/// A quoted value of a line `name: "value"`, wherever it is nested.
fn value(yaml: &str, name: &str) -> String {
    let line = yaml.lines().map(str::trim_start).find_map(|line| line.strip_prefix(&format!("{name}: "))).unwrap();
    line.trim_matches('"').to_owned()
}

#[test]
fn yaml_is_spaces_keys_and_values_and_nothing_that_another_reader_takes_otherwise() {
    let mut run = run();
    run.target.model = "a: \"model\" # with\ttraps".to_owned();
    run.labels.push("a label\nof two lines".to_owned());
    for (form, ending) in
        [(Form::Keda, "scaledobject.yaml"), (Form::Keda, "hpa.yaml"), (Form::InferenceSim, ".yaml"), (Form::LlmdPerfparms, ".yaml")]
    {
        let yaml = text(&files(&run, form), ending);
        for line in yaml.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let content = line.trim_start_matches(' ').trim_start_matches("- ");
            let (key, value) = content.split_once(':').unwrap_or_else(|| panic!("`{line}` has no key"));
            assert!(key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "`{line}`");
            assert!(value.is_empty() || value.starts_with(' '), "`{line}`");
            let value = value.trim_start();
            let quoted = value.starts_with('"') && serde_json::from_str::<String>(value).is_ok();
            let flow = value.starts_with('{') && value.ends_with('}');
            let word = value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
            assert!(quoted || flow || word, "`{line}` would need quotes");
            assert!(!line.contains('\t') || quoted, "`{line}`");
        }
    }
}

#[test]
fn prometheus_text_has_help_and_type_before_each_gauge_and_escaped_labels() {
    let mut run = run();
    run.target.model = "a \"model\"\\ of\ntwo lines".to_owned();
    let gauges = text(&files(&run, Form::Prometheus), "plimsoll.prom");
    let (mut helped, mut typed, mut seen) = (String::new(), String::new(), Vec::new());
    for line in gauges.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            helped = help.split(' ').next().unwrap().to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            typed = kind.strip_suffix(" gauge").unwrap().to_owned();
        } else if !line.starts_with("# ") {
            let (name, rest) = line.split_once('{').unwrap();
            assert_eq!((name, name), (&*helped, &*typed));
            assert!(name.starts_with("plimsoll_") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
            let (labels, value) = rest.rsplit_once("} ").unwrap();
            assert!(labels.contains(r#"model="a \"model\"\\ of\ntwo lines""#), "{labels}");
            seen.push((name.to_owned(), value.parse::<f64>().unwrap()));
        }
    }
    let of = |name: &str| seen.iter().find(|(known, _)| known == name).unwrap().1;
    assert_eq!(of("plimsoll_slo_requests_per_second_per_gpu"), 10.0);
    assert_eq!(of("plimsoll_slo_requests_per_second_per_gpu_lower_bound"), 9.7);
    assert_eq!(of("plimsoll_calibration_timestamp_seconds"), 1_795_491_600.0);
    assert!(gauges.contains(r#"labels="synthetic weights; CPU device: no GPU measurement""#));
}

#[test]
fn what_a_run_lacks_is_said_with_what_to_do_about_it() {
    let refused = |run: &RunRecord, form: Form| exported(run, form, Asked::default()).unwrap_err().to_string();
    let without = |gone: fn(&LevelRecord) -> bool| {
        let mut run = run();
        run.levels.retain(|level| !gone(level));
        run
    };
    let none = without(|level| level.purpose.lengths().is_some());
    for form in [Form::Dynamo, Form::DynamoFpm, Form::LlmdQueue, Form::LlmdPerfparms, Form::InferenceSim] {
        let said = refused(&none, form);
        assert!(said.contains("0 prompt lengths") && said.contains("bench --for-planner"), "{said}");
    }
    let four = without(|level| level.purpose.lengths() == Some((64, 2)));
    assert!(refused(&four, Form::Dynamo).contains("4 prompt lengths measured alone, and 5 are needed"));
    assert!(exported(&four, Form::LlmdQueue, Asked::default()).is_ok(), "a line needs fewer");
    let one_context = without(|level| matches!(level.purpose, Purpose::PlannerDecode { prompt_tokens, .. } if prompt_tokens != 512));
    for form in [Form::Dynamo, Form::DynamoFpm, Form::LlmdQueue] {
        assert!(refused(&one_context, form).contains("one context"), "{}", refused(&one_context, form));
    }
    let mut unknown = run();
    unknown.target.batch = BatchLimits::default();
    assert!(refused(&unknown, Form::Dynamo).contains("--kv-tokens N"));
    let stated = Asked { kv_tokens: Some(100_000), ..Asked::default() };
    assert_eq!(json(&exported(&unknown, Form::Dynamo, stated).unwrap(), "decode_raw_data.json")["max_kv_tokens"], 100_000);
    let mut unmet = run();
    unmet.headline.as_mut().unwrap().status = HeadlineStatus::SloUnmetAtMinimum;
    for form in [Form::Aic, Form::LlmdQueue, Form::Keda, Form::Prometheus] {
        assert!(refused(&unmet, form).contains("made of the rate at the SLO"), "{}", refused(&unmet, form));
    }
    for form in [Form::Vidur, Form::LatencyPredictor] {
        assert!(refused(&run(), form).contains("without `--no-request-log`"));
    }
}

#[test]
fn levels_that_no_planner_should_have_are_left_out_and_counted() {
    let mut run = run();
    let last = run.levels.len() as u32;
    run.levels.push(decode(last, 1984, 64));
    let mut spoiled = prefill(last + 1, 2048);
    spoiled.verdict.invalid.push(Invalid::Interrupted);
    let mut preempting = decode(last + 2, 256, 8);
    preempting.target.preemptions = 3;
    let mut cached = prefill(last + 3, 768);
    (cached.traffic.prompt_tokens, cached.target.cached_tokens) = (1000, 500);
    let mut waiting = decode(last + 5, 256, 16);
    let running = Reading::Value(MeanMax { mean: 4.2, max: 8.0 });
    waiting.server = Some(ServerWindow { running, ..ServerWindow::default() });
    run.levels.extend([spoiled, preempting, cached, decode(last + 4, 64, 40), waiting]);
    let files = files(&run, Form::Dynamo);
    assert_eq!(json(&files, "prefill_raw_data.json")["prefill_isl"].as_array().unwrap().len(), 5);
    assert_eq!(json(&files, "decode_raw_data.json")["z_itl"].as_array().unwrap().len(), 9);
    let left_out = json(&files, "plimsoll-export.json")["levels_left_out"].clone();
    let whys: Vec<_> = left_out.as_array().unwrap().iter().map(|level| level["why"].as_str().unwrap()).collect();
    for (why, expected) in whys.iter().zip([
        "more than half of its steps",
        "interrupted",
        "3 sequences lost",
        "50 % of the prompt",
        "more than half",
        "ran 4.2 of 16",
    ]) {
        assert!(why.to_lowercase().contains(expected), "`{why}` does not say `{expected}`");
    }
    assert_eq!(whys.len(), 6);
    // With so small a cache its own levels are more than full.
    let small = exported(&run, Form::Dynamo, Asked { kv_tokens: Some(8_000), ..Asked::default() }).unwrap();
    let left_out = json(&small, "plimsoll-export.json")["levels_left_out"].clone();
    let full = left_out.as_array().unwrap().iter().filter(|level| level["why"].as_str().unwrap().contains("KV usage above 1")).count();
    assert_eq!(full, 2, "{left_out}");
    assert!(!find(&small, "raw_data.npz").bytes.is_empty());
}

#[test]
fn a_servers_gpus_are_one_replica_and_devices_of_the_engine_are_one_each() {
    let mut run = run();
    run.target.devices = 4;
    run.target.kind = "server".to_owned();
    let rate = |run: &RunRecord| json(&files(run, Form::Dynamo), "prefill_raw_data.json")["prefill_thpt_per_gpu"][4].as_f64().unwrap();
    let one = rate(&crate::support::planner_run::run());
    near(rate(&run), one / 4.0, 1e-12);
    near(value(&text(&files(&run, Form::Keda), "scaledobject.yaml"), "threshold").parse().unwrap(), 9.7 * 4.0 / 1.25, 1e-9);
    run.target.kind = "engine".to_owned();
    near(rate(&run), one, 1e-12);
    let usage = json(&files(&run, Form::Dynamo), "decode_raw_data.json")["x_kv_usage"][2].as_f64().unwrap();
    near(usage, 16.0 / 4.0 * 160.0 / 65_536.0, 1e-12);
}

#[test]
fn lines_that_a_planner_refuses_or_takes_wrongly_are_warned_of() {
    let warned = |change: fn(&mut LevelRecord)| {
        let mut run = run();
        run.levels.iter_mut().for_each(change);
        json(&files(&run, Form::Dynamo), "plimsoll-export.json")["warnings"].to_string()
    };
    assert!(!warned(|_| {}).contains("1.1 and later"));
    let flat = warned(|level| level.latency.itl_per_token.p50 = Some(7.0));
    assert!(flat.contains("ITL does not rise with tokens of the KV cache"), "{flat}");
    let quadratic = warned(|level| {
        let tokens = level.purpose.lengths().map_or(0.0, |(prompt, _)| f64::from(prompt));
        level.latency.ttft_service.raw.p50 = Some(tokens * tokens / 1000.0);
    });
    assert!(quadratic.contains("faster than in proportion"), "{quadratic}");
}
