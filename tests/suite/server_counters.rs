//! A server's own counters: read whatever it is, over a window, and what they say of a level.

use std::path::Path;

use plimsoll::campaign::server_meter::judge;
use plimsoll::clock::Nanos;
use plimsoll::record::reading::{Missing, Reading};
use plimsoll::record::server_window::{Added, ServerWindow};
use plimsoll::record::verdict::Invalid;
use plimsoll::telemetry::counters::ServerCounters;
use plimsoll::telemetry::kv_capacity;
use plimsoll::telemetry::prometheus::series;
use plimsoll::telemetry::scrape::{Looks, over};
use plimsoll::telemetry::timeline::Samples;
use proptest::prelude::*;

fn page(name: &str) -> ServerCounters {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics").join(name);
    ServerCounters::read(&std::fs::read_to_string(file).unwrap())
}

/// Running, waiting, KV usage, preemptions, prefix queries and hits, prompt and generated tokens.
fn values(counters: &ServerCounters) -> [Option<f64>; 8] {
    [
        counters.running.get(),
        counters.waiting.get(),
        counters.kv_usage.get(),
        counters.preemptions.get(),
        counters.prefix_queries.get(),
        counters.prefix_hits.get(),
        counters.prompt_tokens.get(),
        counters.generation_tokens.get(),
    ]
}

#[test]
fn every_known_server_is_understood_in_its_own_words() {
    let some = |values: [f64; 8]| values.map(|value| (value >= 0.0).then_some(value));
    const NO: f64 = -1.0;
    for (name, wanted) in [
        ("vllm-v1.txt", [78.0, 3.0, 0.375, 7.0, 10_000.0, 120.0, 10_000.0, 5_000.0]),
        ("vllm-v0.txt", [8.0, 1.0, 0.125, 0.0, NO, NO, 500.0, 600.0]),
        ("sglang.txt", [14.0, 2.0, 0.74, NO, 800.0, 80.0, 800.0, 7_557_572.0]),
        ("trtllm-serve.txt", [6.0, 1.0, 0.375, NO, NO, NO, NO, NO]),
        ("triton.txt", [9.0, 1.0, 0.0625, NO, NO, NO, NO, NO]),
        ("llama-server.txt", [2.0, 1.0, NO, NO, NO, NO, 900.0, 1_250.0]),
    ] {
        let counters = page(name);
        assert_eq!(values(&counters), some(wanted), "{name}");
        assert!(counters.says_something(), "{name}");
    }
    let own = ServerCounters::read("plimsoll:num_requests_running 3\nplimsoll_generation_tokens_total 12 1795463741000\n");
    assert_eq!((own.running.get(), own.generation_tokens.get()), (Some(3.0), Some(12.0)), "any prefix, and stamps are passed over");
    assert!(!ServerCounters::read("<html>running 7</html>\nnode_load1 0.3\n").says_something());
    let bad = ServerCounters::read("vllm:num_requests_running NaN\n");
    assert_eq!((bad.running, bad.waiting), (Reading::none(Missing::Failed), Reading::none(Missing::NotSupported)));
}

#[test]
fn the_kv_cache_of_a_server_is_read_from_its_metrics() {
    let vllm = "vllm:cache_config_info{block_size=\"16\",engine=\"0\",num_gpu_blocks=\"573\",num_cpu_blocks=\"1024\"} 1.0\n";
    assert_eq!(kv_capacity::tokens(vllm), Some(16 * 573));
    assert_eq!(kv_capacity::tokens(&(vllm.to_owned() + &vllm.replace("engine=\"0\"", "engine=\"1\""))), Some(2 * 16 * 573), "all engines");
    assert_eq!(kv_capacity::tokens("vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"None\"} 1.0\n"), None);
    let sglang = "sglang:max_total_num_tokens{tp_rank=\"0\"} 471258.0\nsglang:max_total_num_tokens{tp_rank=\"1\"} 471258.0\n";
    assert_eq!(kv_capacity::tokens(sglang), Some(471_258), "ranks of one engine share one cache");
    assert_eq!(kv_capacity::tokens("sglang:max_total_num_tokens NaN\n"), None);
}

