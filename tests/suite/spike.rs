//! A spike is proven: the service law is found, the largest multiple is the one of theory, and the litmus test ends as its gate says.

use std::path::PathBuf;
use std::process::Output;
use std::sync::OnceLock;

use plimsoll::capacity::spike::answer::Subject;
use plimsoll::capacity::spike::course::{Course, Lengths, Phase};
use plimsoll::capacity::spike::ledger::Ledger;
use plimsoll::capacity::spike::lengths::CallLengths;
use plimsoll::capacity::spike::moments::Recovery;
use plimsoll::capacity::spike::phases::Felt;
use plimsoll::clock::Nanos;
use plimsoll::queueing::bands::TokenPrices;
use plimsoll::queueing::fleet::simulation::Fleet;
use plimsoll::queueing::law::{BatchingLaw, ServiceLaw};
use plimsoll::queueing::truth::{highest_load, md1_wait_over};
use plimsoll::record::slo::{Slo, SloSource};
use plimsoll::store::request_log::reader::Requests;
use plimsoll::workload::lengths::Distribution;
use serde_json::Value;

use crate::support::{plimsoll, run};

fn slo(text: &str) -> Slo {
    Slo::parse(text, SloSource::Flag).expect("it is an SLO")
}

/// One call at a time, a second each: M/D/1 where one replica serves Poisson arrivals.
fn one_second_each() -> (Fleet, CallLengths) {
    let law = BatchingLaw {
        step_s: 0.01,
        per_sequence_s: 0.0,
        per_prefill_token_s: 0.0,
        per_kv_token_s: 0.0,
        per_token_s: TokenPrices::default(),
        max_batch: 1,
        chunk_tokens: 1 << 20,
        kv_tokens: 1 << 30,
    };
    let lengths = CallLengths::Drawn { prompt: Distribution::Fixed(1), answer: Distribution::Fixed(100) };
    (Fleet::fixed(law, 1), lengths)
}

#[test]
fn the_largest_spike_is_the_load_that_theory_allows() {
    let (fleet, lengths) = one_second_each();
    // The first token comes with the first step.
    let slo = slo("ttft:p90<2010ms");
    let subject = Subject { fleet, average: 0.1, slo: &slo, lengths: &lengths, seed: 3 };
    let theory = highest_load(0.1, |load| md1_wait_over(load, 2.0)) / 0.1;
    let found = subject.largest_multiple(300_000.0).expect("a tenth of capacity holds");
    assert!((found / theory - 1.0).abs() < 0.04, "{found}x found, {theory}x in theory");
}

#[test]
fn the_smallest_fleet_holds_and_one_replica_fewer_does_not() {
    let (fleet, lengths) = one_second_each();
    let slo = slo("ttft:p90<1500ms");
    let subject = Subject { fleet, average: 1.0, slo: &slo, lengths: &lengths, seed: 3 };
    for guess in [1, 7, 60] {
        let needed = subject.smallest_fleet(8.0, 3000.0, guess).expect("some number is enough");
        assert!(needed > 8, "8 calls/s of 1 s each need more than 8 replicas");
        assert!(subject.stands_load(needed, 8.0, 3000.0) && !subject.stands_load(needed - 1, 8.0, 3000.0), "from {guess}: {needed}");
    }
    assert_eq!(Subject { slo: &self::slo("tpot:p90<5ms"), ..subject }.smallest_fleet(8.0, 300.0, 1), None, "a step alone takes 10 ms");
}

