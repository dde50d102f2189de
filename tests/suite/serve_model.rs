//! `serve-model` on loopback: the tokens are the engine's own, whatever the client does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Stdio};

use plimsoll::model::tokenizer::{SpecialTokens, Tokenizer};
use serde_json::{Value, json};

use crate::support::plimsoll;
use crate::support::raw_http::{connect, dechunked, exchange, post, until};
use crate::weights::{copy_of, harm};

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

/// A server of its own, on any free port.
pub(crate) struct Serving {
    pub(crate) child: Child,
    pub(crate) at: SocketAddr,
    /// What it says after its address.
    pub(crate) says: BufReader<ChildStderr>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn serving(model: &Path, arguments: &[&str]) -> Serving {
    let mut command = plimsoll();
    command.args(["serve-model", "--device", "cpu", "--threads", "1", "--port", "0", "--model"]).arg(model).args(arguments);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut says = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    says.read_line(&mut line).unwrap();
    let at = line.split("http://").nth(1).and_then(|rest| rest.trim().strip_suffix("/v1")).unwrap_or_else(|| panic!("{line}"));
    Serving { child, at: at.parse().unwrap(), says }
}

impl Serving {
    pub(crate) fn post(&self, path: &str, body: &Value) -> String {
        exchange(self.at, &post(path, body, "connection: close\r\n")).0
    }

