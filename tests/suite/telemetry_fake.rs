//! The NVML source, the sampler and `node`, against a library that answers from a script.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use plimsoll::clock::{Clock, Monotonic, Nanos};
use plimsoll::node::telemetry::NoTelemetry;
use plimsoll::record::clocks::ClockReason;
use plimsoll::record::reading::{Missing, Reading};
use plimsoll::record::telemetry::WindowSummary;
use plimsoll::telemetry::Source;
use plimsoll::telemetry::nvml::{self, Library, OpenError};
use plimsoll::telemetry::sampler::{Alarm, Manner, STALE, Sampler};
use plimsoll::telemetry::select::Selected;
use plimsoll::telemetry::window::Interval;

use crate::support::fake_nvml::FakeNvml;
use crate::support::{document, plimsoll, stderr, stdout};

const PAUSE: Duration = Duration::from_millis(20);

fn open(fake: &FakeNvml) -> Library {
    nvml::open(&fake.library()).unwrap()
}

fn source(fake: &FakeNvml, gpus: &[usize]) -> impl Source + 'static {
    open(fake).watch(&gpus.iter().map(|gpu| Selected::whole(*gpu)).collect::<Vec<_>>()).0
}

/// A sampler of the first GPU, its clock and its alarms.
fn sampler(fake: &FakeNvml) -> (Sampler, Monotonic, Arc<Mutex<Vec<Alarm>>>) {
    let (source, names) = open(fake).watch(&[Selected::whole(0)]);
    let clock = Monotonic::start();
    let alarms = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&alarms);
    let manner = Manner {
        ends_run: Arc::new(|code| code == 79),
        alarmed: Arc::new(move |alarm| heard.lock().unwrap().push(alarm)),
        ..Manner::default()
    };
    (Sampler::start(Arc::new(source), names, clock, manner), clock, alarms)
}

/// Waits for something that takes up to a few seconds of real time.
#[track_caller]
fn until(patience: Duration, mut holds: impl FnMut() -> bool) {
    for _ in 0..patience.as_millis() / PAUSE.as_millis() {
        if holds() {
            return;
        }
        thread::sleep(PAUSE);
    }
    panic!("it did not come to hold within {patience:?}");
}

fn over(sampler: &Sampler, from: Nanos, to: Nanos) -> WindowSummary {
    sampler.window(&Interval { energy_shortest: Nanos::from_secs(1), ..Interval::of(from, to) })
}

#[test]
fn every_reading_comes_from_its_own_call_in_its_own_unit() {
    let fake = FakeNvml::new(
        "power 312500\npower_instant 401000\nsm_clock 1410\nmemory_clock 2000\nreasons 0x5\ntemperature 61\nmemory_temperature 77\nbusy 42
         memory_used 1024\npcie_gen 4\npcie_width 8\npcie_tx 3\npcie_rx 5\necc_corrected 7\necc_uncorrected 1\nremapped_corrected 2
         pcie_replays 9\nprocesses 4242:2147483648\nprocess_name.4242 python\npower_limit 650000\napplication_sm_clock 1700\ngpm_dram 61",
    );
    let source = source(&fake, &[0]);
    let fast = source.fast(0);
    assert_eq!((fast.power_w, fast.power_instant_w), (Reading::Value(312.5), Reading::Value(401.0)));
    assert_eq!((fast.sm_clock_mhz, fast.memory_clock_mhz), (Reading::Value(1410), Reading::Value(2000)));
    assert_eq!(fast.reasons, Reading::Value(ClockReason::Idle.bit() | ClockReason::PowerCap.bit()));
    assert_eq!((fast.temperature_c, fast.memory_temperature_c), (Reading::Value(61), Reading::Value(77)));
    assert_eq!((fast.busy, fast.memory_used_bytes), (Reading::Value(0.42), Reading::Value(1024)));
    let first = source.slow(0);
    assert_eq!(first.activity.dram, Reading::none(Missing::NoSample), "activity is between two looks");
    let slow = source.slow(0);
    assert_eq!(slow.activity.dram, Reading::Value(0.61));
    assert_eq!((slow.link.generation, slow.link.width, slow.link.width_max), (Reading::Value(4), Reading::Value(8), Reading::Value(16)));
    assert_eq!((slow.link.sent_bytes_per_s, slow.link.received_bytes_per_s), (Reading::Value(3072.0), Reading::Value(5120.0)));
    assert_eq!((slow.faults.ecc_corrected, slow.faults.ecc_uncorrected), (Reading::Value(7), Reading::Value(1)));
    assert_eq!((slow.faults.remapped_corrected, slow.faults.pcie_replays), (Reading::Value(2), Reading::Value(9)));
    assert_eq!((slow.limits.power_w, slow.limits.sm_clock_mhz), (Reading::Value(650.0), Reading::Value(1700)));
    let processes = slow.processes.ok().unwrap();
    assert_eq!(processes[0].to_string(), "process 4242 (python), 2.0 GiB");
}

