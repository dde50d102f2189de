//! What this process and its machine were doing, from the kernel's own counters.
//!
//! All are totals, so that a window is the difference of two looks. What a kernel does not have is missing, not 0.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::clock::{Nanos, process_cpu};
use crate::record::reading::{Missing, Reading};
use crate::record::telemetry::HostWindow;
use crate::telemetry::timeline::Samples;

/// Totals since the machine, the control group or the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HostSample {
    /// CPU of this process, seconds.
    pub own_cpu_s: Reading<f64>,
    /// Time in which something waited for a core, seconds.
    pub cpu_pressure_s: Reading<f64>,
    /// Time in which something waited for memory, seconds.
    pub memory_pressure_s: Reading<f64>,
    /// Ticks of all cores together, and those that the hypervisor gave to others.
    pub ticks: Reading<(u64, u64)>,
    /// Time for which the control group's quota held this process back, seconds.
    pub throttled_s: Reading<f64>,
}

/// One look at the machine whose files are under `root`.
#[must_use]
pub fn look_under(root: &Path) -> HostSample {
    let file = |path: &str| fs::read_to_string(root.join(path)).map_err(|_| Missing::NotSupported);
    let pressure = |path: &str| file(path).and_then(|text| stalled_s(&text).ok_or(Missing::Failed)).into();
    HostSample {
        own_cpu_s: Reading::Value(process_cpu().as_secs_f64()),
        cpu_pressure_s: pressure("proc/pressure/cpu"),
        memory_pressure_s: pressure("proc/pressure/memory"),
        ticks: file("proc/stat").and_then(|text| ticks(&text).ok_or(Missing::Failed)).into(),
        throttled_s: throttled_s(root).ok_or(Missing::NotSupported).into(),
    }
}

/// What happened between the first and the last look in an interval.
#[must_use]
pub fn over(samples: &Samples<HostSample>, from: Nanos, to: Nanos) -> HostWindow {
    let mut inside = samples.within(from, to);
    let Some((begin, first)) = inside.next() else {
        let none = Reading::none(Missing::NoSample);
        return HostWindow { own_cores: none, cpu_pressure: none, memory_pressure: none, stolen: none, throttled_s: none };
    };
    let (end, last) = inside.last().map_or((begin, first), |(end, last)| (end, last));
    let seconds = end.since(*begin).as_secs_f64();
    let added = |read: fn(&HostSample) -> Reading<f64>| -> Result<f64, Missing> { Ok(read(last).ok()? - read(first).ok()?) };
    let share = |read| -> Reading<f64> {
        let added = added(read);
        if seconds > 0.0 { added.map(|added| added / seconds).into() } else { Reading::none(Missing::WindowTooShort) }
    };
    HostWindow {
        own_cores: share(|sample| sample.own_cpu_s),
        cpu_pressure: share(|sample| sample.cpu_pressure_s),
        memory_pressure: share(|sample| sample.memory_pressure_s),
        stolen: stolen(first, last).into(),
        throttled_s: added(|sample| sample.throttled_s).into(),
    }
}

/// The name of a process, as far as this user sees it.
#[must_use]
pub fn process_name(pid: u32) -> Option<String> {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn stolen(first: &HostSample, last: &HostSample) -> Result<f64, Missing> {
    let ((all_before, stolen_before), (all, stolen)) = (first.ticks.ok()?, last.ticks.ok()?);
    let all = all.saturating_sub(all_before);
    if all == 0 { Err(Missing::WindowTooShort) } else { Ok(stolen.saturating_sub(stolen_before) as f64 / all as f64) }
}

/// `total` of the `some` line, which counts microseconds.
fn stalled_s(pressure: &str) -> Option<f64> {
    let some = pressure.lines().find(|line| line.starts_with("some "))?;
    let total = some.split_whitespace().find_map(|word| word.strip_prefix("total="))?;
    Some(total.parse::<u64>().ok()? as f64 / 1e6)
}

/// All ticks and the stolen ones, which are the eighth kind. Guests are among the users.
fn ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let kinds = line.split_whitespace().take(8).map(str::parse::<u64>).collect::<Result<Vec<_>, _>>().ok()?;
    Some((kinds.iter().sum(), *kinds.get(7)?))
}

/// Of the control group of this process, in either version of the interface.
fn throttled_s(root: &Path) -> Option<f64> {
    let own = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let places = [format!("sys/fs/cgroup/{own}/cpu.stat"), "sys/fs/cgroup/cpu.stat".to_owned(), "sys/fs/cgroup/cpu/cpu.stat".to_owned()];
    let value = |text: &str, key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
    places.iter().filter_map(|place| fs::read_to_string(root.join(place)).ok()).find_map(|text| {
        let micros = value(&text, "throttled_usec ").map(|micros| micros as f64 / 1e6);
        micros.or_else(|| value(&text, "throttled_time ").map(|nanos| nanos as f64 / 1e9))
    })
}
