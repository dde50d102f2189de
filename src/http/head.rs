//! The head of an answer: its status, how its body ends, and the few headers that matter here.

use std::time::Duration;

/// Longest head that is read.
const HEAD_AT_MOST: usize = 64 << 10;
const HEADERS_AT_MOST: usize = 96;

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; 0 where there is no body.
    Length(u64),
    /// In chunks, the last of them empty.
    Chunked,
    /// When the connection ends.
    UntilClose,
}

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Such as 200.
    pub status: u16,
    /// How its body ends.
    pub framing: Framing,
    /// Whether another request may follow on the connection.
    pub keep_alive: bool,
    /// Whether the body is a stream of events.
    pub event_stream: bool,
    /// How long the server wants to be left alone, where it said so in seconds.
    pub retry_after: Option<Duration>,
    /// What it calls itself.
    pub server: Option<String>,
}

/// An answer that is no HTTP/1.1.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer is no HTTP/1.1: {0}")]
pub struct NoHttp(pub String);

impl Head {
    /// Reads the head at the beginning of `bytes` and tells its length; `None` while it is not whole. Interim answers (1xx) are
    /// skipped.
    ///
    /// # Errors
    /// When it is no head, or longer than 64 KiB.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, NoHttp> {
        let mut skipped = 0;
        loop {
            let mut headers = [httparse::EMPTY_HEADER; HEADERS_AT_MOST];
            let mut answer = httparse::Response::new(&mut headers);
            let parsed = answer.parse(&bytes[skipped..]).map_err(|error| NoHttp(error.to_string()))?;
            let httparse::Status::Complete(length) = parsed else {
                return if bytes.len() > HEAD_AT_MOST { Err(NoHttp("its head has no end".to_owned())) } else { Ok(None) };
            };
            skipped += length;
            let status = answer.code.unwrap_or(0);
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            return Ok(Some((Self::of(status, answer.version == Some(1), answer.headers)?, skipped)));
        }
    }

    fn of(status: u16, persistent: bool, headers: &[httparse::Header<'_>]) -> Result<Self, NoHttp> {
        let mut head =
            Self { status, framing: Framing::UntilClose, keep_alive: persistent, event_stream: false, retry_after: None, server: None };
        let mut length = None;
        for header in headers {
            let value = || String::from_utf8_lossy(header.value).trim().to_ascii_lowercase();
            let named = |name: &str| header.name.eq_ignore_ascii_case(name);
            if named("transfer-encoding") && value().ends_with("chunked") {
                head.framing = Framing::Chunked;
            } else if named("content-length") {
                let bytes = value().parse::<u64>().map_err(|_| NoHttp(format!("content-length is `{}`", value())))?;
                if length.replace(bytes).is_some_and(|other| other != bytes) {
                    return Err(NoHttp("it has two lengths".to_owned()));
                }
            } else if named("connection") {
                let value = value();
                head.keep_alive = if value.contains("close") { false } else { head.keep_alive || value.contains("keep-alive") };
            } else if named("content-type") {
                head.event_stream = value().starts_with("text/event-stream");
            } else if named("retry-after") {
                head.retry_after = value().parse().ok().map(Duration::from_secs);
            } else if named("server") {
                head.server = Some(String::from_utf8_lossy(header.value).into_owned());
            }
        }
        match (head.framing, length) {
            _ if status == 204 || status == 304 => head.framing = Framing::Length(0),
            (Framing::UntilClose, Some(bytes)) => head.framing = Framing::Length(bytes),
            _ => {}
        }
        head.keep_alive &= head.framing != Framing::UntilClose;
        Ok(head)
    }
}
