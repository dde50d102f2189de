//! From samples to the summary of a window, on samples made by hand.

use std::fs;

use plimsoll::clock::Nanos;
use plimsoll::record::clocks::{ClockReason, Limit, Limits};
use plimsoll::record::reading::{Missing, Reading};
use plimsoll::record::telemetry::{GpuWindow, Telemetry, WindowSummary};
use plimsoll::telemetry::procfs;
use plimsoll::telemetry::replay::{self, Replay};
use plimsoll::telemetry::sample::{Fast, Slow, XidEvent};
use plimsoll::telemetry::timeline::Timeline;
use plimsoll::telemetry::window::{Interval, Named, window};
use plimsoll::telemetry::{Source, energy};

const FROM: Nanos = Nanos::from_secs(10);
const TO: Nanos = Nanos::from_secs(30);

fn healthy() -> Fast {
    Fast {
        power_w: Reading::Value(300.0),
        sm_clock_mhz: Reading::Value(1980),
        reasons: Reading::Value(0),
        temperature_c: Reading::Value(60),
        ..Fast::default()
    }
}

/// Forty seconds at the sampler's own rates: power 300 W, an energy counter that refreshes every 100 ms.
fn timeline(fast: impl Fn(Nanos) -> Option<Fast>, slow: impl Fn(Nanos) -> Slow) -> Timeline {
    let mut timeline = Timeline::of(1);
    for tick in 0..2000_u64 {
        let at = Nanos::from_millis(20 * tick + 3);
        timeline.energy(0, at, Reading::Value(1e6 + 30.0 * (at.0 / 100_000_000) as f64));
        if tick % 5 == 0
            && let Some(sample) = fast(at)
        {
            timeline.fast(0, at, sample);
        }
        if tick % 50 == 0 {
            timeline.slow(0, at, slow(at));
        }
    }
    timeline
}

fn of(timeline: &Timeline, interval: &Interval) -> GpuWindow {
    window(timeline, &[Named { uuid: "GPU-1".to_owned(), ..Named::default() }], interval).gpus.remove(0)
}

fn over(timeline: &Timeline) -> GpuWindow {
    of(timeline, &Interval { since: Nanos::ZERO, ..Interval::of(FROM, TO) })
}

#[test]
fn a_quiet_window_is_covered_and_its_figures_are_the_samples() {
    let gpu = over(&timeline(|_| Some(healthy()), |_| Slow::default()));
    assert!(gpu.coverage > 0.999 && gpu.longest_gap_s < 0.11 && gpu.samples == 200, "{gpu:?}");
    assert_eq!(gpu.power_mean_w, Reading::Value(300.0));
    assert_eq!(gpu.sm_clock_mhz.get().map(|clock| (clock.min, clock.median, clock.max)), Some((1980.0, 1980.0, 1980.0)));
    assert_eq!(gpu.clock_reasons, Reading::Value(vec![]));
    assert_eq!(gpu.temperature_max_c, Reading::Value(60));
    let energy = gpu.energy.ok().unwrap();
    assert!((energy.watts() - 300.0).abs() < 0.01, "edges lie at changes, so nothing is cut: {energy:?}");
    assert!(energy.begin_s < 0.1 && energy.seconds > 19.8, "{energy:?}");
    assert!(energy.disagreement().is_some_and(|off| off < 1e-3));
}

#[test]
fn a_reading_that_stops_half_way_is_a_gap_also_where_others_go_on() {
    let stops = |at: Nanos| {
        Some(if at < Nanos::from_secs(25) { healthy() } else { Fast { sm_clock_mhz: Reading::none(Missing::Failed), ..healthy() } })
    };
    let gpu = over(&timeline(stops, |_| Slow::default()));
    assert!((gpu.coverage - 0.75).abs() < 0.01 && (gpu.longest_gap_s - 5.0).abs() < 0.2, "{gpu:?}");
    let never = |_| Some(Fast { power_w: Reading::none(Missing::NotSupported), ..healthy() });
    let gpu = over(&timeline(never, |_| Slow::default()));
    assert!(gpu.coverage > 0.999, "what a GPU never had is no gap: {gpu:?}");
    assert_eq!(gpu.power_mean_w, Reading::none(Missing::NotSupported), "and no zero");
    let nothing = over(&timeline(|_| None, |_| Slow::default()));
    assert_eq!((nothing.coverage, nothing.samples), (0.0, 0));
    assert_eq!(nothing.sm_clock_mhz, Reading::none(Missing::NoSample));
}

