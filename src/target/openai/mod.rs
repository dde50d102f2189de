//! A server that speaks OpenAI's API, driven by one thread: the generator's own, unless it is asked for several.
//!
//! With one there is no thread, task or channel between schedule and socket: the generator waits in `epoll`, a stamp is taken right
//! behind each read, and the bytes are understood after it. A chunk costs one read and a look at its JSON. Nothing is
//! retried: only where a server closed a kept connection just before a request came is it sent again, on a fresh one, with
//! its clock running; that is told, once a client.

pub mod answer;
mod apart;
pub mod ask;
pub mod clients;
mod connection;
pub mod delta;
pub mod discover;
pub mod exchange;
pub mod http2;
pub mod loopback;
mod pool;
pub mod protocol;
pub mod reactor;
pub mod ready;
pub mod reckoning;
pub mod sse;
pub mod words;

use std::sync::Arc;

use rustls::ClientConfig;

use crate::clock::Nanos;
use crate::http::endpoint::{Address, Endpoint};
use crate::model::tokenizer::Tokenizer;
use crate::record::target::TargetIdentity;
use crate::target::openai::ask::Manner;

/// A server as it is measured: where it is, how it is asked, how long it may take.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is, as it was named.
    pub endpoint: Endpoint,
    /// The one of its addresses that answers.
    pub address: Address,
    /// What encrypted connections are made with.
    pub tls: Option<Arc<ClientConfig>>,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    /// How requests are written.
    pub manner: Manner,
    /// How long each part may take.
    pub limits: TimeLimits,
    /// What it is, for the record.
    pub identity: TargetIdentity,
    /// Tokens an event stands for, as far as is known before the first answer.
    pub tokens_per_event: f64,
    /// Counts the tokens of answers, where there is one.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// Makes the ids of requests: unique among clients.
    pub tag: String,
}

/// How long each part of a request may take; the whole is the generator's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeLimits {
    /// A connection.
    pub connect: Nanos,
    /// From the request to its first token.
    pub first_token: Nanos,
    /// From one token to the next.
    pub token_gap: Nanos,
}

impl Default for TimeLimits {
    fn default() -> Self {
        Self { connect: Nanos::from_secs(10), first_token: Nanos::from_secs(300), token_gap: Nanos::from_secs(60) }
    }
}
