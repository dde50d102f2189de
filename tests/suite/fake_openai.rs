//! The scripted OpenAI server does on the wire what its script says, and its truth agrees.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::openai::script::{Behaviour, Content, End, Endpoint, Flavour, Framing, Role, Usage};
use crate::support::openai::truth::Ended;
use crate::support::openai::{OpenAiServer, Settings, wire};
use crate::support::raw_http::{self, PATIENCE, dechunked, post, until};

fn connect(server: &OpenAiServer) -> TcpStream {
    raw_http::connect(server.addr)
}

/// Everything up to the end of the connection, and whether that was an end rather than a reset.
fn answer(server: &OpenAiServer, path: &str, body: &Value) -> (String, bool) {
    raw_http::exchange(server.addr, &post(path, body, "connection: close\r\nx-request-id: one\r\n"))
}

/// The data of each event.
fn events(body: &str) -> Vec<&str> {
    body.split("\n\n").filter_map(|event| event.trim_start_matches("event: message\n").strip_prefix("data: ")).collect()
}

fn stream_of(behaviour: Behaviour, path: &str, body: Value) -> (String, bool) {
    let server = OpenAiServer::start(move |_| behaviour.clone());
    dechunked(&answer(&server, path, &body).0)
}

fn completion(tokens: u32) -> Value {
    json!({"model": "fake", "prompt": [1, 2, 3], "max_tokens": tokens, "stream": true, "stream_options": {"include_usage": true}})
}

fn chat(tokens: u32) -> Value {
    json!({"model": "fake", "messages": [{"role": "user", "content": "12345678"}], "max_completion_tokens": tokens, "stream": true})
}

#[test]
fn a_stream_has_an_event_for_each_token_then_usage_and_the_truth_agrees() {
    let server = OpenAiServer::start(|asked| {
        assert_eq!((asked.endpoint, asked.prompt_tokens, asked.max_tokens), (Endpoint::Completions, 3, Some(5)));
        assert!(asked.stream && asked.include_usage && !asked.continuous_usage && !asked.ignore_eos && asked.min_tokens.is_none());
        assert!(asked.head.starts_with("POST /v1/completions") && asked.body.starts_with('{') && asked.connection == 0);
        Behaviour::default()
    });
    let (body, whole) = dechunked(&answer(&server, "/v1/completions", &completion(5)).0);
    let events = events(&body);
    assert!(whole && events.len() == 7 && events[6] == "[DONE]", "{body}");
    let parsed: Vec<Value> = events[..6].iter().map(|event| serde_json::from_str(event).unwrap()).collect();
    let text: String = parsed[..5].iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(text, wire::text(5));
    assert_eq!((&parsed[3]["choices"][0]["finish_reason"], &parsed[4]["choices"][0]["finish_reason"]), (&Value::Null, &json!("length")));
    assert_eq!((&parsed[5]["choices"], &parsed[5]["usage"]["completion_tokens"]), (&json!([]), &json!(5)));
    let truth = server.stop();
    let one = &truth.requests[0];
    assert_eq!((one.id.as_deref(), one.tokens(), one.writes.len(), one.ended), (Some("one"), 5, 5, Ended::Whole));
    assert!(one.text.contains("x-request-id: one") && one.text.ends_with('}'));
    assert!(one.accepted_at <= one.read_at && one.read_at <= one.head_at && one.head_at <= one.writes[0].at);
    assert!(one.writes.is_sorted_by_key(|write| write.at) && one.writes[4].at <= one.end_at);
    let lines = String::from_utf8(truth.json_lines()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(lines.trim()).unwrap()["writes"].as_array().unwrap().len(), 5);
}

#[test]
fn a_connection_serves_one_request_after_another() {
    let server = OpenAiServer::start(|_| Behaviour { framing: Framing::Length, ..Behaviour::default() });
    let mut stream = connect(&server);
    let asked = post("/v1/completions", &completion(3), "");
    // The third one comes in two halves.
    stream.write_all([&*asked, &*asked, &asked[..90]].concat().as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(5));
    stream.write_all(&asked.as_bytes()[90..]).unwrap();
    stream.shutdown(Shutdown::Write).unwrap_or_default();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text.matches("[DONE]").count(), 3);
    let truth = server.truth();
    assert_eq!((truth.connections, truth.requests.len()), (1, 3));
}

