//! A log's own spike: kept in bounded memory as it really was, and driven at the log's own rate.

use std::fs;
use std::path::Path;
use std::process::Output;

use plimsoll::capacity::request_log::busiest::BusiestTally;
use plimsoll::capacity::spike::course::{Course, Lengths, Phase};
use plimsoll::capacity::spike::expected::Expected;
use plimsoll::capacity::spike::litmus::ExpectedPhase;
use plimsoll::capacity::spike::own::{self, NoOwnSpike};
use plimsoll::capacity::throughput::Throughput;
use plimsoll::clock::Nanos;
use plimsoll::record::demand::{BusiestStretch, Demand};
use plimsoll::units::rate::CallRatePerGpu;
use proptest::prelude::{Strategy, any, prop_oneof, proptest};
use serde_json::Value;

use crate::spike::measured;
use crate::support::{document, run, stderr, stdout};

const SLICE_NS: i64 = 10_000_000_000;

/// With every slice of the log at hand.
fn counted_over_all(stamps: &[i64]) -> Option<BusiestStretch> {
    let number = |at: i64| at.div_euclid(SLICE_NS);
    let (first, last) = (number(*stamps.first()?), number(*stamps.last()?));
    let mut calls = vec![0_u64; (last - first + 1) as usize];
    stamps.iter().for_each(|at| calls[(number(*at) - first) as usize] += 1);
    let minutes: Vec<u64> = calls.windows(6).map(|minute| minute.iter().sum()).collect();
    let at = minutes.iter().position(|minute| Some(minute) == minutes.iter().max())?;
    let (from, to) = (at.saturating_sub(90), (at + 96).min(calls.len()));
    Some(BusiestStretch { start_s: (first + from as i64) * 10, slice_s: 10, calls: calls[from..to].to_vec() })
}

fn gaps() -> impl Strategy<Value = Vec<i64>> {
    let gap = prop_oneof![
        6 => 0..2_000_000_000_i64,
        3 => 0..30_000_000_000_i64,
        1 => 0..2_000_000_000_000_i64,
    ];
    proptest::collection::vec(gap, 0..300)
}

proptest! {
    #[test]
    fn the_kept_stretch_is_the_one_that_all_slices_show(begin in any::<i32>(), gaps in gaps()) {
        let mut at = i64::from(begin) * 1_000_000_007;
        let mut stamps = vec![at];
        stamps.extend(gaps.into_iter().map(|gap| {
            at += gap;
            at
        }));
        let mut tally = BusiestTally::default();
        stamps.iter().for_each(|at| tally.add(*at));
        let (found, expected) = (tally.found(), counted_over_all(&stamps));
        assert_eq!(found, expected);
    }
}

#[test]
fn a_phase_with_a_shape_comes_as_its_shape_says() {
    const SEEDS: u64 = 200;
    for shape in [vec![1.0, 0.0, 4.0, 0.5], vec![0.0, 3.0], vec![2.0, 2.0, 2.0, 9.0, 0.1, 0.1, 0.1]] {
        let slices = shape.len();
        let phase = Phase::shaped("own", shape.clone(), 10.0);
        let course = Course::litmus(7.0, [phase], Lengths { before: 25.0, after: 15.0 });
        let mut counts = vec![0_u64; slices];
        let mut others = 0;
        for seed in 0..SEEDS {
            for at in course.schedule(seed) {
                match counts.get_mut(((at.as_secs_f64() - 25.0) / 10.0).floor() as usize) {
                    Some(count) if at.as_secs_f64() >= 25.0 => *count += 1,
                    _ => others += 1,
                }
            }
        }
        let is_near = |count: u64, due: f64| (count as f64 - due).abs() <= 5.0 * due.sqrt();
        for (count, times) in counts.iter().zip(&shape) {
            assert!(is_near(*count, SEEDS as f64 * 70.0 * times), "{shape:?}: {counts:?}");
        }
        assert!(is_near(others, SEEDS as f64 * 7.0 * 40.0), "{others} at the average, before and after");
        let due = 7.0 * (40.0 + 10.0 * shape.iter().sum::<f64>());
        assert!((course.calls() / due - 1.0).abs() < 1e-9);
    }
}

