//! What is spoken with a server, and the client that speaks it.

use std::io;
use std::sync::Arc;

use crate::clock::Monotonic;
use crate::target::Target;
use crate::target::openai::clients::Clients;
use crate::target::openai::reactor::OpenAi;
use crate::target::openai::{Server, http2};

/// What is spoken with a server, and by whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, by so many threads: 1 is the generator's own, more are threads of their own.
    Http1 {
        /// 1 or more.
        threads: u32,
    },
    /// HTTP/2, by one thread of its own.
    Http2,
}

impl Protocol {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 { .. } => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }

    /// A client that asks `server` so; its stamps come from `clock`.
    ///
    /// # Errors
    /// When the system gives no threads or descriptors.
    pub fn client(self, server: Arc<Server>, clock: Monotonic) -> io::Result<Box<dyn Target>> {
        Ok(match self {
            Self::Http1 { threads: 1 } => Box::new(OpenAi::new(server, clock)?),
            Self::Http1 { threads } => Box::new(Clients::start(&server, threads as usize, clock)?),
            Self::Http2 => Box::new(http2::start(&server, clock)?),
        })
    }
}
