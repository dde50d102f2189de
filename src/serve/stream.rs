//! An answer on its way to its client, as events or whole.
//!
//! Each token is an event of its own. Events go into one write only where several wait, because the client or its socket is
//! slower than the engine.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_core::Stream;

use crate::serve::failure::Failure;
use crate::serve::reply::{Form, Usage};
use crate::serve::service::{Ticket, Wish};
use crate::serve::stepping::What;

/// Bytes at which a write is long enough.
const WRITE_BYTES: usize = 32 << 10;

/// An answer being told.
struct Answering {
    ticket: Ticket,
    wish: Wish,
    form: Form,
    cached_tokens: u32,
}

/// A stream of events.
struct Events {
    answering: Answering,
    has_begun: bool,
    is_over: bool,
}

/// The answer as a stream of events.
pub(super) fn events(ticket: Ticket, wish: Wish) -> Response {
    let events = Events { answering: Answering::new(ticket, wish), has_begun: false, is_over: false };
    let headers = [(header::CONTENT_TYPE, "text/event-stream; charset=utf-8"), (header::CACHE_CONTROL, "no-cache")];
    (headers, Body::from_stream(events)).into_response()
}

/// The whole answer, when it is there.
pub(super) async fn whole(ticket: Ticket, wish: Wish) -> Result<Response, Failure> {
    let mut answering = Answering::new(ticket, wish);
    let mut text = String::new();
    while answering.wish.progress.finish.is_none() {
        let told = poll_fn(|context| answering.ticket.poll(context)).await;
        text += &answering.take(told.ok_or_else(Failure::engine_ended)?).unwrap_or_default();
    }
    let Answering { ticket, wish, form, .. } = &answering;
    let body = form.whole(&ticket.service, &text, wish.progress.finish, answering.usage());
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

impl Answering {
    fn new(ticket: Ticket, wish: Wish) -> Self {
        let form = Form::new(wish.endpoint, ticket.key);
        Self { ticket, wish, form, cached_tokens: 0 }
    }

    /// The text that is to be given out now, if any is.
    fn take(&mut self, what: What) -> Option<String> {
        match what {
            What::Started { cached_tokens } => {
                self.cached_tokens = cached_tokens;
                None
            }
            What::Token { id, is_last } => {
                let served = &self.ticket.service.served;
                // At its full length an answer that ends with an end id has stopped there, too.
                let is_end = is_last && served.end_ids.contains(&id) && !self.wish.ignores_end;
                self.wish.progress.take(id, (is_last, is_end), served.tokenizer.as_ref())
            }
        }
    }

    fn usage(&self) -> Usage {
        Usage::new(self.wish.prompt_tokens, self.cached_tokens, self.wish.progress.tokens)
    }
}

impl Events {
    /// Appends what `told` makes due.
    fn tell(&mut self, told: Option<What>, out: &mut Vec<u8>) {
        let Some(what) = told else {
            out.extend_from_slice(b"data: ");
            out.extend_from_slice(&Failure::engine_ended().to_json());
            out.extend_from_slice(b"\n\ndata: [DONE]\n\n");
            self.is_over = true;
            return;
        };
        let Some(text) = self.answering.take(what) else { return };
        let Answering { ticket, wish, form, .. } = &self.answering;
        let service = &*ticket.service;
        if !std::mem::replace(&mut self.has_begun, true) {
            form.opening(service, out);
        }
        let (at_the_end, each) = wish.usage;
        let finish = wish.progress.finish;
        form.text(service, &text, finish, each.then(|| self.answering.usage()), out);
        if finish.is_some() {
            if at_the_end {
                form.usage(service, self.answering.usage(), out);
            }
            out.extend_from_slice(b"data: [DONE]\n\n");
            self.is_over = true;
        }
    }
}

impl Stream for Events {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        let mut out = Vec::new();
        while !this.is_over && out.len() < WRITE_BYTES {
            match this.answering.ticket.poll(context) {
                Poll::Ready(told) => this.tell(told, &mut out),
                Poll::Pending if out.is_empty() => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready((!out.is_empty()).then(|| Ok(out.into())))
    }
}
