//! What the GPUs use with the model loaded and nothing asked of them: it is taken off for net energy.
//!
//! Method section 6: 30 s after 30 s of settling. Not in a quick run, and not where a budget has better use for a minute.

use crate::campaign::measure::Bench;
use crate::campaign::progress::Progress;
use crate::clock::Nanos;
use crate::record::telemetry::IdlePower;

/// How long the GPUs settle, and then how long they are measured.
const SETTLING: Nanos = Nanos::from_secs(30);
const MEASURED: Nanos = Nanos::from_secs(30);
/// A budget of this many idle times has one to spare.
const SPARE: u64 = 20;

/// Measures the idle power of the watched GPUs, where that is due; the target is there.
///
/// # Errors
/// [`crate::campaign::measure::Halt`] when the campaign is over.
pub fn measure(bench: &mut Bench<'_>) -> anyhow::Result<Vec<IdlePower>> {
    let whole = SETTLING + MEASURED;
    let spared = bench.plan.budget.is_none_or(|budget| budget >= Nanos(SPARE * whole.0));
    if bench.plan.quick || !spared || !bench.telemetry.wants_idle() {
        return Ok(Vec::new());
    }
    bench
        .watcher
        .tell(Progress::Note(format!("the GPUs idle for {:.0} s: what they use then is taken off for net energy", whole.as_secs_f64())));
    bench.pause(SETTLING)?;
    let from = bench.clock.now();
    bench.pause(MEASURED)?;
    let idle = bench.telemetry.idled(from, bench.clock.now());
    bench.journal.learn(|run| run.idle.clone_from(&idle))?;
    Ok(idle)
}
