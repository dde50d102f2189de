//! The built-in engine as an OpenAI-compatible endpoint, so that any client can measure it.
//!
//! The engine keeps its own thread and never waits for HTTP: what a step told goes over in one piece, and is divided among
//! the streams on the other side. This room serves; it neither measures nor knows an objective, and it takes no part in
//! `bench`, whose requests do not pass through HTTP.

pub mod asked;
mod detokenizer;
mod failure;
mod pages;
mod progress;
mod reply;
pub mod service;
mod stepping;
mod stream;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tokio::net::{TcpListener, TcpSocket};

use crate::serve::asked::Endpoint;
use crate::serve::failure::Failure;
use crate::serve::service::Service;

/// Most bytes of a request's body: a prompt of a million ids fits.
const BODY_BYTES: usize = 16 << 20;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4096;
/// How long requests in flight may take to end after the server was told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Why the server could not begin, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken, or none of this machine.
    #[error("cannot listen on `{address}`: {problem}. Choose another `--port` or `--host`, or end what listens there")]
    Listen {
        /// Where.
        address: String,
        /// What the system says.
        problem: std::io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start the engine's thread: {0}. Check the limit on threads (`ulimit -u`)")]
    Thread(std::io::Error),
    /// The device failed or the engine has a fault.
    #[error("the engine ended: {0}. Start the server again")]
    EngineEnded(String),
}

/// An address that is taken and does not listen yet: clients are refused until the model is loaded.
#[derive(Debug)]
pub struct Reserved {
    socket: TcpSocket,
    address: SocketAddr,
}

impl Reserved {
    /// Takes `address`; port 0 is any that is free.
    ///
    /// # Errors
    /// When it is taken, or none of this machine.
    pub fn take(address: SocketAddr) -> Result<Self, ServeError> {
        let bound = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            Ok(Self { address: socket.local_addr()?, socket })
        };
        bound().map_err(|problem| ServeError::Listen { address: address.to_string(), problem })
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients in, who wait until they are served. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen(self) -> Result<TcpListener, ServeError> {
        self.socket.listen(BACKLOG).map_err(|problem| ServeError::Listen { address: self.address.to_string(), problem })
    }
}

/// Serves until `stop` is ready, then lets requests in flight end for up to ten seconds. Needs a tokio runtime around it.
///
/// # Errors
/// When the engine ends by itself.
pub async fn serve(listener: TcpListener, service: Arc<Service>, stop: impl Future<Output = ()> + Send) -> Result<(), ServeError> {
    // A token waits for no acknowledgement of the one before.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let (tell_stop, told_stop) = tokio::sync::oneshot::channel::<()>();
    let graceful = axum::serve(listener, router(Arc::clone(&service))).with_graceful_shutdown(async move { drop(told_stop.await) });
    let mut serving = tokio::spawn(async move { graceful.await });
    tokio::select! {
        () = stop => {}
        () = service.engine_ended() => {}
    }
    drop(tell_stop);
    if tokio::time::timeout(DRAIN, &mut serving).await.is_err() {
        tracing::warn!("requests in flight were broken off after {} s", DRAIN.as_secs());
        serving.abort();
    }
    service.end().map_or(Ok(()), |reason| Err(ServeError::EngineEnded(reason)))
}

fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/v1/completions", post(completions))
        .route("/v1/chat/completions", post(chat))
        .route("/v1/models", get(pages::models))
        .route("/health", get(pages::health))
        .route("/version", get(pages::version))
        .route("/metrics", get(pages::metrics))
        .route("/reset_prefix_cache", post(pages::reset_prefix_cache))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&service), keyed))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .with_state(service)
}

/// Lets pass what has the key, where there is one; `/health` needs none.
async fn keyed(State(service): State<Arc<Service>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get("authorization").and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if request.uri().path() == "/health" || service.admits(shown) {
        return next.run(request).await;
    }
    Failure::unauthorized().into_response()
}

async fn completions(State(service): State<Arc<Service>>, body: Result<Bytes, BytesRejection>) -> Result<Response, Failure> {
    answer(&service, Endpoint::Completions, body).await
}

async fn chat(State(service): State<Arc<Service>>, body: Result<Bytes, BytesRejection>) -> Result<Response, Failure> {
    answer(&service, Endpoint::Chat, body).await
}

async fn answer(service: &Arc<Service>, endpoint: Endpoint, body: Result<Bytes, BytesRejection>) -> Result<Response, Failure> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::too_large(BODY_BYTES),
        _ => Failure::bad(rejection.body_text(), None),
    })?;
    let job = service.job(endpoint, &body)?;
    let (ticket, wish) = service.submit(job)?;
    if wish.stream { Ok(stream::events(ticket, wish)) } else { stream::whole(ticket, wish).await }
}

async fn unknown_path(uri: Uri) -> Failure {
    Failure::unknown_path(uri.path())
}

async fn unknown_method(method: Method, uri: Uri) -> Failure {
    Failure::unknown_method(method.as_str(), uri.path())
}
