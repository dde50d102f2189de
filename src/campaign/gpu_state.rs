//! Did the state of the GPUs spoil a level? A pure function of what was seen in its window, and in those before it.
//!
//! The power cap is normal on large parts: a note with the clock that was held, never an invalidation. So are errors that
//! the memory corrected.

use crate::campaign::xid::{Consequence, consequence, meaning};
use crate::record::clocks::{ClockReason, ReasonShare};
use crate::record::finding::{Finding, Severity};
use crate::record::reading::Reading;
use crate::record::telemetry::{GpuProcess, GpuWindow, WindowSummary};
use crate::record::verdict::Invalid;

/// Longest time without a sample, seconds.
const GAP_S: f64 = 1.0;
/// Share of the window that samples must cover.
const COVERAGE: f64 = 0.95;
/// Share of the window for which the GPU may be held back.
const THROTTLED: f64 = 0.01;
/// Share by which the SM clock may fall.
const CLOCK_DROP: f64 = 0.05;
/// Share by which the power readings may be off the energy counter.
const ENERGY_OFF: f64 = 0.05;
/// Share of the window from which on the power cap is worth a note.
const CAPPED: f64 = 0.01;
/// Reasons of the driver that spoil a measurement.
const HELD_BACK: [ClockReason; 4] =
    [ClockReason::HardwareSlowdown, ClockReason::SoftwareThermal, ClockReason::HardwareThermal, ClockReason::PowerBrake];

/// Every reason why the level cannot be trusted, and what a reader should know besides. `before` are the earlier windows of
/// the run in order; `own` says whether a process on a GPU is expected there.
#[must_use]
pub fn judge(before: &[&WindowSummary], window: &WindowSummary, own: impl Fn(&GpuProcess) -> bool) -> (Vec<Invalid>, Vec<Finding>) {
    let (mut invalid, mut findings) = (Vec::new(), Vec::new());
    if let Some(silent_s) = window.stale_s {
        invalid.push(Invalid::TelemetryStale { silent_s });
    }
    for gpu in &window.gpus {
        let earlier = before.iter().filter_map(|window| window.gpus.iter().find(|known| known.uuid == gpu.uuid)).collect::<Vec<_>>();
        judge_sampling(gpu, &mut invalid);
        judge_clocks(&earlier, gpu, &mut invalid);
        judge_limits(&earlier, gpu, &mut invalid);
        judge_faults(gpu, window.gpus.len(), &mut invalid, &mut findings);
        let foreign = gpu.processes.value().into_iter().flatten().filter(|process| !own(process));
        invalid.extend(foreign.map(|process| Invalid::ForeignProcess { gpu: gpu.uuid.clone(), process: process.clone() }));
        findings.extend(power_cap(gpu));
        findings.extend(energy_off(gpu));
    }
    (invalid, findings)
}

fn judge_sampling(gpu: &GpuWindow, invalid: &mut Vec<Invalid>) {
    if gpu.lost {
        invalid.push(Invalid::GpuLost { gpu: gpu.uuid.clone() });
    } else if gpu.longest_gap_s > GAP_S || gpu.coverage < COVERAGE {
        invalid.push(Invalid::TelemetryGap { gpu: gpu.uuid.clone(), longest_s: gpu.longest_gap_s, coverage: gpu.coverage });
    }
}

fn judge_clocks(earlier: &[&GpuWindow], gpu: &GpuWindow, invalid: &mut Vec<Invalid>) {
    let held = gpu.clock_reasons.value().into_iter().flatten();
    let held = held.filter(|held| HELD_BACK.contains(&held.reason) && held.share > THROTTLED).copied().collect::<Vec<ReasonShare>>();
    if !held.is_empty() {
        invalid.push(Invalid::Throttled { gpu: gpu.uuid.clone(), reasons: held });
        return;
    }
    let Some(clock) = gpu.sm_clock_unexcused_mhz.get() else { return };
    let medians = earlier.iter().filter_map(|window| Some(window.sm_clock_unexcused_mhz.get()?.median));
    let reference = medians.fold(clock.median, f64::max);
    if clock.p05 < (1.0 - CLOCK_DROP) * reference {
        invalid.push(Invalid::ClockDrop { gpu: gpu.uuid.clone(), from_mhz: reference, to_mhz: clock.p05 });
    }
}

