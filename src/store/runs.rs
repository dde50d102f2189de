//! The run folder `<ULID>/`: `run.json`, `levels/NNN.json`, `requests.jsonl.zst`, and `digest` when it is complete.
//!
//! Reading is tolerant of what a killed run leaves and strict with everything else: a file that is not what it says is
//! named, and a folder of a newer version is refused and left as it is.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::record::SCHEMA_VERSION;
use crate::record::level::LevelRecord;
use crate::record::run::{RunRecord, RunStatus};
use crate::store::atomic::{self, WriteError};
use crate::store::lock::{FolderLock, LockError};
use crate::store::named::{self, Named};
use crate::store::request_log::writer::OpenLogError;

/// Every request of a run, one zstd frame a level.
pub const REQUEST_LOG: &str = "requests.jsonl.zst";
const RUN: &str = "run.json";
const LEVELS: &str = "levels";
const DIGEST: &str = "digest";

/// A run folder could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// See [`WriteError`].
    #[error(transparent)]
    Write(#[from] WriteError),
    /// See [`LockError`].
    #[error(transparent)]
    Lock(#[from] LockError),
    /// See [`OpenLogError`].
    #[error(transparent)]
    Log(#[from] OpenLogError),
    /// A figure is no number, so the file could not be read back.
    #[error("cannot save `{}`: `{field}` is no finite number. This is a fault of plimsoll: please report it", path.display())]
    NotFinite {
        /// Which.
        path: PathBuf,
        /// The field, as the file would name it.
        field: String,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`: {cause}. Check that the folder is a run's and that you may read it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file is not what its name says.
    #[error("cannot read `{}`: {cause}. The file is damaged; restore it, or leave the run out", path.display())]
    Corrupt {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        cause: serde_json::Error,
    },
    /// A file was written by a later plimsoll.
    #[error(
        "`{}` has schema version {found}, and this plimsoll reads up to {SCHEMA_VERSION}. Read it with the version that wrote it, or a later one",
        path.display()
    )]
    Newer {
        /// Which.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// No run goes by that name.
    #[error("no run `{name}` in `{}`. `plimsoll runs list` shows those there are; give an id, its first letters, `latest`, or a folder", folder.display())]
    NotFound {
        /// What was asked for.
        name: String,
        /// Where.
        folder: PathBuf,
    },
    /// No litmus test goes by that name.
    #[error("no litmus test `{name}` in `{}`. `spike --live` says where it keeps one; give its id, the first letters, `latest`, or a folder", folder.display())]
    NoSpike {
        /// What was asked for.
        name: String,
        /// Where.
        folder: PathBuf,
    },
    /// Several go by that name.
    #[error("`{name}` fits {} {what}: {}. Give more letters of the id", fits.len(), fits.join(", "))]
    Ambiguous {
        /// Of what.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// Ids that begin with it.
        fits: Vec<String>,
    },
}

/// All runs under one data folder.
#[derive(Clone, Debug)]
pub struct RunStore {
    data_dir: PathBuf,
}

/// A run as a list shows it: read, or why it cannot be.
#[derive(Debug)]
pub struct Listed {
    /// Its folder.
    pub folder: PathBuf,
    /// With its levels.
    pub run: Result<RunRecord, StoreError>,
}

impl RunStore {
    /// A store to read from. Nothing is created: a folder that is not there holds no runs.
    #[must_use]
    pub fn at(data_dir: &Path) -> Self {
        Self { data_dir: data_dir.to_owned() }
    }

    /// A store to write to: its folder is created, and proves that it can be written to before any load is sent.
    ///
    /// # Errors
    /// When the folder cannot be created or written to.
    pub fn open(data_dir: &Path) -> Result<Self, StoreError> {
        let store = Self::at(data_dir);
        let folder = store.folder();
        atomic::create_folder(&folder)?;
        let proof = atomic::temporary_beside(&folder.join("writable"));
        let created = File::create_new(&proof).and_then(|_| fs::remove_file(&proof));
        created.map_err(|cause| WriteError::Create { path: folder, cause })?;
        Ok(store)
    }

    /// The folder the run folders lie in.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.data_dir.join("runs")
    }

    /// A name for a new run: ULIDs sort by the time they were made. Its random half must differ between two runs of
    /// one seed, so it does not come from the run's seed.
    #[must_use]
    pub fn new_id() -> String {
        ulid::Ulid::generate().to_string()
    }

    /// Makes the folder of a new run, complete with its `run.json` from the first moment.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(&self, run: &RunRecord) -> Result<RunFolder, StoreError> {
        let path = self.folder().join(&run.id);
        let temporary = atomic::temporary_beside(&path);
        atomic::create_folder(&temporary.join(LEVELS))?;
        write_json(&temporary.join(RUN), &without_levels(run))?;
        let named = fs::rename(&temporary, &path).and_then(|()| File::open(self.folder())?.sync_all());
        named.map_err(|cause| WriteError::Create { path: path.clone(), cause })?;
        RunFolder::lock(path)
    }

    /// Opens the folder of an unfinished run to go on with it.
    ///
    /// # Errors
    /// When it cannot be read, or is being written to.
    pub fn resume(&self, folder: &Path) -> Result<(RunFolder, RunRecord), StoreError> {
        let opened = RunFolder::lock(folder.to_owned())?;
        atomic::sweep(folder);
        atomic::sweep(&folder.join(LEVELS));
        let run = load(folder)?;
        Ok((opened, run))
    }

    /// Every run, latest first.
    ///
    /// # Errors
    /// When the folder is there and cannot be read.
    pub fn list(&self) -> Result<Vec<Listed>, StoreError> {
        Ok(named::ids(&self.folder())?
            .into_iter()
            .rev()
            .map(|id| self.folder().join(id))
            .map(|folder| Listed { run: load(&folder), folder })
            .collect())
    }

    /// The folder of the run that goes by `name`: `latest`, an id, its first letters in either case, or a path.
    ///
    /// # Errors
    /// When none does, or several.
    pub fn find(&self, name: &str) -> Result<PathBuf, StoreError> {
        match named::find(&self.folder(), RUN, name)? {
            Named::One(folder) => Ok(folder),
            Named::None => Err(StoreError::NotFound { name: name.to_owned(), folder: self.folder() }),
            Named::Several(fits) => Err(StoreError::Ambiguous { what: "runs", name: name.to_owned(), fits }),
        }
    }
}

/// The folder of one run while it is measured. Readers see it as running until this is dropped.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    _writing: FolderLock,
}

impl RunFolder {
    fn lock(path: PathBuf) -> Result<Self, StoreError> {
        let writing = FolderLock::take(&path)?;
        Ok(Self { path, _writing: writing })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where [`crate::store::request_log::RequestLog`] writes.
    #[must_use]
    pub fn request_log(&self) -> PathBuf {
        self.path.join(REQUEST_LOG)
    }

    /// Saves `run.json`; levels are left to their own files.
    ///
    /// # Errors
    /// When it cannot be written; what was saved before is then still there.
    pub fn save_run(&self, run: &RunRecord) -> Result<(), StoreError> {
        write_json(&self.path.join(RUN), &without_levels(run))
    }

    /// Saves one level under its index.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save_level(&self, level: &LevelRecord) -> Result<(), StoreError> {
        write_json(&self.path.join(LEVELS).join(format!("{:03}.json", level.index)), level)
    }

    /// Removes the levels from `index` on, the last one first: what a crash in between leaves has no gap.
    ///
    /// # Errors
    /// When one cannot be removed.
    pub fn drop_levels(&self, index: u32) -> Result<(), StoreError> {
        for path in level_files(&self.path)?.iter().rev() {
            let number = path.file_stem().and_then(|name| name.to_str()).and_then(|name| name.parse::<u32>().ok());
            if number.is_some_and(|number| number >= index) {
                fs::remove_file(path).map_err(|cause| WriteError::Write { path: path.clone(), bytes: 0, cause })?;
            }
        }
        Ok(())
    }

    /// The levels saved so far, in order of measurement.
    ///
    /// # Errors
    /// When one cannot be read.
    pub fn levels(&self) -> Result<Vec<LevelRecord>, StoreError> {
        load_levels(&self.path)
    }

    /// Marks the folder complete: the digest of every file in it, in the form `sha256sum -c digest` reads.
    ///
    /// # Errors
    /// When a file cannot be read, or the digest cannot be written.
    pub fn finish(self) -> Result<(), StoreError> {
        atomic::write(&self.path.join(DIGEST), digest_of(&self.path)?.as_bytes())?;
        Ok(())
    }
}

/// Reads a run with its levels. One that is marked as running and that no process is writing to reads as aborted.
///
/// # Errors
/// When a file cannot be read, is damaged, or is of a later version.
pub fn load(folder: &Path) -> Result<RunRecord, StoreError> {
    let mut run = read_json::<RunRecord>(&folder.join(RUN))?;
    if run.status == RunStatus::Running && !FolderLock::is_held(folder) {
        run.status = RunStatus::Aborted;
    }
    run.levels = load_levels(folder)?;
    Ok(run)
}

/// Whether the files of a finished run are as they were when it was finished; `None` where it was not.
///
/// # Errors
/// When a file cannot be read.
pub fn is_intact(folder: &Path) -> Result<Option<bool>, StoreError> {
    let path = folder.join(DIGEST);
    match fs::read_to_string(&path) {
        Ok(written) => Ok(Some(written == digest_of(folder)?)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(StoreError::Read { path, cause }),
    }
}

fn load_levels(folder: &Path) -> Result<Vec<LevelRecord>, StoreError> {
    let mut levels = level_files(folder)?.iter().map(|path| read_json::<LevelRecord>(path)).collect::<Result<Vec<_>, _>>()?;
    levels.sort_by_key(|level| level.index);
    Ok(levels)
}

/// `levels/NNN.json`, by name; what a crash left behind is not among them.
fn level_files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let path = folder.join(LEVELS);
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(cause) => return Err(StoreError::Read { path, cause }),
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut files =
        paths.filter(|path| !atomic::is_temporary(path) && path.extension().is_some_and(|ending| ending == "json")).collect::<Vec<_>>();
    files.sort();
    Ok(files)
}

fn digest_of(folder: &Path) -> Result<String, StoreError> {
    let mut files = vec![folder.join(RUN)];
    files.extend(level_files(folder)?);
    files.extend(Some(folder.join(REQUEST_LOG)).filter(|log| log.is_file()));
    let mut lines = String::new();
    for path in files {
        let unreadable = |cause| StoreError::Read { path: path.clone(), cause };
        let hash = hash_of(&path).map_err(unreadable)?;
        let name = path.strip_prefix(folder).unwrap_or(&path).display();
        let hexadecimal = hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        lines.push_str(&format!("{hexadecimal}  {name}\n"));
    }
    Ok(lines)
}

fn hash_of(path: &Path) -> io::Result<[u8; 32]> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut block = vec![0; 1 << 16];
    loop {
        match file.read(&mut block)? {
            0 => return Ok(hash.finalize().into()),
            length => hash.update(&block[..length]),
        }
    }
}

fn without_levels(run: &RunRecord) -> RunRecord {
    RunRecord { levels: Vec::new(), ..run.clone() }
}

/// Writes what can be read back: JSON has no way to write a number that is none, and would turn it into `null`.
pub(super) fn write_json<T: serde::Serialize + DeserializeOwned>(path: &Path, value: &T) -> Result<(), StoreError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|cause| StoreError::Corrupt { path: path.to_owned(), cause })?;
    text.push(b'\n');
    if let Err(cause) = serde_json::from_slice::<T>(&text) {
        let line = text.split(|byte| *byte == b'\n').nth(cause.line().saturating_sub(1)).map(String::from_utf8_lossy).unwrap_or_default();
        let field = line.trim().split('"').nth(1).unwrap_or_default().to_owned();
        return Err(StoreError::NotFinite { path: path.to_owned(), field });
    }
    Ok(atomic::write(path, &text)?)
}

pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, StoreError> {
    /// Read first: what else is in a file of a later version cannot be known.
    #[derive(serde::Deserialize)]
    struct Version {
        schema_version: u64,
    }
    let corrupt = |cause| StoreError::Corrupt { path: path.to_owned(), cause };
    let text = fs::read(path).map_err(|cause| StoreError::Read { path: path.to_owned(), cause })?;
    let version = serde_json::from_slice::<Version>(&text).map_err(corrupt)?;
    if version.schema_version > u64::from(SCHEMA_VERSION) {
        return Err(StoreError::Newer { path: path.to_owned(), found: version.schema_version });
    }
    serde_json::from_slice(&text).map_err(corrupt)
}
