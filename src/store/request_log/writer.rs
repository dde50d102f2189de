//! The writing half: a thread of its own, fed over a channel that is bounded in length and in bytes.
//!
//! The generator is never made to wait: a record that finds the channel full is counted as unlogged and dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::{Clock, Monotonic, Nanos};
use crate::record::request::{Chunk, RequestRecord};
use crate::store::atomic::WriteError;
use crate::store::request_log::LoggedRequest;

/// Niceness of the writing thread: well behind the generator and the engine.
const NICE: i32 = 15;
/// Records that may wait for the thread.
const WAITING_RECORDS: usize = 8_192;
/// Bytes that waiting records may hold.
const WAITING_BYTES: u64 = 32 << 20;
/// How much a killed run may lose.
const FLUSH_EVERY: Duration = Duration::from_secs(2);
/// Compression level: the fastest that still halves the stamps.
const COMPRESSION: i32 = 1;

/// Why a log cannot be written to.
#[derive(Debug, thiserror::Error)]
pub enum OpenLogError {
    /// See [`WriteError`].
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It is shorter than the levels beside it say.
    #[error(
        "cannot go on with `{}`: it has {length} bytes, and its levels speak of {expected}. The file is damaged; restore it, or start a new run",
        path.display()
    )]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Its length.
        length: u64,
        /// What the last saved level says.
        expected: u64,
    },
}

/// What one level left in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoggedLevel {
    /// Length of the whole log after it, bytes, all durable: for [`crate::record::level::LevelRecord::request_log_bytes`].
    pub log_bytes: u64,
    /// Requests of this level that were not logged because the thread had fallen behind.
    pub unlogged: u64,
}

#[expect(clippy::large_enum_variant, reason = "nearly every message is a record, and a box would be an allocation each")]
enum Message {
    Record(LoggedRequest),
    EndLevel(SyncSender<Result<u64, io::Error>>),
}

/// The sending half: lives with whoever collects finished requests.
#[derive(Debug)]
pub struct RequestLog {
    path: PathBuf,
    level: u32,
    unlogged: u64,
    waiting_bytes: Arc<AtomicU64>,
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<()>>,
}

impl RequestLog {
    /// Opens the log of a run, to be continued after `keep_bytes`: 0 for a new run, the last saved level's
    /// `request_log_bytes` for a resumed one. What lies behind is cut off.
    ///
    /// # Errors
    /// When the file cannot be created or cut, or is shorter than that.
    pub fn open(path: &Path, keep_bytes: u64) -> Result<Self, OpenLogError> {
        let refuse = |cause| WriteError::Create { path: path.to_owned(), cause };
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path).map_err(refuse)?;
        let length = file.metadata().map_err(refuse)?.len();
        if length < keep_bytes {
            return Err(OpenLogError::Damaged { path: path.to_owned(), length, expected: keep_bytes });
        }
        file.set_len(keep_bytes).map_err(refuse)?;
        io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(refuse)?;
        let (sender, receiver) = sync_channel(WAITING_RECORDS);
        let waiting_bytes = Arc::new(AtomicU64::new(0));
        let writing = Writing { frame: Frame::Between(file), waiting_bytes: Arc::clone(&waiting_bytes) };
        let spawned = std::thread::Builder::new().name("request-log".to_owned()).spawn(move || {
            // Compressing must not take a core from the generator, whose lateness would spoil the level. On Linux the
            // priority is the calling thread's own; where it is refused the log is written all the same.
            let _ = rustix::process::setpriority_process(None, NICE);
            writing.run(&receiver);
        });
        let thread = Some(spawned.map_err(refuse)?);
        Ok(Self { path: path.to_owned(), level: 0, unlogged: 0, waiting_bytes, sender: Some(sender), thread })
    }

    /// Names the level that the following records belong to.
    pub fn begin_level(&mut self, level: u32) {
        self.level = level;
        self.unlogged = 0;
    }

    /// Hands a record over. Never waits: where the thread has fallen behind, the record is counted and dropped.
    pub fn log(&mut self, request: RequestRecord) {
        let bytes = bytes_of(&request);
        let message = Message::Record(LoggedRequest { level: self.level, request });
        let room = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= WAITING_BYTES;
        let sent = match &self.sender {
            Some(sender) if room => sender.try_send(message).is_ok(),
            _ => false,
        };
        if !sent {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
            self.unlogged += 1;
        }
    }

    /// Closes the level's frame and waits until all of it is on disk. For between levels: it may take a moment.
    ///
    /// # Errors
    /// When something of the level could not be written, such as on a full disk.
    pub fn end_level(&mut self) -> Result<LoggedLevel, WriteError> {
        let waiting = self.waiting_bytes.load(Ordering::Relaxed);
        let refuse = |cause| WriteError::Write { path: self.path.clone(), bytes: waiting, cause };
        let gone = || refuse(io::Error::other("the writing thread is gone"));
        let (answer, answered) = sync_channel(1);
        let sender = self.sender.as_ref().ok_or_else(gone)?;
        sender.send(Message::EndLevel(answer)).map_err(|_| gone())?;
        let log_bytes = answered.recv().map_err(|_| gone())?.map_err(refuse)?;
        Ok(LoggedLevel { log_bytes, unlogged: self.unlogged })
    }
}

