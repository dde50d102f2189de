//! Requests as bytes: the head, the prompt as ids or words, and what forces an answer to its length.

use std::fmt::{self, Display};
use std::io::Write;

use crate::target::openai::words::WordRate;
use crate::workload::request::Request;

/// Which of a server's interfaces is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Api {
    /// `/v1/completions`.
    Completions,
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/responses`.
    Responses,
}

impl Api {
    /// Its path.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Completions => "/v1/completions",
            Self::Chat => "/v1/chat/completions",
            Self::Responses => "/v1/responses",
        }
    }
}

/// How prompts are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum PromptForm {
    /// As token ids under this number: the lengths are exact.
    Ids(u32),
    /// As words.
    Words(WordRate),
}

/// How requests are written: everything that is the same for all of them.
#[derive(Clone, Debug, PartialEq)]
pub struct Manner {
    /// The interface.
    pub api: Api,
    /// The model's name.
    pub model: String,
    /// How prompts are written.
    pub prompt: PromptForm,
    /// Whether `ignore_eos` and `min_tokens` force the length: not every server takes them.
    pub force_length: bool,
    /// Whether a usage is asked for at the end of the stream.
    pub ask_usage: bool,
    /// Whether a running usage is asked for in every event.
    pub ask_running_usage: bool,
    /// `max_completion_tokens` instead of `max_tokens`, for chat.
    pub completion_limit: bool,
    /// More fields of the body, such as `{"top_k": 1}`, without its braces; empty for none.
    pub more: String,
}

/// Ids of one client's requests as the header has them: UUIDs (version 8, RFC 9562), for a server may answer 400 to anything else, as
/// llama-cpp-python's does. The last digits count requests.
#[derive(Clone, Copy, Debug)]
pub struct RequestIds(u64);

impl RequestIds {
    /// Those of a client that is told from others by `tag`.
    #[must_use]
    pub fn tagged(tag: &str) -> Self {
        // FNV-1a.
        Self(tag.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
    }

    /// The id of a request by its number.
    #[must_use]
    pub fn of(self, number: u64) -> impl Display {
        let (first, second, third) = (self.0 >> 32, self.0 >> 16 & 0xffff, 0x8000 | self.0 & 0xfff);
        let (fourth, last) = (0x8000 | number >> 48 & 0x3fff, number & 0xffff_ffff_ffff);
        fmt::from_fn(move |out| write!(out, "{first:08x}-{second:04x}-{third:04x}-{fourth:04x}-{last:012x}"))
    }
}

/// Writes requests for one server.
#[derive(Debug)]
pub struct Writer {
    manner: Manner,
    /// Request line and headers up to the length.
    head: Vec<u8>,
    /// The body up to the prompt.
    open: Vec<u8>,
    /// Names requests apart from those of other clients.
    ids: RequestIds,
    body: Vec<u8>,
}

impl Writer {
    /// For requests to `path` of `authority` with these headers.
    #[must_use]
    pub fn new(manner: Manner, authority: &str, path: &str, headers: &[(String, String)], tag: &str) -> Self {
        let mut head =
            format!("POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let open = format!("{{\"model\":{},", serde_json::Value::from(manner.model.as_str()));
        Self { manner, head: head.into_bytes(), open: open.into_bytes(), ids: RequestIds::tagged(tag), body: Vec::new() }
    }

    /// Writes `request` behind `into`; its id goes along in `X-Request-Id`.
    pub fn write(&mut self, request: &Request, into: &mut Vec<u8>) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        self.write_body(request, &mut body);
        into.extend_from_slice(&self.head);
        // Writing into memory does not fail.
        let _ = write!(into, "X-Request-Id: {}\r\nContent-Length: {}\r\n\r\n", self.ids.of(request.id), body.len());
        into.extend_from_slice(&body);
        self.body = body;
    }

    /// The body alone.
    pub fn write_body(&self, request: &Request, body: &mut Vec<u8>) {
        let manner = &self.manner;
        body.extend_from_slice(&self.open);
        body.extend_from_slice(match manner.api {
            Api::Completions => b"\"prompt\":",
            Api::Chat => b"\"messages\":[{\"role\":\"user\",\"content\":",
            Api::Responses => b"\"input\":",
        });
        match manner.prompt {
            PromptForm::Ids(vocab_size) => {
                body.push(b'[');
                for (index, id) in request.prompt.token_ids(vocab_size).enumerate() {
                    if index > 0 {
                        body.push(b',');
                    }
                    digits(id, body);
                }
                body.push(b']');
            }
            PromptForm::Words(rate) => {
                body.push(b'"');
                rate.write(&request.prompt, body);
                body.push(b'"');
            }
        }
        let tokens = request.output_tokens;
        let limit = match (manner.api, manner.completion_limit) {
            (Api::Responses, _) => "max_output_tokens",
            (Api::Chat, true) => "max_completion_tokens",
            _ => "max_tokens",
        };
        let close = if manner.api == Api::Chat { "}]" } else { "" };
        let sampling = request.sampling;
        // Writing into memory does not fail.
        let _ = write!(body, "{close},\"{limit}\":{tokens},\"stream\":true,\"temperature\":{}", sampling.temperature);
        if sampling.temperature > 0.0 {
            let _ = write!(body, ",\"top_p\":{},\"seed\":{}", sampling.top_p, sampling.seed >> 33);
            if sampling.top_k > 0 {
                let _ = write!(body, ",\"top_k\":{}", sampling.top_k);
            }
        }
        if manner.force_length {
            let _ = write!(body, ",\"ignore_eos\":true,\"min_tokens\":{tokens}");
        }
        if manner.ask_usage && manner.api != Api::Responses {
            let running = if manner.ask_running_usage { ",\"continuous_usage_stats\":true" } else { "" };
            let _ = write!(body, ",\"stream_options\":{{\"include_usage\":true{running}}}");
        }
        if !manner.more.is_empty() {
            body.push(b',');
            body.extend_from_slice(manner.more.as_bytes());
        }
        body.push(b'}');
    }
}

/// A number in decimal digits.
fn digits(number: u32, into: &mut Vec<u8>) {
    let (mut place, mut rest, mut text) = (10, number, [0_u8; 10]);
    loop {
        place -= 1;
        text[place] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    into.extend_from_slice(&text[place..]);
}