#[test]
fn a_reading_that_a_gpu_has_not_is_absent_with_its_reason_and_the_others_stay() {
    let fake = FakeNvml::new(
        "power.return 3\npower_instant.return 3\ngpm.return 3\necc_corrected.return 3\nprocesses.return 4\nsm_clock.return 999",
    );
    let source = source(&fake, &[0]);
    let (fast, slow) = (source.fast(0), source.slow(0));
    assert_eq!((fast.power_w, fast.power_instant_w), (Reading::none(Missing::NotSupported), Reading::none(Missing::NotSupported)));
    assert_eq!(fast.sm_clock_mhz, Reading::none(Missing::Failed));
    assert_eq!(fast.temperature_c, Reading::Value(55));
    assert_eq!(slow.activity.sm, Reading::none(Missing::NotSupported));
    assert_eq!(slow.faults.ecc_corrected, Reading::none(Missing::NotSupported));
    assert_eq!(slow.faults.ecc_uncorrected, Reading::Value(0));
    assert_eq!(slow.processes, Reading::none(Missing::NoPermission));
}

#[test]
fn counters_that_another_profiler_holds_are_absent_and_not_taken_up_across_the_gap() {
    let fake = FakeNvml::new("gpm_dram 61");
    let source = source(&fake, &[0]);
    let dram = || source.slow(0).activity.dram;
    assert_eq!((dram(), dram()), (Reading::none(Missing::NoSample), Reading::Value(0.61)));
    fake.set("gpm.return", 19);
    assert_eq!(dram(), Reading::none(Missing::InUse));
    fake.set("gpm.return", 0);
    assert_eq!((dram(), dram()), (Reading::none(Missing::NoSample), Reading::Value(0.61)));
}

#[test]
fn nvlinks_are_counted_by_their_state_and_errors_are_those_of_the_links_that_are_up() {
    let fake =
        FakeNvml::new("nvlinks 18\nnvlinks_up 17\nnvlink_replays 2\nnvlink_crc_flits 1\nnvlink_crc_data 3\nnvlink_recoveries.return 3");
    let slow = source(&fake, &[0]).slow(0);
    assert_eq!((slow.nvlinks_up, slow.faults.nvlink_replays), (Reading::Value(17), Reading::Value(34)));
    assert_eq!((slow.faults.nvlink_crc_errors, slow.faults.nvlink_recoveries), (Reading::Value(68), Reading::none(Missing::NotSupported)));
    let without = source(&FakeNvml::new(""), &[0]).slow(0);
    assert_eq!(
        (without.nvlinks_up, without.faults.nvlink_replays),
        (Reading::none(Missing::NotSupported), Reading::none(Missing::NotSupported))
    );
}

#[test]
fn an_older_driver_without_power_fields_gives_power_by_its_own_call() {
    let fake = FakeNvml::new("fields.return 3\npower 250000");
    assert_eq!(source(&fake, &[0]).fast(0).power_w, Reading::Value(250.0));
}

#[test]
fn energy_is_the_counters_own_over_edges_at_its_changes() {
    let fake = FakeNvml::new("power 300000");
    let (sampler, clock, _) = sampler(&fake);
    thread::sleep(Duration::from_millis(1800));
    let (from, to) = (Nanos::from_millis(400), clock.now());
    let summary = over(&sampler, from, to);
    let energy = summary.gpus[0].energy.ok().unwrap();
    assert!((energy.watts() - 300.0).abs() < 9.0, "{energy:?}");
    assert!(energy.seconds > 1.0 && energy.begin_s < 0.2, "{energy:?}");
    assert!(energy.disagreement().is_some_and(|off| off < 0.05), "{energy:?}");
    assert_eq!(sampler.window(&Interval::of(from, to)).gpus[0].energy, Reading::none(Missing::WindowTooShort), "10 s or more");
    let gpu = &summary.gpus[0];
    assert!(gpu.coverage > 0.95 && gpu.longest_gap_s < 0.5 && gpu.samples >= 8, "{gpu:?}");
    assert_eq!(summary.host.own_cores, Reading::none(Missing::WindowTooShort), "one look is no difference");
    assert!(over(&sampler, Nanos::ZERO, clock.now()).host.own_cores.get().is_some_and(|cores| cores >= 0.0));
}