#[test]
fn a_plan_judges_a_shape_by_its_busiest_minute() {
    let calm = [0.5; 12];
    let shape = [calm.as_slice(), &[8.0; 6], &calm].concat();
    let course = Course::litmus(1.0, [Phase::shaped("own", shape, 10.0)], Lengths { before: 60.0, after: 60.0 });
    let expected = |per_gpu: f64| {
        let throughput = Throughput::given(CallRatePerGpu::new(per_gpu).unwrap());
        ExpectedPhase::of_course(&throughput, &course, 1)[1].clone()
    };
    let own = expected(5.0);
    assert_eq!((own.expected, own.calls_per_s, own.peak_calls_per_s), (Expected::Breaks, 2.0, Some(8.0)), "its mean is within 5 calls/s");
    assert_eq!(expected(8.5).expected, Expected::Holds);
    assert_eq!(course.spikes_end(), Some(Nanos::from_secs(60 + 300)));
    let minute = course.phases[1].shortened(60.0);
    assert_eq!((minute.shape, minute.times), (vec![8.0; 6], 8.0), "the busiest part is left");
}

/// An hour of two calls a second, of which six minutes have a spike: 4, 20 and 8 a second for two minutes each.
fn log(folder: &Path) -> String {
    let mut text = "created_at\n".to_owned();
    for second in 0..3600 {
        let calls = match second {
            1800..1920 => 4,
            1920..2040 => 20,
            2040..2160 => 8,
            _ => 2,
        };
        for call in 0..calls {
            text += &format!("2026-03-02T10:{:02}:{:02}.{:02}Z\n", second / 60, second % 60, call * 100 / calls);
        }
    }
    written(folder, "log.csv", &text)
}

