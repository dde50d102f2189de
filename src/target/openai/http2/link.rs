//! One connection of HTTP/2, and who uses it.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use tokio::time::timeout;

use crate::http::http2::{OpenError, Opened, Peer, open};
use crate::record::request::FailureKind;
use crate::target::openai::exchange::Failure;

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    sender: SendRequest<Bytes>,
    in_flight: Cell<usize>,
    /// Answers it has carried: one that was kept may have been closed meanwhile.
    pub(super) answers: Cell<u64>,
    /// It takes no more requests.
    over: Rc<Cell<bool>>,
}

/// A place for one request on a connection, free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place(pub(super) Rc<Link>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
    }
}

impl Link {
    /// A place on it, where the server lets it have one more.
    pub(super) fn place(self: &Rc<Self>) -> Option<Place> {
        (!self.is_over() && self.in_flight.get() < self.sender.current_max_send_streams()).then(|| {
            self.in_flight.set(self.in_flight.get() + 1);
            Place(Rc::clone(self))
        })
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.get()
    }

    /// No more requests go over it; those on their way may end.
    pub(super) fn retire(&self) {
        self.over.set(true);
    }

    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }

    /// A connection to `peer`, made within `at_most`, on which the server has said that it speaks HTTP/2, and how much of it.
    ///
    /// # Errors
    /// When there is none, or it speaks something else.
    pub(super) async fn open(peer: Peer<'_>, at_most: Duration) -> Result<Rc<Self>, Failure> {
        let late = |_| Failure::of(FailureKind::ConnectTimeout, format!("no connection within {:.1} s", at_most.as_secs_f64()));
        let Opened { sender, over } = timeout(at_most, open(peer)).await.map_err(late)?.map_err(|error| match error {
            OpenError::Connect(error) => Failure::unreachable(&error),
            error => Failure::of(FailureKind::Unreachable, error.to_string()),
        })?;
        Ok(Rc::new(Self { sender, in_flight: Cell::new(0), answers: Cell::new(0), over }))
    }
}

/// What an error of the library means for a request.
pub(super) fn failure_of(error: &h2::Error) -> Failure {
    let kind = match error.reason() {
        Some(Reason::REFUSED_STREAM | Reason::ENHANCE_YOUR_CALM) => FailureKind::Refused,
        Some(Reason::INTERNAL_ERROR) if error.is_remote() => FailureKind::TargetError,
        Some(Reason::PROTOCOL_ERROR | Reason::FRAME_SIZE_ERROR | Reason::COMPRESSION_ERROR | Reason::FLOW_CONTROL_ERROR)
            if error.is_library() =>
        {
            FailureKind::Malformed
        }
        _ => FailureKind::ConnectionLost,
    };
    Failure::of(kind, error.to_string())
}

/// Whether the server surely did nothing for the request, so that it may be asked again.
pub(super) fn is_untouched(error: &h2::Error) -> bool {
    error.reason() == Some(Reason::REFUSED_STREAM) || (error.is_go_away() && error.reason() == Some(Reason::NO_ERROR))
}

/// Whether the connection broke under it.
pub(super) fn is_broken(error: &h2::Error) -> bool {
    error.is_io() || error.get_io().is_some_and(|error: &io::Error| error.kind() != ErrorKind::WouldBlock)
}
