//! What a run holds beside model and cache, measured.

use std::fs;

use plimsoll::campaign::instruments::Instruments;
use plimsoll::campaign::interrupt::Interrupt;
use plimsoll::campaign::journal::{Journal, KeepRequests};
use plimsoll::campaign::measure::Bench;
use plimsoll::campaign::open::Aim;
use plimsoll::campaign::plan::Plan;
use plimsoll::campaign::progress::Silent;
use plimsoll::campaign::targets::{SimulatedTargets, Targets};
use plimsoll::campaign::windows::Windows;
use plimsoll::clock::{Nanos, Virtual};
use plimsoll::queueing::law::{ServiceLaw, ServiceTime};
use plimsoll::record::level::Purpose;
use plimsoll::store::runs::RunStore;

use crate::campaign::{Plain, slo};
use crate::support::{CHILD_FOLDER, child, records};

const REQUESTS: u64 = 100_000;
const LIMIT_KIB: u64 = 200 << 10;

#[test]
#[ignore = "the child process of a_run_of_a_hundred_thousand_requests_holds_less_than_200_mb"]
fn measures_a_hundred_thousand_requests() {
    let data = std::path::PathBuf::from(std::env::var_os(CHILD_FOLDER).expect("its parent gives it a folder"));
    let run = records::run(&RunStore::new_id());
    let folder = RunStore::open(&data).unwrap().create(&run).unwrap();
    let mut journal = Journal::open(folder, run, KeepRequests::Yes).unwrap();
    let slo = slo("e2e:p99<1000ms");
    let windows = Windows { confirmation: Nanos::from_secs(500), ..Windows::full() };
    let plan = Plan { slo: Some(slo.clone()), windows, ..Plan::full(1) };
    let traffic = Plain { output_tokens: 64 };
    let mut bench = Bench {
        plan: &plan,
        traffic: &traffic,
        clock: &mut Virtual::start(),
        journal: &mut journal,
        watcher: &mut Silent,
        interrupt: &Interrupt::default(),
        telemetry: &mut Instruments::none("simulated"),
        server: None,
        ceiling: None,
        pace: 1.0,
        first_request_ms: None,
        levels: Vec::new(),
    };
    let law = ServiceLaw::Servers { count: 64, service: ServiceTime::Exponential { mean_s: 0.2 } };
    let mut target = SimulatedTargets::new("wide", law, 1).fresh().unwrap();
    let level = bench.open(&mut *target, Purpose::Curve, 220.0, &slo, Aim::Confirm).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the system says how much was held");
    println!("requests {} peak {}", level.counts.whole_level, peak.trim().trim_end_matches(" kB"));
}

#[test]
fn a_run_of_a_hundred_thousand_requests_holds_less_than_200_mb() {
    let data = tempfile::tempdir().unwrap();
    let output = child("memory::measures_a_hundred_thousand_requests", data.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let figure = |name: &str| {
        let mut words = text.split_whitespace().skip_while(|word| *word != name).skip(1);
        words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or_else(|| panic!("no {name} in:\n{text}"))
    };
    let (requests, peak_kib) = (figure("requests"), figure("peak"));
    println!("{requests} requests of 64 tokens, every stamp logged: {:.0} MB at most, program included", peak_kib as f64 / 1e3);
    assert!(requests >= REQUESTS && peak_kib < LIMIT_KIB, "{requests} requests, {peak_kib} KiB");
}
