//! The same server asked over HTTP/2: many requests on few connections, by tasks on a thread of its own.
//!
//! Windows are so large that flow control never makes anybody wait, and as many connections are made as the server's own
//! limit of requests on each asks for. What is reported, what is a failure, and what is sent again is as over HTTP/1.1.

mod link;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Uri};
use tokio::io::Interest;
use tokio::runtime::Builder;
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, LocalSet, spawn_local};
use tokio::time::timeout;

use crate::clock::{Clock, Monotonic, Nanos};
use crate::http::http2::socket::watched;
use crate::http::http2::{Peer, head_of, headers_of, uri_of};
use crate::record::request::FailureKind;
use crate::target::openai::Server;
use crate::target::openai::apart::{Apart, Closed, Inbox, Message, Reporter};
use crate::target::openai::ask::{RequestIds, Writer};
use crate::target::openai::clients::Clients;
use crate::target::openai::exchange::{Exchange, Failure, Together};
use crate::target::openai::http2::link::{Link, Place, failure_of, is_broken, is_untouched};
use crate::target::openai::reckoning::Tally;
use crate::target::{Event, EventKind, Slot};
use crate::workload::request::Request;

/// How often the thread's account is kept though nothing comes in.
const ACCOUNT: Duration = Duration::from_millis(20);
/// How long the rest of an answer may take after its end.
const DRAIN: Duration = Duration::from_secs(5);

/// One thread that asks `server` over HTTP/2; its stamps come from `clock`.
///
/// # Errors
/// When the system gives no thread or descriptor.
pub fn start(server: &Arc<Server>, clock: Monotonic) -> io::Result<Clients> {
    let asked = Arc::clone(server);
    let serve = move |inbox: &Inbox, reporter: &Reporter| {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = Rc::new(Client::new(asked, clock, reporter.clone())?);
        LocalSet::new().block_on(&runtime, client.serve(inbox))
    };
    Ok(Clients::of(vec![Apart::start(server.identity.clone(), 0, clock, serve)?]))
}

fn peer_of(server: &Server) -> Peer<'_> {
    Peer { endpoint: &server.endpoint, address: &server.address, tls: server.tls.as_ref() }
}

fn length(nanos: Nanos) -> Duration {
    Duration::from_nanos(nanos.0)
}

/// What lives on the thread.
struct Client {
    server: Arc<Server>,
    clock: Monotonic,
    reporter: Reporter,
    writer: Writer,
    uri: Uri,
    headers: HeaderMap,
    links: RefCell<Vec<Rc<Link>>>,
    /// One connection is made at a time: the next one who wants a place may find it there.
    opening: Mutex<()>,
    tally: RefCell<Tally>,
    gone: Cell<bool>,
    tasks: RefCell<HashMap<u32, AbortHandle>>,
}

/// Why a request got no answer, and whether it may be asked again on another connection.
struct Lost {
    failure: Failure,
    again: bool,
}

impl From<Failure> for Lost {
    fn from(failure: Failure) -> Self {
        Self { failure, again: false }
    }
}

