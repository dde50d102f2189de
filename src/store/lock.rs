//! One measurement at a time: a lock on the node, one on each GPU that is watched, and one on each open run folder.
//!
//! All are `flock`s, which the kernel drops with the process, also after `kill -9`. The locks of node and GPUs lie in a folder that all
//! users of the node share, so that runs into different data folders see each other.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::store::atomic::WriteError;

/// A reader looks at a folder's lock for microseconds; so often it is tried again.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);

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
    /// Somebody else holds a GPU.
    #[error(
        "another run is measuring on GPU `{gpu}` ({holder}; lock `{}`). Wait for it to end, choose another GPU, or share it with `--allow-shared`",
        path.display()
    )]
    GpuHeld {
        /// Its UUID.
        gpu: String,
        /// The lock.
        path: PathBuf,
        /// `process 123`, as its holder wrote it.
        holder: String,
    },
    /// The system gives no lock there.
    #[error("cannot lock `{}`: {cause}. Choose a folder on a file system that has locks", path.display())]
    Refused {
        /// The lock.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
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
    /// Takes the node's lock, in a folder that every user of the node names alike.
    ///
    /// # Errors
    /// When it is held, or its file cannot be made.
    pub fn take(folder: &Path) -> Result<Self, LockError> {
        let path = folder.join("plimsoll-measuring.lock");
        match held(&path)? {
            Ok(file) => Ok(Self { _file: file }),
            Err(holder) => Err(LockError::Held { path, holder }),
        }
    }
}

/// The right to measure on a GPU, or on an instance of one; given back when dropped.
#[derive(Debug)]
pub struct GpuLock {
    _file: File,
}

impl GpuLock {
    /// Takes the lock of the GPU of that UUID, in the folder of the node's lock.
    ///
    /// # Errors
    /// When it is held, or its file cannot be made.
    pub fn take(folder: &Path, uuid: &str) -> Result<Self, LockError> {
        let plain = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        let path = folder.join(format!("plimsoll-gpu-{}.lock", uuid.chars().map(plain).collect::<String>()));
        match held(&path)? {
            Ok(file) => Ok(Self { _file: file }),
            Err(holder) => Err(LockError::GpuHeld { gpu: uuid.to_owned(), path, holder }),
        }
    }
}

/// The locked file with this process's number in it, or who holds it.
fn held(path: &Path) -> Result<Result<File, String>, LockError> {
    let mut file = shared(path).map_err(|cause| WriteError::Create { path: path.to_owned(), cause })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            // A holder that has not written its name yet is still a holder.
            drop(file.read_to_string(&mut holder));
            let holder = holder.trim();
            return Ok(Err(if holder.is_empty() { "process unknown".to_owned() } else { format!("process {holder}") }));
        }
        Err(cause) => return Err(LockError::Refused { path: path.to_owned(), cause: cause.into() }),
    }
    // The name helps whoever waits; the lock holds without it, such as on a full disk.
    drop(file.set_len(0).and_then(|()| file.rewind()).and_then(|()| writeln!(file, "{}", std::process::id())));
    Ok(Ok(file))
}

/// The lock's file, which whoever came first made and everybody may open. It is not made and opened in one call: in a
/// folder that everybody may write to, the system refuses that for a file of another user.
fn shared(path: &Path) -> io::Result<File> {
    let no_link = OFlags::NOFOLLOW.bits() as i32;
    let mut open = OpenOptions::new();
    open.read(true).write(true).custom_flags(no_link);
    match open.open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {}
        opened => return opened,
    }
    match open.clone().create_new(true).open(path) {
        Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => open.open(path),
        Ok(file) => {
            file.set_permissions(Permissions::from_mode(0o666))?;
            Ok(file)
        }
        refused => refused,
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
        for _ in 0..TRIES {
            match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(Self { _folder: opened }),
                Err(Errno::WOULDBLOCK) => thread::sleep(PAUSE),
                Err(cause) => return Err(LockError::Refused { path: folder.to_owned(), cause: cause.into() }),
            }
        }
        Err(LockError::Held { path: folder.to_owned(), holder: "process unknown".to_owned() })
    }

    /// Whether some process holds it.
    pub(super) fn is_held(folder: &Path) -> bool {
        let Ok(opened) = File::open(folder) else { return false };
        flock(&opened, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }
}
