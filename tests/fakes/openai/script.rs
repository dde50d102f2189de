//! What a request asks for, and how it shall be answered: plain data that a test writes down.

use std::time::Duration;

/// Where a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    /// `POST /v1/completions`.
    Completions,
    /// `POST /v1/chat/completions`.
    Chat,
    /// `POST /v1/responses`.
    Responses,
}

/// A request, as far as the server understands it.
#[derive(Clone, Debug)]
pub(crate) struct Asked<'a> {
    /// Number of this request, from 0, in order of reading.
    pub(crate) index: u64,
    /// Number of its connection, from 0, in order of accepting.
    pub(crate) connection: u64,
    /// Where it went.
    pub(crate) endpoint: Endpoint,
    /// Head of the request as it came, without its empty line.
    pub(crate) head: &'a str,
    /// Body as it came.
    pub(crate) body: &'a str,
    /// The `x-request-id` header.
    pub(crate) request_id: Option<&'a str>,
    /// The model asked for.
    pub(crate) model: &'a str,
    /// Ids of the prompt; a text counts one for each four bytes begun.
    pub(crate) prompt_tokens: u32,
    /// The same for equal prompts.
    pub(crate) prompt_digest: u64,
    /// `max_tokens`, `max_completion_tokens` or `max_output_tokens`.
    pub(crate) max_tokens: Option<u32>,
    /// `min_tokens`.
    pub(crate) min_tokens: Option<u32>,
    /// `stream`.
    pub(crate) stream: bool,
    /// `stream_options.include_usage`.
    pub(crate) include_usage: bool,
    /// `stream_options.continuous_usage_stats`.
    pub(crate) continuous_usage: bool,
    /// `ignore_eos`.
    pub(crate) ignore_eos: bool,
}

/// Whose events are imitated, byte by byte but for ids and text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flavour {
    /// vLLM: the reason of the end stands in the last token's event.
    Vllm,
    /// llama.cpp's `llama-server`.
    LlamaServer,
    /// `python -m llama_cpp.server`: spaces after colons, never any usage in a stream.
    LlamaCppPython,
    /// `transformers serve`: no `[DONE]`, usage always.
    Transformers,
}

/// When the event comes that names the role in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// With the response's head, before any token.
    Early,
    /// In the first token's write.
    WithFirst,
    /// Not at all.
    Absent,
}

/// What the tokens are, in a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Text of an answer.
    Text,
    /// So many tokens of `reasoning_content` first, then text.
    ReasoningFirst(u32),
    /// Arguments of a tool call.
    ToolCall,
}

/// Which usage a response states.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Usage {
    /// What `stream_options` ask for; always in a response that is no stream.
    Asked,
    /// None, asked or not.
    Absent,
    /// At the end, asked or not.
    Final,
    /// In every event and at the end, asked or not.
    EveryEvent,
    /// At the end, with 7 completion tokens more than there were.
    Wrong,
}

/// How the length of a response's body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Streams chunked, others by length.
    Usual,
    /// `Transfer-Encoding: chunked`.
    Chunked,
    /// `Content-Length`.
    Length,
    /// Neither: until the connection is closed.
    UntilClose,
}

/// How a response ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// As the protocol has it, with `[DONE]`.
    Done,
    /// Properly in HTTP, without `[DONE]`.
    NoDone,
    /// Half an event (or half the JSON of a response that is no stream), then a proper end in HTTP.
    Half,
    /// An error object as an event, then `[DONE]`.
    ErrorEvent,
    /// The connection is closed without an end in HTTP.
    Close,
    /// The connection is reset.
    Reset,
    /// Never: nothing more comes, and the connection stays.
    Stall,
    /// Not even a head is written.
    NeverAnswer,
}

/// How one request is answered. The default is a good answer at once.
#[derive(Clone, Debug)]
pub(crate) struct Behaviour {
    /// Status; anything but 200 has an OpenAI error object as its body.
    pub(crate) status: u16,
    /// Further headers.
    pub(crate) headers: Vec<(&'static str, String)>,
    /// From the request's last byte to the response's head.
    pub(crate) head_delay: Duration,
    /// From the request's last byte to the first token.
    pub(crate) ttft: Duration,
    /// From one token event to the next; zero is all at once.
    pub(crate) gap: Duration,
    /// Tokens; `None` is as many as asked for, or 16.
    pub(crate) tokens: Option<u32>,
    /// Tokens in one event.
    pub(crate) tokens_per_event: u32,
    /// Token events in one `write(2)`; it is due when the first of them is.
    pub(crate) events_per_write: u32,
    /// Whose events are imitated.
    pub(crate) flavour: Flavour,
    /// When the role comes.
    pub(crate) role: Role,
    /// What the tokens are.
    pub(crate) content: Content,
    /// Which usage is stated.
    pub(crate) usage: Usage,
    /// Prompt tokens said to be cached; `None` leaves it to the server's prefix cache.
    pub(crate) cached_tokens: Option<u32>,
    /// A comment `: ping` before every event, and with the head.
    pub(crate) comments: bool,
    /// An `event: message` line in every event of completions and chats.
    pub(crate) event_lines: bool,
    /// Lines of events end in CR LF.
    pub(crate) crlf: bool,
    /// Everything is written in pieces of these many bytes, in turns, each 1 or more; empty is uncut.
    pub(crate) split: Vec<usize>,
    /// From one piece to the next; what is stamped is the first.
    pub(crate) split_gap: Duration,
    /// How the length of the body is told.
    pub(crate) framing: Framing,
    /// The token event of this number, from 0, is no JSON.
    pub(crate) bad_event: Option<u32>,
    /// How it ends.
    pub(crate) end: End,
    /// Token events before the end; `None` is all.
    pub(crate) end_after: Option<u32>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            status: 200,
            headers: Vec::new(),
            head_delay: Duration::ZERO,
            ttft: Duration::ZERO,
            gap: Duration::ZERO,
            tokens: None,
            tokens_per_event: 1,
            events_per_write: 1,
            flavour: Flavour::Vllm,
            role: Role::WithFirst,
            content: Content::Text,
            usage: Usage::Asked,
            cached_tokens: None,
            comments: false,
            event_lines: false,
            crlf: false,
            split: Vec::new(),
            split_gap: Duration::ZERO,
            framing: Framing::Usual,
            bad_event: None,
            end: End::Done,
            end_after: None,
        }
    }
}

impl Behaviour {
    /// All that is particular to a real server: its events, role, usage and end.
    pub(crate) fn like(flavour: Flavour) -> Self {
        let (role, usage, end) = match flavour {
            Flavour::Vllm | Flavour::LlamaServer => (Role::WithFirst, Usage::Asked, End::Done),
            Flavour::LlamaCppPython => (Role::WithFirst, Usage::Absent, End::Done),
            Flavour::Transformers => (Role::Early, Usage::Final, End::NoDone),
        };
        Self { flavour, role, usage, end, ..Self::default() }
    }

    /// Refused with `status`, and `Retry-After` where it is given in seconds.
    pub(crate) fn refusal(status: u16, retry_after: Option<u32>) -> Self {
        let headers = retry_after.map(|seconds| ("Retry-After", seconds.to_string())).into_iter().collect();
        Self { status, headers, ..Self::default() }
    }
}
