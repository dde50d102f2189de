//! One response on its way: what is due next, and its bytes.

use std::io::Write;
use std::time::Duration;

use super::script::{Asked, Behaviour, Content, End, Endpoint, Flavour, Framing, Role, Usage};
use super::wire::{self, Counts, Key, Wire};

/// What follows after the bytes were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    /// Something more is due.
    More,
    /// The response is whole; the connection may be used again, or not.
    Whole { keeps: bool },
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset,
    /// Nothing, ever.
    Stall,
}

/// A response being written.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    behaviour: Behaviour,
    wire: Wire,
    endpoint: Endpoint,
    stream: bool,
    include_usage: bool,
    closes: bool,
    /// Index of its record in the truth.
    pub(crate) record: usize,
    read_at: u64,
    counts: Counts,
    finish: &'static str,
    /// Tokens there are to be.
    tokens: u32,
    /// Token events that are written, and all there are before the end.
    events: u32,
    events_at_most: u32,
    has_head: bool,
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

impl Answer {
    /// To a request read at `read_at`; `closes` when the client wants the connection closed.
    pub(crate) fn new(asked: &Asked<'_>, behaviour: Behaviour, record: usize, read_at: u64, closes: bool) -> Self {
        let tokens = behaviour.tokens.or(asked.max_tokens).unwrap_or(16);
        let events = tokens.div_ceil(behaviour.tokens_per_event.max(1));
        Self {
            wire: Wire::new(asked, &behaviour),
            endpoint: asked.endpoint,
            stream: asked.stream,
            include_usage: asked.include_usage,
            closes: closes || behaviour.framing == Framing::UntilClose,
            record,
            read_at,
            counts: Counts { prompt: asked.prompt_tokens, cached: behaviour.cached_tokens.unwrap_or(0), completion: 0 },
            finish: if asked.max_tokens.is_some_and(|most| most > tokens) { "stop" } else { "length" },
            tokens,
            events: 0,
            events_at_most: behaviour.end_after.unwrap_or(events).min(events),
            has_head: false,
            behaviour,
        }
    }

    /// Sizes of pieces that its bytes are cut into, and the time between them in nanoseconds.
    pub(crate) fn cuts(&self) -> (&[usize], u64) {
        (&self.behaviour.split, nanos(self.behaviour.split_gap))
    }

    /// When the next write is due; `None` is never.
    pub(crate) fn due(&self) -> Option<u64> {
        let Behaviour { head_delay, ttft, gap, end, status, .. } = &self.behaviour;
        if *end == End::NeverAnswer {
            return None;
        }
        let head_due = self.read_at + nanos(*head_delay);
        if !self.has_head {
            return Some(head_due);
        }
        if *status != 200 {
            return Some(head_due);
        }
        // A response that is no stream comes as a whole when its last token would.
        let event = if self.stream { self.events } else { self.events_at_most.saturating_sub(1) };
        Some(head_due.max(self.read_at + nanos(*ttft)) + u64::from(event) * nanos(*gap))
    }

