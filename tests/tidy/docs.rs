//! The documents name things that exist, and those made from code are current.

use crate::rules::Violation;
use crate::text::{Source, is_word, line_of, root};

/// Underscores from which on a name is a sentence.
const SENTENCE: usize = 5;

/// Every `room::item` and every path in backticks exists.
pub(crate) fn names_exist(document: &Source, sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, name) in code_spans(&document.text) {
        if !exists(&name, sources) {
            found.push(Violation { path: document.path.clone(), line, rule: format!("`{name}` does not exist") });
        }
    }
    found
}

/// Every test in backticks exists: in a document without ids of metrics nothing else has a name of so many words.
pub(crate) fn tests_exist(document: &Source, sources: &[Source]) -> Vec<Violation> {
    let mut found = Vec::new();
    for (line, name) in code_spans(&document.text) {
        let is_test = name.bytes().all(is_word) && name.matches('_').count() >= SENTENCE;
        if is_test && !sources.iter().any(|source| source.text.contains(&format!("fn {name}("))) {
            found.push(Violation { path: document.path.clone(), line, rule: format!("there is no test `{name}`") });
        }
    }
    found
}

/// The text between single backticks, outside fenced blocks.
fn code_spans(text: &str) -> Vec<(usize, String)> {
    let (mut spans, mut at, mut fenced) = (Vec::new(), 0, false);
    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let number = line_of(text, at);
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (number, span.to_owned())));
        }
        at += line.len();
    }
    spans
}

fn exists(name: &str, sources: &[Source]) -> bool {
    let folders = ["src/", "tests/", "docs/", "benchmarks/", "kernels/", ".ci/"];
    let plain = name.bytes().all(|byte| is_word(byte) || b"/.-".contains(&byte));
    if plain && folders.iter().any(|folder| name.starts_with(folder)) {
        return root().join(name).exists();
    }
    if plain && name.ends_with(".rs") {
        // A file by the end of its path, such as `campaign/decision.rs`.
        let ends = |path: &str| path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('/'));
        return sources.iter().any(|source| ends(&source.path));
    }
    let path = name.strip_prefix("crate::").unwrap_or(name);
    let Some((room, rest)) = path.split_once("::") else { return true };
    let inside = format!("src/{room}/");
    let of_room = || sources.iter().filter(|source| source.path == format!("src/{room}.rs") || source.path.starts_with(&inside));
    if of_room().next().is_none() {
        // Not a room of ours, such as `std::fs` or a type's own method.
        return true;
    }
    let item = rest.rsplit("::").next().unwrap_or(rest).trim_end_matches("()");
    let item = item.split(['(', '<', ' ']).next().unwrap_or(item);
    of_room().any(|source| declares(&source.code(), item) || source.path.ends_with(&format!("/{item}.rs")))
}

fn declares(code: &str, item: &str) -> bool {
    crate::text::places_of(code, item).any(|at| {
        let before = code[..at].trim_end();
        let declared = ["struct", "enum", "trait", "mod", "fn", "type", "const", "static"].iter().any(|keyword| before.ends_with(keyword));
        // A variant or a field stands at the start of its line, or after `pub`.
        declared || code[..at].trim_end_matches([' ', '\t']).ends_with('\n') || before.ends_with("pub")
    })
}

/// `docs/metrics.md` as the catalogue says it.
pub(crate) fn metrics() -> String {
    use plimsoll::record::metric::{CATALOGUE, Direction};
    let mut text = "# Metrics\n\nMade from `record::metric::CATALOGUE`; `PLIMSOLL_GOLDEN=write cargo test --test tidy` writes it anew.\n\n\
        | id | label | unit | better | definition |\n|---|---|---|---|---|\n"
        .to_owned();
    for metric in CATALOGUE {
        let better = match metric.direction {
            Direction::Higher => "higher",
            Direction::Lower => "lower",
            Direction::Neither => "",
        };
        text.push_str(&format!("| `{}` | {} | {} | {better} | {} |\n", metric.id, metric.label, metric.unit, metric.definition));
    }
    text
}
