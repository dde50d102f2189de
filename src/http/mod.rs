//! HTTP as a measuring client needs it: where a server is, a socket that never blocks, what came back.
//!
//! Pieces, not a framework: the load generator puts them together so that a stamp sits right behind each read, and
//! [`client`] puts them together for the few requests around a measurement. No redirect is followed, nothing is retried, no
//! proxy is asked: what is measured is the server that was named.

pub mod body;
pub mod client;
pub mod endpoint;
pub mod head;
pub mod http2;
pub mod stream;
pub mod tls;