#[test]
fn each_flavour_has_the_events_of_its_model() {
    let roles = [(Flavour::Vllm, 1), (Flavour::LlamaServer, 1), (Flavour::LlamaCppPython, 1), (Flavour::Transformers, 1)];
    for (flavour, roles) in roles {
        let asked = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": true,
            "stream_options": {"include_usage": true}});
        let (body, whole) = stream_of(Behaviour::like(flavour), "/v1/chat/completions", asked);
        let mut events = events(&body);
        assert!(whole);
        assert_eq!(events.pop_if(|event| *event == "[DONE]").is_some(), flavour != Flavour::Transformers, "{body}");
        let parsed: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        assert_eq!(parsed.iter().filter(|event| event["choices"][0]["delta"]["role"] == "assistant").count(), roles);
        let text: String = parsed.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, wire::text(3), "{flavour:?}");
        let reasons = parsed.iter().filter(|event| event["choices"][0]["finish_reason"] == "length").count();
        let usage = parsed.iter().position(|event| event["usage"]["completion_tokens"] == 3);
        let wanted = match flavour {
            Flavour::Vllm => (5, Some(4)),
            Flavour::LlamaServer => (6, Some(5)),
            Flavour::LlamaCppPython => (5, None),
            Flavour::Transformers => (5, Some(4)),
        };
        assert_eq!((parsed.len(), usage, reasons), (wanted.0, wanted.1, 1), "{body}");
        assert_eq!(body.contains("\"choices\": ["), flavour == Flavour::LlamaCppPython);
    }
}

#[test]
fn usage_and_content_are_as_scripted() {
    let counts = |usage: Usage, asked: Value| {
        let (body, _) = stream_of(Behaviour { usage, ..Behaviour::default() }, "/v1/completions", asked);
        let stated = events(&body).into_iter().filter_map(|event| serde_json::from_str::<Value>(event).ok());
        stated.filter_map(|event| event["usage"]["completion_tokens"].as_u64()).collect::<Vec<_>>()
    };
    assert_eq!(counts(Usage::Asked, completion(2)), [2]);
    assert!(counts(Usage::Absent, completion(2)).is_empty());
    assert_eq!(counts(Usage::Final, json!({"prompt": "x", "max_tokens": 2, "stream": true})), [2]);
    assert_eq!(counts(Usage::EveryEvent, completion(2)), [1, 2, 2]);
    assert_eq!(counts(Usage::Wrong, completion(2)), [9]);
    let (body, _) = stream_of(Behaviour { content: Content::ReasoningFirst(2), ..Behaviour::default() }, "/v1/chat/completions", chat(3));
    assert_eq!((body.matches("reasoning_content").count(), body.matches("{\"content\"").count()), (2, 1));
    let (body, _) = stream_of(Behaviour { content: Content::ToolCall, ..Behaviour::default() }, "/v1/chat/completions", chat(3));
    assert_eq!(body.matches("\"arguments\"").count(), 3);
    let shaped = Behaviour { tokens: Some(7), tokens_per_event: 3, events_per_write: 2, role: Role::Absent, ..Behaviour::default() };
    let server = OpenAiServer::start(move |_| shaped.clone());
    let (body, _) = dechunked(&answer(&server, "/v1/chat/completions", &chat(9)).0);
    assert!(body.matches("\"content\"").count() == 3 && !body.contains("role") && body.contains("\"finish_reason\":\"stop\""), "{body}");
    assert_eq!(server.stop().requests[0].writes.iter().map(|write| write.tokens).collect::<Vec<_>>(), [6, 1]);
}

