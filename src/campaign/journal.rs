//! Nothing measured is lost: each level is saved as it ends, its requests while it runs, what is known of the run after
//! each stage; a resumed run goes on where its folder ends.
//!
//! A campaign is a function of its plan and of what its levels showed. So resuming is replaying: levels that the
//! folder holds are taken from it, in order, as long as the campaign asks for the same ones. The first one that it does not ask
//! for is removed with all that come after it: they belong to a run that would not be measured today.

use std::collections::VecDeque;

use crate::campaign::level::LevelSpec;
use crate::clock::Nanos;
use crate::record::level::{LevelRecord, Offered};
use crate::record::request::RequestRecord;
use crate::record::run::{DecodeNeed, RunRecord};
use crate::record::verdict::{Invalid, Outcome};
use crate::store::atomic::require_space;
use crate::store::request_log::writer::RequestLog;
use crate::store::runs::{RunFolder, StoreError};

/// Rates are the same within this, relative: what a number may lose on its way through a file of another version.
const SAME_RATE: f64 = 1e-9;

/// An undecided level whose window was shorter than this share of today's was measured under a tighter budget.
const HURRIED: f64 = 0.8;

/// Where a campaign writes.
#[derive(Debug, Default)]
pub struct Journal {
    keeping: Option<Keeping>,
    /// Levels of the resumed run that have not been asked for yet.
    saved: VecDeque<LevelRecord>,
}

/// A folder that is written to.
#[derive(Debug)]
struct Keeping {
    folder: RunFolder,
    run: RunRecord,
    keep_requests: KeepRequests,
    /// Opened when the first level is measured: until then it is not known after which one it goes on.
    requests: Option<RequestLog>,
    /// Length of the request log after the last level that was taken or saved.
    log_bytes: u64,
}

/// What the folder knows of a level.
#[derive(Debug)]
pub enum Replay {
    /// It was measured.
    Saved(Box<LevelRecord>),
    /// It was not; so many saved levels that came instead of it were removed.
    Measure {
        /// Mostly none.
        dropped: usize,
    },
}

impl Journal {
    /// Writes nothing: for tests and simulations.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Writes to `folder`, what is known of `run` at once; takes up the levels that it holds.
    ///
    /// # Errors
    /// When a saved level cannot be read, or the run cannot be saved.
    pub fn open(folder: RunFolder, run: RunRecord, keep_requests: KeepRequests) -> Result<Self, StoreError> {
        let mut saved: VecDeque<LevelRecord> = folder.levels()?.into();
        // A level that was interrupted is measured again.
        if saved.back().is_some_and(|level| level.verdict.invalid.contains(&Invalid::Interrupted)) {
            saved.pop_back();
        }
        folder.save_run(&run)?;
        Ok(Self { keeping: Some(Keeping { folder, run, keep_requests, requests: None, log_bytes: 0 }), saved })
    }

    /// Looks up the level that `spec` asks for in the resumed run. One that could not be decided in a hurry, where now the
    /// window is at least `shortest`, is measured again.
    ///
    /// # Errors
    /// When levels that no longer fit cannot be removed.
    pub fn replay(&mut self, spec: &LevelSpec, shortest: Nanos) -> Result<Replay, StoreError> {
        let Some(front) = self.saved.front() else { return Ok(Replay::Measure { dropped: 0 }) };
        let same = front.index == spec.index
            && front.purpose == spec.purpose
            && same_load(&front.offered, &spec.offered)
            && front.seed == spec.seed;
        let hurried = front.verdict.outcome == Outcome::Undecided && front.window_s < HURRIED * shortest.as_secs_f64();
        if same
            && !hurried
            && let Some(level) = self.saved.pop_front()
        {
            if let Some(keeping) = &mut self.keeping {
                keeping.log_bytes = level.request_log_bytes;
            }
            return Ok(Replay::Saved(Box::new(level)));
        }
        let dropped = self.saved.len();
        self.saved.clear();
        if let Some(keeping) = &self.keeping {
            keeping.folder.drop_levels(spec.index)?;
        }
        Ok(Replay::Measure { dropped })
    }

    /// A level begins to be measured.
    ///
    /// # Errors
    /// When the request log cannot be opened.
    pub fn begin_level(&mut self, index: u32) -> Result<(), StoreError> {
        let Some(keeping) = self.keeping.as_mut().filter(|keeping| keeping.keep_requests == KeepRequests::Yes) else { return Ok(()) };
        let requests = match keeping.requests.take() {
            Some(requests) => requests,
            None => RequestLog::open(&keeping.folder.request_log(), keeping.log_bytes)?,
        };
        keeping.requests.insert(requests).begin_level(index);
        Ok(())
    }

    /// A request ended.
    pub fn log(&mut self, record: RequestRecord) {
        if let Some(requests) = self.keeping.as_mut().and_then(|keeping| keeping.requests.as_mut()) {
            requests.log(record);
        }
    }

    /// Saves a level, its requests first.
    ///
    /// # Errors
    /// When it cannot be written; what was saved before is still there.
    pub fn save_level(&mut self, level: &mut LevelRecord) -> Result<(), StoreError> {
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        if let Some(requests) = &mut keeping.requests {
            let logged = requests.end_level()?;
            level.request_log_bytes = logged.log_bytes;
            level.unlogged_requests = logged.unlogged;
            keeping.log_bytes = logged.log_bytes;
        }
        keeping.folder.save_level(level)
    }

    /// What one token of one request alone takes at least of the device, as the run has it.
    #[must_use]
    pub fn decode_need(&self) -> Option<DecodeNeed> {
        self.keeping.as_ref()?.run.decode_need
    }

    /// Something became known of the run: it is saved at once.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn learn(&mut self, known: impl FnOnce(&mut RunRecord)) -> Result<(), StoreError> {
        let Some(keeping) = &mut self.keeping else { return Ok(()) };
        known(&mut keeping.run);
        keeping.folder.save_run(&keeping.run)
    }

    /// Whether a folder has room for the requests of a run, in bytes of its request log.
    ///
    /// # Errors
    /// When it has not.
    pub fn require_room(&self, bytes: u64) -> Result<(), StoreError> {
        let keeping = self.keeping.as_ref().filter(|keeping| keeping.keep_requests == KeepRequests::Yes);
        keeping.map_or(Ok(()), |keeping| Ok(require_space(keeping.folder.path(), bytes)?))
    }

    /// The run is complete.
    ///
    /// # Errors
    /// When its digest cannot be written.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let Some(mut keeping) = self.keeping.take() else { return Ok(()) };
        // The log's thread must be done with the file before it is digested.
        drop(keeping.requests.take());
        keeping.folder.finish()
    }
}

fn same_load(one: &Offered, other: &Offered) -> bool {
    match (one, other) {
        (Offered::Open { calls_per_s: one_rate, process: one }, Offered::Open { calls_per_s: other_rate, process: other }) => {
            one == other && (one_rate - other_rate).abs() <= SAME_RATE * other_rate.abs()
        }
        _ => one == other,
    }
}

/// Whether each request is written to the run's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepRequests {
    /// Compressed, about 100 bytes a request and a few a token.
    Yes,
    /// Levels only.
    No,
}
