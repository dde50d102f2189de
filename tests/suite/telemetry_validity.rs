//! Which states of a GPU spoil a level, and which are told and no more.

use plimsoll::campaign::gpu_state::judge;
use plimsoll::campaign::instruments::energy_per_token;
use plimsoll::campaign::series::Series;
use plimsoll::campaign::xid::{Consequence, consequence};
use plimsoll::clock::Nanos;
use plimsoll::record::clocks::{ClockReason, Limit, LimitChange, Limits, ReasonShare};
use plimsoll::record::reading::{Missing, Reading};
use plimsoll::record::telemetry::{BeforeAfter, Energy, FaultCounters, GpuProcess, GpuWindow, Link, Spread, WindowSummary, Xid};
use plimsoll::record::verdict::Invalid;

const UUID: &str = "GPU-0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9";

fn at(clock: f64) -> Reading<Spread> {
    Reading::Value(Spread { min: clock, p05: clock, median: clock, max: clock })
}

fn healthy() -> GpuWindow {
    GpuWindow {
        uuid: UUID.to_owned(),
        name: "H100".to_owned(),
        coverage: 1.0,
        longest_gap_s: 0.1,
        sm_clock_mhz: at(1980.0),
        sm_clock_unexcused_mhz: at(1980.0),
        clock_reasons: Reading::Value(vec![]),
        ..GpuWindow::default()
    }
}

fn holding(reason: ClockReason, share: f64) -> GpuWindow {
    GpuWindow { clock_reasons: Reading::Value(vec![ReasonShare { reason, share }]), ..healthy() }
}

fn summary(gpu: GpuWindow) -> WindowSummary {
    WindowSummary { gpus: vec![gpu], ..WindowSummary::default() }
}

/// Reasons and codes of findings, of a window after a healthy one.
fn judged(gpu: GpuWindow) -> (Vec<Invalid>, Vec<String>) {
    let (invalid, findings) = judge(&[&summary(healthy())], &summary(gpu), |process| process.pid == 1);
    (invalid, findings.into_iter().map(|finding| finding.code).collect())
}

fn reasons(gpu: GpuWindow) -> Vec<Invalid> {
    judged(gpu).0
}

#[test]
fn a_healthy_window_is_valid_and_nothing_is_told_of_it() {
    assert_eq!(judged(healthy()), (vec![], vec![]));
    let nothing = GpuWindow { uuid: UUID.to_owned(), coverage: 1.0, ..GpuWindow::default() };
    assert_eq!(judged(nothing), (vec![], vec![]), "a GPU that has no such readings is not blamed for it");
}

#[test]
fn a_gap_of_a_second_or_a_twentieth_of_the_window_spoils_it() {
    assert_eq!(reasons(GpuWindow { longest_gap_s: 0.99, coverage: 0.951, ..healthy() }), vec![]);
    assert!(matches!(reasons(GpuWindow { longest_gap_s: 1.01, ..healthy() })[..], [Invalid::TelemetryGap { .. }]));
    assert!(matches!(reasons(GpuWindow { coverage: 0.94, ..healthy() })[..], [Invalid::TelemetryGap { .. }]));
    let stale = WindowSummary { stale_s: Some(2.5), ..summary(healthy()) };
    assert_eq!(judge(&[], &stale, |_| true).0, vec![Invalid::TelemetryStale { silent_s: 2.5 }]);
}

#[test]
fn heat_and_power_supply_spoil_a_window_and_the_power_cap_does_not() {
    let held = [ClockReason::HardwareSlowdown, ClockReason::SoftwareThermal, ClockReason::HardwareThermal, ClockReason::PowerBrake];
    for reason in held {
        assert_eq!(reasons(holding(reason, 0.01)), vec![]);
        let spoiled = reasons(holding(reason, 0.10));
        assert!(matches!(&spoiled[..], [Invalid::Throttled { reasons, .. }] if reasons[0].reason == reason), "{spoiled:?}");
        assert!(spoiled[0].to_string().contains("10.0 % of the window"), "{}", spoiled[0]);
    }
    let capped = GpuWindow {
        sm_clock_mhz: at(1410.0),
        sm_clock_unexcused_mhz: Reading::none(Missing::NoSample),
        ..holding(ClockReason::PowerCap, 1.0)
    };
    assert_eq!(judged(capped), (vec![], vec!["power_capped".to_owned()]), "normal on large parts");
}

