//! HTTP/2 as a measuring client needs it: a connection on which the server has said that it speaks it, and one whole exchange over one.
//!
//! Everything lives on the thread that asks: the library's own task of a connection too, in that thread's [`LocalSet`].

pub mod socket;

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::Ping;
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, RETRY_AFTER, SERVER};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri};
use rustls::{AlertDescription, ClientConfig};
use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::timeout;

use crate::http::client::{Answer, BODY_AT_MOST, Client, ExchangeError};
use crate::http::endpoint::{Address, Endpoint};
use crate::http::head::{Framing, Head};
use crate::http::http2::socket::Socket;
use crate::http::stream::Stream;
use crate::http::tls::SessionError;

/// What the server may send unread: of one answer, and of all. More than any network holds, so that nobody waits for it.
const WINDOW: u32 = 4 << 20;
const WINDOW_OF_ALL: u32 = 64 << 20;

/// A server by address, and how it is talked to.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// As it was named.
    pub endpoint: &'a Endpoint,
    /// The one of its addresses that is meant.
    pub address: &'a Address,
    /// What encrypted connections are made with; it offers `h2`.
    pub tls: Option<&'a Arc<ClientConfig>>,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Sends requests over it.
    pub sender: SendRequest<Bytes>,
    /// It takes no more of them.
    pub over: Rc<Cell<bool>>,
}

/// Why there is no connection over which HTTP/2 is spoken.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody is there, or encryption was not agreed on.
    #[error(transparent)]
    Connect(io::Error),
    /// It ended before anything was said: by a server that is not ready as well as by one that speaks something else.
    #[error("it was closed before anything came over HTTP/2. One who does not speak HTTP/2 may do so: leave `--http2` out")]
    Closed,
    /// Somebody is there, and speaks something else.
    #[error("{0}")]
    NotSpoken(String),
}

impl OpenError {
    fn of_connecting(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<SessionError>()) {
            Some(SessionError::NoAgreement(rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol))) => {
                Self::NotSpoken("it refused `h2` when it was offered".to_owned())
            }
            _ => Self::Connect(error),
        }
    }

    fn of_speaking(ended: Result<(), h2::Error>) -> Self {
        match ended {
            Err(error) if !error.is_io() => Self::NotSpoken(format!("it does not answer in HTTP/2 ({error})")),
            _ => Self::Closed,
        }
    }
}

/// A connection to `peer`, on which the server has said that it speaks HTTP/2, and how much of it. Its task lives in the
/// [`LocalSet`] of the caller.
///
/// # Errors
/// When there is none, or something else is spoken.
pub async fn open(peer: Peer<'_>) -> Result<Opened, OpenError> {
    let tls = peer.tls.filter(|_| peer.endpoint.tls).map(|config| (config, peer.endpoint.host.as_str()));
    let stream = Stream::begin(peer.address, tls).map_err(OpenError::Connect)?;
    let socket = Socket::connected(stream).await.map_err(OpenError::of_connecting)?;
    if tls.is_some() && socket.protocol() != Some(b"h2") {
        return Err(OpenError::NotSpoken("it did not choose `h2` when it was offered".to_owned()));
    }
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(WINDOW).initial_connection_window_size(WINDOW_OF_ALL).enable_push(false);
    let (sender, mut connection) = builder.handshake::<_, Bytes>(socket).await.map_err(|error| OpenError::of_speaking(Err(error)))?;
    if let Some(mut ping) = connection.ping_pong() {
        // What the server allows stands in its first frame, which comes before the answer to this. What it did instead of
        // answering is known to the connection alone.
        tokio::select! {
            biased;
            ended = &mut connection => return Err(OpenError::of_speaking(ended)),
            answered = ping.ping(Ping::opaque()) => answered.map(|_| ()).map_err(|error| OpenError::of_speaking(Err(error)))?,
        }
    }
    let over = Rc::new(Cell::new(false));
    let ended = Rc::clone(&over);
    tokio::task::spawn_local(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection of HTTP/2 ended: {error}");
        }
        ended.set(true);
    });
    Ok(Opened { sender, over })
}