#[test]
fn a_fleet_is_back_when_the_last_broken_stretch_is_over_and_never_where_that_is_the_last_one() {
    let course = Course::litmus(10.0, [Phase::spike(5.0, 60.0)], Lengths { before: 60.0, after: 120.0 });
    let slo = slo("ttft:p90<100ms");
    let recovery = |broken_until_s: f64| {
        let mut ledger = Ledger::new(&course, &slo);
        for tenth in 0..2400_u64 {
            let at = Nanos::from_millis(tenth * 100);
            let slow = (60.0..broken_until_s).contains(&at.as_secs_f64());
            let felt = Felt { ttft: if slow { 2e8 } else { 1e7 }, tpot: None, e2e: 3e8 };
            ledger.ended(at, at + Nanos::from_millis(300), 1, Some(&felt));
        }
        ledger.judged()
    };
    assert_eq!(recovery(60.0).recovery, Some(Recovery::AtOnce));
    assert_eq!(recovery(150.0).recovery, Some(Recovery::After { seconds: 30.0 }));
    assert_eq!(recovery(240.0).recovery, Some(Recovery::NotWithin { seconds: 120.0 }));
    let held: Vec<bool> = recovery(150.0).phases.iter().map(plimsoll::capacity::spike::phases::PhaseHeld::holds).collect();
    assert_eq!(held, [true, false, false]);
    assert_eq!(recovery(60.0).phases[1].calls, 600);
}

#[test]
fn a_course_offers_its_multiples_of_the_average() {
    let spikes = [5.0, 10.0].map(|times| Phase::spike(times, 200.0));
    let course = Course::litmus(50.0, spikes, Lengths { before: 100.0, after: 300.0 });
    let arrivals: Vec<f64> = course.schedule(9).map(Nanos::as_secs_f64).collect();
    for (index, phase) in course.phases.iter().enumerate() {
        let (from, to) = course.span(index);
        let count = arrivals.iter().filter(|at| (from.as_secs_f64()..to.as_secs_f64()).contains(at)).count() as f64;
        let due = 50.0 * phase.times * phase.seconds;
        assert!((count - due).abs() < 4.0 * due.sqrt(), "{}: {count} calls, {due} due", phase.name);
    }
    assert!(arrivals.last().is_some_and(|last| *last < course.seconds()));
}

/// A quick run of a target whose law is known, kept in a folder of its own.
fn quick_run(name: &str, law: &str, workload: &str, slo: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = std::fs::remove_dir_all(&folder);
    let done = plimsoll()
        .args(["bench", "--quick", "--seed", "5", "--target", "simulated", "--law", law, "--workload", workload])
        .args(["--slo", slo, "--data-dir"])
        .arg(&folder)
        .output()
        .expect("it runs");
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    folder
}

/// The run that is shared by what follows.
pub(crate) fn measured() -> &'static PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| quick_run("spike", "batching", "fixed:256:64", "ttft:p90<400ms,tpot:p90<20ms"))
}

fn spike(more: &[&str]) -> Output {
    let mut arguments =
        vec!["spike", "--data-dir", measured().to_str().expect("a path in UTF-8"), "--average-rps", "40", "--recompute", "1"];
    arguments.extend(["--spike-for", "60s", "--before-for", "30s", "--after-for", "90s"]);
    arguments.extend(more);
    run(arguments)
}

