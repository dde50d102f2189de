//! The body of an answer, taken out of its framing as it comes, wherever the pieces were cut.

use crate::http::head::{Framing, NoHttp};

/// Where in a body the next byte stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// In data; so many bytes of it are left.
    Data(u64),
    /// In data that the connection's end ends.
    Endless,
    /// In the digits of a chunk's size.
    Size { value: u64, digits: u8 },
    /// After the digits: extensions up to the line's end.
    Extension(u64),
    /// After a chunk's data: its line end.
    DataEnd,
    /// In the lines after the last chunk; whether the current one is empty so far.
    Trailer { empty: bool },
    /// Behind it.
    Done,
}

/// A body as it comes.
#[derive(Clone, Debug)]
pub struct Body {
    at: At,
    chunked: bool,
}

impl Body {
    /// A body framed so, none of it read.
    #[must_use]
    pub fn framed(framing: Framing) -> Self {
        match framing {
            Framing::Length(0) => Self { at: At::Done, chunked: false },
            Framing::Length(bytes) => Self { at: At::Data(bytes), chunked: false },
            Framing::UntilClose => Self { at: At::Endless, chunked: false },
            Framing::Chunked => Self { at: At::Size { value: 0, digits: 0 }, chunked: true },
        }
    }

    /// Whether all of it came.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.at == At::Done
    }

    /// Whether the end of the connection is its end, and not a loss.
    #[must_use]
    pub fn ends_with_connection(&self) -> bool {
        matches!(self.at, At::Endless | At::Done)
    }

    /// The next piece of data in `input`, which moves on behind it; `None` when the rest of `input` held none. What
    /// belongs to the next answer is left.
    ///
    /// # Errors
    /// When the framing is broken.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, NoHttp> {
        while let Some(byte) = input.first().copied() {
            match self.at {
                At::Done => return Ok(None),
                At::Endless => return Ok(Some(std::mem::take(input))),
                At::Data(left) => {
                    let taken = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
                    let (data, rest) = input.split_at(taken);
                    *input = rest;
                    self.at = match (left - taken as u64, self.chunked) {
                        (0, true) => At::DataEnd,
                        (0, false) => At::Done,
                        (left, _) => At::Data(left),
                    };
                    return Ok(Some(data));
                }
                _ => self.step(byte)?,
            }
            *input = &input[1..];
        }
        Ok(None)
    }

    /// One byte of the framing itself.
    fn step(&mut self, byte: u8) -> Result<(), NoHttp> {
        let broken = |what: &str| Err(NoHttp(format!("its chunks are broken ({what})")));
        self.at = match (self.at, byte) {
            (At::Size { value, digits }, _) if byte.is_ascii_hexdigit() => {
                if digits == 15 {
                    return broken("a size beyond any memory");
                }
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                At::Size { value: value * 16 + digit, digits: digits + 1 }
            }
            (At::Size { digits: 0, .. }, _) => return broken("a size is no number"),
            (At::Size { value, .. } | At::Extension(value), b'\n') => {
                if value == 0 {
                    At::Trailer { empty: true }
                } else {
                    At::Data(value)
                }
            }
            (At::Size { value, .. }, b'\r' | b';' | b' ' | b'\t') | (At::Extension(value), _) => At::Extension(value),
            (At::Size { .. }, _) => return broken("a size is no number"),
            (At::DataEnd, b'\r') => At::DataEnd,
            (At::DataEnd, b'\n') => At::Size { value: 0, digits: 0 },
            (At::DataEnd, _) => return broken("data beyond its size"),
            (At::Trailer { empty: true }, b'\n') => At::Done,
            (At::Trailer { .. }, b'\n') => At::Trailer { empty: true },
            (At::Trailer { empty }, b'\r') => At::Trailer { empty },
            (At::Trailer { .. }, _) => At::Trailer { empty: false },
            (at, _) => at,
        };
        Ok(())
    }
}
