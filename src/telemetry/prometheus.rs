//! Prometheus' text format, as exporters write it and servers answer at `/metrics`: series with labels and a value.
//!
//! What is no series is passed over, whatever it is: what counts is what can be read. Histograms are plain series; stamps and exemplars
//! are left out, for a reading is stamped where it arrives.

use std::borrow::Cow;

/// One series with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Series<'a> {
    /// Its name, such as `vllm:num_requests_running`.
    pub name: &'a str,
    /// Its labels in order.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// Its value; NaN and infinities are values too.
    pub value: f64,
}

impl Series<'_> {
    /// The value of a label.
    #[must_use]
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }
}

/// Every series of a text, in order.
pub fn series(text: &str) -> impl Iterator<Item = Series<'_>> {
    text.lines().filter_map(line)
}

fn line(line: &str) -> Option<Series<'_>> {
    let line = line.trim();
    let (name, rest) = line.split_at(line.find(|letter: char| !is_name(letter)).unwrap_or(line.len()));
    if name.is_empty() || name.starts_with(|letter: char| letter.is_ascii_digit()) {
        return None;
    }
    let rest = rest.trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.split_whitespace().next()?.parse().ok()?;
    Some(Series { name, labels, value })
}

fn is_name(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == ':'
}

/// Labels, and what stands behind their closing brace.
type Labelled<'a> = (Vec<(&'a str, Cow<'a, str>)>, &'a str);

/// `a="b",c="d"}` and what follows.
fn labels(mut rest: &str) -> Option<Labelled<'_>> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(behind) = rest.strip_prefix('}') {
            return Some((labels, behind));
        }
        let (name, behind) = rest.split_once('=')?;
        let quoted = behind.trim_start().strip_prefix('"')?;
        let (value, behind) = unquoted(quoted)?;
        labels.push((name.trim(), value));
        rest = behind.trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest);
    }
}

/// Up to the closing quote, with `\\`, `\"` and `\n` undone.
fn unquoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut escaped = false;
    let end = text.char_indices().find(|(_, letter)| match (escaped, letter) {
        (true, _) => {
            escaped = false;
            false
        }
        (false, '\\') => {
            escaped = true;
            false
        }
        (false, letter) => *letter == '"',
    });
    let (value, behind) = text.split_at(end?.0);
    let value = if value.contains('\\') { Cow::Owned(undone(value)) } else { Cow::Borrowed(value) };
    Some((value, &behind[1..]))
}

fn undone(value: &str) -> String {
    let mut letters = value.chars();
    let mut text = String::with_capacity(value.len());
    while let Some(letter) = letters.next() {
        match if letter == '\\' { letters.next().map(|escaped| if escaped == 'n' { '\n' } else { escaped }) } else { Some(letter) } {
            Some(letter) => text.push(letter),
            None => break,
        }
    }
    text
}
