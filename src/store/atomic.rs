//! The one door through which files are written: a temporary name beside the final one, fsync, rename, fsync of the folder.
//!
//! So a final name holds the old bytes or the new ones, whatever happens in between. What a crash leaves behind is
//! a dot-file ending in `.tmp`, which readers ignore and [`sweep`] removes.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// A file or folder could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Nothing was there to write into.
    #[error("cannot create `{}`: {cause}. {}", path.display(), Remedy(cause, "Choose a folder that you may write to"))]
    Create {
        /// What was to be created.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// The bytes did not all arrive.
    #[error("cannot write {bytes} bytes to `{}`: {cause}. {}", path.display(), Remedy(cause, "Check the disk or choose another folder"))]
    Write {
        /// The final name.
        path: PathBuf,
        /// How much was to be written.
        bytes: u64,
        /// What the system said.
        cause: io::Error,
    },
    /// A folder holds less than is needed.
    #[error("`{}` has {free} bytes free and {needed} are needed. Free space there or choose another folder", path.display())]
    NoSpace {
        /// The folder.
        path: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// Bytes free to this user.
        free: u64,
    },
}

/// What to do about a failed write: by its cause, else what is said beside it.
struct Remedy<'a>(&'a io::Error, &'static str);

impl fmt::Display for Remedy<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self.0.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "Free space there or choose another folder",
            io::ErrorKind::FileTooLarge => "Raise the file size limit (`ulimit -f`) or choose another folder",
            _ => self.1,
        })
    }
}

/// The system calls behind a write, so that tests can fail or forget any one of them.
pub trait Files {
    /// Makes a new file with these bytes in it; not yet durable.
    ///
    /// # Errors
    /// As the system says.
    fn create(&self, path: &Path, bytes: &[u8]) -> Result<File, CreateError>;

    /// Makes a file's bytes durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync(&self, file: &File) -> io::Result<()>;

    /// Gives a file its final name.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable.
    ///
    /// # Errors
    /// As the system says.
    fn sync_folder(&self, folder: &Path) -> io::Result<()>;
}

/// Which half of [`Files::create`] failed.
#[derive(Debug)]
pub enum CreateError {
    /// There is no file.
    Open(io::Error),
    /// There is one, and it is short.
    Write(io::Error),
}

/// The disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Files for Disk {
    fn create(&self, path: &Path, bytes: &[u8]) -> Result<File, CreateError> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path).map_err(CreateError::Open)?;
        file.write_all(bytes).map_err(CreateError::Write)?;
        Ok(file)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        File::open(folder)?.sync_all()
    }
}

/// Writes a file: afterwards `path` holds `bytes`, durably; on an error it holds what it held before.
///
/// # Errors
/// When the file cannot be created or written.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    write_through(&Disk, path, bytes)
}

/// As [`write`], through other system calls.
///
/// # Errors
/// As [`write`].
pub fn write_through(files: &dyn Files, path: &Path, bytes: &[u8]) -> Result<(), WriteError> {
    let temporary = temporary_beside(path);
    let written = || -> Result<(), CreateError> {
        let file = files.create(&temporary, bytes)?;
        files.sync(&file).map_err(CreateError::Write)?;
        files.rename(&temporary, path).map_err(CreateError::Write)?;
        files.sync_folder(folder_of(path)).map_err(CreateError::Write)
    };
    written().map_err(|error| {
        // Best effort: what stays is ignored by readers and swept later.
        drop(fs::remove_file(&temporary));
        match error {
            CreateError::Open(cause) if cause.kind() != io::ErrorKind::StorageFull => WriteError::Create { path: path.to_owned(), cause },
            CreateError::Open(cause) | CreateError::Write(cause) => {
                WriteError::Write { path: path.to_owned(), bytes: bytes.len() as u64, cause }
            }
        }
    })
}

/// Makes a folder and those above it.
///
/// # Errors
/// When it is not there afterwards.
pub fn create_folder(path: &Path) -> Result<(), WriteError> {
    fs::create_dir_all(path).map_err(|cause| WriteError::Create { path: path.to_owned(), cause })
}

/// Refuses a folder that holds less than `needed` bytes.
///
/// # Errors
/// When it does, or cannot be asked.
pub fn require_space(folder: &Path, needed: u64) -> Result<(), WriteError> {
    let stat = rustix::fs::statvfs(folder).map_err(|cause| WriteError::Create { path: folder.to_owned(), cause: cause.into() })?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed { Err(WriteError::NoSpace { path: folder.to_owned(), needed, free }) } else { Ok(()) }
}

/// Whether a name is one that only a crash leaves behind.
#[must_use]
pub fn is_temporary(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with('.') && name.ends_with(".tmp"))
}

/// Removes what crashes left in a folder. The caller holds the lock of whoever writes there.
pub fn sweep(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for left in entries.map(|entry| entry.path()).filter(|path| is_temporary(path)) {
        // What cannot be removed stays ignored.
        if left.is_dir() { drop(fs::remove_dir_all(&left)) } else { drop(fs::remove_file(&left)) }
    }
}

/// A temporary name in the same folder, so that the rename stays on one file system.
pub(super) fn temporary_beside(path: &Path) -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}-{unique}.tmp", std::process::id()))
}

/// The folder a path lies in; the current one for a bare name.
pub(super) fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
