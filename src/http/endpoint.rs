//! Where a server is, as people write it: `http://host:port/v1`, `https://...`, `unix:/path/to.sock`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;

/// A server by its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Name or address, without brackets; `localhost` for a unix socket.
    pub host: String,
    /// TCP port; 0 for a unix socket.
    pub port: u16,
    /// What stands before every path, without a slash at its end and without the `/v1` of the API; often empty.
    pub prefix: String,
    /// The unix socket, where it is one.
    pub socket: Option<PathBuf>,
}

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Over TCP.
    Tcp(SocketAddr),
    /// Over a unix socket.
    Unix(PathBuf),
}

/// Why a text names no server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` names no server: {problem}. Write it like http://127.0.0.1:8000, https://host/v1 or unix:/run/server.sock")]
pub struct BadEndpoint {
    text: String,
    problem: &'static str,
}

/// A name that has no address.
#[derive(Debug, thiserror::Error)]
#[error("`{host}` has no address: {problem}. Check its spelling, or give the address itself")]
pub struct Unresolved {
    host: String,
    problem: String,
}

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = |problem| BadEndpoint { text: text.to_owned(), problem };
        if let Some(rest) = text.strip_prefix("unix:") {
            let path = rest.strip_prefix("//").unwrap_or(rest);
            if !path.starts_with('/') {
                return Err(bad("the path of a unix socket begins with `/`"));
            }
            let socket = Some(PathBuf::from(path));
            return Ok(Self { tls: false, host: "localhost".to_owned(), port: 0, prefix: String::new(), socket });
        }
        let (tls, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(bad("only http, https and unix are spoken")),
            None => return Err(bad("it begins with no scheme")),
        };
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if authority.contains('@') {
            return Err(bad("a user does not belong into it (give a key with `--api-key-file`)"));
        }
        if path.contains(['?', '#']) {
            return Err(bad("a query does not belong into it"));
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(|| bad("a bracket is not closed"))?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        if host.is_empty() || host.bytes().any(|byte| byte.is_ascii_control() || byte == b' ') {
            return Err(bad("it has no host"));
        }
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| bad("the port is no number in 1..=65535"))?,
            None if port.is_empty() => {
                if tls {
                    443
                } else {
                    80
                }
            }
            None => return Err(bad("something stands between host and port")),
        };
        let path = path.trim_end_matches('/');
        let prefix = path.strip_suffix("/v1").unwrap_or(path).to_owned();
        Ok(Self { tls, host: host.to_owned(), port, prefix, socket: None })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(socket) => write!(out, "unix:{}", socket.display()),
            None => write!(out, "{}://{}{}", if self.tls { "https" } else { "http" }, self.authority(), self.prefix),
        }
    }
}

impl Endpoint {
    /// What the `Host` header says.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (_, 0) | (false, 80) | (true, 443) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// The path of `rest`, which begins with a slash.
    #[must_use]
    pub fn path(&self, rest: &str) -> String {
        format!("{}{rest}", self.prefix)
    }

    /// Whether it is on this machine by its address, so that its processes can be looked at.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.socket.is_some()
            || self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback() || address.is_unspecified())
    }

    /// Every address that it has.
    ///
    /// # Errors
    /// When its name has none.
    pub fn resolve(&self) -> Result<Vec<Address>, Unresolved> {
        if let Some(socket) = &self.socket {
            return Ok(vec![Address::Unix(socket.clone())]);
        }
        let none = |problem: String| Unresolved { host: self.host.clone(), problem };
        let found = (self.host.as_str(), self.port).to_socket_addrs().map_err(|error| none(error.to_string()))?;
        let addresses: Vec<_> = found.map(Address::Tcp).collect();
        if addresses.is_empty() { Err(none("the resolver knows none".to_owned())) } else { Ok(addresses) }
    }
}
