//! A few plain requests around a measurement, each on a connection of its own: is it ready, what does it serve, what do its
//! counters say.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ClientConfig;

use crate::clock::{Clock, Monotonic};
use crate::http::body::Body;
use crate::http::endpoint::{Address, Endpoint, Unresolved};
use crate::http::head::{Head, NoHttp};
use crate::http::http2;
use crate::http::stream::Stream;
use crate::http::tls::SessionError;

/// Longest body that is read.
pub(super) const BODY_AT_MOST: usize = 64 << 20;

/// A server, and how to talk to it.
#[derive(Clone, Debug)]
pub struct Client {
    /// Where it is.
    pub endpoint: Endpoint,
    /// What encrypted connections are made with.
    pub tls: Option<Arc<ClientConfig>>,
    /// Sent with every request: such as `Authorization` and its value.
    pub headers: Vec<(String, String)>,
    /// How long one exchange may take.
    pub timeout: Duration,
    /// Whether HTTP/2 is spoken with it, and nothing else.
    pub http2: bool,
}

/// An answer, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its head.
    pub head: Head,
    /// Its body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as text, for people: its beginning, on one line.
    #[must_use]
    pub fn said(&self) -> String {
        let text: String = String::from_utf8_lossy(&self.body).chars().take(300).collect();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// The name has no address.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// Nobody is there.
    #[error("cannot connect to {endpoint}: {problem}")]
    Connect {
        /// Whom.
        endpoint: String,
        /// Why not.
        problem: io::Error,
    },
    /// The connection broke.
    #[error("the connection to {endpoint} broke: {problem}")]
    Broken {
        /// Whose.
        endpoint: String,
        /// How.
        problem: io::Error,
    },
    /// It is not encrypted as was wanted.
    #[error("no encrypted connection to {endpoint}: {problem}")]
    Encryption {
        /// With whom.
        endpoint: String,
        /// Why not.
        problem: SessionError,
    },
    /// It is there, and HTTP/2 is not what it speaks.
    #[error("{endpoint} does not speak HTTP/2: {problem}. Leave `--http2` out, or have the server offer it")]
    NoHttp2 {
        /// Who.
        endpoint: String,
        /// What it did.
        problem: String,
    },
    /// No answer in time.
    #[error("{endpoint} did not answer within {seconds:.1} s")]
    Timeout {
        /// Who.
        endpoint: String,
        /// How long it was waited for.
        seconds: f64,
    },
    /// What came is no HTTP.
    #[error(transparent)]
    NoHttp(#[from] NoHttp),
}

impl Client {
    /// Asks for `path`, which begins with a slash.
    ///
    /// # Errors
    /// When there is no whole answer in time; a status of its own is none.
    pub fn get(&self, path: &str) -> Result<Answer, ExchangeError> {
        self.exchange("GET", path, None)
    }

    /// Sends `body`, which is JSON, to `path`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn post(&self, path: &str, body: &[u8]) -> Result<Answer, ExchangeError> {
        self.exchange("POST", path, Some(body))
    }

    /// The first of the server's addresses that takes a connection.
    ///
    /// # Errors
    /// When none does.
    pub fn reach(&self) -> Result<Address, ExchangeError> {
        Ok(self.connect(&Monotonic::start())?.0)
    }

    fn exchange(&self, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer, ExchangeError> {
        if self.http2 {
            return http2::exchange(self, method, path, body);
        }
        let clock = Monotonic::start();
        let (_, stream) = self.connect(&clock)?;
        self.over(stream, &clock, &self.written(method, path, body))
    }

    fn connect(&self, clock: &Monotonic) -> Result<(Address, Stream), ExchangeError> {
        let mut failed = None;
        for address in self.endpoint.resolve()? {
            let tls = self.tls.as_ref().filter(|_| self.endpoint.tls).map(|config| (config, self.endpoint.host.as_str()));
            let begun = Stream::begin(&address, tls);
            let connected = begun.and_then(|stream| {
                self.wait(clock, &stream, PollFlags::OUT)?;
                stream.connected()?;
                Ok(stream)
            });
            match connected {
                Ok(stream) => return Ok((address, stream)),
                Err(problem) => failed = Some(problem),
            }
        }
        Err(self.unconnected(failed))
    }

    /// None of its addresses took a connection; the last one refused like this.
    pub(super) fn unconnected(&self, failed: Option<io::Error>) -> ExchangeError {
        let problem = failed.unwrap_or_else(|| io::Error::from(ErrorKind::AddrNotAvailable));
        match problem.kind() {
            ErrorKind::TimedOut => self.too_late(),
            ErrorKind::InvalidData => self.broken(problem),
            _ => ExchangeError::Connect { endpoint: self.endpoint.to_string(), problem },
        }
    }

    pub(super) fn too_late(&self) -> ExchangeError {
        ExchangeError::Timeout { endpoint: self.endpoint.to_string(), seconds: self.timeout.as_secs_f64() }
    }

    fn written(&self, method: &str, path: &str, body: Option<&[u8]>) -> Vec<u8> {
        let mut text =
            format!("{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.endpoint.path(path), self.endpoint.authority());
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(body) = body {
            text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body.unwrap_or_default());
        bytes
    }

    fn over(&self, mut stream: Stream, clock: &Monotonic, request: &[u8]) -> Result<Answer, ExchangeError> {
        let mut sent = 0;
        let mut received = Vec::new();
        let mut scratch = vec![0; 64 << 10];
        let mut read: Option<(Head, Body)> = None;
        let mut text = Vec::new();
        loop {
            if sent < request.len() {
                match stream.write(&request[sent..]) {
                    Ok(taken) => sent += taken,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(self.broken(error)),
                }
            } else if stream.wants_write() {
                stream.flush().map_err(|error| self.broken(error))?;
            }
            let length = match stream.read(&mut scratch) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let also = if sent < request.len() || stream.wants_write() { PollFlags::OUT } else { PollFlags::empty() };
                    self.wait(clock, &stream, PollFlags::IN | also).map_err(|error| self.broken(error))?;
                    continue;
                }
                Err(error) => return Err(self.broken(error)),
            };
            received.extend_from_slice(&scratch[..length]);
            if read.is_none()
                && let Some((head, end)) = Head::read(&received)?
            {
                let body = Body::framed(head.framing);
                received.drain(..end);
                read = Some((head, body));
            }
            if let Some((_, body)) = &mut read {
                let mut rest = &received[..];
                while let Some(piece) = body.next(&mut rest)? {
                    text.extend_from_slice(piece);
                }
                received.clear();
                if body.is_done() || (length == 0 && body.ends_with_connection()) {
                    break;
                }
            }
            if length == 0 || text.len() > BODY_AT_MOST {
                return Err(self.broken(ErrorKind::UnexpectedEof.into()));
            }
        }
        let (head, _) = read.ok_or_else(|| NoHttp("it has no head".to_owned()))?;
        Ok(Answer { head, body: text })
    }

    pub(super) fn broken(&self, problem: io::Error) -> ExchangeError {
        if let Some(session) = problem.get_ref().and_then(|inner| inner.downcast_ref::<SessionError>()) {
            return ExchangeError::Encryption { endpoint: self.endpoint.to_string(), problem: session.clone() };
        }
        match problem.kind() {
            ErrorKind::TimedOut => self.too_late(),
            _ => ExchangeError::Broken { endpoint: self.endpoint.to_string(), problem },
        }
    }

    fn wait(&self, clock: &Monotonic, stream: &Stream, what: PollFlags) -> io::Result<()> {
        loop {
            let left = self.timeout.saturating_sub(Duration::from_nanos(clock.now().0));
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            let mut waited = [PollFd::from_borrowed_fd(stream.as_fd(), what)];
            let timeout = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut waited, Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
