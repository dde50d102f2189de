//! An answer of HTTP/1.1, head and framing: wherever it is cut, the same outcome; in chunks of any size, the same body.
#![no_main]

mod cuts;

use libfuzzer_sys::fuzz_target;
use plimsoll::http::body::Body;
use plimsoll::http::head::{Framing, Head};
use plimsoll::target::openai::answer::Answer;
use plimsoll::target::openai::reckoning::TokensPerEvent;

/// What is told of the answer once it ended, or the connection did.
fn told(wire: &[u8], sizes: &[usize]) -> String {
    let (mut answer, per_event) = (Answer::default(), TokensPerEvent::default());
    let (mut tokens, mut ended) = (0, false);
    for piece in cuts::pieces(wire, sizes) {
        let heard = answer.feed(piece, &per_event);
        tokens += heard.tokens;
        ended = heard.ended;
        if ended {
            break;
        }
    }
    if !ended {
        let heard = answer.connection_ended(&per_event);
        assert!(heard.ended, "a request is over when its connection is");
        tokens += heard.tokens;
    }
    assert_eq!(tokens, answer.counted(), "tokens that were told one by one are those that were counted");
    format!("{tokens} {:?} {:?}", answer.token_count(), answer.failure())
}

/// The body out of its framing, with how it ended.
fn unframed(framing: Framing, bytes: &[u8], sizes: &[usize]) -> (Vec<u8>, bool, Option<String>) {
    let (mut body, mut data) = (Body::framed(framing), Vec::new());
    for mut piece in cuts::pieces(bytes, sizes) {
        loop {
            match body.next(&mut piece) {
                Ok(Some(part)) => data.extend_from_slice(part),
                Ok(None) => break,
                Err(error) => return (data, false, Some(error.to_string())),
            }
        }
    }
    (data, body.is_done(), None)
}

/// `body` in chunks of these sizes.
fn chunked(body: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut wire = Vec::new();
    for chunk in cuts::pieces(body, sizes) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

fuzz_target!(|recorded: &[u8]| {
    let wire = cuts::answer_of(recorded);
    let whole = [usize::MAX];
    let outcome = told(wire, &whole);
    let ways = cuts::ways(wire);
    for sizes in &ways {
        assert_eq!(told(wire, sizes), outcome, "in pieces of {sizes:?}");
    }
    let Ok(Some((head, length))) = Head::read(wire) else { return };
    let rest = &wire[length..];
    let known = unframed(head.framing, rest, &whole);
    for sizes in &ways {
        assert_eq!(unframed(head.framing, rest, sizes), known, "in pieces of {sizes:?}");
        let framed = chunked(rest, sizes);
        assert_eq!(unframed(Framing::Chunked, &framed, sizes), (rest.to_vec(), true, None), "in chunks of {sizes:?}");
    }
    // Recordings lost their chunks: put back, they reach what reads the events behind them.
    if head.framing == Framing::Chunked {
        let framed = |sizes: &[usize]| [&wire[..length], &chunked(rest, sizes)].concat();
        let outcome = told(&framed(&whole), &whole);
        for sizes in &ways {
            assert_eq!(told(&framed(sizes), sizes), outcome, "in chunks and pieces of {sizes:?}");
        }
    }
});