fn json(more: &[&str], code: i32) -> Value {
    let done = spike(&[more, &["--format", "json"]].concat());
    assert_eq!(done.status.code(), Some(code), "{}\n{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    serde_json::from_slice(&done.stdout).expect("one document")
}

#[test]
fn the_law_of_a_target_is_found_from_its_levels() {
    let document = json(&["--replicas", "20"], 0);
    let law = &document["service"]["law"];
    // `--law batching`: 8 ms a step, 35 us a prompt token; with prompts of one length what a sequence costs is partly theirs.
    let near = |name: &str, value: f64, share: f64| {
        let found = law[name].as_f64().expect("a number");
        assert!((found / value - 1.0).abs() < share, "{name}: {found} instead of {value}");
    };
    near("step_s", 0.008, 0.03);
    near("per_prefill_token_s", 0.000_035, 0.15);
    let slower = document["slower_by"].as_f64().expect("a number");
    assert!((1.0..1.15).contains(&slower), "the law is its own: off by {slower}");
    assert!(document["checked"].as_array().is_some_and(|levels| !levels.is_empty()), "it is proven on levels that it was not fitted to");
}

/// A processor: few tokens cost much each, many little.
const PROCESSOR: BatchingLaw = BatchingLaw {
    step_s: 0.000_2,
    per_sequence_s: 0.0,
    per_prefill_token_s: 0.0,
    per_kv_token_s: 0.0,
    per_token_s: TokenPrices([0.0022, 0.0007, 0.00035, 0.00035, 0.00035, 0.00035]),
    max_batch: 64,
    chunk_tokens: 512,
    kv_tokens: 100_000,
};

#[test]
fn a_law_whose_tokens_get_cheaper_the_more_there_are_is_found() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (law, workload) = (folder.join("processor.json"), folder.join("small.toml"));
    std::fs::write(&law, serde_json::to_vec(&ServiceLaw::Batching(PROCESSOR)).unwrap()).unwrap();
    std::fs::write(
        &workload,
        "name = \"small\"\ndescription = \"short\"\nsource = \"ours\"\narrivals = \"poisson\"\n[input.lognormal]\nmedian = 48\nsigma = 0.5\nmin = 12\nmax = 192\n[output.uniform]\nmin = 12\nmax = 36\n",
    )
    .unwrap();
    let runs = quick_run("processor", law.to_str().unwrap(), workload.to_str().unwrap(), "ttft:p90<500ms,tpot:p90<60ms");
    let course = ["--average-rps", "5", "--replicas", "1", "--times", "2", "--spike-for", "30s", "--format", "json"];
    let done = run([&["spike", "--data-dir", runs.to_str().unwrap()], course.as_slice()].concat());
    let document: Value = serde_json::from_slice(&done.stdout).expect("one document");
    let found: BatchingLaw = serde_json::from_value(document["service"]["law"].clone()).expect("a law");
    for (decoding, prefill) in [(1, 0), (2, 0), (8, 0), (16, 0), (0, 48), (4, 48), (16, 100)] {
        let (found, due) = (found.step_of(decoding, 0, prefill), PROCESSOR.step_of(decoding, 0, prefill));
        assert!((found / due - 1.0).abs() < 0.1, "{decoding} sequences and {prefill} prompt tokens: {found} s instead of {due}");
    }
    for level in document["checked"].as_array().expect("levels") {
        for latency in ["ttft_p95", "tpot_p95"] {
            let (measured, simulated) = (level[latency]["measured"].as_f64().unwrap(), level[latency]["simulated"].as_f64().unwrap());
            assert!((simulated / measured - 1.0).abs() < 0.15, "{latency}: {simulated} simulated, {measured} measured in {level}");
        }
        assert_eq!(level["same_calls"], true, "the very calls of the level were simulated");
    }
}

#[test]
fn a_fleet_that_is_sized_for_ten_times_passes_and_one_for_twice_fails() {
    let viral = json(&["--sized-for", "Viral moment"], 0);
    assert_eq!(viral["verdict"], "holds");
    assert!(viral["largest_multiple"]["slower"].as_f64().is_some_and(|times| times >= 10.0));
    let normal = json(&["--sized-for", "Normal peak"], 3);
    assert_eq!(normal["verdict"], "breaks");
    let says: Vec<&str> = normal["expected"].as_array().unwrap().iter().map(|phase| phase["expected"].as_str().unwrap()).collect();
    assert_eq!((says[0], says[2]), ("holds", "breaks"), "the plan said so before");
    for scenario in viral["scenarios"].as_array().expect("scenarios") {
        let (planned, needed) = (scenario["planned"].as_u64().unwrap(), scenario["needed"]["slower"].as_u64().unwrap());
        assert!(needed <= planned, "{}: {needed} needed of {planned} planned", scenario["name"]);
    }
}

