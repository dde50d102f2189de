//! The JSON of answers, whole and in events.

use serde::Serialize;

use crate::serve::asked::Endpoint;
use crate::serve::progress::Finish;
use crate::serve::service::Service;

/// Counts of an answer.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Usage {
    prompt_tokens: u32,
    total_tokens: u32,
    completion_tokens: u32,
    prompt_tokens_details: PromptDetails,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct PromptDetails {
    cached_tokens: u32,
}

impl Usage {
    pub(super) fn new(prompt_tokens: u32, cached_tokens: u32, completion_tokens: u32) -> Self {
        let total_tokens = prompt_tokens.saturating_add(completion_tokens);
        Self { prompt_tokens, total_tokens, completion_tokens, prompt_tokens_details: PromptDetails { cached_tokens } }
    }
}

/// One choice, of a body or an event.
#[derive(Serialize)]
#[serde(untagged)]
enum Choice<'a> {
    Text { index: u32, text: &'a str, logprobs: (), finish_reason: Option<&'static str> },
    Delta { index: u32, delta: Said<'a>, logprobs: (), finish_reason: Option<&'static str> },
    Message { index: u32, message: Said<'a>, logprobs: (), finish_reason: Option<&'static str> },
}

#[derive(Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    content: &'a str,
}

#[derive(Serialize)]
struct Reply<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [Choice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

/// What all of one answer have in common.
#[derive(Debug)]
pub(super) struct Form {
    endpoint: Endpoint,
    id: String,
}

impl Form {
    pub(super) fn new(endpoint: Endpoint, key: u64) -> Self {
        let prefix = if endpoint == Endpoint::Chat { "chatcmpl" } else { "cmpl" };
        Self { endpoint, id: format!("{prefix}-{key}") }
    }

    /// The event that opens a chat; completions have none.
    pub(super) fn opening(&self, service: &Service, out: &mut Vec<u8>) {
        if self.endpoint == Endpoint::Chat {
            let delta = Said { role: Some("assistant"), content: "" };
            self.event(service, &[Choice::Delta { index: 0, delta, logprobs: (), finish_reason: None }], None, out);
        }
    }

    /// An event with text.
    pub(super) fn text(&self, service: &Service, text: &str, finish: Option<Finish>, usage: Option<Usage>, out: &mut Vec<u8>) {
        let finish_reason = finish.map(Finish::name);
        let choice = match self.endpoint {
            Endpoint::Completions => Choice::Text { index: 0, text, logprobs: (), finish_reason },
            Endpoint::Chat => Choice::Delta { index: 0, delta: Said { role: None, content: text }, logprobs: (), finish_reason },
        };
        self.event(service, &[choice], usage, out);
    }

    /// The event with the usage alone.
    pub(super) fn usage(&self, service: &Service, usage: Usage, out: &mut Vec<u8>) {
        self.event(service, &[], Some(usage), out);
    }

    fn event(&self, service: &Service, choices: &[Choice<'_>], usage: Option<Usage>, out: &mut Vec<u8>) {
        let object = if self.endpoint == Endpoint::Chat { "chat.completion.chunk" } else { "text_completion" };
        out.extend_from_slice(b"data: ");
        self.write(service, object, choices, usage, out);
        out.extend_from_slice(b"\n\n");
    }

    /// A whole answer.
    pub(super) fn whole(&self, service: &Service, text: &str, finish: Option<Finish>, usage: Usage) -> Vec<u8> {
        let finish_reason = finish.map(Finish::name);
        let (object, choice) = match self.endpoint {
            Endpoint::Completions => ("text_completion", Choice::Text { index: 0, text, logprobs: (), finish_reason }),
            Endpoint::Chat => {
                let message = Said { role: Some("assistant"), content: text };
                ("chat.completion", Choice::Message { index: 0, message, logprobs: (), finish_reason })
            }
        };
        let mut out = Vec::new();
        self.write(service, object, &[choice], Some(usage), &mut out);
        out
    }

    fn write(&self, service: &Service, object: &'static str, choices: &[Choice<'_>], usage: Option<Usage>, out: &mut Vec<u8>) {
        let reply = Reply {
            id: &self.id,
            object,
            created: service.created,
            model: &service.served.name,
            system_fingerprint: &service.fingerprint,
            choices,
            usage,
        };
        // Plain data into a vector: neither of them fails.
        drop(serde_json::to_writer(out, &reply));
    }
}
