//! `serve-model` refuses with a reason, and ends as it is told to.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll::device::error::DeviceError;
use plimsoll::device::step::StepBatch;
use plimsoll::engine::Engine;
use plimsoll::engine::forward::ForwardPass;
use plimsoll::engine::kv_blocks::PrefixReuse;
use plimsoll::engine::scheduler::EngineShape;
use plimsoll::model::config::ModelConfig;
use plimsoll::model::presets;
use plimsoll::serve::service::{Served, Service};
use plimsoll::serve::{Reserved, serve};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::serve_model::{folder, serving};
use crate::support::raw_http::{PATIENCE, connect, exchange, post, until};
use crate::support::{run, send, stderr};

#[test]
fn what_cannot_be_served_is_refused_as_openai_does() {
    let serving = serving(&folder("llama-untied"), &[]);
    let completion = |body: Value| serving.post("/v1/completions", &body);
    let cases = [
        (completion(json!({"prompt": "a", "max_tokens": 512})), 400, "exceed the model's context of `512` tokens"),
        (completion(json!({"prompt": "a", "max_tokens": "many"})), 400, "the body is not understood"),
        (completion(json!({"prompt": "a", "max_tokens": -5})), 400, "the body is not understood"),
        (completion(json!({"prompt": "a", "max_tokens": 0})), 400, "asks for `0` tokens"),
        (completion(json!({"prompt": "a", "n": 2})), 400, "`n` is 1"),
        (completion(json!({"prompt": ["a", "b"]})), 400, "one prompt a request"),
        (completion(json!({"prompt": []})), 400, "the prompt has no tokens"),
        (completion(json!({"prompt": [1024]})), 400, "token id `1024`"),
        (completion(json!({"max_tokens": 3})), 400, "needs a `prompt`"),
        (completion(json!({"prompt": "a", "temperature": -1})), 400, "`temperature` is `-1`"),
        (completion(json!({"prompt": "a", "top_k": -2})), 400, "`top_k` is `-2`"),
        (completion(json!({"prompt": "a", "stop": 3})), 400, "`stop` is neither"),
        (completion(json!({"prompt": "a", "model": "gpt"})), 404, "Ask for `llama-untied`"),
        (serving.post("/v1/chat/completions", &json!({"messages": []})), 400, "needs `messages`"),
        (serving.post("/v1/embeddings", &json!({})), 404, "there is no `/v1/embeddings`"),
        (serving.get("/v1/completions"), 405, "does not understand `GET`"),
        (serving.post("/v1/completions", &json!({"prompt": "x".repeat(17 << 20)})), 413, "more than `16777216` bytes"),
    ];
    for (response, status, said) in cases {
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{said}: {response}");
        let error = &serde_json::from_str::<Value>(body).unwrap()["error"];
        assert_eq!(error["code"], status);
        assert!(error["message"].as_str().unwrap().contains(said), "{error}");
    }
    assert!(serving.get("/health").starts_with("HTTP/1.1 200") && serving.get("/version").contains(env!("CARGO_PKG_VERSION")));
    let models = serving.get("/v1/models");
    assert!(models.contains("\"max_model_len\":512") && models.contains("\"labels\":[\"CPU device: no GPU measurement\"]"), "{models}");
    assert_eq!(serving.metric("generation_tokens_total"), 0.0);
}

#[test]
fn who_lacks_the_key_sees_the_health_only() {
    let secret = tempfile::tempdir().unwrap();
    let file = secret.path().join("key");
    std::fs::write(&file, "ahoy\n").unwrap();
    let serving = serving(&folder("llama-untied"), &["--api-key-file", file.to_str().unwrap()]);
    let asked = json!({"prompt": "a", "max_tokens": 1});
    let with = |key: &str| exchange(serving.at, &post("/v1/completions", &asked, &format!("connection: close\r\n{key}"))).0;
    assert!(with("").starts_with("HTTP/1.1 401") && with("Authorization: Bearer ahox\r\n").starts_with("HTTP/1.1 401"));
    assert!(with("Authorization: Bearer ahoy\r\n").starts_with("HTTP/1.1 200"));
    assert!(serving.get("/health").starts_with("HTTP/1.1 200") && serving.get("/metrics").starts_with("HTTP/1.1 401"));
}

#[test]
fn a_full_queue_turns_away_with_a_time_to_come_back() {
    let serving = serving(Path::new("llama-5m"), &["--max-num-seqs", "1", "--max-waiting", "1"]);
    let asked = post("/v1/completions", &json!({"prompt": [1], "max_tokens": 8000, "ignore_eos": true, "stream": true}), "");
    let mut clients = Vec::new();
    for (running, waiting) in [(1.0, 0.0), (1.0, 1.0)] {
        let mut client = connect(serving.at);
        client.write_all(asked.as_bytes()).unwrap();
        clients.push(client);
        until(|| serving.metric("num_requests_running") == running && serving.metric("num_requests_waiting") == waiting);
    }
    let refused = serving.post("/v1/completions", &json!({"prompt": [1], "max_tokens": 1}));
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 1"), "{refused}");
    // The one that waits is let in when the first one goes.
    drop(clients.remove(0));
    until(|| serving.metric("num_requests_waiting") == 0.0 && serving.metric("num_requests_running") == 1.0);
}