#[test]
fn reasons_are_shares_of_the_window_and_excuse_lower_clocks() {
    let capped = |at: Nanos| {
        let capped = at >= Nanos::from_secs(20);
        Some(Fast {
            reasons: Reading::Value(if capped { ClockReason::PowerCap.bit() } else { 0 }),
            sm_clock_mhz: Reading::Value(if capped { 1400 } else { 1980 }),
            ..healthy()
        })
    };
    let gpu = over(&timeline(capped, |_| Slow::default()));
    assert_eq!(gpu.share_of(ClockReason::PowerCap), Some(0.5));
    assert_eq!(gpu.share_of(ClockReason::HardwareThermal), Some(0.0));
    assert_eq!(gpu.sm_clock_mhz.get().map(|clock| clock.min), Some(1400.0));
    assert_eq!(gpu.sm_clock_unexcused_mhz.get().map(|clock| clock.min), Some(1980.0));
}

#[test]
fn energy_needs_a_long_window_and_a_counter_that_runs() {
    let timeline = timeline(|_| Some(healthy()), |_| Slow::default());
    let short = Interval::of(FROM, FROM + Nanos::from_millis(9_999));
    assert_eq!(of(&timeline, &short).energy, Reading::none(Missing::WindowTooShort));
    assert!(of(&timeline, &Interval::of(FROM, FROM + energy::SHORTEST)).energy.value().is_some());
    let mut stopped = Timeline::of(1);
    for tick in 0..1500_u64 {
        let at = Nanos::from_millis(20 * tick);
        stopped.energy(0, at, Reading::Value(30.0 * (at.min(Nanos::from_secs(20)).0 / 100_000_000) as f64));
    }
    assert_eq!(over(&stopped).energy, Reading::none(Missing::Failed), "it stood still for the second half");
    let mut never = Timeline::of(1);
    never.energy(0, FROM, Reading::none(Missing::NotSupported));
    assert_eq!(over(&never).energy, Reading::none(Missing::NotSupported));
    let mut reset = Timeline::of(1);
    for tick in 0..1500_u64 {
        let at = Nanos::from_millis(20 * tick);
        reset.energy(0, at, Reading::Value(30.0 * (at.0 % 15_000_000_000 / 100_000_000) as f64));
    }
    assert_eq!(over(&reset).energy, Reading::none(Missing::Failed), "the driver was loaded anew");
}

#[test]
fn limits_counters_and_faults_are_told_from_the_level_before_on() {
    let slow = |at: Nanos| {
        let mut slow = Slow { limits: Limits { sm_clock_mhz: Reading::Value(1980), ..Limits::default() }, ..Slow::default() };
        // Before the window somebody locks clocks, for a look nothing is known, inside it a row is corrected.
        if at >= Nanos::from_secs(7) {
            slow.limits.sm_clock_mhz = if at < Nanos::from_secs(9) { Reading::none(Missing::Failed) } else { Reading::Value(1410) };
        }
        slow.faults.ecc_corrected = Reading::Value(if at >= Nanos::from_secs(20) { 12 } else { 5 });
        slow
    };
    let mut timeline = timeline(|_| Some(healthy()), slow);
    timeline.xids.push(Nanos::from_secs(8), XidEvent { gpu: 0, code: 13 });
    timeline.xids.push(Nanos::from_secs(35), XidEvent { gpu: 0, code: 31 });
    let gpu = over(&timeline);
    let changes = gpu.limit_changes.iter().map(|change| (change.limit, change.from, change.to)).collect::<Vec<_>>();
    assert_eq!(changes, [(Limit::SmClock, 1980.0, 1410.0)]);
    assert!(gpu.limit_changes[0].to_string().contains("SM application clock changed from 1980 to 1410 MHz, 1 s before the window"));
    assert_eq!((gpu.faults.before.ecc_corrected, gpu.faults.after.ecc_corrected), (Reading::Value(5), Reading::Value(12)));
    assert_eq!(gpu.xids.iter().map(|xid| (xid.code, xid.at_s)).collect::<Vec<_>>(), [(13, -2.0)]);
    let unseen = of(&timeline, &Interval::of(Nanos::from_millis(20_100), Nanos::from_millis(20_700)));
    assert_eq!(unseen.limits.after.sm_clock_mhz, Reading::Value(1410), "a window between two slow looks has the one before it");
    let next = of(&timeline, &Interval { since: TO, ..Interval::of(Nanos::from_secs(31), Nanos::from_secs(39)) });
    assert_eq!((next.limit_changes.len(), next.xids.len()), (0, 1), "each is told once");
}

