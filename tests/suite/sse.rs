//! Answers of real servers are read right, wherever the network cut them.

use std::path::{Path, PathBuf};

use plimsoll::record::request::{FailureKind, TokenCount};
use plimsoll::target::openai::answer::Answer;
use plimsoll::target::openai::delta::Delta;
use plimsoll::target::openai::reckoning::TokensPerEvent;
use plimsoll::target::openai::sse::EventStream;
use proptest::prelude::*;

fn captures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/sse")
}

/// A recorded answer as it was on the wire: its body put back into chunks of `size` bytes where the head says that it came in chunks.
pub(crate) fn on_the_wire(capture: &str, size: usize) -> Vec<u8> {
    let recorded = std::fs::read(captures().join(capture)).unwrap();
    let begin = recorded.windows(7).position(|bytes| bytes == b"HTTP/1.").unwrap();
    let answer = &recorded[begin..];
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").unwrap() + 4;
    let (head, body) = answer.split_at(end);
    let chunked = String::from_utf8_lossy(head).to_lowercase().contains("transfer-encoding: chunked");
    let mut wire = head.to_vec();
    if !chunked || capture.contains("raw_chunked") {
        wire.extend_from_slice(body);
        return wire;
    }
    for chunk in body.chunks(size.max(1)) {
        wire.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(b"0\r\n\r\n");
    wire
}

#[derive(Debug, PartialEq)]
struct Heard {
    count: TokenCount,
    counted: u32,
    failure: Option<FailureKind>,
    ended: bool,
}

/// Feeds `wire` in pieces of these sizes, in turns.
fn heard(wire: &[u8], cuts: &[usize]) -> Heard {
    let (mut answer, per_event) = (Answer::default(), TokensPerEvent::default());
    let (mut rest, mut tokens, mut ended, mut turn) = (wire, 0, false, 0);
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(cuts[turn % cuts.len()].clamp(1, rest.len()));
        (rest, turn) = (after, turn + 1);
        let heard = answer.feed(piece, &per_event);
        tokens += heard.tokens;
        ended |= heard.ended;
    }
    let (count, counted) = (answer.token_count(), answer.counted());
    assert_eq!(tokens, counted);
    Heard { count, counted, failure: answer.failure().map(|failure| failure.kind), ended }
}

#[test]
fn each_server_is_understood_in_its_own_dialect() {
    // Recorded: events that carry tokens, usage, and what is wrong.
    let cases: &[(&str, u32, Option<u32>, Option<FailureKind>)] = &[
        ("llama-server/chat_stream.txt", 6, None, None),
        ("llama-server/chat_stream_usage.txt", 6, Some(6), None),
        ("llama-server/chat_stream_usage_raw_chunked.txt", 3, Some(3), None),
        ("llama-server/chat_stream_one_token.txt", 1, Some(1), None),
        ("llama-server/chat_stream_logprobs.txt", 3, None, None),
        ("llama-server/completion_stream_usage.txt", 6, Some(6), None),
        ("llama-server/chat_once.txt", 1, Some(6), None),
        ("llama-server/err_no_such_path.txt", 0, None, Some(FailureKind::Rejected)),
        ("llama-server/err_max_tokens_negative.txt", 0, None, Some(FailureKind::Rejected)),
        ("llama-server/err_no_api_key.txt", 0, None, Some(FailureKind::Rejected)),
        ("llama-server/err_bad_json.txt", 0, None, Some(FailureKind::TargetError)),
        ("llama-cpp-python/chat_stream.txt", 6, None, None),
        ("llama-cpp-python/chat_stream_usage.txt", 6, None, None),
        ("llama-cpp-python/err_bad_json.txt", 0, None, Some(FailureKind::TargetError)),
        ("llama-cpp-python/err_prompt_too_long.txt", 0, None, Some(FailureKind::Empty)),
        ("transformers-serve/chat_stream.txt", 5, Some(6), None),
        ("transformers-serve/chat_stream_one_token.txt", 1, Some(1), None),
        ("transformers-serve/err_max_tokens_negative.txt", 0, None, Some(FailureKind::TargetError)),
        ("transformers-serve/completion_token_ids.txt", 0, None, Some(FailureKind::Rejected)),
    ];
    for (capture, events, usage, failure) in cases {
        let heard = heard(&on_the_wire(capture, 4096), &[usize::MAX]);
        let said = (heard.count.events, heard.count.output_by_usage, heard.failure, heard.ended);
        assert_eq!(said, (*events, *usage, *failure, true), "{capture}");
    }
}

#[test]
fn a_stream_that_another_request_broke_off_is_no_answer() {
    let recorded = on_the_wire("llama-cpp-python/interrupted_by_a_second_request.txt", 4096);
    // Its last chunk never came.
    let mut answer = Answer::default();
    let cut = recorded.windows(5).rposition(|bytes| bytes == b"0\r\n\r\n").unwrap();
    let heard = answer.feed(&recorded[..cut], &TokensPerEvent::default());
    assert!(heard.ended, "`[DONE]` ends the request");
    assert_eq!(answer.failure().map(|failure| failure.kind), Some(FailureKind::Empty));
}

