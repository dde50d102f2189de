//! A connection that never blocks, as the HTTP/2 library wants to have it.

use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context as Waker, Poll, ready};

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::http::stream::Stream;

/// `owner` with its descriptor watched, so that a task can wait for it.
///
/// # Errors
/// When the system does not watch it.
pub fn watched<T: AsRawFd>(owner: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    #[expect(deprecated, reason = "its successor is unsafe for owners that may change their descriptor; those here keep theirs")]
    AsyncFd::with_interest(owner, interest)
}

/// A connection that a task waits for.
#[derive(Debug)]
pub struct Socket(AsyncFd<Stream>);

impl Socket {
    /// Waits until `stream` is connected, and encrypted where it is to be.
    ///
    /// # Errors
    /// When it does not come to that.
    pub async fn connected(stream: Stream) -> io::Result<Self> {
        let mut socket = watched(stream, Interest::READABLE | Interest::WRITABLE)?;
        // Readiness before there is a connection is of no use; the first to come is that there is one.
        socket.writable().await?.retain_ready();
        socket.get_ref().connected()?;
        while !socket.get_mut().shake_hands()? {
            if socket.get_ref().wants_write() {
                socket.writable().await?.clear_ready();
            } else {
                socket.readable().await?.clear_ready();
            }
        }
        Ok(Self(socket))
    }

    /// The protocol that both sides agreed on, where it is encrypted.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.0.get_ref().protocol()
    }

    /// Sends what the encryption holds back.
    fn poll_sent(&mut self, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        loop {
            self.0.get_mut().flush()?;
            if !self.0.get_ref().wants_write() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.0.poll_write_ready_mut(waker))?.clear_ready();
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, waker: &mut Waker<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let socket = &mut self.get_mut().0;
        loop {
            match socket.get_mut().read(into.initialize_unfilled()) {
                Ok(length) => {
                    into.advance(length);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(socket.poll_read_ready_mut(waker))?.clear_ready(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, waker: &mut Waker<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // The encryption takes everything at once: it may not take more than the socket lets go.
        ready!(this.poll_sent(waker))?;
        loop {
            match this.0.get_mut().write(from) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready!(this.0.poll_write_ready_mut(waker))?.clear_ready(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(waker)
    }

    fn poll_shutdown(self: Pin<&mut Self>, waker: &mut Waker<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(waker)
    }
}