#[test]
fn a_recording_gives_the_same_summary_again_and_plays_as_a_source() {
    let mut original = timeline(|at| Some(Fast { power_w: Reading::Value(100.0 + at.as_secs_f64()), ..healthy() }), |_| Slow::default());
    original.xids.push(Nanos::from_secs(12), XidEvent { gpu: 0, code: 92 });
    let text = replay::write(&original).unwrap();
    let lines = replay::read(text.as_bytes()).unwrap();
    assert_eq!(over(&replay::timeline(&lines)), over(&original));
    let played = Replay::of(lines);
    assert_eq!(played.fast(0).power_w, Reading::Value(100.003));
    assert_eq!(played.fast(0).power_w, Reading::Value(100.103));
    assert_eq!(played.energy_j(0), Reading::Value(1e6));
    assert_eq!(played.wait_for_xid(std::time::Duration::ZERO), Reading::Value(Some(XidEvent { gpu: 0, code: 92 })));
    assert_eq!(played.wait_for_xid(std::time::Duration::ZERO), Reading::Value(None));
    assert_eq!(played.fast(1), Fast::none(Missing::NoSample));
    let wrong = replay::read("{}\n".as_bytes()).unwrap_err();
    assert!(wrong.to_string().contains("line 1"), "{wrong}");
}

#[test]
fn a_summary_survives_its_json_and_an_older_one_is_read_with_reasons() {
    let summary = WindowSummary { gpus: vec![over(&timeline(|_| Some(healthy()), |_| Slow::default()))], ..WindowSummary::default() };
    let telemetry = Telemetry::Measured(Box::new(summary));
    let text = serde_json::to_string(&telemetry).unwrap();
    assert_eq!(serde_json::from_str::<Telemetry>(&text).unwrap(), telemetry);
    let older: Telemetry = serde_json::from_str(r#"{"state": "measured", "gpus": [{"uuid": "GPU-1", "power_mean_w": 12.5}]}"#).unwrap();
    let gpu = &older.measured().unwrap().gpus[0];
    assert_eq!((gpu.power_mean_w, gpu.busy), (Reading::Value(12.5), Reading::none(Missing::NotRecorded)));
}

#[test]
fn the_kernels_counters_are_differences_and_what_is_not_there_is_missing() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let look = || procfs::look_under(root.path());
    assert_eq!(look().cpu_pressure_s, Reading::none(Missing::NotSupported));
    write("proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000000\nfull avg10=0.00 total=5\n");
    write("proc/stat", "cpu  100 0 100 700 0 0 0 100 7 0\ncpu0 1 2 3\n");
    write("proc/self/cgroup", "0::/runs/a\n");
    write("sys/fs/cgroup/runs/a/cpu.stat", "usage_usec 5\nthrottled_usec 2000000\n");
    let mut timeline = Timeline::of(0);
    timeline.host.push(FROM, look());
    write("proc/pressure/cpu", "some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\n");
    write("proc/stat", "cpu  150 0 150 750 0 0 0 150 7 0\n");
    write("sys/fs/cgroup/runs/a/cpu.stat", "throttled_usec 3500000\n");
    timeline.host.push(FROM + Nanos::from_secs(10), look());
    let host = procfs::over(&timeline.host, FROM, TO);
    assert_eq!((host.cpu_pressure, host.stolen, host.throttled_s), (Reading::Value(0.15), Reading::Value(0.25), Reading::Value(1.5)));
    assert_eq!(host.memory_pressure, Reading::none(Missing::NotSupported));
}
