//! The JSON of events and bodies, in the shapes of real servers (recorded answers were the model).

use std::fmt::Write;

use super::script::{Asked, Behaviour, Content, Endpoint, Flavour, Usage};

/// What the tokens say, in turns: JSON-escaped already, some of several bytes a character.
const WORDS: [&str; 12] = [" the", " old", " ship", " carries", " é", " 海", " ropes", "\\n", " 🚢", " \\\"tarred\\\"", " down", "."];

/// Stands where a token's text goes, in an event that is used as a pattern.
const TEXT: char = '\u{1}';
/// Stands where the usage goes.
const USAGE: char = '\u{2}';

/// The text of tokens `from..to`, as it stands in JSON.
pub(crate) fn words(from: u32, to: u32, out: &mut Vec<u8>) {
    (from..to).for_each(|token| out.extend_from_slice(WORDS[token as usize % WORDS.len()].as_bytes()));
}

/// The text of the first `tokens` tokens, as a client shall read it.
pub(crate) fn text(tokens: u32) -> String {
    let mut json = vec![b'"'];
    words(0, tokens, &mut json);
    json.push(b'"');
    serde_json::from_slice(&json).expect("the words are JSON")
}

/// The counts of a usage.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) prompt: u32,
    pub(crate) cached: u32,
    pub(crate) completion: u32,
}

/// The usage object, with the names of the endpoint.
pub(crate) fn usage_object(counts: Counts, endpoint: Endpoint, out: &mut Vec<u8>) {
    let Counts { prompt, cached, completion } = counts;
    let total = prompt + completion;
    let text = if endpoint == Endpoint::Responses {
        format!(
            r#"{{"input_tokens":{prompt},"input_tokens_details":{{"cached_tokens":{cached}}},"output_tokens":{completion},"output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{total}}}"#
        )
    } else {
        format!(
            r#"{{"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{completion},"prompt_tokens_details":{{"cached_tokens":{cached}}}}}"#
        )
    };
    out.extend_from_slice(text.as_bytes());
}

/// One response's events: whose they imitate, and the pattern of an ordinary token event, cut in three.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    endpoint: Endpoint,
    flavour: Flavour,
    id: u64,
    model: String,
    /// Whether token events state a usage.
    pub(crate) counts_each: bool,
    before: String,
    after: String,
    close: String,
}

impl Wire {
    pub(crate) fn new(asked: &Asked<'_>, behaviour: &Behaviour) -> Self {
        let counts_each = match behaviour.usage {
            Usage::Asked => asked.continuous_usage,
            Usage::EveryEvent => true,
            Usage::Absent | Usage::Final | Usage::Wrong => false,
        };
        let mut wire = Self {
            endpoint: asked.endpoint,
            flavour: behaviour.flavour,
            id: asked.index,
            model: asked.model.to_owned(),
            counts_each,
            before: String::new(),
            after: String::new(),
            close: String::new(),
        };
        let key = if matches!(behaviour.content, Content::ToolCall) { Key::ToolCall } else { Key::Text };
        let pattern = wire.token_pattern(key, None);
        let (before, rest) = pattern.split_once(TEXT).expect("a token event has its text");
        let (after, close) = rest.split_once(USAGE).expect("a token event has a place for usage");
        (wire.before, wire.after, wire.close) = (before.to_owned(), after.to_owned(), close.to_owned());
        wire
    }

    /// An ordinary event of tokens `from..to`.
    pub(crate) fn tokens(&self, from: u32, to: u32, counts: Counts, out: &mut Vec<u8>) {
        out.extend_from_slice(self.before.as_bytes());
        words(from, to, out);
        out.extend_from_slice(self.after.as_bytes());
        self.counts(self.counts_each.then_some(counts), out);
        out.extend_from_slice(self.close.as_bytes());
    }

    /// An event of tokens `from..to` that is out of the ordinary: reasoning, or the last one with its reason.
    pub(crate) fn special_tokens(&self, key: Key, finish: Option<&str>, (from, to): (u32, u32), counts: Counts, out: &mut Vec<u8>) {
        let pattern = self.token_pattern(key, finish);
        let (before, rest) = pattern.split_once(TEXT).expect("a token event has its text");
        out.extend_from_slice(before.as_bytes());
        words(from, to, out);
        self.finished(rest, self.counts_each.then_some(counts), out);
    }