fn judge_limits(earlier: &[&GpuWindow], gpu: &GpuWindow, invalid: &mut Vec<Invalid>) {
    let unwatched = match earlier.last() {
        // A resumed run did not watch what happened in between.
        Some(last) if gpu.limit_changes.is_empty() => last.limits.after.changes(&gpu.limits.after, None),
        _ => Vec::new(),
    };
    let changes = gpu.limit_changes.iter().copied().chain(unwatched);
    invalid.extend(changes.map(|change| Invalid::LimitChanged { gpu: gpu.uuid.clone(), change }));
    if let (Some(width), Some(width_max)) = (gpu.link.width.get(), gpu.link.width_max.get())
        && width < width_max
    {
        invalid.push(Invalid::LinkNarrow { gpu: gpu.uuid.clone(), width, width_max });
    }
}

fn judge_faults(gpu: &GpuWindow, gpus: usize, invalid: &mut Vec<Invalid>, findings: &mut Vec<Finding>) {
    for xid in &gpu.xids {
        let what = format!("XID {} on {} ({}): {}", xid.code, gpu.uuid, gpu.name, meaning(xid.code));
        let (severity, next_step) = match consequence(xid.code, gpus) {
            Consequence::EndRun | Consequence::EndRunOfSeveral => {
                (Severity::Serious, "look at `dmesg`; reset or reboot the node, and have the GPU inspected if it comes again")
            }
            Consequence::Invalid => (Severity::Warning, "look at `dmesg` for the process that caused it, and measure again"),
            Consequence::Annotate => (Severity::Note, "look at `dmesg`; nothing that was measured is touched"),
        };
        if consequence(xid.code, gpus) != Consequence::Annotate {
            invalid.push(Invalid::XidReported { gpu: gpu.uuid.clone(), code: xid.code, meaning: meaning(xid.code).to_owned() });
        }
        findings.push(Finding::new("xid", severity, what, next_step));
    }
    let (before, after) = (&gpu.faults.before, &gpu.faults.after);
    if let Some(errors) = risen(before.ecc_uncorrected, after.ecc_uncorrected) {
        invalid.push(Invalid::UncorrectedEcc { gpu: gpu.uuid.clone(), errors });
        let what = format!("{errors} uncorrected memory errors on {} ({}) in one window", gpu.uuid, gpu.name);
        findings.push(Finding::new("hardware_memory", Severity::Serious, what, "take the GPU out of service and have it inspected"));
    }
    let counters = [
        ("ecc_corrected", "corrected memory errors", before.ecc_corrected, after.ecc_corrected),
        ("rows_remapped", "memory rows remapped for corrected errors", before.remapped_corrected, after.remapped_corrected),
        ("rows_remapped", "memory rows remapped for uncorrected errors", before.remapped_uncorrected, after.remapped_uncorrected),
        ("nvlink_errors", "NVLink recoveries", before.nvlink_recoveries, after.nvlink_recoveries),
        ("nvlink_errors", "NVLink checksum errors", before.nvlink_crc_errors, after.nvlink_crc_errors),
    ];
    for (code, what, before, after) in counters {
        if let (Some(count), Some(total)) = (risen(before, after), after.get()) {
            let what = format!("{count} {what} on {} ({}) in one window, {total} in all", gpu.uuid, gpu.name);
            findings.push(Finding::new(code, Severity::Note, what, "watch the counter; a rising rate is a reason to inspect the GPU"));
        }
    }
}

/// By how much a counter rose, where it did.
fn risen(before: Reading<u64>, after: Reading<u64>) -> Option<u64> {
    after.get()?.checked_sub(before.get()?).filter(|count| *count > 0)
}

fn power_cap(gpu: &GpuWindow) -> Option<Finding> {
    let share = gpu.share_of(ClockReason::PowerCap).filter(|share| *share > CAPPED)?;
    let clock = gpu.sm_clock_mhz.get().map_or(String::new(), |clock| format!(", median SM clock {:.0} MHz", clock.median));
    let limit = gpu.limits.after.power_w.get().map_or(String::new(), |watts| format!(" of {watts:.0} W"));
    Some(Finding::new(
        "power_capped",
        Severity::Note,
        format!("{} ({}) was at its power limit{limit} for {:.0} % of a window{clock}", gpu.uuid, gpu.name, share * 100.0),
        "normal on large parts; compare with runs at the same power limit only",
    ))
}

fn energy_off(gpu: &GpuWindow) -> Option<Finding> {
    let off = gpu.energy.value()?.disagreement().filter(|off| *off > ENERGY_OFF)?;
    Some(Finding::new(
        "energy_disagrees",
        Severity::Warning,
        format!("the energy counter and the power readings of {} ({}) are {:.0} % apart", gpu.uuid, gpu.name, off * 100.0),
        "trust neither energy nor energy for each token of this GPU until both agree",
    ))
}
