//! Foreign JSON, field by field: every miss is told with file, format and the path of the field.
//!
//! Python writes `NaN` and `Infinity`, which JSON does not have. They are read as text, so that they are refused
//! where a number is needed and understood where they are a word (`"request_rate": Infinity`).

use serde_json::{Deserializer, Value};

use crate::interchange::error::ImportError;

/// Larger than any length of time in nanoseconds or any rate, and so small that no sum or product of figures leaves the numbers.
const FIGURE_AT_MOST: f64 = 1e18;

/// All documents of a file: one, or one a line.
///
/// # Errors
/// When it is not JSON to its end, or holds nothing.
pub(super) fn documents(file: &str, bytes: &[u8]) -> Result<Vec<Value>, ImportError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let read = |bytes: &[u8]| Deserializer::from_slice(bytes).into_iter::<Value>().collect::<Result<Vec<_>, _>>();
    let documents = read(bytes).or_else(|_| read(&words_quoted(bytes)));
    let documents = documents.map_err(|cause| ImportError::Json { file: file.to_owned(), cause })?;
    if documents.is_empty() {
        return Err(ImportError::Empty { file: file.to_owned(), why: "it is empty".to_owned() });
    }
    Ok(documents)
}

/// Python's words for what is no number, put in quotes; text in strings stays as it is.
fn words_quoted(bytes: &[u8]) -> Vec<u8> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut quoted = Vec::with_capacity(bytes.len());
    let (mut at, mut inside) = (0, false);
    while at < bytes.len() {
        if let Some(word) = WORDS.iter().find(|word| !inside && bytes[at..].starts_with(word)) {
            quoted.push(b'"');
            quoted.extend_from_slice(word);
            quoted.push(b'"');
            at += word.len();
            continue;
        }
        quoted.push(bytes[at]);
        match bytes[at] {
            b'\\' if inside => {
                quoted.extend(bytes.get(at + 1));
                at += 1;
            }
            b'"' => inside = !inside,
            _ => {}
        }
        at += 1;
    }
    quoted
}

/// A value with where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    file: &'a str,
    format: &'static str,
    path: String,
    value: &'a Value,
}

impl<'a> Node<'a> {
    pub(super) fn root(file: &'a str, format: &'static str, value: &'a Value) -> Self {
        Self { file, format, path: String::new(), value }
    }

    /// Anything wrong with this value.
    pub(super) fn wrong(&self, wrong: impl Into<String>) -> ImportError {
        let field = if self.path.is_empty() { "the document".to_owned() } else { self.path.clone() };
        ImportError::Field { file: self.file.to_owned(), format: self.format, field, wrong: wrong.into() }
    }

    /// A field that may be missing or null.
    pub(super) fn find(&self, name: &str) -> Option<Self> {
        let value = self.value.get(name).filter(|value| !value.is_null())?;
        Some(Self { value, path: self.below(name), ..*self })
    }

    /// A field that must be there.
    pub(super) fn field(&self, name: &str) -> Result<Self, ImportError> {
        self.find(name).ok_or_else(|| Self { path: self.below(name), ..self.clone() }.wrong("is missing"))
    }

    /// The elements of an array.
    pub(super) fn elements(&self) -> Result<Vec<Self>, ImportError> {
        let elements = self.value.as_array().ok_or_else(|| self.wrong(format!("is {} and no array", self.kind())))?;
        Ok(elements.iter().enumerate().map(|(index, value)| Self { value, path: format!("{}[{index}]", self.path), ..*self }).collect())
    }

    /// The names of an object's fields; none of anything else.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.value.as_object().into_iter().flat_map(|fields| fields.keys().map(String::as_str))
    }

    pub(super) fn text(&self) -> Result<&'a str, ImportError> {
        self.value.as_str().ok_or_else(|| self.wrong(format!("is {} and no text", self.kind())))
    }

    /// Whether it is `true` or `false`; `None` of anything else.
    pub(super) fn flag(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// A number, 0 or more: no figure of these formats is below, and none is beyond [`FIGURE_AT_MOST`].
    pub(super) fn number(&self) -> Result<f64, ImportError> {
        let number = self.value.as_f64().ok_or_else(|| self.wrong(format!("is {} and no number", self.kind())))?;
        if !number.is_finite() || number < 0.0 {
            return Err(self.wrong(format!("is `{number}`, and can be no less than 0")));
        }
        if number > FIGURE_AT_MOST {
            return Err(self.wrong(format!("is `{number}`, and can be no more than {FIGURE_AT_MOST:e}")));
        }
        Ok(number)
    }

    /// A count: Python writes some of them as `8.0`.
    pub(super) fn count(&self) -> Result<u64, ImportError> {
        if let Some(count) = self.value.as_u64() {
            return Ok(count);
        }
        let number = self.number()?;
        if number.fract() != 0.0 || number > 9e15 {
            return Err(self.wrong(format!("is `{number}` and no count")));
        }
        // Whole and far below 2^63.
        Ok(number as u64)
    }

    /// A count of 1 or more that fits 32 bits.
    pub(super) fn positive(&self) -> Result<u32, ImportError> {
        let count = self.count()?;
        u32::try_from(count).ok().filter(|count| *count > 0).ok_or_else(|| self.wrong(format!("is `{count}`, and must be 1 or more")))
    }

    /// An optional field as a number.
    pub(super) fn number_of(&self, name: &str) -> Result<Option<f64>, ImportError> {
        self.find(name).map(|field| field.number()).transpose()
    }

    /// An optional field as a count.
    pub(super) fn count_of(&self, name: &str) -> Result<Option<u64>, ImportError> {
        self.find(name).map(|field| field.count()).transpose()
    }

    /// An optional field as text.
    pub(super) fn text_of(&self, name: &str) -> Result<Option<String>, ImportError> {
        self.find(name).map(|field| field.text().map(str::to_owned)).transpose()
    }

    fn below(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn kind(&self) -> String {
        match self.value {
            Value::Null => "null".to_owned(),
            Value::Bool(value) => format!("`{value}`"),
            Value::Number(value) => format!("`{value}`"),
            Value::String(text) => format!("the text `{}`", text.chars().take(40).collect::<String>()),
            Value::Array(_) => "an array".to_owned(),
            Value::Object(_) => "an object".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_json_does_not_have_are_text_and_text_stays_as_it_is() {
        let read = documents("x", br#"{"a": NaN, "b": [-Infinity, Infinity], "c": "NaN \" NaN"}"#).expect("it is understood");
        assert_eq!(read, [serde_json::json!({"a": "NaN", "b": ["-Infinity", "Infinity"], "c": "NaN \" NaN"})]);
        let root = Node::root("x", "a form", &read[0]);
        let refused = root.field("a").and_then(|field| field.number()).expect_err("it is no number").to_string();
        assert!(refused.contains("`a` is the text `NaN` and no number"), "{refused}");
    }

    #[test]
    fn a_field_is_named_by_its_path() {
        let value = serde_json::json!({"a": {"b": [1, -2.5]}});
        let elements = Node::root("x", "a form", &value).field("a").and_then(|a| a.field("b")).and_then(|b| b.elements()).expect("there");
        assert_eq!(elements[0].count().expect("a count"), 1);
        assert!(elements[1].number().expect_err("it is below 0").to_string().contains("`a.b[1]` is `-2.5`"));
        assert!(elements[0].positive().is_ok());
    }
}
