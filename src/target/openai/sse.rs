//! Server-sent events out of bytes that were cut anywhere.
//!
//! Lines end with `\n`, `\r\n` or `\r`; comments, ids and names are dropped; an event is its data, handed on as soon as it
//! is whole and, where it lies in one piece, without a copy. (WHATWG HTML, "Server-sent events", 9.2.6.)

use memchr::memchr2;

/// Longest event that is read.
const EVENT_AT_MOST: usize = 16 << 20;

/// An event longer than 16 MiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream has no end")]
pub struct Endless;

/// A stream of events as it comes.
#[derive(Debug, Default)]
pub struct EventStream {
    /// A line whose end has not come.
    line: Vec<u8>,
    /// Data of an event whose end has not come.
    data: Vec<u8>,
    has_data: bool,
    /// The last line ended with `\r`: a `\n` right behind it belongs to it.
    after_return: bool,
    begun: bool,
}

impl EventStream {
    /// Forgets everything: another stream begins.
    pub fn reset(&mut self) {
        self.line.clear();
        self.data.clear();
        (self.has_data, self.after_return, self.begun) = (false, false, false);
    }

    /// Takes the next bytes, and hands the data of each event that became whole to `each`.
    ///
    /// # Errors
    /// When an event has no end.
    pub fn feed(&mut self, mut bytes: &[u8], each: &mut impl FnMut(&[u8])) -> Result<(), Endless> {
        if self.after_return && !bytes.is_empty() {
            self.after_return = false;
            bytes = bytes.strip_prefix(b"\n").unwrap_or(bytes);
        }
        while let Some(at) = memchr2(b'\n', b'\r', bytes) {
            let (line, end) = (&bytes[..at], bytes[at]);
            bytes = &bytes[at + 1..];
            if end == b'\r' {
                match bytes.strip_prefix(b"\n") {
                    Some(rest) => bytes = rest,
                    None => self.after_return = bytes.is_empty(),
                }
            }
            if self.line.is_empty() {
                bytes = self.take(line, bytes, each);
            } else {
                self.line.extend_from_slice(line);
                let line = std::mem::take(&mut self.line);
                bytes = self.take(&line, bytes, each);
                self.line = line;
                self.line.clear();
            }
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() + self.data.len() > EVENT_AT_MOST { Err(Endless) } else { Ok(()) }
    }

    /// The stream ended: an event whose closing line is missing is handed on if its data came whole. Tells whether
    /// something was cut off.
    pub fn end(&mut self, each: &mut impl FnMut(&[u8])) -> bool {
        let half = !self.line.is_empty();
        if half {
            // Its line end alone may be missing.
            let line = std::mem::take(&mut self.line);
            let whole = line.strip_prefix(b"data:").map(<[u8]>::trim_ascii_start);
            if let Some(data) = whole.filter(|data| *data == b"[DONE]" || (!self.has_data && data.ends_with(b"}"))) {
                each(data);
                self.reset();
                return false;
            }
        }
        if self.has_data {
            each(&self.data);
        }
        self.reset();
        half
    }

    /// One whole line; what follows it comes back, less the empty line that it took along.
    fn take<'a>(&mut self, mut line: &[u8], rest: &'a [u8], each: &mut impl FnMut(&[u8])) -> &'a [u8] {
        if !std::mem::replace(&mut self.begun, true) {
            line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
        }
        if line.is_empty() {
            if std::mem::take(&mut self.has_data) {
                each(&self.data);
                self.data.clear();
            }
            return rest;
        }
        let Some(data) = line.strip_prefix(b"data") else { return rest };
        let data = match data.first() {
            Some(b':') => data[1..].strip_prefix(b" ").unwrap_or(&data[1..]),
            None => data,
            // Another field, such as `database:`.
            Some(_) => return rest,
        };
        if !self.has_data && !self.after_return {
            let closed = rest.strip_prefix(b"\n").or_else(|| rest.strip_prefix(b"\r\n"));
            if let Some(rest) = closed {
                each(data);
                return rest;
            }
        }
        if std::mem::replace(&mut self.has_data, true) {
            self.data.push(b'\n');
        }
        self.data.extend_from_slice(data);
        rest
    }
}
