//! HTTP as bytes on a socket: what a server really sends, with no client in between that would mend it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than any answer of a test takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A request with a body; each of `headers` ends in CR LF.
pub(crate) fn post(path: &str, body: &Value, headers: &str) -> String {
    let body = body.to_string();
    format!("POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// Everything up to the end of the connection, and whether that was an end rather than a reset.
#[track_caller]
pub(crate) fn exchange(to: SocketAddr, request: &str) -> (String, bool) {
    let mut stream = connect(to);
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let ended = stream.read_to_end(&mut bytes);
    if let Err(error) = &ended {
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    (String::from_utf8(bytes).unwrap(), ended.is_ok())
}

/// The body of a chunked response, and whether it has its end.
#[track_caller]
pub(crate) fn dechunked(response: &str) -> (String, bool) {
    let (head, mut rest) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{response}");
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        if size == 0 {
            return (body, after == "\r\n");
        }
        body += &after[..size];
        rest = after[size..].strip_prefix("\r\n").unwrap();
    }
    (body, false)
}

/// Waits for what somebody else will soon do.
#[track_caller]
pub(crate) fn until(done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < PATIENCE);
        std::thread::sleep(Duration::from_millis(1));
    }
}
