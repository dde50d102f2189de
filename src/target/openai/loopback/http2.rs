//! The same over HTTP/2, a task for each answer.

use std::io;
use std::net;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::Response;
use http::header::CONTENT_TYPE;
use tokio::io::Interest;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime;
use tokio::task::{LocalSet, spawn_local, yield_now};

use crate::http::http2::socket::watched;
use crate::target::openai::loopback::{end, event};

/// What a client may send unread: of one request, and of all.
const WINDOW: u32 = 1 << 20;
const WINDOW_OF_ALL: u32 = 64 << 20;

/// An answer as it is sent, again and again.
struct Answer {
    event: Bytes,
    end: Bytes,
    tokens: u32,
}

/// Answers with so many tokens until `stop` can be read.
///
/// # Errors
/// When the system gives no descriptor.
pub(super) fn serve(listener: net::TcpListener, stop: Arc<OwnedFd>, tokens: u32) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let answer = Rc::new(Answer { event: event().into(), end: end(tokens).into(), tokens });
    LocalSet::new().block_on(&runtime, async {
        let (listener, stop) = (TcpListener::from_std(listener)?, watched(stop, Interest::READABLE)?);
        loop {
            tokio::select! {
                _ = stop.readable() => return Ok(()),
                taken = listener.accept() => {
                    // One that is gone again before it was taken is none.
                    if let Ok((socket, _)) = taken {
                        spawn_local(attend(socket, Rc::clone(&answer)));
                    }
                }
            }
        }
    })
}

async fn attend(socket: TcpStream, answer: Rc<Answer>) {
    // A small event is not kept back for the next.
    let _ = socket.set_nodelay(true);
    let mut builder = Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW_OF_ALL);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let answer = Rc::clone(&answer);
        spawn_local(async move {
            if let Err(error) = reply(request.into_body(), respond, &answer).await {
                tracing::trace!("a client let go of an answer: {error}");
            }
        });
    }
}

async fn reply(mut asked: RecvStream, mut respond: SendResponse<Bytes>, answer: &Answer) -> Result<(), h2::Error> {
    while let Some(piece) = asked.data().await {
        let length = piece?.len();
        asked.flow_control().release_capacity(length)?;
    }
    let mut head = Response::new(());
    head.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
    let mut stream = respond.send_response(head, false)?;
    for _ in 0..answer.tokens {
        stream.send_data(answer.event.clone(), false)?;
        // The connection has its turn to write it before the next one comes.
        yield_now().await;
    }
    stream.send_data(answer.end.clone(), true)
}
