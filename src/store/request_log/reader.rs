//! The reading half: request by request, however many there are, and as far as a killed run got.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use crate::store::request_log::LoggedRequest;

/// A request log could not be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It cannot be opened.
    #[error("cannot open `{}`: {cause}. A run without a request log has its levels only", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// It is not what it says.
    #[error("cannot read `{}` after {requests} requests: {cause}. The file is damaged; what comes before can be used", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// Requests read before.
        requests: u64,
        /// What is wrong.
        cause: io::Error,
    },
}

/// The requests of a log in order of ending, level by level. Ends after the first error.
pub struct Requests {
    path: PathBuf,
    lines: BufReader<zstd::Decoder<'static, BufReader<File>>>,
    line: Vec<u8>,
    read: u64,
    end: Option<End>,
}

/// How a log ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With a whole frame.
    Whole,
    /// Inside a frame: the run was killed while it wrote, or still goes on.
    CutShort,
    /// With an error, which was handed out.
    Damaged,
}

impl std::fmt::Debug for Requests {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Requests").field("path", &self.path).field("read", &self.read).field("end", &self.end).finish_non_exhaustive()
    }
}

impl Requests {
    /// Opens a log.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let open = || {
            let file = File::open(path)?;
            Ok((file.metadata()?.len(), zstd::Decoder::new(file)?))
        };
        let (length, decoder) = open().map_err(|cause| ReadError::Open { path: path.to_owned(), cause })?;
        let lines = BufReader::with_capacity(1 << 16, decoder);
        // A run killed before its first request has a log of no frames.
        let end = (length == 0).then_some(End::Whole);
        Ok(Self { path: path.to_owned(), lines, line: Vec::new(), read: 0, end })
    }

    /// How the log ends; `None` until everything was read.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The next line, or why there is none.
    fn next_line(&mut self) -> Result<LoggedRequest, Result<End, io::Error>> {
        self.line.clear();
        match self.lines.read_until(b'\n', &mut self.line) {
            Ok(0) => Err(Ok(End::Whole)),
            Ok(_) if self.line.ends_with(b"\n") => serde_json::from_slice(&self.line).map_err(|cause| Err(cause.into())),
            Ok(_) => Err(Ok(End::CutShort)),
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Err(Ok(End::CutShort)),
            Err(cause) => Err(Err(cause)),
        }
    }
}

impl Iterator for Requests {
    type Item = Result<LoggedRequest, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.end.is_some() {
            return None;
        }
        match self.next_line() {
            Ok(request) => {
                self.read += 1;
                Some(Ok(request))
            }
            Err(Ok(end)) => {
                self.end = Some(end);
                None
            }
            Err(Err(cause)) => {
                self.end = Some(End::Damaged);
                Some(Err(ReadError::Damaged { path: self.path.clone(), requests: self.read, cause }))
            }
        }
    }
}