#[test]
fn responses_have_events_with_names_and_answers_without_a_stream_one_body() {
    let asked = json!({"model": "m", "input": "12345", "max_output_tokens": 2, "stream": true});
    let (body, whole) = stream_of(Behaviour::default(), "/v1/responses", asked.clone());
    let names: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert!(whole);
    assert_eq!(names, ["response.created", "response.output_text.delta", "response.output_text.delta", "response.completed"]);
    assert!(body.contains(r#""input_tokens":2"#) && body.contains(r#""output_tokens":2"#), "{body}");
    for (path, end) in
        [("/v1/completions", End::Done), ("/v1/chat/completions", End::Done), ("/v1/responses", End::Done), ("/v1/completions", End::Half)]
    {
        let server = OpenAiServer::start(move |_| Behaviour { end, ..Behaviour::default() });
        let (response, _) = answer(&server, path, &json!({"model": "m", "prompt": "1", "max_tokens": 4}));
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert_eq!(serde_json::from_str::<Value>(body).is_ok_and(|body| body["usage"].is_object()), end == End::Done, "{body}");
    }
}

#[test]
fn lines_comments_pieces_and_framing_change_no_content() {
    let plain = stream_of(Behaviour::default(), "/v1/completions", completion(6)).0;
    let asked = || completion(6);
    let commented = stream_of(Behaviour { comments: true, event_lines: true, ..Behaviour::default() }, "/v1/completions", asked()).0;
    assert_eq!(commented.matches(": ping\n\n").count(), 8);
    assert_eq!(commented.replace(": ping\n\n", "").replace("event: message\n", ""), plain);
    let crlf = stream_of(Behaviour { crlf: true, ..Behaviour::default() }, "/v1/completions", asked()).0;
    assert_eq!(crlf.replace("\r\n", "\n"), plain);
    let cut = Behaviour { split: vec![1, 7, 2], split_gap: Duration::from_micros(20), ..Behaviour::default() };
    assert_eq!(stream_of(cut, "/v1/completions", asked()).0, plain);
    for framing in [Framing::Length, Framing::UntilClose] {
        let server = OpenAiServer::start(move |_| Behaviour { framing, ..Behaviour::default() });
        let (response, _) = answer(&server, "/v1/completions", &completion(6));
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert_eq!(body, plain);
        assert_eq!(head.contains(&format!("content-length: {}", body.len())), framing == Framing::Length, "{head}");
    }
}

#[test]
fn an_answer_without_a_stream_may_be_chunked() {
    let server = OpenAiServer::start(|_| Behaviour { framing: Framing::Chunked, ..Behaviour::default() });
    let (body, whole) = dechunked(&answer(&server, "/v1/completions", &json!({"prompt": "1", "max_tokens": 4})).0);
    assert!(whole && serde_json::from_str::<Value>(&body).unwrap()["usage"]["completion_tokens"] == 4);
}

#[test]
fn a_response_ends_as_scripted() {
    let ending = |end: End, end_after: Option<u32>| {
        let server = OpenAiServer::start(move |_| Behaviour { end, end_after, ..Behaviour::default() });
        let (response, closed) = answer(&server, "/v1/completions", &completion(4));
        let (body, whole) = dechunked(&response);
        let ended = server.stop().requests[0].ended;
        (events(&body).len(), body.ends_with("\n\n"), whole, closed, ended)
    };
    assert_eq!(ending(End::NoDone, None), (5, true, true, true, Ended::Whole));
    assert_eq!(ending(End::Half, Some(2)), (3, false, true, true, Ended::Whole));
    assert_eq!(ending(End::ErrorEvent, Some(2)), (4, true, true, true, Ended::Whole));
    assert_eq!(ending(End::Close, Some(2)), (2, true, false, true, Ended::Closed));
    assert_eq!(ending(End::Reset, Some(2)), (2, true, false, false, Ended::Reset));
    let (body, _) = stream_of(Behaviour { bad_event: Some(1), ..Behaviour::default() }, "/v1/completions", completion(3));
    let parsed: Vec<_> = events(&body).iter().map(|event| serde_json::from_str::<Value>(event).is_ok()).collect();
    assert_eq!(parsed, [true, false, true, true, false], "{body}");
    for (end, bytes) in [(End::Stall, true), (End::NeverAnswer, false)] {
        let server = OpenAiServer::start(move |_| Behaviour { end, end_after: Some(1), ..Behaviour::default() });
        let mut stream = connect(&server);
        stream.write_all(post("/v1/completions", &completion(4), "").as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(60))).unwrap();
        let mut read = Vec::new();
        assert_eq!(stream.read_to_end(&mut read).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert_eq!((!read.is_empty(), server.truth().requests[0].ended), (bytes, Ended::Open));
        drop(stream);
        until(|| server.truth().requests[0].ended == Ended::ClientGone);
    }
}

#[test]
fn times_are_kept_and_never_early() {
    let behaviour = Behaviour {
        head_delay: Duration::from_millis(5),
        ttft: Duration::from_millis(20),
        gap: Duration::from_millis(4),
        ..Behaviour::default()
    };
    let server = OpenAiServer::start(move |_| behaviour.clone());
    let began = std::time::Instant::now();
    answer(&server, "/v1/completions", &completion(5));
    assert!(began.elapsed() >= Duration::from_millis(36));
    let one = &server.stop().requests[0];
    assert!(one.head_at - one.read_at >= 5_000_000 && one.head_at < one.writes[0].at);
    for (number, write) in (0..).zip(&one.writes) {
        assert_eq!(write.at - one.read_at, 20_000_000 + number * 4_000_000 + u64::from(write.late));
    }
}

#[test]
fn refusals_have_openais_error_and_their_headers() {
    for (status, retry_after) in [(429, Some(2)), (503, Some(1)), (500, None), (401, None), (404, None)] {
        let server = OpenAiServer::start(move |_| Behaviour::refusal(status, retry_after));
        let (response, _) = answer(&server, "/v1/chat/completions", &chat(2));
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(head.contains("Retry-After: "), retry_after.is_some());
        assert_eq!(serde_json::from_str::<Value>(body).unwrap()["error"]["code"], status);
        assert_eq!(server.stop().requests[0].status, status);
    }
}

fn get(server: &OpenAiServer, method: &str, path: &str) -> String {
    raw_http::exchange(server.addr, &format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n\r\n")).0
}

#[test]
fn the_whole_server_can_be_full_closed_frozen_killed_and_started_again() {
    let settings = Settings { most_at_once: Some(1), cached_ttft: Some(Duration::ZERO), ..Settings::default() };
    let stalls = |asked: &crate::support::openai::script::Asked<'_>| Behaviour {
        end: if asked.max_tokens == Some(1) { End::Stall } else { End::Done },
        ..Behaviour::default()
    };
    let server = OpenAiServer::with(settings, Box::new(stalls)).unwrap();
    assert!(get(&server, "GET", "/v1/models").contains("\"max_model_len\":8192"));
    let mut holds = connect(&server);
    holds.write_all(post("/v1/completions", &completion(1), "").as_bytes()).unwrap();
    until(|| server.truth().requests.len() == 1);
    assert!(get(&server, "GET", "/metrics").contains("vllm:num_requests_running{engine=\"0\",model_name=\"fake\"} 1.0\n"));
    assert!(answer(&server, "/v1/completions", &completion(2)).0.starts_with("HTTP/1.1 429"));
    server.refuse();
    assert_eq!(TcpStream::connect(server.addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    server.crash();
    assert_eq!(holds.read(&mut [0; 4096]).map_or(0, |length| length.min(1)), 1, "what was sent before is still there");
    assert_eq!(server.truth().requests[0].ended, Ended::Closed);
    server.listen_again();
    // Seen before: all but the last token of the prompt is cached; forgotten when told to.
    assert!(answer(&server, "/v1/completions", &completion(2)).0.contains("\"cached_tokens\":2"));
    assert!(get(&server, "POST", "/reset_prefix_cache").starts_with("HTTP/1.1 200"));
    assert!(answer(&server, "/v1/completions", &completion(2)).0.contains("\"cached_tokens\":0"));
    server.pause();
    let mut frozen = connect(&server);
    frozen.write_all(b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n").unwrap();
    frozen.set_read_timeout(Some(Duration::from_millis(40))).unwrap();
    assert_eq!(frozen.read(&mut [0; 64]).unwrap_err().kind(), ErrorKind::WouldBlock);
    server.resume();
    frozen.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    frozen.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 200") && get(&server, "GET", "/version").contains("fake"));
    assert!(get(&server, "GET", "/nowhere").starts_with("HTTP/1.1 404") && get(&server, "GET", "/truth").contains("writes"));
    assert!(server.truth().others.iter().any(|(_, what)| what == "POST /reset_prefix_cache") && server.url().contains("127.0.0.1"));
}

#[test]
fn a_socket_in_the_file_system_will_do() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let settings = Settings { path: Some(path.clone()), ..Settings::default() };
    let _server = OpenAiServer::with(settings, Box::new(|_| Behaviour::default())).unwrap();
    let mut stream = std::os::unix::net::UnixStream::connect(path).unwrap();
    stream.write_all(post("/v1/completions", &completion(2), "connection: close\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert!(dechunked(&text).1);
}
