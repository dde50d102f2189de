//! What really happened, in nanoseconds of the system's `CLOCK_MONOTONIC`: what a client says is held against it.

use serde::Serialize;

/// The time now, nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn now() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A write that had tokens in it, stamped just before the system call.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Write {
    /// When.
    pub(crate) at: u64,
    /// Tokens in it.
    pub(crate) tokens: u32,
    /// Nanoseconds after it was due, 4.29 s at most.
    pub(crate) late: u32,
}

/// How a request came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Ended {
    /// It has not.
    Open,
    /// All was written that the script has, properly ended in HTTP.
    Whole,
    /// The server closed the connection.
    Closed,
    /// The server reset the connection.
    Reset,
    /// The client went before the end.
    ClientGone,
}

/// One request for tokens.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RequestTruth {
    /// Number of the request, in order of reading.
    pub(crate) index: u64,
    /// Number of its connection, in order of accepting.
    pub(crate) connection: u64,
    /// The client's `x-request-id`.
    pub(crate) id: Option<String>,
    /// Where it went.
    pub(crate) path: &'static str,
    /// Status of the response.
    pub(crate) status: u16,
    /// Prompt tokens.
    pub(crate) prompt_tokens: u32,
    /// Of them, said to be cached.
    pub(crate) cached_tokens: u32,
    /// The connection was accepted.
    pub(crate) accepted_at: u64,
    /// The last byte of the request was read.
    pub(crate) read_at: u64,
    /// The response's head was written; 0 is never.
    pub(crate) head_at: u64,
    /// Writes with tokens.
    pub(crate) writes: Vec<Write>,
    /// The last byte was written, or the connection ended; 0 is not yet.
    pub(crate) end_at: u64,
    /// How it ended.
    pub(crate) ended: Ended,
    /// The request as it came, head and body, where the server keeps them.
    #[serde(skip)]
    pub(crate) text: String,
}

impl RequestTruth {
    /// Tokens written.
    pub(crate) fn tokens(&self) -> u32 {
        self.writes.iter().map(|write| write.tokens).sum()
    }
}

/// Everything since the server began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    /// Requests for tokens, in order of reading.
    pub(crate) requests: Vec<RequestTruth>,
    /// Connections accepted.
    pub(crate) connections: u64,
    /// Every other request: when it was read, and its method and path.
    pub(crate) others: Vec<(u64, String)>,
}

impl Truth {
    /// One JSON object a line, one line a request for tokens.
    pub(crate) fn json_lines(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for request in &self.requests {
            serde_json::to_writer(&mut lines, request).expect("plain data is JSON");
            lines.push(b'\n');
        }
        lines
    }
}
