//! How far the loading of a model is, on standard error: a bar on a terminal, otherwise a line a tenth.
//!
//! Small models load before anybody could read it, and say nothing.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::terminal::{self, Progress};
use crate::engine::weights::LoadProgress;

/// Below so many bytes of weights nothing is said.
const WORTH_SAYING: u64 = 256 << 20;

/// What to hand to a loader so that its progress is shown as `how` says.
pub(super) fn shown(how: Progress) -> impl FnMut(LoadProgress) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    if let Ok(style) = ProgressStyle::with_template("loading weights {wide_bar} {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    let mut tenths_said = 0;
    move |at: LoadProgress| {
        let tenths = at.done * 10 / at.total.max(1);
        if at.total < WORTH_SAYING || how == Progress::Silent {
            return;
        }
        if how == Progress::Drawn {
            bar.set_length(at.total);
            bar.set_position(at.done);
            if at.done == at.total {
                bar.finish_and_clear();
            }
        } else if tenths > tenths_said {
            tenths_said = tenths;
            terminal::note(format_args!("loaded {tenths}0 % of {:.1} GB of weights", at.total as f64 / 1e9));
        }
    }
}