#[test]
fn a_stream_that_ends_with_done_alone_was_broken_off_however_many_tokens_it_had() {
    // llama-cpp-python, when another request comes in the middle.
    let wire = streamed("data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":null}]}\n\ndata: [DONE]\n\n");
    let told = heard(&wire, &[usize::MAX]);
    assert_eq!((told.counted, told.failure, told.ended), (1, Some(FailureKind::Truncated), true));
}

#[test]
fn a_token_without_a_text_came_with_the_end_wherever_that_was_cut() {
    let event =
        "data: {\"choices\":[{\"text\":\"\",\"finish_reason\":\"length\"}],\"usage\":{\"completion_tokens\":1}}\n\ndata: [DONE]\n\n";
    let wire = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{event}\r\n0\r\n\r\n",
        event.len()
    );
    // The body's own end comes with `[DONE]`, or after it.
    for cut in [wire.len(), wire.len() - 5] {
        let mut answer = Answer::default();
        let heard = answer.feed(&wire.as_bytes()[..cut], &TokensPerEvent::default());
        assert_eq!((heard.tokens, heard.ended, answer.failure()), (1, true, None), "cut at {cut}");
    }
}

/// A stream in answer to a request, ended by the end of its connection.
fn streamed(events: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{events}").into_bytes()
}

#[test]
fn what_comes_behind_the_end_says_nothing_whether_or_not_it_came_in_the_same_read() {
    let token = "data: {\"choices\":[{\"text\":\"a\",\"finish_reason\":\"stop\"}]}\n\n";
    let behind =
        [token, "data: {\"error\":{\"message\":\"late\"}}\n\n", "data: {\n\n", "data: {\"usage\":{\"completion_tokens\":9}}\n\n", "dat"];
    for behind in behind {
        let wire = streamed(&format!("{token}data: [DONE]\n\n{behind}"));
        let told = heard(&wire, &[usize::MAX]);
        assert_eq!((told.counted, told.failure, told.ended), (1, None, true), "{behind}");
        assert_eq!(told.count.output_by_usage, None, "{behind}");
    }
    // Nor does a framing that breaks there, or a body that ends inside an event.
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (event, end) in [("", "nonsense"), ("dat", "0\r\n\r\n")] {
        let body = format!("{token}data: [DONE]\n\n{event}");
        let mut answer = Answer::default();
        let heard = answer.feed(format!("{head}{:x}\r\n{body}\r\n{end}", body.len()).as_bytes(), &TokensPerEvent::default());
        assert_eq!((heard.tokens, heard.ended, answer.failure()), (1, true, None), "{event}{end}");
        assert_eq!(heard.reusable, end != "nonsense", "a connection that says nonsense carries no other request");
    }
}

#[test]
fn a_count_beside_tokens_counts_the_same_however_many_events_came_in_one_read() {
    let bare = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
    let counted = "data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"completion_tokens\":5}}\n\n";
    for (events, tokens, running) in [([counted, bare], 6, true), ([bare, counted], 5, false)] {
        let wire = streamed(&format!("{}data: [DONE]\n\n", events.concat()));
        for cuts in [[usize::MAX], [1], [90]] {
            let (mut answer, per_event) = (Answer::default(), TokensPerEvent::default());
            let brought: u32 = wire.chunks(cuts[0].min(wire.len())).map(|piece| answer.feed(piece, &per_event).tokens).sum();
            assert_eq!((brought, answer.token_count().running), (tokens, running), "{events:?} in pieces of {}", cuts[0]);
        }
    }
}

#[test]
fn a_count_beyond_any_number_goes_no_further_than_it_can() {
    let most = "data: {\"choices\":[{\"text\":\"a\"}],\"usage\":{\"completion_tokens\":4294967295}}\n\n";
    let bare = "data: {\"choices\":[{\"text\":\"a\"}]}\n\n";
    assert_eq!(heard(&streamed(&format!("{most}{bare}data: [DONE]\n\n")), &[7]).counted, u32::MAX);
}

#[test]
fn four_tokens_an_event_are_learnt_from_the_first_usage() {
    let mut per_event = TokensPerEvent::default();
    for _ in 0..5 {
        per_event.learn(16, 64);
    }
    let mut reckoning = plimsoll::target::openai::reckoning::Reckoning::default();
    let brought: Vec<u32> = (0..16).map(|_| reckoning.take(1, None, &per_event)).collect();
    assert!(brought.iter().all(|tokens| (3..=4).contains(tokens)), "{brought:?}");
    assert!((i64::from(reckoning.counted) - 64).abs() <= 2, "{}", reckoning.counted);
}