fn written(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn saved(log: &str, folder: &Path) -> String {
    let demand = folder.join("demand.json").to_str().unwrap().to_owned();
    let output = run(["demand", "--log", "requests", log, "--save", &demand]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    demand
}

fn read(file: &str) -> Demand {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn spike(more: &[&str]) -> Output {
    let usual = ["spike", "--data-dir", measured().to_str().unwrap(), "--before-for", "30s", "--after-for", "60s", "--format", "json"];
    run(usual.iter().chain(more))
}

fn own(document: &Value, of: &str, times: &str) -> Value {
    let phases = document[of].as_array().unwrap_or_else(|| document[of]["phases"].as_array().unwrap());
    let found = phases.iter().find(|phase| phase["name"] == times || phase["phase"] == times);
    found.unwrap_or_else(|| panic!("no `{times}` in {document:#}")).clone()
}

#[test]
fn a_demand_keeps_the_spike_of_its_log_and_an_older_one_is_planned_from_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = saved(&log(folder.path()), folder.path());
    let demand = read(&file);
    let kept = demand.busiest.clone().unwrap();
    // 10:32 is the busiest minute; a quarter of an hour before it the log goes on, as it does after it.
    assert_eq!((kept.start_s, kept.slice_s, kept.calls.len()), (1_772_446_620, 10, 186));
    assert_eq!(kept.calls[90..96], [200; 6]);
    assert_eq!(kept.calls.iter().sum::<u64>(), 2 * (31 * 60 - 360) + 4 * 120 + 20 * 120 + 8 * 120);
    let five_minutes = own::phase(&demand, &file, 300.0).unwrap();
    let mean = demand.rates[1].mean_rps;
    assert_eq!(five_minutes.seconds, 300.0);
    assert!((five_minutes.times * mean * 300.0 - (60.0 * 4.0 + 120.0 * 20.0 + 120.0 * 8.0)).abs() < 1e-6, "{five_minutes:?}");
    assert!((five_minutes.peak_times() * mean - 20.0).abs() < 1e-9);

    let mut older: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert!(older.as_object_mut().unwrap().remove("busiest").is_some());
    let older = written(folder.path(), "older.json", &older.to_string());
    let planned = run(["plan", "--throughput-per-gpu", "2", "--demand", &older]);
    assert_eq!(planned.status.code(), Some(0), "{}", stderr(&planned));
    let refused = spike(&["--demand", &older, "--times", "own"]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(stdout(&refused).contains("--save"), "what to do is said: {}", stdout(&refused));
}

#[test]
fn a_log_without_a_spike_of_its_own_and_no_log_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let short = written(folder.path(), "short.csv", "created_at\n2026-03-02T10:00:00Z\n2026-03-02T10:00:31Z\n");
    let file = saved(&short, folder.path());
    assert!(matches!(own::phase(&read(&file), &file, 60.0), Err(NoOwnSpike::Short { seconds, .. }) if seconds == 31.0));
    let refused = spike(&["--demand", &file, "--times", "own"]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(stdout(&refused).contains("spans 31 s"), "{}", stdout(&refused));
    let none = spike(&["--average-rps", "40", "--times", "own"]);
    assert_eq!(none.status.code(), Some(2));
    assert!(stdout(&none).contains("--demand"), "{}", stdout(&none));
    assert_eq!(spike(&["--average-rps", "40", "--times", "mine"]).status.code(), Some(2));
}

#[test]
fn what_a_warehouse_counted_does_not_tell_it_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let totals = "requests,failed,first_s,last_s,gap_mean_s,gap_square_mean_s2\n7200,0,1772445600,1772449199,0.5,0.3\n";
    let rates = "window_s,calls_in_window,windows,first_window,last_window\n1,2,3600,1772445600,1772449199\n60,120,60,29540760,29540819\n";
    let results = [written(folder.path(), "totals.csv", totals), written(folder.path(), "rates.csv", rates)];
    let file = folder.path().join("demand.json").to_str().unwrap().to_owned();
    let imported = run(["demand", "import", &results[0], &results[1], "--save", &file, "--format", "json"]);
    assert_eq!(imported.status.code(), Some(0), "{}", stderr(&imported));
    let imported = document(&imported);
    assert!(imported.get("busiest").is_none());
    assert!(
        imported["findings"].as_array().unwrap().iter().any(|finding| finding["code"] == "own_spike_unknown"),
        "{}",
        imported["findings"]
    );
    let refused = spike(&["--demand", &file, "--times", "own"]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(stdout(&refused).contains("warehouse"), "{}", stdout(&refused));
}

#[test]
fn a_logs_own_spike_comes_at_the_logs_own_rate_and_a_small_fleet_breaks() {
    let folder = tempfile::tempdir().unwrap();
    let file = saved(&log(folder.path()), folder.path());
    let of_log = ["--demand", &file, "--times", "2,own", "--spike-for", "2m"];
    let holds = spike(&[&of_log[..], &["--replicas", "1"]].concat());
    assert_eq!(holds.status.code(), Some(0), "{}", stderr(&holds));
    let holds = document(&holds);
    let said = own(&holds, "expected", "own");
    assert!((said["calls_per_s"].as_f64().unwrap() - 20.0).abs() < 1e-9 && said["expected"] == "holds", "{said}");
    let came = own(&holds, "trial", "own")["calls"].as_f64().unwrap();
    assert!((came - 2400.0).abs() < 5.0 * 2400_f64.sqrt(), "20 calls/s for two minutes: {came}");
    assert!(holds["largest_own"]["fitted"].as_f64().unwrap() > 1.0, "{}", holds["largest_own"]);
    assert!(holds["findings"].as_array().unwrap().iter().all(|finding| finding["code"] != "own_spike_shorter"));

    // Typed beside it, an average of 40 calls/s has the same spike at 40 over the log's mean times its rate.
    let mean = read(&file).rates[1].mean_rps;
    let inputs = written(folder.path(), "plan.toml", "demand = \"demand.json\"\n");
    let scaled = ["--plan", &inputs, "--average-rps", "40", "--times", "own", "--spike-for", "1h"];
    let breaks = spike(&[&scaled[..], &["--replicas", "2"]].concat());
    assert_eq!(breaks.status.code(), Some(3), "{}", stderr(&breaks));
    let breaks = document(&breaks);
    let said = own(&breaks, "expected", "own");
    assert!((said["peak_calls_per_s"].as_f64().unwrap() / (20.0 * 40.0 / mean) - 1.0).abs() < 1e-9, "{said}");
    assert_eq!(said["expected"], "breaks");
    assert_eq!(breaks["trial"]["course"]["phases"][1]["seconds"], 1860.0);
    assert!(
        breaks["findings"].as_array().unwrap().iter().any(|finding| finding["code"] == "own_spike_shorter"),
        "less is kept than an hour"
    );
}

#[test]
fn every_form_shows_a_logs_own_spike_and_its_busiest_minute() {
    let folder = tempfile::tempdir().unwrap();
    let file = saved(&log(folder.path()), folder.path());
    let asked = ["--demand", &file, "--times", "own", "--spike-for", "5m", "--replicas", "1"];
    for format in ["text", "markdown"] {
        let output = run(["spike", "--data-dir", measured().to_str().unwrap(), "--format", format].iter().chain(&asked));
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        for word in ["own spike", "|own", "12.0, peak 20.0", "the busiest 5.00 min of the log", "times the log's own spike"] {
            assert!(stdout(&output).contains(word), "`{word}` is not in\n{}", stdout(&output));
        }
    }
    let live = spike(&[&asked[..], &["--live"]].concat());
    assert_eq!(live.status.code(), Some(0), "{}", stderr(&live));
    let live = document(&live);
    let came = own(&live, "measured", "own")["calls"].as_f64().unwrap();
    assert!((came - 3600.0).abs() < 5.0 * 60.0, "12 calls/s for five minutes: {came}");
    assert_eq!(own(&live, "expected", "own")["peak_calls_per_s"].as_f64().unwrap().round(), 20.0);
}
