//! One measurement at a time: a lock on the node, and one on each open run folder.
//!
//! Both are `flock`s, which the kernel drops with the process, also after `kill -9`. The node's lock lies in the data
//! folder and carries the host's name, so that nodes sharing a data folder do not block each other.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use crate::store::atomic::WriteError;

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Somebody else holds it.
    #[error("another run is measuring on this node ({holder}; lock `{}`). Wait for it to end, or end it", path.display())]
    Held {
        /// The lock.
        path: PathBuf,
        /// `process 123`, as its holder wrote it.
        holder: String,
    },
    /// There is no lock to take.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// The right to measure on this node; given back when dropped.
#[derive(Debug)]
pub struct NodeLock {
    /// Held open: the lock lives as long as the file does.
    _file: File,
}

impl NodeLock {
    /// Takes the node's lock.
    ///
    /// # Errors
    /// When it is held, or its file cannot be made.
    pub fn take(data_dir: &Path, hostname: &str) -> Result<Self, LockError> {
        let host = hostname.replace(['/', '\0'], "_");
        let path = data_dir.join(format!("measuring-{host}.lock"));
        let refuse = |cause| WriteError::Create { path: path.clone(), cause };
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(refuse)?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut holder = String::new();
            // A holder that has not written its name yet is still a holder.
            drop(file.read_to_string(&mut holder));
            let holder = holder.trim();
            let holder = if holder.is_empty() { "process unknown".to_owned() } else { format!("process {holder}") };
            return Err(LockError::Held { path, holder });
        }
        let named = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id()));
        named.map_err(|cause| WriteError::Write { path: path.clone(), bytes: 8, cause })?;
        Ok(Self { _file: file })
    }
}

/// A run folder that a process is writing to; readers tell by it whether the run still goes on.
#[derive(Debug)]
pub(super) struct FolderLock {
    _folder: File,
}

impl FolderLock {
    /// Takes the lock of a run folder.
    pub(super) fn take(folder: &Path) -> Result<Self, LockError> {
        let opened = File::open(folder).map_err(|cause| WriteError::Create { path: folder.to_owned(), cause })?;
        match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _folder: opened }),
            Err(_) => Err(LockError::Held { path: folder.to_owned(), holder: "process unknown".to_owned() }),
        }
    }

    /// Whether some process holds it.
    pub(super) fn is_held(folder: &Path) -> bool {
        let Ok(opened) = fs::File::open(folder) else { return false };
        flock(&opened, FlockOperation::NonBlockingLockShared) == Err(rustix::io::Errno::WOULDBLOCK)
    }
}