    /// The event that names the role, or that opens a response.
    pub(crate) fn role(&self, out: &mut Vec<u8>) {
        let event = match (self.endpoint, self.flavour) {
            (Endpoint::Responses, _) => {
                format!(
                    r#"{{"type":"response.created","sequence_number":0,"response":{{"id":"resp_{}","object":"response","status":"in_progress","model":"{}","output":[]}}}}"#,
                    self.id, self.model
                )
            }
            (_, Flavour::Vllm) => self.enclosed(&self.choice(r#"{"role":"assistant","content":""}"#, None)),
            (_, Flavour::LlamaServer) => self.enclosed(&self.choice(r#"{"role":"assistant","content":null}"#, None)),
            (_, Flavour::LlamaCppPython) => self.enclosed(&self.choice(r#"{"role": "assistant"}"#, None)),
            (_, Flavour::Transformers) => self.enclosed(&self.choice(r#"{"role":"assistant"}"#, None)),
        };
        self.finished(&event, None, out);
    }

    /// The event after the last token that says why it ended, where the flavour has one of its own.
    pub(crate) fn finish(&self, finish: &str, usage: Option<Counts>, out: &mut Vec<u8>) {
        let choice =
            if self.endpoint == Endpoint::Completions { self.choice(r#""""#, Some(finish)) } else { self.choice("{}", Some(finish)) };
        self.finished(&self.enclosed(&choice), usage, out);
    }

    /// The event that has the usage and no choices.
    pub(crate) fn usage_alone(&self, counts: Counts, out: &mut Vec<u8>) {
        self.finished(&self.enclosed(""), Some(counts), out);
    }

    /// The last event of `/v1/responses`.
    pub(crate) fn completed(&self, tokens: u32, usage: Option<Counts>, out: &mut Vec<u8>) {
        out.extend_from_slice(br#"{"type":"response.completed","sequence_number":9,"response":"#);
        self.body(tokens, "length", usage, out);
        out.push(b'}');
    }

    /// The body of a response that is no stream.
    pub(crate) fn body(&self, tokens: u32, finish: &str, usage: Option<Counts>, out: &mut Vec<u8>) {
        let Self { id, model, .. } = self;
        let (before, after) = match self.endpoint {
            Endpoint::Completions => (
                format!(
                    r#"{{"id":"cmpl-{id}","object":"text_completion","created":1795463741,"model":"{model}","choices":[{{"index":0,"text":""#
                ),
                format!(r#"","logprobs":null,"finish_reason":"{finish}"}}]"#),
            ),
            Endpoint::Chat => (
                format!(
                    r#"{{"id":"chatcmpl-{id}","object":"chat.completion","created":1795463741,"model":"{model}","choices":[{{"index":0,"message":{{"role":"assistant","content":""#
                ),
                format!(r#""}},"logprobs":null,"finish_reason":"{finish}"}}]"#),
            ),
            Endpoint::Responses => (
                format!(
                    r#"{{"id":"resp_{id}","object":"response","created_at":1795463741,"status":"completed","model":"{model}","output":[{{"type":"message","id":"msg_{id}","role":"assistant","status":"completed","content":[{{"type":"output_text","annotations":[],"text":""#
                ),
                r#""}]}]"#.to_owned(),
            ),
        };
        out.extend_from_slice(before.as_bytes());
        words(0, tokens, out);
        out.extend_from_slice(after.as_bytes());
        self.counts(usage, out);
        out.push(b'}');
    }

    fn token_pattern(&self, key: Key, finish: Option<&str>) -> String {
        if self.endpoint == Endpoint::Responses {
            let kind = if key == Key::Reasoning { "reasoning_text" } else { "output_text" };
            return format!(
                r#"{{"type":"response.{kind}.delta","sequence_number":4,"item_id":"msg_{}","output_index":0,"content_index":0,"delta":"{TEXT}"{USAGE}}}"#,
                self.id
            );
        }
        let space = if self.flavour == Flavour::LlamaCppPython { " " } else { "" };
        let delta = match key {
            _ if self.endpoint == Endpoint::Completions => format!(r#""{TEXT}""#),
            Key::Text => format!(r#"{{"content":{space}"{TEXT}"}}"#),
            Key::Reasoning => format!(r#"{{"reasoning_content":{space}"{TEXT}"}}"#),
            Key::ToolCall => format!(r#"{{"tool_calls":[{{"index":0,"function":{{"arguments":{space}"{TEXT}"}}}}]}}"#),
        };
        self.enclosed(&self.choice(&delta, finish))
    }

    /// One choice of a chunk; `delta` is a text in completions.
    fn choice(&self, delta: &str, finish: Option<&str>) -> String {
        let reason = finish.map_or_else(|| "null".to_owned(), |finish| format!(r#""{finish}""#));
        match (self.endpoint, self.flavour) {
            (Endpoint::Completions, Flavour::Vllm) => format!(r#"{{"index":0,"text":{delta},"logprobs":null,"finish_reason":{reason}}}"#),
            (Endpoint::Completions, Flavour::LlamaCppPython) => {
                format!(r#"{{"text": {delta}, "index": 0, "logprobs": null, "finish_reason": {reason}}}"#)
            }
            (Endpoint::Completions, _) => format!(r#"{{"text":{delta},"index":0,"logprobs":null,"finish_reason":{reason}}}"#),
            (_, Flavour::Vllm) => format!(r#"{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}"#),
            (_, Flavour::LlamaServer) => format!(r#"{{"finish_reason":{reason},"index":0,"delta":{delta}}}"#),
            (_, Flavour::LlamaCppPython) => {
                format!(r#"{{"index": 0, "delta": {delta}, "logprobs": null, "finish_reason": {reason}}}"#)
            }
            (_, Flavour::Transformers) if finish.is_none() => format!(r#"{{"delta":{delta},"index":0}}"#),
            (_, Flavour::Transformers) => format!(r#"{{"delta":{delta},"index":0,"finish_reason":{reason}}}"#),
        }
    }

    /// A chunk around its choices, with a mark where its usage goes.
    fn enclosed(&self, choice: &str) -> String {
        let Self { id, model, .. } = self;
        let chat = self.endpoint == Endpoint::Chat;
        let (kind, prefix) = if chat { ("chat.completion.chunk", "chatcmpl") } else { ("text_completion", "cmpl") };
        match self.flavour {
            Flavour::Vllm => {
                format!(r#"{{"id":"{prefix}-{id}","object":"{kind}","created":1795463741,"model":"{model}","choices":[{choice}]{USAGE}}}"#)
            }
            Flavour::LlamaServer => format!(
                r#"{{"choices":[{choice}],"created":1795463741,"id":"chatcmpl-{id}","model":"{model}","system_fingerprint":"b1-0c1e570","object":"{kind}"{USAGE}}}"#
            ),
            Flavour::LlamaCppPython => {
                format!(
                    r#"{{"id": "{prefix}-{id}", "model": "{model}", "created": 1795463741, "object": "{kind}", "choices": [{choice}]{USAGE}}}"#
                )
            }
            Flavour::Transformers => format!(
                r#"{{"id":"{id}","choices":[{choice}],"created":1795463741,"model":"{model}","object":"{kind}","system_fingerprint":""{USAGE}}}"#
            ),
        }
    }

    /// `event` with `usage` at its mark.
    fn finished(&self, event: &str, usage: Option<Counts>, out: &mut Vec<u8>) {
        let (before, after) = event.split_once(USAGE).unwrap_or((event, ""));
        out.extend_from_slice(before.as_bytes());
        self.counts(usage, out);
        out.extend_from_slice(after.as_bytes());
    }

    fn counts(&self, usage: Option<Counts>, out: &mut Vec<u8>) {
        if let Some(counts) = usage {
            out.extend_from_slice(br#","usage":"#);
            usage_object(counts, self.endpoint, out);
        }
    }
}

/// Where a token stands in a chat's event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Text,
    Reasoning,
    ToolCall,
}

/// An error object as OpenAI writes it.
pub(crate) fn error_object(status: u16) -> String {
    let (kind, message) = match status {
        400 => ("BadRequestError", "The request is not one this server understands"),
        401 => ("AuthenticationError", "Incorrect API key provided"),
        404 => ("NotFoundError", "The model does not exist"),
        429 => ("RateLimitError", "Too many requests"),
        503 => ("ServiceUnavailableError", "The server is overloaded"),
        _ => ("InternalServerError", "The engine failed"),
    };
    let mut text = String::new();
    write!(text, r#"{{"error":{{"message":"{message}","type":"{kind}","param":null,"code":{status}}}}}"#).expect("a string takes it");
    text
}