impl Drop for RequestLog {
    /// Whatever was handed over is written before this returns.
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has written what it could.
            drop(thread.join());
        }
    }
}

fn bytes_of(request: &RequestRecord) -> u64 {
    (size_of::<LoggedRequest>() + request.chunks.capacity() * size_of::<Chunk>()) as u64
}

type Encoder = zstd::Encoder<'static, BufWriter<File>>;

/// The file between levels, or inside one; `Failed` keeps the first error until somebody asks.
enum Frame {
    Between(File),
    Inside(Encoder),
    Failed(io::Error),
}

/// The thread's half.
struct Writing {
    frame: Frame,
    waiting_bytes: Arc<AtomicU64>,
}

impl Writing {
    fn run(mut self, receiver: &Receiver<Message>) {
        let clock = Monotonic::start();
        let flush_every = Nanos::from_secs(FLUSH_EVERY.as_secs());
        let mut flushed = clock.now();
        loop {
            match receiver.recv_timeout(FLUSH_EVERY) {
                Ok(Message::Record(logged)) => {
                    self.write(&logged);
                    self.waiting_bytes.fetch_sub(bytes_of(&logged.request), Ordering::Relaxed);
                }
                Ok(Message::EndLevel(answer)) => {
                    let ended = self.end_frame();
                    drop(answer.send(ended));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    // The level was given up: what there is of it stays readable.
                    drop(self.end_frame());
                    return;
                }
            }
            if clock.now().since(flushed) >= flush_every {
                self.flush();
                flushed = clock.now();
            }
        }
    }

    fn write(&mut self, logged: &LoggedRequest) {
        self.step(|frame| {
            let mut encoder = match frame {
                Frame::Between(file) => zstd::Encoder::new(BufWriter::new(file), COMPRESSION)?,
                Frame::Inside(encoder) => encoder,
                Frame::Failed(cause) => return Err(cause),
            };
            serde_json::to_writer(&mut encoder, logged)?;
            encoder.write_all(b"\n")?;
            Ok(Frame::Inside(encoder))
        });
    }

    fn flush(&mut self) {
        self.step(|frame| {
            let Frame::Inside(mut encoder) = frame else { return Ok(frame) };
            encoder.flush()?;
            encoder.get_ref().get_ref().sync_data()?;
            Ok(Frame::Inside(encoder))
        });
    }

    /// Length of the file when everything so far is durable.
    fn end_frame(&mut self) -> io::Result<u64> {
        self.step(|frame| match frame {
            Frame::Inside(encoder) => Ok(Frame::Between(encoder.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?)),
            other => Ok(other),
        });
        match &self.frame {
            Frame::Between(file) => {
                file.sync_all()?;
                Ok(file.metadata()?.len())
            }
            Frame::Failed(cause) => Err(copy_of(cause)),
            Frame::Inside(_) => Err(io::Error::other("the frame is still open")),
        }
    }

    fn step(&mut self, act: impl FnOnce(Frame) -> io::Result<Frame>) {
        let frame = std::mem::replace(&mut self.frame, Frame::Failed(io::ErrorKind::Other.into()));
        self.frame = act(frame).unwrap_or_else(Frame::Failed);
    }
}

/// The same error once more, for everybody who asks.
fn copy_of(cause: &io::Error) -> io::Error {
    cause.raw_os_error().map_or_else(|| io::Error::new(cause.kind(), cause.to_string()), io::Error::from_raw_os_error)
}