#[test]
fn the_text_format_is_read_as_it_is_written() {
    let text = "# HELP a b\na 1\n a{} 2 \nb{c=\"d\"}3\nb{c=\"q\\\"uo\\\\te\\n\",e=\"}\",} -4.5e3 17 # {x=\"y\"} 1\nc +Inf\nd NaN\n1e 5\n{f=\"g\"} 6\nh{i=j} 7\nk{l=\"m\nn\n";
    let read = series(text).map(|one| (one.name, one.labels.iter().map(|(_, value)| value.to_string()).collect(), one.value));
    let read: Vec<(&str, Vec<String>, f64)> = read.collect();
    let labels = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<_>>();
    assert_eq!(
        read[..4],
        [("a", vec![], 1.0), ("a", vec![], 2.0), ("b", labels(&["d"]), 3.0), ("b", labels(&["q\"uo\\te\n", "}"]), -4500.0)]
    );
    assert_eq!((read[4].0, read[4].2), ("c", f64::INFINITY));
    assert!(read[5].0 == "d" && read[5].2.is_nan());
    assert_eq!(read.len(), 6, "what is no series is passed over: {read:?}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_stumble(text in "([a-z_:]{0,4}[{}=\",\\\\ \n#0-9.é+N-]{0,9}){0,12}", any in ".{0,60}") {
        for text in [text, any] {
            let _ = series(&text).count();
            let _ = ServerCounters::read(&text);
        }
    }

    #[test]
    fn what_is_written_by_the_rules_is_read_back(name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,12}", label in "\\PC{0,12}", value in any::<f64>()) {
        let quoted = label.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let text = format!("{name}{{label=\"{quoted}\"}} {value:?}\n");
        let read: Vec<_> = series(&text).collect();
        prop_assert_eq!(read.len(), 1, "{}", text);
        prop_assert_eq!((read[0].name, read[0].label("label")), (name.as_str(), Some(label.as_str())));
        prop_assert!(read[0].value.to_bits() == value.to_bits() || (value.is_nan() && read[0].value.is_nan()));
    }
}

/// A look each second from 0 s on: `total` of what every counter shows, `gauge` of what every gauge does; `None` where nobody answered.
fn looks(seconds: u64, look: impl Fn(u64) -> Option<(f64, f64)>) -> Looks {
    let mut looks = Samples::up_to(1000);
    for second in 0..=seconds {
        let counters = look(second).ok_or(Missing::Failed).map(|(total, gauge)| ServerCounters {
            running: Reading::Value(gauge),
            waiting: Reading::none(Missing::NotSupported),
            kv_usage: Reading::Value(gauge / 100.0),
            preemptions: Reading::Value(total),
            prefix_queries: Reading::Value(4.0 * total),
            prefix_hits: Reading::Value(total),
            prompt_tokens: Reading::Value(total),
            generation_tokens: Reading::Value(total),
        });
        looks.push(Nanos::from_secs(second), counters.into());
    }
    looks
}

fn window(looks: &Looks) -> ServerWindow {
    over(looks, Nanos::from_millis(10_500), Nanos::from_millis(20_500))
}

#[test]
fn a_window_has_gauges_by_mean_and_maximum_and_totals_by_their_growth_inside_it() {
    let seen = window(&looks(30, |second| Some((100.0 * second as f64, second as f64))));
    assert_eq!((seen.samples, seen.coverage), (10, 1.0));
    let running = seen.running.get().unwrap();
    assert_eq!((running.mean, running.max), (15.5, 20.0));
    assert_eq!(seen.kv_usage.get().unwrap().max, 0.2);
    assert_eq!(seen.waiting, Reading::none(Missing::NotSupported));
    let added = seen.added.get().unwrap();
    assert_eq!((added.begin_s, added.seconds), (0.5, 9.0));
    assert_eq!((added.generation_tokens.get(), added.prefix_hit_share.get()), (Some(900.0), Some(0.25)));
}

#[test]
fn a_server_that_does_not_answer_or_is_started_anew_leaves_a_reason_and_not_a_number() {
    let silent = window(&looks(30, |second| (second < 15).then_some((second as f64, 1.0))));
    assert_eq!((silent.samples, silent.added.get().unwrap().seconds), (4, 3.0));
    assert!((silent.coverage - 0.425).abs() < 0.01, "{}", silent.coverage);
    let anew = window(&looks(30, |second| Some((if second < 15 { second as f64 } else { 0.0 }, 1.0))));
    assert_eq!(anew.added.get().unwrap().generation_tokens, Reading::none(Missing::Failed));
    let never = window(&looks(30, |_| None));
    assert_eq!((never.samples, never.coverage, never.added), (0, 0.0, Reading::none(Missing::NoSample)));
    let once = over(&looks(30, |_| Some((1.0, 1.0))), Nanos::from_millis(500), Nanos::from_millis(1500));
    assert_eq!((once.samples, once.added), (1, Reading::none(Missing::WindowTooShort)));
    let idle = window(&looks(30, |_| Some((7.0, 0.0)))).added.get().unwrap();
    assert_eq!((idle.preemptions.get(), idle.prefix_hit_share), (Some(0.0), Reading::none(Missing::NoSample)));
}

/// What is said of a level whose server counted so.
fn judged(hits: f64, by_server: f64, received: f64, shares: bool) -> (Vec<Invalid>, Vec<String>) {
    let added = Added {
        seconds: 10.0,
        prefix_hit_share: Reading::Value(hits),
        generation_tokens: Reading::Value(by_server),
        received_tokens: Reading::Value(received),
        ..Added::default()
    };
    let (invalid, findings) = judge(&ServerWindow { added: Reading::Value(added), ..ServerWindow::default() }, 100.0, shares);
    (invalid, findings.into_iter().map(|finding| finding.code).collect())
}

#[test]
fn a_level_that_was_not_alone_on_its_server_is_invalid() {
    for (by_server, received) in [(10_000.0, 10_000.0), (10_590.0, 10_000.0), (10_000.0, 10_590.0), (100.0, 0.0), (0.0, 0.0)] {
        assert_eq!(judged(0.0, by_server, received, false), (vec![], vec![]), "{by_server} {received}");
    }
    let (invalid, codes) = judged(0.0, 11_000.0, 10_000.0, false);
    assert_eq!((invalid, codes), (vec![Invalid::OtherTraffic { by_server: 11_000, received: 10_000 }], vec!["other_traffic".to_owned()]));
    assert_eq!(judged(0.0, 5_000.0, 10_000.0, false), (vec![], vec!["server_counters_partial".to_owned()]), "one of two replicas");
}

#[test]
fn hits_of_the_prefix_cache_are_told_unless_prefixes_are_meant_to_be_shared() {
    assert_eq!(judged(0.05, 0.0, 0.0, false).1, Vec::<String>::new());
    assert_eq!(judged(0.06, 0.0, 0.0, false), (vec![], vec!["prefix_cache_hits".to_owned()]));
    assert_eq!(judged(0.9, 0.0, 0.0, true).1, Vec::<String>::new());
}
