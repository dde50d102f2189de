//! Encryption in front of a server that has none: a relay that takes connections over TLS and hands on what was in them.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

/// How the relay treats what comes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Manner {
    /// Answers go out in records of these many bytes, in turns, each in a write of its own; empty is uncut.
    pub(crate) records: Vec<usize>,
    /// From one record to the next.
    pub(crate) between: Duration,
    /// Requests are taken in pieces of 16 KiB, this far apart, through a small window.
    pub(crate) slow: Option<Duration>,
    /// A connection is closed without saying so inside the encryption.
    pub(crate) rude: bool,
    /// Protocols that are offered, such as `h2`.
    pub(crate) protocols: Vec<&'static str>,
}

/// A certificate of its own making for `localhost` and 127.0.0.1.
#[derive(Clone)]
pub(crate) struct Identity {
    /// As a file has it.
    pub(crate) pem: String,
    der: rustls::pki_types::CertificateDer<'static>,
    key: Vec<u8>,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        Self { pem: cert.pem(), der: cert.der().clone(), key: signing_key.serialize_der() }
    }

    /// What a server that shows it is made with.
    pub(crate) fn config(&self, protocols: &[&str]) -> Arc<ServerConfig> {
        let key = PrivateKeyDer::try_from(self.key.clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = builder.with_no_client_auth().with_single_cert(vec![self.der.clone()], key).unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// The relay. Dropping it ends it; connections live until either side leaves.
pub(crate) struct TlsRelay {
    pub(crate) addr: SocketAddr,
    pub(crate) identity: Identity,
    over: Arc<AtomicBool>,
}

impl TlsRelay {
    /// In front of the server at `behind`.
    pub(crate) fn before(behind: SocketAddr, manner: Manner) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        if manner.slow.is_some() {
            rustix::net::sockopt::set_socket_recv_buffer_size(&listener, 8 << 10).unwrap();
        }
        let (addr, identity, over) = (listener.local_addr().unwrap(), Identity::new(), Arc::new(AtomicBool::new(false)));
        let (config, ended) = (identity.config(&manner.protocols), Arc::clone(&over));
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok).take_while(|_| !ended.load(Ordering::Relaxed)) {
                let (config, manner) = (Arc::clone(&config), manner.clone());
                std::thread::spawn(move || relay(&client, behind, config, &manner));
            }
        });
        Self { addr, identity, over }
    }
}

impl Drop for TlsRelay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.addr);
    }
}

/// Both ways, until one side leaves.
fn relay(mut client: &TcpStream, behind: SocketAddr, config: Arc<ServerConfig>, manner: &Manner) -> Option<()> {
    let mut server = TcpStream::connect(behind).ok()?;
    let mut tls = ServerConnection::new(config).ok()?;
    let (mut room, mut turn) = (vec![0; 16 << 10], 0);
    loop {
        let mut either = [PollFd::new(client, PollFlags::IN), PollFd::new(&server, PollFlags::IN)];
        poll(&mut either, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).ok()?;
        let (by_client, by_server) = (!either[0].revents().is_empty(), !either[1].revents().is_empty());
        if by_client {
            if let Some(pause) = manner.slow {
                std::thread::sleep(pause);
            }
            let read = tls.read_tls(&mut client).ok()?;
            let state = tls.process_new_packets();
            while tls.wants_write() {
                tls.write_tls(&mut client).ok()?;
            }
            state.ok()?;
            loop {
                match tls.reader().read(&mut room) {
                    Ok(0) => return server.shutdown(Shutdown::Both).ok(),
                    Ok(length) => server.write_all(&room[..length]).ok()?,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(_) => return None,
                }
            }
            if read == 0 {
                return None;
            }
        }
        if by_server {
            let length = server.read(&mut room).unwrap_or(0);
            let mut rest = &room[..length];
            while !rest.is_empty() {
                let size =
                    if manner.records.is_empty() { rest.len() } else { manner.records[turn % manner.records.len()].clamp(1, rest.len()) };
                let (piece, after) = rest.split_at(size);
                (rest, turn) = (after, turn + 1);
                tls.writer().write_all(piece).ok()?;
                while tls.wants_write() {
                    tls.write_tls(&mut client).ok()?;
                }
                std::thread::sleep(manner.between);
            }
            if length == 0 {
                if !manner.rude {
                    tls.send_close_notify();
                    tls.write_tls(&mut client).ok()?;
                }
                return client.shutdown(Shutdown::Write).ok();
            }
        }
    }
}