    /// Appends the bytes that are due at `now` to `out`, and says how many tokens are in them and what follows. `body` is
    /// room to work in.
    pub(crate) fn fill(&mut self, now: u64, out: &mut Vec<u8>, body: &mut Vec<u8>) -> (u32, Then) {
        body.clear();
        if !self.has_head {
            self.head(out);
            self.has_head = true;
            self.opening(body);
            if self.due().is_some_and(|due| due > now) {
                self.frame(body, out);
                return (0, Then::More);
            }
        }
        let (tokens, then) = self.body(body);
        self.frame(body, out);
        if matches!(then, Then::Whole { .. }) && self.is_chunked() {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        (tokens, then)
    }

    /// Status line and headers.
    fn head(&self, out: &mut Vec<u8>) {
        let Behaviour { status, headers, .. } = &self.behaviour;
        let kind = if self.stream && *status == 200 { "text/event-stream; charset=utf-8" } else { "application/json" };
        let mut write = |text: std::fmt::Arguments<'_>| out.write_fmt(text).expect("a vector takes it");
        write(format_args!("HTTP/1.1 {status} {}\r\nserver: fake\r\ncontent-type: {kind}\r\n", reason(*status)));
        headers.iter().for_each(|(name, value)| write(format_args!("{name}: {value}\r\n")));
        if self.is_chunked() {
            write(format_args!("transfer-encoding: chunked\r\n"));
        } else if self.behaviour.framing != Framing::UntilClose {
            write(format_args!("content-length: {}\r\n", self.length()));
        }
        write(format_args!("{}\r\n", if self.closes { "connection: close\r\n" } else { "" }));
    }

    fn is_chunked(&self) -> bool {
        match self.behaviour.framing {
            Framing::Usual => self.stream && self.behaviour.status == 200,
            Framing::Chunked => true,
            Framing::Length | Framing::UntilClose => false,
        }
    }

    /// Bytes of the whole body, had by writing it once for nobody.
    fn length(&self) -> usize {
        let mut rehearsal = self.clone();
        if matches!(self.behaviour.end, End::Close | End::Reset | End::Stall) {
            // Who breaks off had promised the rest.
            (rehearsal.behaviour.end, rehearsal.behaviour.end_after) = (End::Done, None);
            rehearsal.events_at_most = self.tokens.div_ceil(self.behaviour.tokens_per_event.max(1));
        }
        let mut body = Vec::new();
        rehearsal.opening(&mut body);
        while rehearsal.body(&mut body).1 == Then::More {}
        body.len()
    }

    /// The bytes of one write of the body.
    fn frame(&self, body: &[u8], out: &mut Vec<u8>) {
        if body.is_empty() {
            return;
        }
        if self.is_chunked() {
            write!(out, "{:x}\r\n", body.len()).expect("a vector takes it");
            out.extend_from_slice(body);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(body);
        }
    }

    /// What comes with the head.
    fn opening(&self, body: &mut Vec<u8>) {
        if self.stream && self.behaviour.status == 200 {
            if self.behaviour.comments {
                self.comment(body);
            }
            if self.behaviour.role == Role::Early && self.endpoint != Endpoint::Completions {
                self.event(body, |event| self.wire.role(event));
            }
        }
    }

    /// The next part of the body: its tokens and what follows.
    fn body(&mut self, body: &mut Vec<u8>) -> (u32, Then) {
        if self.behaviour.status != 200 {
            body.extend_from_slice(wire::error_object(self.behaviour.status).as_bytes());
            return (0, Then::Whole { keeps: !self.closes });
        }
        if !self.stream {
            return self.body_at_once(body);
        }
        let before = self.counts.completion;
        let until = self.events.saturating_add(self.behaviour.events_per_write.max(1)).min(self.events_at_most);
        while self.events < until {
            self.token_event(body);
        }
        let tokens = self.counts.completion - before;
        if self.events < self.events_at_most {
            return (tokens, Then::More);
        }
        (tokens, self.ending(body))
    }

    fn body_at_once(&mut self, body: &mut Vec<u8>) -> (u32, Then) {
        self.counts.completion = self.tokens;
        let from = body.len();
        let usage = self.stated(self.behaviour.usage != Usage::Absent);
        self.wire.body(self.tokens, self.finish, usage, body);
        let then = self.then();
        if !matches!(then, Then::Whole { .. }) || self.behaviour.end == End::Half {
            body.truncate(from + (body.len() - from) / 2);
        }
        (self.tokens, then)
    }

    fn token_event(&mut self, body: &mut Vec<u8>) {
        let from = self.counts.completion;
        let to = from.saturating_add(self.behaviour.tokens_per_event.max(1)).min(self.tokens);
        if self.events == 0 && self.behaviour.role == Role::WithFirst && self.endpoint != Endpoint::Completions {
            self.event(body, |event| self.wire.role(event));
        }
        self.counts.completion = to;
        let is_last = to == self.tokens && self.behaviour.end_after.is_none();
        let finish = (is_last && self.behaviour.flavour == Flavour::Vllm).then_some(self.finish);
        let key = match self.behaviour.content {
            Content::ReasoningFirst(count) if from < count => Key::Reasoning,
            Content::Text | Content::ReasoningFirst(_) => Key::Text,
            Content::ToolCall => Key::ToolCall,
        };
        if self.behaviour.bad_event == Some(self.events) {
            self.event(body, |event| event.extend_from_slice(b"{\"choices\":[{\"index\":0,oops"));
        } else if finish.is_none() && key != Key::Reasoning {
            self.event(body, |event| self.wire.tokens(from, to, self.counts, event));
        } else {
            self.event(body, |event| self.wire.special_tokens(key, finish, (from, to), self.counts, event));
        }
        self.events += 1;
    }

    fn then(&self) -> Then {
        match self.behaviour.end {
            End::Done | End::NoDone | End::Half | End::ErrorEvent => Then::Whole { keeps: !self.closes },
            End::Close => Then::Close,
            End::Reset => Then::Reset,
            End::Stall | End::NeverAnswer => Then::Stall,
        }
    }

    /// What comes after the last token event.
    fn ending(&self, body: &mut Vec<u8>) -> Then {
        match self.behaviour.end {
            End::Done | End::NoDone => self.last_events(body),
            End::Half => {
                let mut half = Vec::new();
                self.event(&mut half, |event| self.wire.tokens(0, 1, self.counts, event));
                body.extend_from_slice(&half[..half.len() / 2]);
            }
            End::ErrorEvent => self.event(body, |event| event.extend_from_slice(wire::error_object(500).as_bytes())),
            End::Close | End::Reset | End::Stall | End::NeverAnswer => {}
        }
        if matches!(self.behaviour.end, End::Done | End::ErrorEvent) && self.endpoint != Endpoint::Responses {
            self.line(body, &[b"data: [DONE]"]);
            self.line(body, &[]);
        }
        self.then()
    }

    /// Reason and usage, where the flavour has them in events of their own.
    fn last_events(&self, body: &mut Vec<u8>) {
        let usage = self.stated(match self.behaviour.usage {
            Usage::Asked => self.include_usage,
            Usage::Absent => false,
            Usage::Final | Usage::EveryEvent | Usage::Wrong => true,
        });
        if self.endpoint == Endpoint::Responses {
            // This endpoint always states it: there is no option.
            let usage = self.stated(self.behaviour.usage != Usage::Absent);
            return self.event(body, |event| self.wire.completed(self.tokens, usage, event));
        }
        let in_finish = match self.behaviour.flavour {
            Flavour::Vllm => false,
            Flavour::LlamaServer => self.endpoint == Endpoint::Completions,
            Flavour::LlamaCppPython | Flavour::Transformers => true,
        };
        if self.behaviour.flavour != Flavour::Vllm || self.tokens == 0 {
            self.event(body, |event| self.wire.finish(self.finish, usage.filter(|_| in_finish), event));
        }
        if let Some(counts) = usage.filter(|_| !in_finish) {
            self.event(body, |event| self.wire.usage_alone(counts, event));
        }
    }

    fn stated(&self, stated: bool) -> Option<Counts> {
        let surplus = if self.behaviour.usage == Usage::Wrong { 7 } else { 0 };
        stated.then_some(Counts { completion: self.counts.completion + surplus, ..self.counts })
    }

    /// One event around the JSON that `json` writes.
    fn event(&self, body: &mut Vec<u8>, json: impl FnOnce(&mut Vec<u8>)) {
        if self.behaviour.comments {
            self.comment(body);
        }
        if self.endpoint == Endpoint::Responses {
            let mut event = Vec::new();
            json(&mut event);
            // Every event of this endpoint says its type twice.
            let name = event.split(|byte| *byte == b'"').nth(3).unwrap_or_default();
            self.line(body, &[b"event: ", name]);
            self.line(body, &[b"data: ", &event]);
            return self.line(body, &[]);
        }
        if self.behaviour.event_lines {
            self.line(body, &[b"event: message"]);
        }
        body.extend_from_slice(b"data: ");
        json(body);
        self.line(body, &[]);
        self.line(body, &[]);
    }

    fn comment(&self, body: &mut Vec<u8>) {
        self.line(body, &[b": ping"]);
        self.line(body, &[]);
    }

    fn line(&self, body: &mut Vec<u8>, parts: &[&[u8]]) {
        parts.iter().for_each(|part| body.extend_from_slice(part));
        body.extend_from_slice(if self.behaviour.crlf { b"\r\n" } else { b"\n" });
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        401 => "Unauthorized",
        404 => "Not Found",
        422 => "Unprocessable Entity",
        429 => "Too Many Requests",
        503 => "Service Unavailable",
        _ => "Internal Server Error",
    }
}
