//! The folder of a litmus test that is driven, `<ULID>/`: `course.json` before a call is sent, `requests.jsonl.zst` while they are, and
//! `spike.json` when it is over. One that has no `spike.json` was killed, or is still driven.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::capacity::spike::live::{Begun, LiveLitmus};
use crate::store::atomic::{self, WriteError};
use crate::store::lock::FolderLock;
use crate::store::named::{self, Named};
use crate::store::runs::{REQUEST_LOG, StoreError, read_json, write_json};

const COURSE: &str = "course.json";
const RESULT: &str = "spike.json";

/// All litmus tests under one data folder.
#[derive(Clone, Debug)]
pub struct SpikeStore {
    folder: PathBuf,
}

impl SpikeStore {
    /// Nothing is created: a folder that is not there holds none.
    #[must_use]
    pub fn at(data_dir: &Path) -> Self {
        Self { folder: data_dir.join("spikes") }
    }

    /// Makes the folder of a new one, complete with what is known of it before it is driven.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(&self, begun: &Begun) -> Result<SpikeFolder, StoreError> {
        let path = self.folder.join(&begun.id);
        let temporary = atomic::temporary_beside(&path);
        atomic::create_folder(&temporary)?;
        write_json(&temporary.join(COURSE), begun)?;
        let named = fs::rename(&temporary, &path).and_then(|()| File::open(&self.folder)?.sync_all());
        named.map_err(|cause| WriteError::Create { path: path.clone(), cause })?;
        Ok(SpikeFolder { _writing: FolderLock::take(&path)?, path })
    }

    /// The folder that goes by `name`: `latest`, an id, its first letters in either case, or a path.
    ///
    /// # Errors
    /// When none does, or several.
    pub fn find(&self, name: &str) -> Result<PathBuf, StoreError> {
        match named::find(&self.folder, COURSE, name)? {
            Named::One(folder) => Ok(folder),
            Named::None => Err(StoreError::NoSpike { name: name.to_owned(), folder: self.folder.clone() }),
            Named::Several(fits) => Err(StoreError::Ambiguous { what: "litmus tests", name: name.to_owned(), fits }),
        }
    }
}

/// The folder of one while it is driven.
#[derive(Debug)]
pub struct SpikeFolder {
    path: PathBuf,
    _writing: FolderLock,
}

impl SpikeFolder {
    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where its calls are logged.
    #[must_use]
    pub fn request_log(&self) -> PathBuf {
        request_log(&self.path)
    }

    /// Saves what came of it.
    ///
    /// # Errors
    /// When it cannot be written; its calls are still there.
    pub fn finish(self, litmus: &LiveLitmus) -> Result<(), StoreError> {
        write_json(&self.path.join(RESULT), litmus)
    }
}

/// Where the calls of the one in `folder` were logged.
#[must_use]
pub fn request_log(folder: &Path) -> PathBuf {
    folder.join(REQUEST_LOG)
}

/// What was known of it before it was driven.
///
/// # Errors
/// When it cannot be read, is damaged, or is of a later version.
pub fn begun(folder: &Path) -> Result<Begun, StoreError> {
    read_json(&folder.join(COURSE))
}

/// What came of it; `None` where it is not over.
///
/// # Errors
/// When it cannot be read, is damaged, or is of a later version.
pub fn result(folder: &Path) -> Result<Option<LiveLitmus>, StoreError> {
    let path = folder.join(RESULT);
    path.is_file().then(|| read_json(&path)).transpose()
}

/// Whether a process still drives it.
#[must_use]
pub fn is_driven(folder: &Path) -> bool {
    FolderLock::is_held(folder)
}
