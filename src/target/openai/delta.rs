//! What one event of a stream says: did it carry tokens, how many so far, is it the end, is it an error.
//!
//! Completions, chat completions and responses are read by one set of rules. Text is looked at, not kept: nothing is
//! allocated for an event that carries tokens.

use std::fmt;

use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Token counts as the server gives them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of the prompt.
    pub prompt: u32,
    /// Of the prompt, from the prefix cache; `None` where it is not said.
    pub cached: Option<u32>,
    /// Generated so far.
    pub output: u32,
}

/// One event, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Whether it carries at least one generated token: of text, of reasoning or of a tool call. A role alone, a usage alone and an
    /// empty last event do not.
    pub bears_tokens: bool,
    /// Whether it says why the answer ends.
    pub finishes: bool,
    /// Token counts, where it has them.
    pub usage: Option<Usage>,
    /// What the server says went wrong.
    pub error: Option<String>,
}

/// Data that is no JSON of a known form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is not what the API says: {0}")]
pub struct Malformed(pub String);

impl Delta {
    /// Reads the data of one event, or the whole body of an answer that is no stream. Bytes that are no UTF-8 inside a
    /// text do not matter.
    ///
    /// # Errors
    /// When it is no JSON object of a known form.
    pub fn read(data: &[u8]) -> Result<Self, Malformed> {
        let parsed = match serde_json::from_slice::<Event>(data) {
            Err(_) if std::str::from_utf8(data).is_err() => serde_json::from_str(&String::from_utf8_lossy(data)),
            parsed => parsed,
        };
        let event = parsed.map_err(|error| {
            let text: String = String::from_utf8_lossy(data).chars().take(120).collect();
            Malformed(format!("{error} in `{text}`"))
        })?;
        Ok(event.understood())
    }
}

/// Appends the text that an event carries, or the whole body of an answer that is no stream: of the answer, of reasoning, of calls.
/// Slow; for a tokenizer alone.
pub fn append_text(data: &[u8], text: &mut String) {
    let Ok(event) = serde_json::from_str::<Value>(&String::from_utf8_lossy(data)) else { return };
    let mut append = |value: Option<&Value>| text.push_str(value.and_then(Value::as_str).unwrap_or_default());
    let list = |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    for choice in list(&event, "choices") {
        append(choice.get("text"));
        let Some(message) = choice.get("delta").or_else(|| choice.get("message")) else { continue };
        ["reasoning_content", "reasoning", "content", "refusal"].into_iter().for_each(|key| append(message.get(key)));
        for call in list(message, "tool_calls") {
            ["name", "arguments"].into_iter().for_each(|key| append(call.get("function").and_then(|function| function.get(key))));
        }
    }
    append(event.get("delta"));
    for item in list(&event, "output") {
        list(&item, "content").iter().for_each(|part| append(part.get("text")));
    }
}

/// Every form at once: fields that one has and another has not.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Event {
    choices: Choices,
    usage: Option<UsageFields>,
    error: Option<serde_json::Value>,
    /// FastAPI's way to say what went wrong.
    detail: Option<serde_json::Value>,
    /// `response.output_text.delta` and the like.
    r#type: Option<Kind>,
    delta: Text,
    response: Option<Response>,
    /// A whole answer of the responses API.
    output: Text,
    status: Option<Status>,
    message: Option<serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Response {
    usage: Option<UsageFields>,
    error: Option<serde_json::Value>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct UsageFields {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    prompt_tokens_details: Option<Details>,
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
    input_tokens_details: Option<Details>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Details {
    cached_tokens: Option<u32>,
}

impl UsageFields {
    fn usage(&self) -> Option<Usage> {
        let details = self.prompt_tokens_details.as_ref().or(self.input_tokens_details.as_ref());
        Some(Usage {
            prompt: self.prompt_tokens.or(self.input_tokens).unwrap_or(0),
            cached: details.and_then(|details| details.cached_tokens),
            output: self.completion_tokens.or(self.output_tokens)?,
        })
    }
}

impl Event {
    fn understood(self) -> Delta {
        let mut delta = Delta {
            bears_tokens: self.choices.bears_tokens,
            finishes: self.choices.finishes,
            usage: self.usage.as_ref().and_then(UsageFields::usage),
            error: self.error.as_ref().or(self.detail.as_ref().filter(|_| !self.choices.any)).map(wording),
        };
        if let Some(response) = self.response {
            delta.usage = delta.usage.or(response.usage.as_ref().and_then(UsageFields::usage));
            delta.error = delta.error.or(response.error.as_ref().map(wording));
        }
        match self.r#type {
            Some(Kind::Delta) => delta.bears_tokens = self.delta.0 == Length::Some,
            Some(Kind::Ends) => delta.finishes = true,
            Some(Kind::Fails) => delta.error = delta.error.or(self.message.as_ref().map(wording)).or(Some("it failed".to_owned())),
            Some(Kind::Other) | None => {}
        }
        if let Some(status) = self.status {
            delta.bears_tokens |= self.output.0 == Length::Some;
            delta.finishes |= status == Status::Completed;
        }
        delta
    }
}

/// An error object in few words.
fn wording(error: &serde_json::Value) -> String {
    let message = error.get("message").or_else(|| error.get(0).and_then(|first| first.get("msg"))).unwrap_or(error);
    let text = message.as_str().map_or_else(|| message.to_string(), str::to_owned);
    text.chars().take(300).collect()
}

/// What matters of a text: whether there is any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    Absent,
    Empty,
    Some,
}

