//! A connection that never blocks, encrypted or not: who owns it is told by the kernel when to go on.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use crate::http::endpoint::Address;
use crate::http::tls::SessionError;

/// A connection, or one that is being made.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    tls: Option<Box<ClientConnection>>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Read for &Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&*stream).read(into),
            Socket::Unix(stream) => (&*stream).read(into),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&*stream).write(from),
            Socket::Unix(stream) => (&*stream).write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

impl Stream {
    /// Begins to connect to `address`; `tls` names the server and what is believed of it. It is connected once it can be written to
    /// and [`Self::connected`] has nothing against it.
    ///
    /// # Errors
    /// What the system says at once, such as that nobody listens or that no descriptor is left.
    pub fn begin(address: &Address, tls: Option<(&Arc<ClientConfig>, &str)>) -> io::Result<Self> {
        let socket = match address {
            Address::Tcp(address) => Socket::Tcp(tcp(*address)?),
            Address::Unix(path) => Socket::Unix(unix(path)?),
        };
        let tls = tls.map(|(config, host)| session(config, host)).transpose()?;
        Ok(Self { socket, tls })
    }

    /// What became of connecting.
    ///
    /// # Errors
    /// When it failed, such as because nobody listens.
    pub fn connected(&self) -> io::Result<()> {
        Ok(sockopt::socket_error(self.as_fd())??)
    }

    /// Reads what is there; 0 at the end of the stream.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when nothing is; otherwise what broke the connection.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return (&self.socket).read(into) };
        loop {
            match tls.reader().read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // A peer that ends without a goodbye: the length of the answer tells whether it was whole.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(0),
                done => return done,
            }
            if take(tls, &self.socket)? == 0 {
                return Ok(0);
            }
        }
    }

    /// Whether encryption is still to be agreed on; never where none is wanted.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_handshaking())
    }

    /// Goes on agreeing on encryption as far as the socket lets it, and tells whether that is done.
    ///
    /// # Errors
    /// When there will be no agreement, or the connection broke.
    pub fn shake_hands(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else { return Ok(true) };
        send(tls, &self.socket)?;
        while tls.is_handshaking() {
            match take(tls, &self.socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Writes as much as the socket takes; encrypted, all of it is taken and [`Self::wants_write`] tells whether some is left to send.
    ///
    /// # Errors
    /// [`ErrorKind::WouldBlock`] when it takes nothing; otherwise what broke the connection.
    pub fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return (&self.socket).write(from) };
        let taken = tls.writer().write(from)?;
        send(tls, &self.socket)?;
        Ok(taken)
    }

    /// Whether encrypted bytes wait for the socket to take them.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Sends what waits, as much as the socket takes.
    ///
    /// # Errors
    /// What broke the connection.
    pub fn flush(&mut self) -> io::Result<()> {
        self.tls.as_mut().map_or(Ok(()), |tls| send(tls, &self.socket))
    }

    /// The protocol that both sides agreed on, where it is encrypted and one was offered.
    #[must_use]
    pub fn protocol(&self) -> Option<&[u8]> {
        self.tls.as_ref().and_then(|tls| tls.alpn_protocol())
    }
}

/// Takes encrypted bytes off the socket and answers what they ask; returns how many there were, 0 at the end.
fn take(tls: &mut ClientConnection, mut socket: &Socket) -> io::Result<usize> {
    let handshaking = tls.is_handshaking();
    let read = tls.read_tls(&mut socket)?;
    let state = tls.process_new_packets();
    // Alerts and handshake answers go out even where what came was wrong.
    let sent = send(tls, socket);
    state.map_err(|error| io::Error::new(ErrorKind::InvalidData, SessionError::of(error, handshaking)))?;
    sent?;
    if read == 0 && handshaking {
        return Err(io::Error::new(ErrorKind::UnexpectedEof, "it was closed before encryption was agreed on"));
    }
    Ok(read)
}

fn send(tls: &mut ClientConnection, mut socket: &Socket) -> io::Result<()> {
    while tls.wants_write() {
        match tls.write_tls(&mut socket) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn session(config: &Arc<ClientConfig>, host: &str) -> io::Result<Box<ClientConnection>> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error))?;
    let mut tls = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    tls.set_buffer_limit(None);
    Ok(Box::new(tls))
}

const FLAGS: SocketFlags = SocketFlags::NONBLOCK.union(SocketFlags::CLOEXEC);

fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, FLAGS, None)?;
    // A request is one write: there is nothing to wait for.
    sockopt::set_tcp_nodelay(&socket, true)?;
    begun(connect(&socket, &address))?;
    Ok(TcpStream::from(socket))
}

fn unix(path: &Path) -> io::Result<UnixStream> {
    let socket: OwnedFd = socket_with(AddressFamily::UNIX, SocketType::STREAM, FLAGS, None)?;
    begun(connect(&socket, &SocketAddrUnix::new(path)?))?;
    Ok(UnixStream::from(socket))
}

fn begun(connected: Result<(), Errno>) -> io::Result<()> {
    match connected {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
