//! One request alone, by two accounts of the memory: what its tokens must read at least (MBU), and what the GPU itself counted (DRAM
//! activity). A pure function of one level; it says where the two cannot both be true of a device that only decodes.

use crate::record::finding::{Finding, Severity};
use crate::record::level::{LevelRecord, Purpose};
use crate::record::run::DecodeNeed;

/// How many times the one may be the other. Wide, for they are shares of different things: MBU of the bandwidth that was measured,
/// activity of the peak in the data sheet, which is a tenth more or so; and steps move more than weights and cache.
const APART: f64 = 1.5;
/// Activity below it says nothing: an idle GPU refreshes, copies and logs.
const LEAST: f64 = 0.05;

/// MBU of a reference level: the share of the read bandwidth that a token's bytes over the median TPOT are.
#[must_use]
pub fn mbu(level: &LevelRecord, need: Option<DecodeNeed>) -> Option<f64> {
    let is_alone = matches!(level.purpose, Purpose::Reference { .. });
    let millis = level.latency.tpot.raw.p50.filter(|millis| *millis > 0.0 && is_alone)?;
    Some(need?.mbu(millis / 1000.0))
}

/// A finding where the GPU counted far more or far less than the level's MBU. Of one device with one watched GPU only: elsewhere nobody
/// knows whose activity it is.
#[must_use]
pub fn disagreement(level: &LevelRecord) -> Option<Finding> {
    let (mbu, summary) = (level.mbu?, level.telemetry.measured()?);
    let [gpu] = &summary.gpus[..] else { return None };
    let counted = gpu.activity.dram.get().filter(|_| level.per_device.devices == 1)?;
    // The counter has the whole window, MBU only the time between tokens.
    let decoding = (level.throughput.output_tokens_per_s * level.latency.tpot.raw.p50? / 1000.0).min(1.0);
    let (why, next_step) = if counted > APART * mbu && counted > LEAST {
        ("more than the model needs is moved", "look for another user of the GPU, or for a kernel that reads its weights more than once")
    } else if mbu <= 1.0 && APART * counted < mbu * decoding && mbu * decoding > LEAST {
        (
            "less is read than every token needs",
            "weights that fit the cache explain it, or a read ceiling that was measured while something else ran: see `plimsoll ceilings`",
        )
    } else {
        return None;
    };
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let evidence = format!(
        "one request alone: MBU {} while decoding, which is {} of the window; the GPU counted {} DRAM activity: {why}",
        percent(mbu),
        percent(decoding),
        percent(counted)
    );
    Some(Finding::new("bandwidth_disagrees", Severity::Note, evidence, next_step))
}