impl Client {
    fn new(server: Arc<Server>, clock: Monotonic, reporter: Reporter) -> io::Result<Self> {
        let (endpoint, manner) = (&server.endpoint, server.manner.clone());
        let path = endpoint.path(manner.api.path());
        let uri = uri_of(endpoint, manner.api.path()).map_err(io::Error::other)?;
        let mut headers = headers_of(&server.headers).map_err(io::Error::other)?;
        headers.append(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.append(ACCEPT, HeaderValue::from_static("text/event-stream"));
        let writer = Writer::new(manner, &endpoint.authority(), &path, &server.headers, &server.tag);
        let tally = RefCell::new(Tally::expecting(server.tokens_per_event));
        let (links, tasks) = (RefCell::default(), RefCell::default());
        Ok(Self { server, clock, reporter, writer, uri, headers, links, opening: Mutex::new(()), tally, gone: Cell::new(false), tasks })
    }

    /// Until the inbox closes.
    async fn serve(self: Rc<Self>, inbox: &Inbox) -> io::Result<()> {
        let bell = watched(inbox.as_fd(), Interest::READABLE)?;
        let mut account = tokio::time::interval(ACCOUNT);
        loop {
            inbox.silence();
            loop {
                match inbox.take() {
                    Ok(Some(Message::Submit(request, slot))) => {
                        self.reporter.opens(slot);
                        let task = spawn_local(Rc::clone(&self).carry(request, slot));
                        self.tasks.borrow_mut().insert(slot.0, task.abort_handle());
                    }
                    Ok(Some(Message::Cancel(slot))) => self.cancel(slot),
                    Ok(None) => break,
                    Err(Closed) => return Ok(()),
                }
            }
            self.reporter.keep(self.tally.borrow().counters, self.gone.get());
            tokio::select! {
                rung = bell.readable() => rung?.clear_ready(),
                _ = account.tick() => {}
            }
        }
    }

    fn cancel(&self, slot: Slot) {
        let task = self.tasks.borrow_mut().remove(&slot.0);
        if let Some(task) = task {
            // The stream is reset when its task is dropped: that is how a server is told.
            task.abort();
            self.tell(slot, self.clock.now(), EventKind::Failed(FailureKind::TargetError));
        }
    }

    fn tell(&self, slot: Slot, at: Nanos, kind: EventKind) {
        self.reporter.report(Event { slot, at, kind });
    }

    /// One request, to its end.
    async fn carry(self: Rc<Self>, request: Request, slot: Slot) {
        let mut body = Vec::new();
        self.writer.write_body(&request, &mut body);
        let body = Bytes::from(body);
        let mut exchange = Exchange::counted_by(self.server.tokenizer.clone());
        let mut answered = self.answered(&request, slot, &body, &mut exchange).await;
        if answered.as_ref().is_err_and(|lost| lost.again) {
            answered = self.answered(&request, slot, &body, &mut exchange).await;
        }
        let left = match answered {
            Ok(left) => left,
            Err(Lost { failure, .. }) => {
                self.gone.set(self.gone.get() || matches!(failure.kind, FailureKind::Unreachable | FailureKind::ConnectTimeout));
                exchange.fail(failure.kind, failure.message);
                None
            }
        };
        self.end(slot, &mut exchange);
        if let Some((mut rest, _place)) = left {
            // The stream is read to its end, as the server meant it; a request is over before.
            let _ = timeout(DRAIN, async { while rest.data().await.is_some_and(|data| data.is_ok()) {} }).await;
        }
    }

    /// The request is over.
    fn end(&self, slot: Slot, exchange: &mut Exchange) {
        self.tasks.borrow_mut().remove(&slot.0);
        let (at, count) = (self.clock.now(), exchange.token_count());
        self.tally.borrow_mut().ended(&count, exchange.counted());
        if count.events > 0 {
            self.tell(slot, at, EventKind::Reckoned(count));
        }
        let Some(failure) = exchange.failure() else { return self.tell(slot, at, EventKind::Completed) };
        tracing::debug!("a request failed ({:?}): {}", failure.kind, failure.message);
        self.reporter.note(failure.kind, &failure.message);
        if let Some(wait) = failure.retry_after {
            self.tell(slot, at, EventKind::RetryAfter(Nanos::from_secs_f64(wait.as_secs_f64())));
        }
        self.tell(slot, at, EventKind::Failed(failure.kind));
    }

    /// Asks once, and hears the answer to its end; what is left of a stream that goes on after that comes back.
    async fn answered(
        &self,
        request: &Request,
        slot: Slot,
        body: &Bytes,
        exchange: &mut Exchange,
    ) -> Result<Option<(RecvStream, Place)>, Lost> {
        let place = self.place().await?;
        let link = Rc::clone(&place.0);
        let limits = self.server.limits;
        let kept = link.answers.get() > 0;
        let lost = |error: h2::Error, heard: bool| {
            if is_broken(&error) || error.is_go_away() {
                link.retire();
            }
            Lost { failure: failure_of(&error), again: !heard && (is_untouched(&error) || (kept && is_broken(&error))) }
        };
        let late = |limit: Nanos, kind| Lost::from(Failure::of(kind, format!("nothing came for {:.1} s", limit.as_secs_f64())));
        // Nothing was sent so far: another connection is as good.
        let unsent = |error: h2::Error| Lost { again: true, ..lost(error, false) };
        let mut sender = link.sender().ready().await.map_err(unsent)?;
        let mut head =
            http::Request::post(self.uri.clone()).body(()).map_err(|error| Failure::of(FailureKind::Rejected, error.to_string()))?;
        *head.headers_mut() = self.headers.clone();
        if let Ok(id) = HeaderValue::from_str(&RequestIds::tagged(&self.server.tag).of(request.id).to_string()) {
            head.headers_mut().insert("x-request-id", id);
        }
        let (response, mut stream) = sender.send_request(head, false).map_err(unsent)?;
        stream.send_data(body.clone(), true).map_err(unsent)?;
        let began = self.clock.now();
        let response = timeout(length(limits.first_token), response).await;
        let response =
            response.map_err(|_| late(limits.first_token, FailureKind::FirstTokenTimeout))?.map_err(|error| lost(error, false))?;
        self.tell(slot, self.clock.now(), EventKind::FirstByte);
        exchange.begins(&head_of(&response));
        link.answers.set(link.answers.get() + 1);
        let (mut data, mut has_tokens) = (response.into_body(), false);
        loop {
            let (limit, kind) = match has_tokens {
                true => (limits.token_gap, FailureKind::TokenGapTimeout),
                false => (limits.first_token.since(self.clock.now().since(began)), FailureKind::FirstTokenTimeout),
            };
            let piece = match timeout(length(limit), data.data()).await {
                Err(_) => return Err(late(limit, kind)),
                Ok(Some(Ok(piece))) => piece,
                Ok(Some(Err(error))) => return Err(lost(error, true)),
                Ok(None) => {
                    let tokens = exchange.conclude(&self.tally.borrow().per_event);
                    self.arrived(slot, self.clock.now(), tokens);
                    return Ok(None);
                }
            };
            let at = self.clock.now();
            let mut together = Together::default();
            let taken = exchange.take(&piece, &mut together, &self.tally.borrow().per_event);
            let tokens = exchange.apply(together);
            self.arrived(slot, at, tokens);
            has_tokens |= tokens > 0;
            if let Err(problem) = taken {
                return Err(Failure::of(FailureKind::Malformed, problem).into());
            }
            // What was read makes room for as much again.
            let _ = data.flow_control().release_capacity(piece.len());
            if exchange.is_done() {
                self.arrived(slot, at, exchange.judge());
                return Ok(Some((data, place)));
            }
        }
    }

    fn arrived(&self, slot: Slot, at: Nanos, tokens: u32) {
        if tokens > 0 {
            self.tally.borrow_mut().counters.decode_tokens += u64::from(tokens);
            self.tell(slot, at, EventKind::Tokens(tokens));
        }
    }

    /// A place on a connection: one that is there, or a fresh one.
    async fn place(&self) -> Result<Place, Failure> {
        if let Some(place) = self.free() {
            return Ok(place);
        }
        let _alone = self.opening.lock().await;
        if let Some(place) = self.free() {
            return Ok(place);
        }
        let link = Link::open(peer_of(&self.server), length(self.server.limits.connect)).await?;
        self.gone.set(false);
        let place = link.place().ok_or_else(|| Failure::of(FailureKind::Refused, "it allows no request on a connection"))?;
        self.links.borrow_mut().push(link);
        Ok(place)
    }

    fn free(&self) -> Option<Place> {
        let mut links = self.links.borrow_mut();
        links.retain(|link| !link.is_over());
        links.iter().find_map(Link::place)
    }
}