/// Where `path` of `endpoint` is.
///
/// # Errors
/// When it is no address.
pub fn uri_of(endpoint: &Endpoint, path: &str) -> Result<Uri, http::Error> {
    let scheme = if endpoint.tls { "https" } else { "http" };
    Uri::builder().scheme(scheme).authority(endpoint.authority()).path_and_query(endpoint.path(path)).build()
}

/// Headers by name and value.
///
/// # Errors
/// When one of them cannot be sent.
pub fn headers_of(named: &[(String, String)]) -> Result<HeaderMap, http::Error> {
    let mut headers = HeaderMap::new();
    for (name, value) in named {
        headers.append(HeaderName::from_bytes(name.as_bytes())?, HeaderValue::from_bytes(value.as_bytes())?);
    }
    Ok(headers)
}

/// The head of an answer, as far as it matters.
#[must_use]
pub fn head_of<T>(response: &Response<T>) -> Head {
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    Head {
        status: response.status().as_u16(),
        framing: Framing::UntilClose,
        keep_alive: true,
        event_stream: text(CONTENT_TYPE).is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/event-stream")),
        retry_after: text(RETRY_AFTER).and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs),
        server: text(SERVER).map(str::to_owned),
    }
}

/// One exchange of `client`, on a connection of its own.
pub(super) fn exchange(client: &Client, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer, ExchangeError> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|problem| client.broken(problem))?;
    let answered = async { timeout(client.timeout, answered(client, method, path, body)).await.unwrap_or_else(|_| Err(client.too_late())) };
    LocalSet::new().block_on(&runtime, answered)
}

async fn answered(client: &Client, method: &str, path: &str, body: Option<&[u8]>) -> Result<Answer, ExchangeError> {
    let unsendable = |error: http::Error| client.broken(io::Error::new(ErrorKind::InvalidInput, error));
    let lost = |error: h2::Error| {
        let problem = if error.is_io() { error.into_io() } else { Some(io::Error::other(error)) };
        client.broken(problem.unwrap_or_else(|| ErrorKind::ConnectionAborted.into()))
    };
    let mut request =
        Request::builder().method(method).uri(uri_of(&client.endpoint, path).map_err(unsendable)?).body(()).map_err(unsendable)?;
    *request.headers_mut() = headers_of(&client.headers).map_err(unsendable)?;
    if body.is_some() {
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    let body = body.unwrap_or_default();
    let mut sender = connect(client).await?.sender.ready().await.map_err(lost)?;
    let (response, mut sent) = sender.send_request(request, body.is_empty()).map_err(lost)?;
    if !body.is_empty() {
        sent.send_data(Bytes::copy_from_slice(body), true).map_err(lost)?;
    }
    let response = response.await.map_err(lost)?;
    let head = head_of(&response);
    let (mut data, mut text) = (response.into_body(), Vec::new());
    while let Some(piece) = data.data().await {
        let piece = piece.map_err(lost)?;
        text.extend_from_slice(&piece);
        if text.len() > BODY_AT_MOST {
            return Err(client.broken(ErrorKind::UnexpectedEof.into()));
        }
        // What was read makes room for as much again.
        let _ = data.flow_control().release_capacity(piece.len());
    }
    Ok(Answer { head, body: text })
}

/// A connection to the first of the server's addresses that takes one.
async fn connect(client: &Client) -> Result<Opened, ExchangeError> {
    let mut failed = None;
    for address in client.endpoint.resolve()? {
        match open(Peer { endpoint: &client.endpoint, address: &address, tls: client.tls.as_ref() }).await {
            Err(OpenError::Connect(problem)) => failed = Some(problem),
            Err(OpenError::NotSpoken(problem)) => {
                return Err(ExchangeError::NoHttp2 { endpoint: client.endpoint.to_string(), problem });
            }
            Err(closed @ OpenError::Closed) => return Err(client.broken(io::Error::new(ErrorKind::ConnectionAborted, closed))),
            Ok(opened) => return Ok(opened),
        }
    }
    Err(client.unconnected(failed))
}