    pub(crate) fn get(&self, path: &str) -> String {
        exchange(self.at, &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")).0
    }

    /// The body of a whole answer.
    #[track_caller]
    fn whole(&self, path: &str, body: &Value) -> Value {
        let response = self.post(path, body);
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        serde_json::from_str(response.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// The events of a stream.
    #[track_caller]
    fn events(&self, path: &str, body: &Value) -> Vec<Value> {
        let mut body = body.clone();
        body["stream"] = true.into();
        let (text, whole) = dechunked(&self.post(path, &body));
        let mut events: Vec<_> = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap()).collect();
        assert_eq!((whole, events.pop()), (true, Some("[DONE]")), "{text}");
        events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect()
    }

    pub(crate) fn metric(&self, name: &str) -> f64 {
        let metrics = self.get("/metrics");
        let line = metrics.lines().find(|line| line.starts_with(&format!("plimsoll:{name}{{"))).unwrap_or_else(|| panic!("{metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

fn expected(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder(name).join("expected.json")).unwrap()).unwrap()
}

/// The reference's answer to a prompt of its own, as text.
fn text_of(name: &str, ids: &Value) -> String {
    let ids: Vec<u32> = ids.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect();
    let tokenizer = Tokenizer::open(&folder(name), usize::MAX).unwrap().unwrap();
    tokenizer.decode(&ids, SpecialTokens::Skip).unwrap()
}

fn greedy(prompt: &Value, tokens: u32) -> Value {
    json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": true, "stream_options": {"include_usage": true}})
}

#[test]
fn greedy_answers_are_those_of_the_reference_streamed_or_whole() {
    for name in ["llama-untied", "qwen2", "qwen3"] {
        let serving = serving(&folder(name), &[]);
        for prompt in expected(name)["prompts"].as_array().unwrap() {
            let asked = greedy(&prompt["ids"], 48);
            let wanted = text_of(name, &prompt["greedy_ids"]);
            let whole = serving.whole("/v1/completions", &asked);
            assert_eq!((&whole["choices"][0]["text"], &whole["choices"][0]["finish_reason"]), (&json!(wanted), &json!("length")), "{name}");
            assert_eq!(whole["usage"]["completion_tokens"], 48);
            assert_eq!(whole["usage"]["prompt_tokens"], prompt["ids"].as_array().unwrap().len());
            let events = serving.events("/v1/completions", &asked);
            let (usage, told) = events.split_last().unwrap();
            let text: String = told.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
            assert_eq!((text, &usage["usage"]["completion_tokens"], &usage["choices"]), (wanted, &json!(48), &json!([])), "{name}");
            // An event for each token, but for those that are parts of a character: random weights choose many, of which 4 at
            // most are held together.
            assert!((12..=48).contains(&told.len()), "{}", told.len());
        }
    }
}

#[test]
fn streams_at_once_share_steps_and_keep_their_tokens() {
    let serving = serving(&folder("llama-untied"), &["--no-prefix-cache"]);
    let expected = expected("llama-untied");
    let prompts = expected["prompts"].as_array().unwrap();
    std::thread::scope(|scope| {
        for stream in 0..8 {
            let (prompt, serving) = (&prompts[stream % prompts.len()], &serving);
            scope.spawn(move || {
                for _ in 0..4 {
                    let events = serving.events("/v1/completions", &greedy(&prompt["ids"], 48));
                    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
                    assert_eq!(text, text_of("llama-untied", &prompt["greedy_ids"]));
                }
            });
        }
    });
    let (steps, tokens) = (serving.metric("engine_steps_total"), serving.metric("generation_tokens_total"));
    assert_eq!(tokens, 8.0 * 4.0 * 48.0);
    assert!(tokens / steps > 2.0, "{tokens} tokens in {steps} steps");
    assert_eq!((serving.metric("num_requests_running"), serving.metric("kv_cache_usage_perc")), (0.0, 0.0));
}

#[test]
fn a_client_that_goes_away_gives_its_blocks_back() {
    let serving = serving(Path::new("llama-5m"), &[]);
    for stream in [true, false] {
        let mut client = connect(serving.at);
        let asked = json!({"prompt": [1, 2, 3], "max_tokens": 8000, "ignore_eos": true, "stream": stream});
        client.write_all(post("/v1/completions", &asked, "").as_bytes()).unwrap();
        until(|| serving.metric("num_requests_running") == 1.0 && serving.metric("kv_cache_usage_perc") > 0.0);
        if stream {
            assert!(client.read(&mut [0; 64]).unwrap() > 0);
        }
        drop(client);
        until(|| serving.metric("num_requests_running") == 0.0 && serving.metric("kv_cache_usage_perc") == 0.0);
        assert_eq!(serving.metric("num_requests_waiting"), 0.0);
    }
    assert!(serving.metric("generation_tokens_total") < 16_000.0);
}

#[test]
fn a_chat_is_lines_of_role_and_content_and_begins_with_a_role() {
    let serving = serving(&folder("llama-untied"), &["--served-name", "ship"]);
    let chat = json!({"model": "ship", "messages": [{"role": "user", "content": "How many ropes?"}], "max_tokens": 7, "temperature": 0,
        "stream_options": {"include_usage": true, "continuous_usage_stats": true}});
    let plain = json!({"prompt": "user: How many ropes?\nassistant:", "max_tokens": 7, "temperature": 0});
    let wanted = serving.whole("/v1/completions", &plain)["choices"][0]["text"].clone();
    let whole = serving.whole("/v1/chat/completions", &chat);
    assert_eq!(whole["choices"][0]["message"], json!({"role": "assistant", "content": wanted}));
    assert_eq!(whole["system_fingerprint"], concat!("plimsoll-", env!("CARGO_PKG_VERSION"), "; CPU device: no GPU measurement"));
    let events = serving.events("/v1/chat/completions", &chat);
    assert_eq!(events[0]["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    let counts: Vec<_> = events.iter().filter_map(|event| event["usage"]["completion_tokens"].as_u64()).collect();
    assert_eq!(json!(text), wanted);
    assert!(counts.is_sorted() && counts.ends_with(&[7, 7]), "{counts:?}");
}

#[test]
fn an_answer_ends_at_an_end_id_or_a_stop_and_not_before_its_least_length() {
    let copy = copy_of("llama-untied");
    let prompt = &expected("llama-untied")["prompts"][1];
    let ids: Vec<_> = prompt["greedy_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    let end = (3..48).find(|place| !ids[..*place].contains(&ids[*place])).unwrap();
    harm(&copy.path().join("generation_config.json"), |bytes| {
        let mut config: Value = serde_json::from_slice(bytes).unwrap();
        config["eos_token_id"] = json!([ids[end]]);
        *bytes = config.to_string().into_bytes();
    });
    let serving = serving(copy.path(), &[]);
    let ended = |more: Value| {
        let mut asked = json!({"prompt": prompt["ids"], "max_tokens": 20, "temperature": 0});
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = serving.whole("/v1/completions", &asked);
        let events = serving.events("/v1/completions", &asked);
        let text: String = events.iter().map(|event| event["choices"][0]["text"].as_str().unwrap()).collect();
        assert_eq!(answer["choices"][0]["text"], text);
        let reason = answer["choices"][0]["finish_reason"].as_str().unwrap().to_owned();
        (answer["usage"]["completion_tokens"].as_u64().unwrap(), reason, text)
    };
    let until_end = end as u64 + 1;
    assert_eq!(ended(json!({})).0, until_end);
    assert_eq!(ended(json!({"max_tokens": until_end})).1, "stop");
    assert_eq!(ended(json!({"min_tokens": until_end})).0, until_end);
    let longer = ended(json!({"min_tokens": until_end + 1}));
    assert!(longer.0 > until_end, "{longer:?}");
    let (tokens, reason, text) = ended(json!({"ignore_eos": true}));
    assert_eq!((tokens, &*reason), (20, "length"));
    let stop: String = text.chars().skip(text.chars().count() / 2).take(3).collect();
    let stopped = ended(json!({"ignore_eos": true, "stop": [stop, "never"]}));
    assert_eq!((&*stopped.1, &*stopped.2), ("stop", &text[..text.find(&stop).unwrap()]));
    assert!(stopped.0 < 20);
}

#[test]
fn equal_prompts_find_their_prefix_until_it_is_forgotten() {
    let serving = serving(Path::new("llama-5m"), &[]);
    let cached = || {
        let asked = json!({"prompt": "x".repeat(400), "max_tokens": 3, "seed": 4});
        let answer = serving.whole("/v1/completions", &asked);
        assert_eq!(answer["choices"][0]["text"].as_str().unwrap().matches(" t").count(), 3);
        assert!(answer["system_fingerprint"].as_str().unwrap().contains("synthetic weights"), "{answer}");
        answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!((cached(), cached()), (0, 96));
    assert!(serving.post("/reset_prefix_cache", &json!({})).starts_with("HTTP/1.1 200"));
    assert_eq!(cached(), 0);
    assert_eq!((serving.metric("prefix_cache_queries_total"), serving.metric("prefix_cache_hits_total")), (300.0, 96.0));
    assert_eq!(serving.metric("num_preemptions_total"), 0.0);
}