#[test]
fn a_stop_lets_requests_end_and_takes_no_new_ones() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut serving = serving(Path::new("llama-5m"), &[]);
        let mut client = connect(serving.at);
        let asked = json!({"prompt": [1], "max_tokens": 400, "ignore_eos": true, "stream": true});
        client.write_all(post("/v1/completions", &asked, "connection: close\r\n").as_bytes()).unwrap();
        assert!(client.read(&mut [0; 1]).unwrap() > 0);
        send(&serving.child, signal);
        let at = serving.at;
        until(|| TcpStream::connect(at).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused));
        let mut rest = String::new();
        client.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("[DONE]") && rest.ends_with("0\r\n\r\n"));
        assert_eq!(serving.child.wait().unwrap().code(), Some(code));
        let mut said = String::new();
        serving.says.read_to_string(&mut said).unwrap();
        assert!(said.contains("stopping: requests in flight may end within 10 s"), "{said}");
    }
}

#[test]
fn a_second_stop_ends_at_once() {
    let mut serving = serving(Path::new("llama-5m"), &[]);
    let mut client = connect(serving.at);
    let asked = json!({"prompt": [1], "max_tokens": 8000, "ignore_eos": true, "stream": true});
    client.write_all(post("/v1/completions", &asked, "").as_bytes()).unwrap();
    assert!(client.read(&mut [0; 1]).unwrap() > 0);
    let began = Instant::now();
    send(&serving.child, Signal::TERM);
    let at = serving.at;
    until(|| TcpStream::connect(at).is_err());
    send(&serving.child, Signal::INT);
    assert_eq!(serving.child.wait().unwrap().code(), Some(130));
    assert!(began.elapsed() < Duration::from_secs(8));
}

#[test]
fn a_taken_port_is_said_before_the_model_is_loaded() {
    let serving = serving(&folder("llama-untied"), &[]);
    let port = serving.at.port().to_string();
    let refused = run(["serve-model", "--model", "llama-5m", "--device", "cpu", "--port", &port]);
    assert_eq!(refused.status.code(), Some(69));
    assert!(stderr(&refused).contains("Choose another `--port`"), "{}", stderr(&refused));
    let cases = [(&["--model", "nowhere"][..], 65), (&["--model", "llama-5m", "--api-key-file", "/nowhere"], 65), (&[], 2)];
    for (arguments, code) in cases {
        let refused = run([&["serve-model", "--port", "0", "--device", "cpu"], arguments].concat());
        assert_eq!(refused.status.code(), Some(code), "{}", stderr(&refused));
    }
}

/// A model whose device fails after some steps.
struct Failing {
    config: ModelConfig,
    steps_left: u32,
}

impl ForwardPass for Failing {
    fn model(&self) -> &ModelConfig {
        &self.config
    }

    fn step(&mut self, batch: &StepBatch, sampled: &mut Vec<u32>) -> Result<(), DeviceError> {
        sampled.clear();
        sampled.extend(batch.logit_rows.iter().map(|_| 1));
        self.steps_left = self.steps_left.saturating_sub(1);
        if self.steps_left > 0 { Ok(()) } else { Err(DeviceError::Step { reason: "the test asked for it".to_owned() }) }
    }

    fn logits(&mut self, _row: usize) -> Result<Vec<f32>, DeviceError> {
        Ok(Vec::new())
    }
}

#[test]
fn an_engine_that_fails_fails_its_requests_and_ends_the_server() {
    let shape =
        EngineShape { block_size: 16, num_kv_blocks: 64, max_num_seqs: 4, max_num_batched_tokens: 64, prefix_reuse: PrefixReuse::On };
    let config = presets::find("llama-5m").unwrap().config().unwrap();
    let engine = Engine::new(Box::new(Failing { config, steps_left: 5 }), shape);
    let served = Served {
        name: "failing".to_owned(),
        device: "cpu".to_owned(),
        precision: String::new(),
        labels: Vec::new(),
        tokenizer: None,
        end_ids: Vec::new(),
        api_key: None,
        max_waiting: None,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let _inside = runtime.enter();
    let reserved = Reserved::take("127.0.0.1:0".parse().unwrap()).unwrap();
    let at = reserved.address();
    // Reserved, and not yet there.
    assert_eq!(TcpStream::connect(at).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let service = Service::start(engine, served).unwrap();
    let running = runtime.spawn(serve(reserved.listen().unwrap(), Arc::clone(&service), std::future::pending()));
    let asked = json!({"prompt": [1], "max_tokens": 9, "stream": true});
    let response = exchange(at, &post("/v1/completions", &asked, "connection: close\r\n")).0;
    assert_eq!(response.matches("\"text\":\" t1\"").count(), 4, "{response}");
    assert!(response.contains("data: {\"error\":{\"message\":\"the engine ended") && response.contains("[DONE]"), "{response}");
    let outcome = runtime.block_on(async { tokio::time::timeout(PATIENCE, running).await.unwrap().unwrap() });
    assert!(outcome.unwrap_err().to_string().contains("the test asked for it"));
}