#[test]
fn every_form_of_the_answer_says_that_it_is_simulated_and_shows_the_course() {
    let text = String::from_utf8(spike(&["--replicas", "3"]).stdout).unwrap();
    for word in [
        "simulated fleet: no measurement of it",
        "simulated target",
        "breaks",
        "offered",
        "waiting",
        "TTFT p95",
        "|10x",
        "stands",
        "recovers",
    ] {
        assert!(text.contains(word), "`{word}` is not in\n{text}");
    }
    let markdown = String::from_utf8(spike(&["--replicas", "3", "--format", "markdown"]).stdout).unwrap();
    assert!(markdown.starts_with("# Litmus test") && markdown.contains("simulated fleet: no measurement of it"));
    let csv = String::from_utf8(spike(&["--replicas", "3", "--format", "csv"]).stdout).unwrap();
    assert!(
        csv.starts_with("course,at_s,offered_calls_per_s") && csv.lines().filter(|line| line.starts_with("fitted,")).count() > 100,
        "{csv}"
    );
}

#[test]
fn an_autoscaler_comes_too_late_for_a_spike_and_a_bounded_queue_lets_the_fleet_recover() {
    let late = json(&["--replicas", "2", "--scale-to", "20", "--lead-time", "3m"], 3);
    assert_eq!(late["verdict"], "breaks");
    let queue = json(&["--replicas", "2", "--queue", "16"], 3);
    let worst = |document: &Value| document["trial"]["phases"][2]["failed"].as_u64().unwrap();
    assert!(worst(&queue) > 1000, "calls beyond the queue are refused");
    assert_ne!(queue["trial"]["recovery"]["kind"], "not_within");
}

#[test]
fn a_litmus_test_is_driven_and_stands_beside_its_simulation() {
    let document = json(&["--live", "--replicas", "2", "--times", "2,4"], 3);
    let says: Vec<&str> = document["expected"].as_array().unwrap().iter().map(|phase| phase["expected"].as_str().unwrap()).collect();
    assert_eq!(says, ["holds", "open", "breaks", "holds"], "20, 40, 80 and 20 calls/s on one device of 30.6 to 60.6");
    for phase in document["compared"].as_array().unwrap().iter().filter(|phase| phase["phase"] != "4x" && phase["phase"] != "back") {
        for latency in ["ttft_p95", "tpot_p95"] {
            let (measured, simulated) = (phase[latency]["measured"].as_f64().unwrap(), phase[latency]["simulated"].as_f64().unwrap());
            assert!((simulated / measured - 1.0).abs() < 0.15, "{} {latency}: {simulated} simulated, {measured} measured", phase["phase"]);
        }
    }
    let id = document["id"].as_str().expect("an id");
    let folder = measured().join("spikes").join(id);
    let logged = Requests::open(&folder.join("requests.jsonl.zst")).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
    let calls: u64 = document["measured"]["phases"].as_array().unwrap().iter().map(|phase| phase["calls"].as_u64().unwrap()).sum();
    assert_eq!(
        logged.len() as u64 + document["audit"]["unlogged"].as_u64().unwrap(),
        calls,
        "every call is kept, or counted as one that is not"
    );
    let shown = run(["spike", "--data-dir", measured().to_str().unwrap(), "--judge", id, "--format", "json"]);
    assert_eq!(shown.status.code(), Some(3), "{}", String::from_utf8_lossy(&shown.stderr));
    assert_eq!(serde_json::from_slice::<Value>(&shown.stdout).unwrap(), document, "what was driven is kept");
    let codes: Vec<&str> = document["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"part_of_the_fleet"), "one of two GPUs was driven: {codes:?}");
}

#[test]
fn what_cannot_be_proven_is_said_with_a_remedy() {
    let unknown = spike(&["--sized-for", "Doomsday"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("`Viral moment`"), "the peaks there are");
    let none = run(["spike", "--data-dir", env!("CARGO_TARGET_TMPDIR"), "--run", "01NOSUCHRUN"]);
    assert_eq!(none.status.code(), Some(65), "{}", String::from_utf8_lossy(&none.stderr));
    assert_eq!(spike(&["--times", "0"]).status.code(), Some(2));
    assert_eq!(spike(&["--routing", "by-hand"]).status.code(), Some(2));
}
