//! How far reading is, on standard error: a live line on a terminal, now and then a plain one otherwise.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::cli::terminal::{self, Progress};
use crate::clock::{Clock, Monotonic, Nanos};

/// A plain line this often.
const LINE_EVERY: Nanos = Nanos::from_secs(10);

/// Says how far reading is.
#[derive(Debug)]
pub(super) struct ReadingBar {
    how: Progress,
    bar: ProgressBar,
    name: String,
    clock: Monotonic,
    said: Nanos,
}

impl ReadingBar {
    /// Draws as `how` says.
    pub(super) fn new(how: Progress) -> Self {
        let bar = match how {
            Progress::Drawn => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(8)),
            Progress::Silent | Progress::Lines => ProgressBar::hidden(),
        };
        bar.set_style(ProgressStyle::with_template("{spinner} {wide_msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
        Self { how, bar, name: String::new(), clock: Monotonic::start(), said: Nanos::ZERO }
    }

    /// The next file.
    pub(super) fn begin(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    /// So many bytes of it and lines of all are read.
    pub(super) fn reached(&mut self, bytes: u64, lines: u64) {
        let says = || format!("{}: {:.0} MB, {:.1} million lines", self.name, bytes as f64 / 1e6, lines as f64 / 1e6);
        match self.how {
            Progress::Silent => {}
            Progress::Drawn => {
                self.bar.set_message(says());
                self.bar.tick();
            }
            Progress::Lines if self.clock.now().since(self.said) >= LINE_EVERY => {
                self.said = self.clock.now();
                terminal::note(says());
            }
            Progress::Lines => {}
        }
    }

    /// Takes the live line away.
    pub(super) fn clear(&self) {
        self.bar.finish_and_clear();
    }
}
