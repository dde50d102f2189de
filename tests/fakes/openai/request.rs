//! Reads a request: the head by `httparse`, the body once, without keeping any of it.

use std::borrow::Cow;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Where a request's parts lie in the bytes read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Frame {
    /// Bytes of the head, its empty line included.
    pub(crate) head: usize,
    /// Bytes of head and body.
    pub(crate) whole: usize,
    /// The client wants the connection closed afterwards.
    pub(crate) close: bool,
}

/// The frame of the first request in `bytes`; `None` while it is not whole.
///
/// # Errors
/// When it is no HTTP/1 request with a length.
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<Frame>, ()> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes).map_err(|_| ())? else { return Ok(None) };
    let (mut length, mut close) = (0, false);
    for header in request.headers {
        if header.name.eq_ignore_ascii_case("content-length") {
            length = std::str::from_utf8(header.value).ok().and_then(|value| value.trim().parse().ok()).ok_or(())?;
        } else if header.name.eq_ignore_ascii_case("connection") {
            close = header.value.eq_ignore_ascii_case(b"close");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(());
        }
    }
    Ok((bytes.len() >= head + length).then_some(Frame { head, whole: head + length, close }))
}

/// The value of a header in a head.
pub(crate) fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().skip(1);
    lines.filter_map(|line| line.split_once(':')).find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// What the server reads of a body; everything else is ignored.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct Body<'a> {
    #[serde(default, borrow)]
    pub(crate) model: Cow<'a, str>,
    #[serde(default, alias = "messages", alias = "input")]
    pub(crate) prompt: Measured,
    #[serde(default)]
    max_tokens: Option<u32>,
    #[serde(default)]
    max_completion_tokens: Option<u32>,
    #[serde(default)]
    max_output_tokens: Option<u32>,
    #[serde(default)]
    pub(crate) min_tokens: Option<u32>,
    #[serde(default)]
    pub(crate) stream: bool,
    #[serde(default)]
    pub(crate) stream_options: Option<StreamOptions>,
    #[serde(default)]
    pub(crate) ignore_eos: bool,
}

impl Body<'_> {
    /// Tokens wanted at most, under whichever of its names.
    pub(crate) fn most_tokens(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_output_tokens).or(self.max_tokens)
    }
}

/// `stream_options`.
#[derive(Debug, Default, Deserialize)]
pub(crate) struct StreamOptions {
    #[serde(default)]
    pub(crate) include_usage: bool,
    #[serde(default)]
    pub(crate) continuous_usage_stats: bool,
}

/// Any JSON value, reduced to its number of tokens and a digest: a number is a token, a text one for each four bytes begun.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) tokens: u32,
    pub(crate) digest: u64,
}

impl Measured {
    fn of(tokens: usize, value: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        value.hash(&mut hasher);
        Self { tokens: u32::try_from(tokens).unwrap_or(u32::MAX), digest: hasher.finish() }
    }

    fn and(self, next: Self) -> Self {
        let digest = self.digest.rotate_left(5).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ next.digest;
        Self { tokens: self.tokens.saturating_add(next.tokens), digest }
    }
}

impl<'de> Deserialize<'de> for Measured {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Measuring)
    }
}

struct Measuring;

impl<'de> Visitor<'de> for Measuring {
    type Value = Measured;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("a prompt")
    }

    fn visit_str<E>(self, text: &str) -> Result<Measured, E> {
        Ok(Measured::of(text.len().div_ceil(4), text))
    }

    fn visit_u64<E>(self, id: u64) -> Result<Measured, E> {
        // Not hashed: prompts of many thousand ids are common.
        Ok(Measured { tokens: 1, digest: id })
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Measured, E> {
        Ok(Measured::default())
    }

    fn visit_unit<E>(self) -> Result<Measured, E> {
        Ok(Measured::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Measured, A::Error> {
        let mut all = Measured::default();
        while let Some(one) = list.next_element::<Measured>()? {
            all = all.and(one);
        }
        Ok(all)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Measured, A::Error> {
        let mut all = Measured::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            // Of a message the content counts; role and type do not.
            if matches!(&*key, "role" | "type" | "name") {
                map.next_value::<IgnoredAny>()?;
            } else {
                all = all.and(map.next_value()?);
            }
        }
        Ok(all)
    }
}