/// A text, or whatever else is not null: looked at and dropped.
#[derive(Clone, Copy, Debug, Default)]
struct Text(Length);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(LooksAtText).map(Text)
    }
}

struct LooksAtText;

impl<'de> Visitor<'de> for LooksAtText {
    type Value = Length;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "anything")
    }

    fn visit_str<E>(self, text: &str) -> Result<Length, E> {
        Ok(if text.is_empty() { Length::Empty } else { Length::Some })
    }

    fn visit_unit<E>(self) -> Result<Length, E> {
        Ok(Length::Absent)
    }

    fn visit_none<E>(self) -> Result<Length, E> {
        Ok(Length::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Length, E> {
        Ok(Length::Some)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Length, E> {
        Ok(Length::Some)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Length, E> {
        Ok(Length::Some)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Length, E> {
        Ok(Length::Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Length, A::Error> {
        let mut length = Length::Empty;
        while items.next_element::<IgnoredAny>()?.is_some() {
            length = Length::Some;
        }
        Ok(length)
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut fields: A) -> Result<Length, A::Error> {
        let mut length = Length::Empty;
        while fields.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            length = Length::Some;
        }
        Ok(length)
    }
}

/// All choices of an event, folded into what matters.
#[derive(Clone, Copy, Debug, Default)]
struct Choices {
    any: bool,
    bears_tokens: bool,
    finishes: bool,
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Folds;
        impl<'de> Visitor<'de> for Folds {
            type Value = Choices;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "a list of choices")
            }

            fn visit_unit<E>(self) -> Result<Choices, E> {
                Ok(Choices::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Choices, A::Error> {
                let mut folded = Choices::default();
                while let Some(choice) = items.next_element::<Choice>()? {
                    folded.any = true;
                    folded.bears_tokens |= choice.bears_tokens();
                    folded.finishes |= choice.finish_reason.0 != Length::Absent;
                }
                Ok(folded)
            }
        }
        deserializer.deserialize_any(Folds)
    }
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Choice {
    text: Text,
    delta: Option<Message>,
    message: Option<Message>,
    finish_reason: Text,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Message {
    role: Text,
    content: Text,
    reasoning_content: Text,
    reasoning: Text,
    tool_calls: Text,
    refusal: Text,
}

impl Message {
    fn carries(&self) -> bool {
        [self.content, self.reasoning_content, self.reasoning, self.tool_calls, self.refusal].iter().any(|text| text.0 == Length::Some)
    }
}

impl Choice {
    /// An empty text counts where nothing else explains the event: a token that is a part of a character has no text yet.
    fn bears_tokens(&self) -> bool {
        let ends = self.finish_reason.0 != Length::Absent;
        let message = self.delta.as_ref().or(self.message.as_ref());
        let part = |text: Text| text.0 == Length::Empty && !ends;
        self.text.0 == Length::Some
            || part(self.text)
            || message.is_some_and(|message| message.carries() || (message.role.0 == Length::Absent && part(message.content)))
    }
}

/// Events of the responses API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// `....delta`: text, reasoning or arguments of a call.
    Delta,
    /// `response.completed`, `response.incomplete`.
    Ends,
    /// `response.failed`, `error`.
    Fails,
    Other,
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl Visitor<'_> for Reads {
            type Value = Kind;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(out, "the name of an event")
            }

            fn visit_str<E>(self, name: &str) -> Result<Kind, E> {
                Ok(match name {
                    "response.completed" | "response.incomplete" => Kind::Ends,
                    "response.failed" | "error" => Kind::Fails,
                    _ if name.ends_with(".delta") => Kind::Delta,
                    _ => Kind::Other,
                })
            }
        }
        deserializer.deserialize_str(Reads)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Status {
    Completed,
    #[serde(other)]
    Other,
}
