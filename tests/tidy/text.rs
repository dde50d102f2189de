//! Files of the repository, and Rust text reduced to what a rule may look at.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file by its path from the repository's root.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// The text with comments and the contents of literals blanked; lines stay where they are.
    pub(crate) fn code(&self) -> String {
        code_of(&self.text)
    }

    /// Of a file under `src/`: its room, such as `stats` of `src/stats/quantile.rs`.
    pub(crate) fn room(&self) -> Option<&str> {
        let first = self.path.strip_prefix("src/")?.split('/').next()?;
        Some(first.strip_suffix(".rs").unwrap_or(first)).filter(|room| *room != "lib" && *room != "main")
    }

    /// Code before the unit tests, which may do what the product may not.
    pub(crate) fn product_code(&self) -> String {
        let code = self.code();
        let end = code.find("#[cfg(test)]").unwrap_or(code.len());
        code[..end].to_owned()
    }
}

/// Every file under the repository's own folders whose name ends in one of `endings`.
pub(crate) fn files(endings: &[&str]) -> Vec<Source> {
    let root = root();
    let mut paths = Vec::new();
    for folder in ["src", "tests", "docs", "benchmarks", "kernels", ".ci"] {
        collect(&root.join(folder), &mut paths);
    }
    paths.extend(fs::read_dir(&root).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_file()));
    paths.sort();
    let wanted = paths.into_iter().filter(|path| endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)));
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        Some(Source { path: path.strip_prefix(&root).ok()?.to_string_lossy().into_owned(), text })
    };
    wanted.filter_map(read).collect()
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // What fuzzing builds and finds is nobody's text.
        if ["fuzz/target", "fuzz/corpus", "fuzz/artifacts"].iter().any(|made| path.ends_with(made)) {
            continue;
        }
        if path.is_dir() { collect(&path, into) } else { into.push(path) }
    }
}

pub(crate) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `word` stands by itself in `code`.
pub(crate) fn places_of<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    let bytes = code.as_bytes();
    let free = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_none_or(|byte| !is_word(*byte));
    let first_is_word = word.as_bytes().first().copied().is_some_and(is_word);
    let last_is_word = word.as_bytes().last().copied().is_some_and(is_word);
    code.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |at| (!first_is_word || free(at.checked_sub(1))) && (!last_is_word || free(Some(at + word.len()))))
}

/// Line of a byte, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text[..at].bytes().filter(|byte| *byte == b'\n').count() + 1
}

/// Blanks comments, strings and characters. It knows nested comments, raw strings and lifetimes, and nothing else.
fn code_of(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = if rest.starts_with(b"//") {
            rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
        } else if rest.starts_with(b"/*") {
            comment_length(rest)
        } else if let Some(length) = raw_string_length(bytes, at) {
            length
        } else if rest[0] == b'"' {
            quoted_length(rest, b'"')
        } else if rest[0] == b'\'' && is_character(rest) {
            quoted_length(rest, b'\'')
        } else {
            at += 1;
            continue;
        };
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length;
    }
    String::from_utf8_lossy(&code).into_owned()
}

fn comment_length(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_u32);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn raw_string_length(bytes: &[u8], at: usize) -> Option<usize> {
    if bytes[at] != b'r' || at.checked_sub(1).is_some_and(|before| is_word(bytes[before]) && bytes[before] != b'b') {
        return None;
    }
    let hashes = bytes[at + 1..].iter().take_while(|byte| **byte == b'#').count();
    let start = at + 1 + hashes;
    if bytes.get(start) != Some(&b'"') {
        return None;
    }
    let end = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let length = bytes[start + 1..].windows(end.len()).position(|window| window == end);
    Some(length.map_or(bytes.len() - at, |length| start + 1 + length + end.len() - at))
}

fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// A character literal, not a lifetime: `'a'`, `'\n'`, `'ä'`.
fn is_character(rest: &[u8]) -> bool {
    rest.get(1) == Some(&b'\\') || rest.iter().skip(2).take(4).position(|byte| *byte == b'\'').is_some_and(|at| at == 0 || rest[1] >= 128)
}