#[test]
fn a_clock_that_falls_with_no_excuse_spoils_the_window() {
    let fell = |p05: f64, median: f64| GpuWindow {
        sm_clock_unexcused_mhz: Reading::Value(Spread { min: p05, p05, median, max: 1980.0 }),
        ..healthy()
    };
    assert_eq!(reasons(fell(1890.0, 1950.0)), vec![], "within 5 %");
    let spoiled = reasons(fell(1410.0, 1410.0));
    assert_eq!(spoiled, vec![Invalid::ClockDrop { gpu: UUID.to_owned(), from_mhz: 1980.0, to_mhz: 1410.0 }]);
    let alone = |gpu| judge(&[], &summary(gpu), |_| true).0;
    assert!(matches!(alone(fell(1410.0, 1980.0))[..], [Invalid::ClockDrop { .. }]), "within one window too");
    assert_eq!(alone(fell(1410.0, 1410.0)), vec![], "a GPU that was never faster has not fallen");
}

#[test]
fn a_limit_that_somebody_changes_spoils_the_window_with_both_values() {
    let change = LimitChange { limit: Limit::Power, from: 700.0, to: 500.0, at_s: Some(4.0) };
    let spoiled = reasons(GpuWindow { limit_changes: vec![change], ..healthy() });
    assert_eq!(spoiled[0].to_string(), "power limit changed from 700 to 500 W, 4 s into the window on GPU-0a1b2c3d");
    let with = |mhz| GpuWindow {
        limits: BeforeAfter { after: Limits { sm_clock_mhz: Reading::Value(mhz), ..Limits::default() }, ..BeforeAfter::default() },
        ..healthy()
    };
    let across = judge(&[&summary(with(1980))], &summary(with(1410)), |_| true).0;
    assert!(across[0].to_string().contains("from 1980 to 1410 MHz since the level before"), "a resumed run did not watch: {across:?}");
    assert_eq!(judge(&[&summary(with(1410))], &summary(with(1410)), |_| true).0, vec![]);
}

#[test]
fn a_process_of_somebody_else_spoils_the_window_and_ones_own_does_not() {
    let process =
        |pid| GpuProcess { pid, name: Reading::Value("python".to_owned()), memory_bytes: Reading::Value(3 << 30), gpu_instance: None };
    let spoiled = reasons(GpuWindow { processes: Reading::Value(vec![process(1), process(4242)]), ..healthy() });
    assert_eq!(spoiled.len(), 1);
    assert_eq!(spoiled[0].to_string(), "process 4242 (python), 3.0 GiB computes on GPU-0a1b2c3d too");
}

#[test]
fn memory_that_gave_wrong_data_spoils_the_window_and_memory_that_mended_itself_is_told() {
    let counted = |before: FaultCounters, after: FaultCounters| GpuWindow { faults: BeforeAfter { before, after }, ..healthy() };
    let of = |corrected, uncorrected, remapped| FaultCounters {
        ecc_corrected: Reading::Value(corrected),
        ecc_uncorrected: Reading::Value(uncorrected),
        remapped_corrected: Reading::Value(remapped),
        ..FaultCounters::default()
    };
    let (invalid, told) = judged(counted(of(5, 2, 0), of(9, 2, 1)));
    assert_eq!((invalid, told), (vec![], vec!["ecc_corrected".to_owned(), "rows_remapped".to_owned()]));
    let (invalid, told) = judged(counted(of(5, 2, 0), of(5, 3, 0)));
    assert_eq!(invalid, vec![Invalid::UncorrectedEcc { gpu: UUID.to_owned(), errors: 1 }]);
    assert_eq!(told, ["hardware_memory"]);
    let links = |errors| FaultCounters { nvlink_crc_errors: Reading::Value(errors), ..FaultCounters::default() };
    assert_eq!(judged(counted(links(3), links(8))), (vec![], vec!["nvlink_errors".to_owned()]));
    assert_eq!(judged(counted(of(5, 2, 0), FaultCounters::default())), (vec![], vec![]), "an unknown counter has not risen");
}