#[test]
fn a_hung_call_makes_telemetry_stale_and_stalls_nothing() {
    let fake = FakeNvml::new("");
    let (sampler, clock, _) = sampler(&fake);
    until(Duration::from_secs(2), || !sampler.timeline().gpus[0].fast.iter().collect::<Vec<_>>().is_empty());
    fake.set("sm_clock.sleep_ms", 4000);
    until(Duration::from_secs(4), || sampler.silence() >= STALE);
    let began = clock.now();
    let summary = over(&sampler, Nanos::ZERO, clock.now());
    assert!(summary.stale_s.is_some_and(|silent| silent >= 2.0), "{summary:?}");
    drop(sampler);
    assert!(clock.now().since(began) < Nanos::from_millis(200), "neither summary nor end waits");
}

#[test]
fn a_gpu_that_is_lost_raises_one_alarm_and_is_called_no_more() {
    let fake = FakeNvml::new("gpus 2");
    let (sampler, _, alarms) = sampler(&fake);
    until(Duration::from_secs(2), || sampler.timeline().gpus[0].fast.last().is_some());
    fake.set("0.return", 15);
    until(Duration::from_secs(2), || alarms.lock().unwrap()[..] == [Alarm::Lost { gpu: 0 }]);
    thread::sleep(Duration::from_millis(300));
    let count = || sampler.timeline().gpus[0].fast.iter().count();
    let seen = count();
    thread::sleep(Duration::from_millis(300));
    assert_eq!(count(), seen);
    assert_eq!(alarms.lock().unwrap().len(), 1);
}

#[test]
fn a_reported_fault_arrives_with_its_number_and_its_gpu() {
    let fake = FakeNvml::new("gpus 2");
    let (source, names) = open(&fake).watch(&[Selected::whole(1), Selected::whole(0)]);
    let clock = Monotonic::start();
    let sampler = Sampler::start(Arc::new(source), names, clock, Manner::default());
    thread::sleep(Duration::from_millis(200));
    fake.set("1.xid", "31 1");
    until(Duration::from_secs(2), || sampler.timeline().xids.iter().count() == 1);
    fake.set("0.xid", "94 1");
    until(Duration::from_secs(2), || sampler.timeline().xids.iter().count() == 2);
    let summary = over(&sampler, Nanos::ZERO, clock.now());
    let codes = |gpu: usize| summary.gpus[gpu].xids.iter().map(|xid| xid.code).collect::<Vec<_>>();
    assert_eq!((codes(0), codes(1)), (vec![31], vec![94]), "by place among the watched ones, not by the driver's order");
    assert_eq!(sampler.alarm(), None);
}

#[test]
fn an_instance_has_its_own_memory_and_processes_and_no_power() {
    let fake = FakeNvml::new(
        "mig 1\nmig_devices MIG-aaaa|NVIDIA H100 MIG 1g.10gb|7|0|10240;MIG-bbbb|NVIDIA H100 MIG 2g.20gb|3|0|20480
         processes 1:100:7,2:200:3",
    );
    let library = open(&fake);
    let gpu = &library.inventory().gpus[0];
    assert_eq!(gpu.instances.iter().map(|instance| instance.uuid.as_str()).collect::<Vec<_>>(), ["MIG-aaaa", "MIG-bbbb"]);
    assert_eq!((gpu.instances[1].gpu_instance, gpu.instances[1].memory_bytes), (Reading::Value(3), Reading::Value(20 << 30)));
    let (source, names) = library.watch(&[Selected { gpu: 0, instance: Some(1) }]);
    assert_eq!((names[0].uuid.as_str(), names[0].name.as_str()), ("MIG-bbbb", "NVIDIA H100 MIG 2g.20gb"));
    assert_eq!(source.energy_j(0), Reading::none(Missing::WholeGpuOnly));
    assert_eq!(source.fast(0).power_w, Reading::none(Missing::WholeGpuOnly));
    let pids = source.slow(0).processes.ok().unwrap().iter().map(|process| process.pid).collect::<Vec<_>>();
    assert_eq!(pids, [2], "processes of the other instance are nobody's business");
}

