//! What a request may say, and which of it is understood. Unknown fields are ignored; known ones of a wrong type are not.

use serde::Deserialize;

use crate::serve::failure::Failure;
use crate::workload::request::Sampling;

/// Where a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `/v1/completions`.
    Completions,
    /// `/v1/chat/completions`.
    Chat,
}

/// The body of a request.
#[derive(Debug, Deserialize)]
pub(super) struct Asked {
    pub(super) model: Option<String>,
    prompt: Option<Prompt>,
    messages: Option<Vec<Message>>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    pub(super) min_tokens: Option<u32>,
    pub(super) ignore_eos: Option<bool>,
    temperature: Option<f32>,
    top_p: Option<f32>,
    top_k: Option<i64>,
    seed: Option<i64>,
    n: Option<u32>,
    pub(super) stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    stop: Option<Stop>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
    continuous_usage_stats: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`prompt` is neither a text, nor token ids, nor a list of one of them")]
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
    Texts(Vec<String>),
    Lists(Vec<Vec<u32>>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`stop` is neither a text nor a list of texts")]
enum Stop {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "`content` is neither a text nor a list of parts")]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Debug, Deserialize)]
struct Part {
    r#type: String,
    text: Option<String>,
}

/// What the model shall go on from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// To be encoded.
    Text(String),
    Ids(Vec<u32>),
}

impl Asked {
    pub(super) fn parse(body: &[u8]) -> Result<Self, Failure> {
        serde_json::from_slice(body).map_err(|error| Failure::bad(format!("the body is not understood: {error}"), None))
    }

    /// The prompt, or the chat as one text.
    pub(super) fn beginning(&mut self, endpoint: Endpoint) -> Result<Beginning, Failure> {
        if endpoint == Endpoint::Chat {
            let missing = || Failure::bad("a chat needs `messages`. Give one or more", Some("messages"));
            let messages = self.messages.take().filter(|messages| !messages.is_empty()).ok_or_else(missing)?;
            return chat_text(&messages).map(Beginning::Text);
        }
        let one = "one prompt a request is served. Send each by itself";
        match self.prompt.take() {
            None => Err(Failure::bad("a completion needs a `prompt`", Some("prompt"))),
            Some(Prompt::Text(text)) => Ok(Beginning::Text(text)),
            Some(Prompt::Ids(ids)) => Ok(Beginning::Ids(ids)),
            Some(Prompt::Texts(texts)) => {
                let [text] = <[String; 1]>::try_from(texts).map_err(|_| Failure::bad(one, Some("prompt")))?;
                Ok(Beginning::Text(text))
            }
            Some(Prompt::Lists(lists)) => {
                let [ids] = <[Vec<u32>; 1]>::try_from(lists).map_err(|_| Failure::bad(one, Some("prompt")))?;
                Ok(Beginning::Ids(ids))
            }
        }
    }

    /// Tokens wanted at most, where that is said.
    pub(super) fn most_tokens(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// How tokens are chosen; `own_seed` where none is given.
    pub(super) fn sampling(&self, own_seed: u64) -> Result<Sampling, Failure> {
        if self.n.is_some_and(|n| n != 1) {
            return Err(Failure::bad("one answer a request is given: `n` is 1. Send the request several times", Some("n")));
        }
        // -1 is how others say "all".
        let top_k = match self.top_k.unwrap_or(0) {
            -1 => 0,
            top_k => u32::try_from(top_k).map_err(|_| Failure::bad(format!("`top_k` is `{top_k}`. Give 0 or more"), Some("top_k")))?,
        };
        Ok(Sampling {
            temperature: self.temperature.unwrap_or(1.0),
            top_k,
            top_p: self.top_p.unwrap_or(1.0),
            seed: self.seed.map_or(own_seed, i64::cast_unsigned),
        })
    }

    /// Whether a stream ends with its usage, and whether each event has one.
    pub(super) fn usage_wanted(&self) -> (bool, bool) {
        let options = self.stream_options.unwrap_or_default();
        let each = options.continuous_usage_stats.unwrap_or(false);
        (options.include_usage.unwrap_or(false), each && options.include_usage.unwrap_or(false))
    }

    /// Texts that end an answer and are no part of it.
    pub(super) fn stops(&mut self) -> Vec<String> {
        let stops = match self.stop.take() {
            None => Vec::new(),
            Some(Stop::One(stop)) => vec![stop],
            Some(Stop::Several(stops)) => stops,
        };
        stops.into_iter().filter(|stop| !stop.is_empty()).collect()
    }
}

/// A chat as one text: `role: content` a line, then `assistant:`. A checkpoint's own template is not read.
fn chat_text(messages: &[Message]) -> Result<String, Failure> {
    let mut text = String::new();
    for Message { role, content } in messages {
        text += role;
        text += ": ";
        match content {
            None => {}
            Some(Content::Text(content)) => text += content,
            Some(Content::Parts(parts)) => {
                for part in parts {
                    let wrong = || Failure::bad(format!("a part of type `{}` is not understood. Give text", part.r#type), Some("messages"));
                    text += part.text.as_ref().filter(|_| part.r#type == "text").ok_or_else(wrong)?;
                }
            }
        }
        text.push('\n');
    }
    text += "assistant:";
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(json: &str) -> Asked {
        Asked::parse(json.as_bytes()).unwrap()
    }

    #[test]
    fn a_chat_becomes_lines_of_role_and_content() {
        let mut chat =
            asked(r#"{"messages":[{"role":"user","content":"hi"},{"role":"user","content":[{"type":"text","text":"you"}]}],"x":1}"#);
        assert_eq!(chat.beginning(Endpoint::Chat).unwrap(), Beginning::Text("user: hi\nuser: you\nassistant:".to_owned()));
        assert!(asked(r#"{"messages":[]}"#).beginning(Endpoint::Chat).is_err());
        assert!(asked(r#"{"messages":[{"role":"user","content":[{"type":"image_url"}]}]}"#).beginning(Endpoint::Chat).is_err());
    }

    #[test]
    fn a_list_of_one_prompt_is_that_prompt() {
        assert_eq!(asked(r#"{"prompt":["a"]}"#).beginning(Endpoint::Completions).unwrap(), Beginning::Text("a".to_owned()));
        assert_eq!(asked(r#"{"prompt":[[1,2]]}"#).beginning(Endpoint::Completions).unwrap(), Beginning::Ids(vec![1, 2]));
        assert!(asked(r#"{"prompt":["a","b"]}"#).beginning(Endpoint::Completions).is_err());
        assert!(Asked::parse(br#"{"prompt":{"a":1}}"#).is_err() && Asked::parse(br#"{"max_tokens":-1}"#).is_err());
    }
}