#[test]
fn faults_of_the_driver_end_spoil_or_annotate_by_their_number() {
    for code in [48, 63, 64, 95, 140, 94, 61, 62, 69, 119, 120, 79] {
        assert_eq!(consequence(code, 1), Consequence::EndRun, "{code}");
    }
    for code in [13, 31, 43, 109, 122, 123, 45, 777] {
        assert_eq!(consequence(code, 1), Consequence::Invalid, "{code}");
    }
    assert_eq!(consequence(92, 8), Consequence::Annotate);
    for code in [74, 121, 149] {
        assert_eq!((consequence(code, 1), consequence(code, 2)), (Consequence::Annotate, Consequence::EndRun), "{code}");
    }
    let with = |code| GpuWindow { xids: vec![Xid { code, at_s: 1.0 }], ..healthy() };
    assert_eq!(judged(with(92)), (vec![], vec!["xid".to_owned()]));
    let spoiled = reasons(with(31));
    assert!(spoiled[0].to_string().contains("XID 31 on GPU-0a1b2c3d: GPU memory page fault"), "{spoiled:?}");
}

#[test]
fn a_link_with_fewer_lanes_than_it_has_spoils_the_window() {
    let link =
        |width| GpuWindow { link: Link { width: Reading::Value(width), width_max: Reading::Value(16), ..Link::default() }, ..healthy() };
    assert_eq!(reasons(link(16)), vec![]);
    assert_eq!(reasons(link(4)), vec![Invalid::LinkNarrow { gpu: UUID.to_owned(), width: 4, width_max: 16 }]);
    assert_eq!(reasons(GpuWindow { lost: true, ..link(16) }), vec![Invalid::GpuLost { gpu: UUID.to_owned() }]);
}

#[test]
fn energy_for_a_token_takes_the_tokens_that_came_between_the_counters_changes() {
    let from = Nanos::from_secs(100);
    let mut series = Series::new(from, Nanos::from_secs(1), 0);
    for second in 0..20_u64 {
        // Half as many in the first second, which the counter's first change cuts off.
        series.tokens(from + Nanos::from_millis(1000 * second + 500), if second == 0 { 50 } else { 100 });
    }
    let energy = Energy { joules: 5700.0, seconds: 19.0, begin_s: 1.0, by_power_j: Reading::Value(5000.0) };
    let with = |energy| summary(GpuWindow { energy, ..healthy() });
    let per_token = energy_per_token(&with(Reading::Value(energy)), &[Some(100.0)], from, &series);
    assert_eq!((per_token.gross_j, per_token.net_j), (Reading::Value(3.0), Reading::Value(2.0)));
    let unknown = energy_per_token(&with(Reading::Value(energy)), &[None], from, &series);
    assert_eq!(unknown.net_j, Reading::none(Missing::NotMeasured));
    let short = energy_per_token(&with(Reading::none(Missing::WindowTooShort)), &[None], from, &series);
    assert_eq!(short.gross_j, Reading::none(Missing::WindowTooShort));
    let (invalid, told) = judged(GpuWindow { energy: Reading::Value(energy), ..healthy() });
    assert_eq!((invalid, told), (vec![], vec!["energy_disagrees".to_owned()]), "12 % apart");
}
