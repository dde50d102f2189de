//! A server that answers at once, whoever asks whatever: what a client of HTTP can do at most on this machine.
//!
//! One thread, that speaks what is to be measured. An answer has its tokens one an event, and no two events of it are written
//! together, as a server that streams does; so the two threads share the work about evenly, and what is measured against it is a
//! bound from below.

mod http2;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use memchr::memmem;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;

use crate::target::openai::protocol::Protocol;

const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const EVENT: &str = r#"{"id":"cmpl-0","object":"text_completion","created":0,"model":"loopback","choices":[{"index":0,"text":" the","finish_reason":null}]}"#;
const LISTENER: u64 = u64::MAX;
const STOP: u64 = u64::MAX - 1;
/// Sockets looked at after one wait.
const AT_ONCE: usize = 64;

/// The server. Dropping it ends it.
#[derive(Debug)]
pub struct Loopback {
    /// Where it listens.
    pub address: SocketAddr,
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Loopback {
    /// One that speaks this, and whose answers have so many tokens.
    ///
    /// # Errors
    /// When the system gives no port, descriptor or thread.
    pub fn start(tokens: u32, protocol: Protocol) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let (address, stop) = (listener.local_addr()?, Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?));
        let stopped = Arc::clone(&stop);
        let serve = move || {
            let served = match protocol {
                Protocol::Http1 { .. } => Served { listener, stop: stopped, connections: Vec::new(), answer: Answer::of(tokens) }.serve(),
                Protocol::Http2 => http2::serve(listener, stopped, tokens),
            };
            if let Err(error) = served {
                tracing::debug!("the loopback server ended: {error}");
            }
        };
        let thread = std::thread::Builder::new().name("loopback".to_owned()).spawn(serve)?;
        Ok(Self { address, stop, thread: Some(thread) })
    }
}

impl Drop for Loopback {
    fn drop(&mut self) {
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An event with a token, as it stands in a stream.
fn event() -> String {
    format!("data: {EVENT}\n\n")
}

/// What ends a stream of so many tokens.
fn end(tokens: u32) -> String {
    let usage = format!(r#"{{"choices":[],"usage":{{"prompt_tokens":0,"completion_tokens":{tokens}}}}}"#);
    format!("data: {usage}\n\ndata: [DONE]\n\n")
}

/// An answer as it is written over HTTP/1.1, again and again.
struct Answer {
    first: Vec<u8>,
    next: Vec<u8>,
    last: Vec<u8>,
    tokens: u32,
}

impl Answer {
    fn of(tokens: u32) -> Self {
        let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len()).into_bytes();
        let next = chunk(&event());
        let last = [chunk(&end(tokens)), b"0\r\n\r\n".to_vec()].concat();
        Self { first: [HEAD, &next].concat(), next, last, tokens }
    }

    fn write(&self, mut socket: &TcpStream) -> io::Result<()> {
        socket.write_all(&self.first)?;
        for _ in 1..self.tokens {
            socket.write_all(&self.next)?;
        }
        socket.write_all(&self.last)
    }
}

/// What speaks HTTP/1.1.
struct Served {
    listener: TcpListener,
    stop: Arc<OwnedFd>,
    /// Each with what it asked and has no answer yet; `None` where it is gone.
    connections: Vec<Option<(TcpStream, Vec<u8>)>>,
    answer: Answer,
}

impl Served {
    fn serve(mut self) -> io::Result<()> {
        let waits = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let watch =
            |fd: &dyn std::os::fd::AsFd, name| epoll::add(&waits, fd.as_fd(), epoll::EventData::new_u64(name), epoll::EventFlags::IN);
        watch(&self.listener, LISTENER)?;
        watch(&self.stop, STOP)?;
        let mut ready = Vec::with_capacity(AT_ONCE);
        let mut room = vec![0; 64 << 10];
        loop {
            ready.clear();
            match epoll::wait(&waits, rustix::buffer::spare_capacity(&mut ready), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &ready {
                match event.data.u64() {
                    STOP => return Ok(()),
                    LISTENER => {
                        // One that is gone again before it was taken is none.
                        let Ok((socket, _)) = self.listener.accept() else { continue };
                        if socket.set_nodelay(true).is_ok() && watch(&socket, self.connections.len() as u64).is_ok() {
                            self.connections.push(Some((socket, Vec::new())));
                        }
                    }
                    place => self.attend(place as usize, &mut room),
                }
            }
        }
    }

    fn attend(&mut self, place: usize, room: &mut [u8]) {
        let Some((socket, asked)) = &mut self.connections[place] else { return };
        let left = match socket.read(room) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                asked.extend_from_slice(&room[..length]);
                answer_all(socket, asked, &self.answer)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error),
        };
        if left.is_err() {
            self.connections[place] = None;
        }
    }
}

/// Answers every request that is whole.
fn answer_all(socket: &TcpStream, asked: &mut Vec<u8>, answer: &Answer) -> io::Result<()> {
    while let Some(length) = whole(asked) {
        asked.drain(..length);
        answer.write(socket)?;
    }
    Ok(())
}

/// The length of the request at the beginning, once it is whole.
fn whole(asked: &[u8]) -> Option<usize> {
    const LENGTH: &[u8] = b"Content-Length: ";
    let head = memmem::find(asked, b"\r\n\r\n")? + 4;
    let digits = &asked[memmem::find(&asked[..head], LENGTH)? + LENGTH.len()..head];
    let body = digits.iter().take_while(|byte| byte.is_ascii_digit()).fold(0, |body, digit| body * 10 + usize::from(digit - b'0'));
    (asked.len() >= head + body).then_some(head + body)
}