#[test]
fn a_library_that_does_not_fit_its_driver_says_what_to_do() {
    let refused = |script: &str| nvml::open(&FakeNvml::new(script).library()).unwrap_err();
    let mismatch = refused("init.return 18");
    assert!(matches!(mismatch, OpenError::VersionMismatch { .. }), "{mismatch}");
    assert!(mismatch.to_string().contains("Reload the module"), "{mismatch}");
    assert!(matches!(refused("init.return 9"), OpenError::DriverNotLoaded { .. }));
    assert!(matches!(refused("gpus 0"), OpenError::NoGpu { .. }));
    assert!(matches!(refused("init.return 999"), OpenError::Failed { .. }));
    let hangs = FakeNvml::new("init.sleep_ms 3000");
    let hangs = nvml::open_within(&hangs.library(), Duration::from_millis(200)).unwrap_err();
    assert!(matches!(hangs, OpenError::Hangs { .. }) && hangs.to_string().contains("within 200ms"), "{hangs}");
    let missing = plimsoll::node::telemetry::open_under(std::path::Path::new("/nowhere"), None).unwrap_err();
    assert!(matches!(missing, NoTelemetry::NotFound { .. }) && missing.to_string().contains("/usr/lib64"), "{missing}");
}

#[test]
fn node_prints_every_gpu_and_what_is_worth_knowing_of_it() {
    let fake = FakeNvml::new(
        "gpus 2\n0.nvlinks 18\n1.name NVIDIA A100-SXM4-80GB\n1.persistence 0\n1.power_limit 300000\n1.power_limit_default 400000\n1.vbios.return 3",
    );
    let node = |arguments: &[&str]| plimsoll().arg("node").args(arguments).env("PLIMSOLL_NVML", fake.library()).output().unwrap();
    let json = document(&node(&["--format", "json"]));
    let telemetry = &json["node"]["telemetry"];
    assert_eq!((telemetry["state"].as_str(), telemetry["software"]["driver"].as_str()), (Some("available"), Some("570.86.15")));
    assert_eq!(telemetry["software"]["cuda"], "12.8");
    let gpu = &telemetry["gpus"][1];
    assert_eq!((gpu["name"].as_str(), gpu["persistence"].as_bool()), (Some("NVIDIA A100-SXM4-80GB"), Some(false)));
    assert_eq!(gpu["vbios"]["missing"], "not_supported");
    assert_eq!((&telemetry["gpus"][0]["nvlinks"], &gpu["nvlinks"]["missing"]), (&serde_json::json!([18, 18]), &"not_supported".into()));
    assert_eq!(gpu["power_range_w"], serde_json::json!([200.0, 700.0]));
    let codes = json["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(codes, ["persistence_off", "power_limit_lowered"]);
    let text = stdout(&node(&[]));
    for part in [
        "NVML 12.570.86.15, driver 570.86.15, CUDA 12.8",
        "0: NVIDIA H100 80GB HBM3",
        "VBIOS not supported",
        "persistence off",
        "NVLinks up 18 of 18",
        "nvidia-smi -pm 1",
    ] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

#[test]
fn node_says_in_one_line_that_there_is_no_telemetry_and_goes_on() {
    for (script, why) in [("init.return 18", "version mismatch"), ("init.return 9", "driver is not loaded"), ("gpus 0", "knows no GPU")] {
        let fake = FakeNvml::new(script);
        let output = plimsoll().args(["node", "--nvml"]).arg(fake.library()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let text = stdout(&output);
        let lines = text.lines().filter(|line| line.starts_with("telemetry")).collect::<Vec<_>>();
        assert!(lines.len() == 1 && lines[0].contains("unavailable") && lines[0].contains(why), "{text}");
    }
    let output = plimsoll().args(["node", "--nvml", "/nowhere/libnvidia-ml.so.1"]).output().unwrap();
    assert!(stdout(&output).contains("there is no file `/nowhere/libnvidia-ml.so.1`"), "{}", stdout(&output));
}
