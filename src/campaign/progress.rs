//! What a campaign tells whoever watches it: the terminal draws it, a log prints it, a test collects it.

use crate::record::level::{LevelRecord, Offered, Purpose};

/// Part of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Settling.
    WarmUp,
    /// Being measured.
    Window,
    /// Following the cohort to its end.
    Tail,
}

/// Something happened.
#[derive(Debug)]
pub enum Progress<'a> {
    /// Weights are being loaded or made.
    Loading {
        /// Bytes so far.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// About to begin; how long it will take, as far as can be said.
    Begins {
        /// Seconds.
        expected_s: f64,
    },
    /// A level begins.
    LevelBegins {
        /// What for.
        purpose: &'a Purpose,
        /// What is offered.
        offered: &'a Offered,
    },
    /// A level goes on; several times a second at most.
    LevelGoesOn {
        /// Where it is.
        part: Part,
        /// Seconds since the level began.
        elapsed_s: f64,
        /// Requests in flight.
        in_flight: u32,
        /// Tokens seen in this level.
        tokens: u64,
    },
    /// The course of a litmus test goes on; twice a second.
    CourseGoesOn {
        /// Where it is, in words.
        text: String,
        /// Requests in flight.
        in_flight: u32,
    },
    /// A level was measured, judged and saved.
    LevelEnded(&'a LevelRecord),
    /// A level was found in the folder of the run that is resumed.
    LevelResumed(&'a LevelRecord),
    /// A stage ended, in words.
    Note(String),
}

/// Watches a campaign.
pub trait Watcher {
    /// Told as things happen; must return soon.
    fn tell(&mut self, progress: Progress<'_>);
}

/// Watches nothing.
#[derive(Debug, Default)]
pub struct Silent;

impl Watcher for Silent {
    fn tell(&mut self, _progress: Progress<'_>) {}
}
