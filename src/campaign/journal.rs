//! Nothing measured is lost: each level is saved as it ends, its requests while it runs; a resumed run goes on where
//! its folder ends.
//!
//! A campaign is a function of its plan and of what its levels showed. So resuming is replaying: levels that the
//! folder holds are taken from it, in order, as long as the campaign asks for the same ones.

use std::collections::VecDeque;

use crate::campaign::level::LevelSpec;
use crate::record::level::LevelRecord;
use crate::record::request::RequestRecord;
use crate::record::run::RunRecord;
use crate::record::verdict::Invalid;
use crate::store::request_log::writer::RequestLog;
use crate::store::runs::{RunFolder, StoreError};

/// Where a campaign writes.
#[derive(Debug, Default)]
pub struct Journal {
    folder: Option<RunFolder>,
    requests: Option<RequestLog>,
    /// Levels of the resumed run that have not been asked for yet.
    saved: VecDeque<LevelRecord>,
}

impl Journal {
    /// Writes nothing: for tests and simulations.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Writes to `folder`; takes up the levels that it holds.
    ///
    /// # Errors
    /// When a saved level cannot be read, or the request log cannot be opened.
    pub fn open(folder: RunFolder, keep_requests: KeepRequests) -> Result<Self, StoreError> {
        let mut saved: VecDeque<LevelRecord> = folder.levels()?.into();
        // A level that was interrupted is measured again.
        if saved.back().is_some_and(|level| level.verdict.invalid.contains(&Invalid::Interrupted)) {
            saved.pop_back();
        }
        let keep_bytes = saved.back().map_or(0, |level| level.request_log_bytes);
        let requests = match keep_requests {
            KeepRequests::Yes => Some(RequestLog::open(&folder.request_log(), keep_bytes)?),
            KeepRequests::No => None,
        };
        Ok(Self { folder: Some(folder), requests, saved })
    }

    /// The level of the resumed run that `spec` asks for, if it was measured. The first that was not ends the replay.
    pub fn take_saved(&mut self, spec: &LevelSpec) -> Option<LevelRecord> {
        let same = self.saved.front().is_some_and(|level| {
            level.index == spec.index && level.purpose == spec.purpose && level.offered == spec.offered && level.seed == spec.seed
        });
        if !same {
            self.saved.clear();
            return None;
        }
        self.saved.pop_front()
    }

    /// A level begins.
    pub fn begin_level(&mut self, index: u32) {
        if let Some(requests) = &mut self.requests {
            requests.begin_level(index);
        }
    }

    /// A request ended.
    pub fn log(&mut self, record: RequestRecord) {
        if let Some(requests) = &mut self.requests {
            requests.log(record);
        }
    }

    /// Saves a level, its requests first.
    ///
    /// # Errors
    /// When it cannot be written; what was saved before is still there.
    pub fn save_level(&mut self, level: &mut LevelRecord) -> Result<(), StoreError> {
        if let Some(requests) = &mut self.requests {
            let logged = requests.end_level()?;
            level.request_log_bytes = logged.log_bytes;
            if logged.unlogged > 0 {
                tracing::warn!(requests = logged.unlogged, "the request log could not keep up; these are counted but not written");
            }
        }
        if let Some(folder) = &self.folder {
            folder.save_level(level)?;
        }
        Ok(())
    }

    /// Saves what is known of the run.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_run(&self, run: &RunRecord) -> Result<(), StoreError> {
        match &self.folder {
            Some(folder) => folder.save_run(run),
            None => Ok(()),
        }
    }

    /// The run is complete.
    ///
    /// # Errors
    /// When its digest cannot be written.
    pub fn finish(mut self) -> Result<(), StoreError> {
        // The log's thread must be done with the file before it is digested.
        drop(self.requests.take());
        match self.folder.take() {
            Some(folder) => folder.finish(),
            None => Ok(()),
        }
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
