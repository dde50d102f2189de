//! A stream of events, from bytes to tokens: wherever it is cut, the same events, the same text, the same tokens, the same end.
#![no_main]

mod cuts;

use libfuzzer_sys::fuzz_target;
use plimsoll::http::head::{Framing, Head};
use plimsoll::target::openai::delta::{Delta, append_text};
use plimsoll::target::openai::exchange::{Exchange, Together};
use plimsoll::target::openai::reckoning::TokensPerEvent;
use plimsoll::target::openai::sse::EventStream;

/// Events, and whether something was cut off at the end.
fn events(body: &[u8], sizes: &[usize]) -> (Vec<Vec<u8>>, bool) {
    let (mut stream, mut events) = (EventStream::default(), Vec::new());
    for piece in cuts::pieces(body, sizes) {
        stream.feed(piece, &mut |data| events.push(data.to_vec())).expect("inputs are shorter than the longest event");
    }
    let half = stream.end(&mut |data| events.push(data.to_vec()));
    (events, half)
}

/// What is told of an answer with this body, in words.
fn told(body: &[u8], sizes: &[usize]) -> String {
    let head = Head { status: 200, framing: Framing::UntilClose, keep_alive: false, event_stream: true, retry_after: None, server: None };
    let (mut exchange, per_event) = (Exchange::default(), TokensPerEvent::default());
    exchange.begins(&head);
    let mut tokens = 0;
    for piece in cuts::pieces(body, sizes) {
        let mut together = Together::default();
        exchange.take(piece, &mut together, &per_event).expect("inputs are shorter than the longest event");
        tokens += exchange.apply(together);
        if exchange.is_done() {
            break;
        }
    }
    tokens += if exchange.is_done() { exchange.judge() } else { exchange.conclude(&per_event) };
    assert_eq!(tokens, exchange.counted(), "tokens that were told one by one are those that were counted");
    format!("{tokens} {:?} {:?}", exchange.token_count(), exchange.failure())
}

/// The body of an answer, which ends with it.
fn body_of(answer: &[u8]) -> &[u8] {
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(0, |at| at + 4);
    &answer[end..]
}

fuzz_target!(|recorded: &[u8]| {
    let body = body_of(cuts::answer_of(recorded));
    let whole = [usize::MAX];
    let (known, outcome) = (events(body, &whole), told(body, &whole));
    for sizes in cuts::ways(body) {
        assert_eq!(events(body, &sizes), known, "in pieces of {sizes:?}");
        assert_eq!(told(body, &sizes), outcome, "in pieces of {sizes:?}");
    }
    let mut text = String::new();
    for event in &known.0 {
        let _ = Delta::read(event);
        append_text(event, &mut text);
    }
});
