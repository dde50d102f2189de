//! A log's own spike as a phase of a course: the busiest part of what its demand keeps, as multiples of the log's mean rate.
//!
//! Multiplied by the average of a plan that was made from the same demand they are the log's own rates again; by another average,
//! the same spike of another fleet.

use crate::capacity::demand::mean_rate;
use crate::capacity::spike::course::{Course, Phase};
use crate::record::demand::{BusiestStretch, Demand};
use crate::record::finding::{Finding, Severity};

/// Such a phase is called so.
pub const NAME: &str = "own";

/// A demand tells no spike of its own.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum NoOwnSpike {
    /// Its log is too short to have one.
    #[error(
        "the log behind the demand in `{file}` spans {seconds:.0} s: it has no spike of its own. Give a log of more than a minute to `plimsoll demand`"
    )]
    Short {
        /// File.
        file: String,
        /// From the first call to the last.
        seconds: f64,
    },
    /// Nothing of it was kept.
    #[error(
        "the demand in `{file}` does not tell the log's own spike: an older plimsoll made it, or it was imported from a warehouse. Make it again from the log: `plimsoll demand LOG --save {file}`"
    )]
    NotKept {
        /// File.
        file: String,
    },
}

/// The busiest `seconds` of a log, in whole slices; all that was kept where that is less.
///
/// # Errors
/// When the demand in `file` tells none.
pub fn phase(demand: &Demand, file: &str, seconds: f64) -> Result<Phase, NoOwnSpike> {
    let file = || file.to_owned();
    let span_s = (demand.last_ns - demand.first_ns) as f64 / 1e9;
    let is_whole = |stretch: &&BusiestStretch| stretch.slice_s > 0 && stretch.calls.iter().any(|calls| *calls > 0);
    let kept = demand.busiest.as_ref().filter(is_whole).zip(mean_rate(demand).filter(|mean| *mean > 0.0));
    let Some((stretch, mean)) = kept else {
        let is_short = span_s < f64::from(BusiestStretch::MINUTE_S);
        return Err(if is_short { NoOwnSpike::Short { file: file(), seconds: span_s } } else { NoOwnSpike::NotKept { file: file() } });
    };
    let slices = stretch.slices_of(seconds);
    let from = stretch.busiest(slices);
    let slice_s = f64::from(stretch.slice_s);
    let times = |calls: &u64| *calls as f64 / slice_s / mean;
    Ok(Phase::shaped(NAME, stretch.calls[from..from + slices].iter().map(times).collect(), slice_s))
}

/// The phase of a course that is a log's own spike.
#[must_use]
pub fn in_course(course: &Course) -> Option<&Phase> {
    course.phases.iter().find(|phase| !phase.shape.is_empty())
}

/// What to say where a log kept less of its spike than the `seconds` that were asked for.
#[must_use]
pub fn shorter(course: &Course, seconds: f64) -> Option<Finding> {
    let own = in_course(course).filter(|own| own.seconds < seconds)?;
    Some(Finding::new(
        "own_spike_shorter",
        Severity::Note,
        format!(
            "the demand keeps {:.0} s around the log's busiest minute, and spikes of {seconds:.0} s were asked for: all of it was taken",
            own.seconds
        ),
        "a demand keeps a quarter of an hour before and after that minute, as far as the log goes",
    ))
}
