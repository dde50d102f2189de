//! A server that speaks HTTP/2 alone and streams as a script says: tokens, faults of single streams, and goodbyes of whole connections.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// How requests are answered.
#[derive(Clone, Debug)]
pub(crate) struct Script {
    /// Before the first token.
    pub(crate) ttft: Duration,
    /// Between tokens.
    pub(crate) gap: Duration,
    /// Letters of a token's text.
    pub(crate) letters: usize,
    /// Streams at once on a connection.
    pub(crate) most_streams: Option<u32>,
    /// Of every so many requests of the server the last ends so, from 1.
    pub(crate) fault: Option<(u64, Fault)>,
    /// A connection says goodbye after so many requests.
    pub(crate) goodbye_after: Option<u64>,
}

/// What goes wrong with a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Reset with this reason after so many tokens.
    Reset(Reason, u32),
    /// Nothing is answered.
    Silence,
    /// Nothing more comes after so many tokens.
    Stall(u32),
    /// This status, and `Retry-After: 2`.
    Status(u16),
    /// Ended well and in the middle.
    Cut(u32),
    /// The whole connection is closed at once.
    Close,
}

impl Default for Script {
    fn default() -> Self {
        Self { ttft: Duration::ZERO, gap: Duration::ZERO, letters: 4, most_streams: None, fault: None, goodbye_after: None }
    }
}

/// What happened.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicU64,
    pub(crate) requests: AtomicU64,
    pub(crate) resets: AtomicU64,
    at_once: AtomicUsize,
    /// Most requests at once on all connections.
    pub(crate) most_at_once: AtomicUsize,
    pub(crate) bodies: Mutex<Vec<String>>,
}

/// The server, on a thread of its own. Dropping it ends it and all its connections.
pub(crate) struct H2Server {
    pub(crate) addr: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl H2Server {
    pub(crate) fn start(script: Script) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let (addr, seen) = (listener.local_addr().unwrap(), Arc::new(Seen::default()));
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&seen);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let accepting = accept(TcpListener::from_std(listener).unwrap(), script, shared);
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
        });
        Self { addr, seen, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for H2Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, script: Script, seen: Arc<Seen>) {
    while let Ok((socket, _)) = listener.accept().await {
        socket.set_nodelay(true).unwrap();
        tokio::spawn(connection(socket, script.clone(), Arc::clone(&seen)));
    }
}

async fn connection(socket: TcpStream, script: Script, seen: Arc<Seen>) {
    let mut builder = server::Builder::new();
    if let Some(most) = script.most_streams {
        builder.max_concurrent_streams(most);
    }
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    seen.connections.fetch_add(1, Ordering::Relaxed);
    let (mut served, closes) = (0, Arc::new(AtomicBool::new(false)));
    while let Some(Ok((request, respond))) = connection.accept().await {
        served += 1;
        let number = seen.requests.fetch_add(1, Ordering::Relaxed) + 1;
        let fault = script.fault.filter(|(every, _)| number.is_multiple_of(*every)).map(|(_, fault)| fault);
        if fault == Some(Fault::Close) {
            return;
        }
        tokio::spawn(answer(request, respond, script.clone(), fault, Arc::clone(&seen)));
        if script.goodbye_after.is_some_and(|after| served >= after) && !closes.swap(true, Ordering::Relaxed) {
            connection.graceful_shutdown();
        }
    }
}

async fn answer(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    script: Script,
    fault: Option<Fault>,
    seen: Arc<Seen>,
) {
    let at_once = seen.at_once.fetch_add(1, Ordering::Relaxed) + 1;
    seen.most_at_once.fetch_max(at_once, Ordering::Relaxed);
    if told(request, &mut respond, &script, fault, &seen).await.is_none() {
        seen.resets.fetch_add(1, Ordering::Relaxed);
    }
    seen.at_once.fetch_sub(1, Ordering::Relaxed);
}

/// `None` when the client reset the stream.
async fn told(
    request: http::Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    script: &Script,
    fault: Option<Fault>,
    seen: &Seen,
) -> Option<()> {
    let (path, mut body) = (request.uri().path().to_owned(), request.into_body());
    let mut text = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.ok()?;
        body.flow_control().release_capacity(piece.len()).ok()?;
        text.extend_from_slice(&piece);
    }
    if path != "/v1/completions" {
        return page(&path, respond);
    }
    let asked: serde_json::Value = serde_json::from_slice(&text).unwrap();
    seen.bodies.lock().unwrap().push(String::from_utf8(text).unwrap());
    let tokens = asked["max_tokens"].as_u64().unwrap() as u32;
    match fault {
        Some(Fault::Status(status)) => {
            let head = http::Response::builder().status(status).header("retry-after", "2").body(()).unwrap();
            let mut stream = respond.send_response(head, false).ok()?;
            return stream.send_data(Bytes::from_static(br#"{"error":{"message":"too many"}}"#), true).ok();
        }
        Some(Fault::Silence) => return std::future::poll_fn(|waker| respond.poll_reset(waker)).await.err().map(|_| ()),
        Some(Fault::Reset(reason, 0)) => {
            respond.send_reset(reason);
            return Some(());
        }
        _ => {}
    }
    tokio::time::sleep(script.ttft).await;
    let head = http::Response::builder().header("content-type", "text/event-stream").body(()).unwrap();
    let mut stream = respond.send_response(head, false).ok()?;
    for token in 0..tokens {
        match fault {
            Some(Fault::Reset(reason, after)) if token == after => {
                stream.send_reset(reason);
                return Some(());
            }
            Some(Fault::Stall(after)) if token == after => {
                return std::future::poll_fn(|waker| stream.poll_reset(waker)).await.err().map(|_| ());
            }
            Some(Fault::Cut(after)) if token == after => return stream.send_data(Bytes::from_static(b"data: {\"cho"), true).ok(),
            _ => {}
        }
        let event = format!("data: {{\"choices\":[{{\"index\":0,\"text\":\"{}\"}}]}}\n\n", "a".repeat(script.letters));
        stream.send_data(Bytes::from(event), false).ok()?;
        if script.gap.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::select! {
                () = tokio::time::sleep(script.gap) => {}
                _ = std::future::poll_fn(|waker| stream.poll_reset(waker)) => return None,
            }
        }
    }
    let prompt_tokens = asked["prompt"].as_array().map_or(20, Vec::len);
    let usage = format!(
        "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":{prompt_tokens},\"completion_tokens\":{tokens}}}}}\n\ndata: [DONE]\n\n"
    );
    stream.send_data(Bytes::from(usage), true).ok()
}

/// What it serves; everything else that is no completion is not there.
fn page(path: &str, respond: &mut SendResponse<Bytes>) -> Option<()> {
    let (status, text) = match path {
        "/v1/models" => (200, r#"{"object":"list","data":[{"id":"scripted","max_model_len":8192}]}"#),
        _ => (404, r#"{"error":{"message":"no such path"}}"#),
    };
    let head = http::Response::builder().status(status).header("content-type", "application/json").body(()).unwrap();
    respond.send_response(head, false).ok()?.send_data(Bytes::from_static(text.as_bytes()), true).ok()
}

/// Takes HTTP/1.1 alone: whatever else comes gets 400 in it.
pub(crate) fn http1_only() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut room = [0; 1024];
                let _ = socket.read(&mut room).await;
                let _ = socket.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
                // Closed with something unread, the answer might be lost on its way.
                while socket.read(&mut room).await.is_ok_and(|length| length > 0) {}
            }
        });
    });
    addr
}

/// Takes connections and closes them at once: nothing stands behind it yet.
pub(crate) fn closes_at_once() -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    addr
}