#[test]
fn events_of_the_responses_api_are_read() {
    let read = |text: &str| Delta::read(text.as_bytes()).unwrap();
    let delta = read(r#"{"type":"response.output_text.delta","delta":" sea","item_id":"m","output_index":0}"#);
    assert!(delta.bears_tokens && !delta.finishes);
    assert!(!read(r#"{"type":"response.created","response":{"status":"in_progress","usage":null}}"#).bears_tokens);
    let end = read(
        r#"{"type":"response.completed","response":{"usage":{"input_tokens":9,"output_tokens":5,"input_tokens_details":{"cached_tokens":4}}}}"#,
    );
    assert!(end.finishes);
    let usage = end.usage.unwrap();
    assert_eq!((usage.prompt, usage.output, usage.cached), (9, 5, Some(4)));
    let failed = read(r#"{"type":"response.failed","response":{"error":{"message":"no memory"}}}"#);
    assert_eq!(failed.error.as_deref(), Some("no memory"));
}

#[test]
fn what_carries_a_token_is_told_from_what_does_not() {
    let bears = |text: &str| Delta::read(text.as_bytes()).unwrap().bears_tokens;
    assert!(!bears(r#"{"choices":[{"delta":{"role":"assistant","content":""}}]}"#), "a role alone");
    assert!(!bears(r#"{"choices":[{"delta":{},"finish_reason":"length"}]}"#), "the end alone");
    assert!(!bears(r#"{"choices":[{"text":"","finish_reason":"length"}]}"#), "the end of a completion");
    assert!(!bears(r#"{"choices":[],"usage":{"completion_tokens":3}}"#), "a usage alone");
    assert!(bears(r#"{"choices":[{"delta":{"content":""},"finish_reason":null}]}"#), "a part of a character");
    assert!(bears(r#"{"choices":[{"delta":{"content":"\ud83d\ude00"}}]}"#), "an escaped character");
    assert!(bears(r#"{"choices":[{"delta":{"reasoning_content":"so"}}]}"#), "reasoning");
    assert!(bears(r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{"}}]}}]}"#), "a tool call");
    assert!(bears(r#"{"choices":[{"text":" end","finish_reason":"length"}]}"#), "the last token with the end");
    assert!(Delta::read(b"{\"choices\":[{\"text\":\"\xff\xfe\"}]}").unwrap().bears_tokens, "bytes that are no UTF-8");
    assert!(Delta::read(b"{\"choices\":[{\"text\":").is_err());
    assert!(Delta::read(b"[1]").is_err() || !Delta::read(b"[1]").unwrap().bears_tokens);
}

proptest! {
    #[test]
    fn cuts_change_nothing(cuts in proptest::collection::vec(1_usize..40, 1..6), chunk in 1_usize..600, which in 0_usize..8) {
        let capture = [
            "llama-server/chat_stream_usage.txt", "llama-server/completion_stream_usage.txt", "transformers-serve/chat_stream.txt",
            "transformers-serve/err_max_tokens_negative.txt", "llama-cpp-python/chat_stream.txt", "llama-server/chat_once.txt",
            "llama-server/err_no_such_path.txt", "llama-server/chat_stream_usage_raw_chunked.txt",
        ][which];
        prop_assert_eq!(heard(&on_the_wire(capture, chunk), &cuts), heard(&on_the_wire(capture, 4096), &[usize::MAX]));
    }

    #[test]
    fn line_ends_comments_and_names_change_nothing(
        texts in proptest::collection::vec("[^\r\n]{1,30}", 1..6),
        end in 0_usize..3,
        cuts in proptest::collection::vec(1_usize..9, 1..5),
    ) {
        let mut stream = String::new();
        let mut line = |text: &str| {
            stream.push_str(text);
            stream.push_str(["\n", "\r\n", "\r"][end]);
        };
        for text in &texts {
            line(": ping");
            line("event: message");
            line("id: 7");
            line(&format!("data: {text}"));
            line("");
        }
        let mut got = Vec::new();
        let mut events = EventStream::default();
        let (mut rest, mut turn) = (stream.as_bytes(), 0);
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(cuts[turn % cuts.len()].min(rest.len()));
            (rest, turn) = (after, turn + 1);
            events.feed(piece, &mut |data| got.push(String::from_utf8(data.to_vec()).unwrap())).unwrap();
        }
        let half = events.end(&mut |data| got.push(String::from_utf8(data.to_vec()).unwrap()));
        prop_assert!(!half);
        prop_assert_eq!(got, texts);
    }

    #[test]
    fn no_bytes_are_too_much(bytes in proptest::collection::vec(any::<u8>(), 0..400), cut in 1_usize..50) {
        let _ = heard(&bytes, &[cut]);
        let mut wire = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        wire.extend_from_slice(&bytes);
        let _ = heard(&wire, &[cut]);
    }
}
