//! `generate` through the binary: the expected tokens on standard output, and a reason with the right exit code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

fn generate(model: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.arg("generate").arg("--model").arg(model).args(arguments).args(["--threads", "1"]).output().unwrap()
}

/// The document of a run that went well.
fn document(model: &Path, arguments: &[&str]) -> Value {
    let ran = generate(model, &[arguments, &["--format", "json"]].concat());
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    serde_json::from_slice(&ran.stdout).unwrap()
}

fn expected(name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(folder(name).join("expected.json")).unwrap()).unwrap()
}

fn joined(ids: &Value) -> String {
    ids.as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>().join(",")
}

#[test]
fn greedy_tokens_logits_and_text_are_those_of_the_reference() {
    for name in ["llama-untied", "qwen2", "qwen3"] {
        let prompt = &expected(name)["prompts"][1];
        let ids = joined(&prompt["ids"]);
        let shown = document(&folder(name), &["--prompt-ids", &ids, "--max-new-tokens", "48", "--ignore-eos", "--logits"]);
        assert_eq!(shown["token_ids"], prompt["greedy_ids"], "{name}");
        assert_eq!(shown["text"], prompt["greedy_text"], "{name}");
        let logits = shown["logits"].as_array().unwrap();
        for (logit, wanted) in logits.iter().zip(prompt["last_logits_first64"].as_array().unwrap()) {
            assert!((logit.as_f64().unwrap() - wanted.as_f64().unwrap()).abs() < 1e-4, "{name}");
        }
        assert_eq!(shown["labels"], serde_json::json!(["CPU device: no GPU measurement"]));
    }
}

#[test]
fn a_file_of_prompts_is_run_as_one_batch() {
    let expected = expected("qwen3");
    let prompts: Vec<_> = expected["prompts"].as_array().unwrap().iter().collect();
    let ids: Vec<_> = prompts.iter().map(|prompt| prompt["ids"].clone()).collect();
    let folder_of_prompts = tempfile::tempdir().unwrap();
    let file = folder_of_prompts.path().join("prompts.json");
    put(&file, &format!("\u{feff}{}\r\n", Value::from(ids)));
    let file = file.to_str().unwrap();
    let crowded = ["--kv-blocks", "20", "--max-num-batched-tokens", "50", "--no-prefix-cache"];
    for shape in [&[][..], &crowded] {
        let shown = document(&folder("qwen3"), &[&["--prompts-file", file, "--max-new-tokens", "48", "--ignore-eos"], shape].concat());
        let outputs = shown["outputs"].as_array().unwrap();
        assert_eq!(outputs.len(), prompts.len());
        for (output, prompt) in outputs.iter().zip(&prompts) {
            assert_eq!(output["token_ids"], prompt["greedy_ids"], "{}", prompt["name"]);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a test writes a file of its own")]
fn put(file: &Path, text: &str) {
    std::fs::write(file, text).unwrap();
}

#[test]
fn text_is_encoded_by_the_checkpoints_tokenizer() {
    let expected = expected("llama-untied");
    let case = &expected["tokenizer_cases"][0];
    let by_text = document(&folder("llama-untied"), &["--prompt", case["text"].as_str().unwrap(), "--max-new-tokens", "5"]);
    let by_ids = document(&folder("llama-untied"), &["--prompt-ids", &joined(&case["ids"]), "--max-new-tokens", "5"]);
    assert_eq!(by_text["token_ids"], by_ids["token_ids"]);
}

#[test]
fn a_preset_has_random_weights_and_says_so() {
    let shown = document(Path::new("llama-5m"), &["--prompt-ids", "1,2,3", "--max-new-tokens", "8", "--temperature", "1"]);
    assert_eq!(shown["token_ids"].as_array().unwrap().len(), 8);
    assert_eq!(shown["labels"][0], "synthetic weights");
    assert!(shown.get("text").is_none());
    let again = document(Path::new("llama-5m"), &["--prompt-ids", "1,2,3", "--max-new-tokens", "8", "--temperature", "1"]);
    assert_eq!(shown["token_ids"], again["token_ids"]);
}

#[test]
fn what_cannot_be_done_is_refused_with_the_reason_and_the_exit_code() {
    let llama = folder("llama-untied");
    let nonsense = tempfile::tempdir().unwrap();
    let file = nonsense.path().join("prompts.json");
    put(&file, "[[1,2],[\"x\"]]");
    let file = file.to_str().unwrap();
    let cases: [(&Path, &[&str], i32, &str); 11] = [
        (&llama, &["--prompt-ids", ""], 65, "the prompt has no tokens"),
        (&llama, &["--prompt-ids", "1,2,1024"], 65, "token id `1024`, but the model's vocabulary ends at `1023`"),
        (&llama, &["--prompt-ids", "1,x"], 2, "`x` in `--prompt-ids`"),
        (&llama, &["--prompt-ids", "1,2", "--max-new-tokens", "511"], 65, "exceed the model's context of `512` tokens"),
        (&llama, &["--prompt-ids", "1,2", "--max-new-tokens", "0"], 65, "asks for `0` tokens"),
        (&llama, &["--prompt-ids", "1,2", "--kv-blocks", "1"], 65, "need `3` KV blocks where there are `1`"),
        (&llama, &["--prompt-ids", "1,2", "--temperature", "-1"], 65, "`temperature` is `-1`"),
        (&llama, &["--prompts-file", file], 65, "is no JSON list of lists of token ids"),
        (&llama, &[], 2, "--prompt"),
        (nonsense.path(), &["--prompt-ids", "1"], 65, "config.json"),
        (Path::new("gpt-5m"), &["--prompt-ids", "1"], 65, "one of the presets llama-5m"),
    ];
    for (model, arguments, code, said) in cases {
        let ran = generate(model, arguments);
        let stderr = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(code), "{arguments:?}: {stderr}");
        assert!(stderr.contains(said), "{arguments:?}: `{stderr}` does not say `{said}`");
        assert!(ran.stdout.is_empty());
    }
    let text = generate(Path::new("llama-5m"), &["--prompt", "hello"]);
    assert_eq!(text.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&text.stderr).contains("has no tokenizer.json"));
    let too_big = generate(Path::new("llama-3.1-70b"), &["--prompt-ids", "1", "--kv-blocks", "400000000"]);
    assert_eq!(too_big.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&too_big.stderr).contains("bytes are free"));
}
