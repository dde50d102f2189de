//! `generate` through the binary: the expected tokens on standard output, and a reason with the right exit code.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::weights::{copy_of, harm, replace};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

fn run(model: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.arg("generate").arg("--model").arg(model).args(arguments).output().unwrap()
}

/// On one thread.
fn generate(model: &Path, arguments: &[&str]) -> Output {
    run(model, &[arguments, &["--threads", "1"]].concat())
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
    let cases: [(&Path, &[&str], i32, &str); 17] = [
        (Path::new("llama-5m"), &["--prompt-ids", "1", "--max-new-tokens", "100000000"], 65, "exceed the model's context of `8192` tokens"),
        (Path::new("llama-3.1-70b"), &["--prompt-ids", "200000"], 65, "token id `200000`"),
        (&llama, &["--prompt-ids", "1,,2"], 2, "`` in `--prompt-ids`"),
        (&llama, &["--prompt-ids", "1", "--weights-dtype", "f16"], 2, "`--weights-dtype` is for random weights"),
        (&folder("qwen2"), &["--prompt-ids", "1", "--arithmetic", "bf16"], 69, "the arithmetic `bf16_dot`"),
        (&llama, &["--prompt-ids", "1", "--threads", "100000"], 2, "100000"),
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
        let ran = run(model, arguments);
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

#[test]
fn random_weights_take_the_element_type_that_is_asked_for() {
    let ids = |dtype: &str| {
        let shown = document(Path::new("llama-5m"), &["--prompt-ids", "1,2,3", "--max-new-tokens", "4", "--weights-dtype", dtype]);
        assert_eq!(shown["precision"], format!("{dtype} weights, f32 arithmetic"));
        shown["token_ids"].clone()
    };
    assert_eq!(ids("f32").as_array().unwrap().len(), 4);
    ids("f16");
    ids("bf16");
    let paired =
        run(Path::new("llama-5m"), &["--prompt-ids", "1,2", "--weights-dtype", "bf16", "--arithmetic", "bf16", "--format", "json"]);
    if paired.status.success() {
        let shown: Value = serde_json::from_slice(&paired.stdout).unwrap();
        assert_eq!(shown["precision"], "bf16 weights, bf16_dot arithmetic");
    } else {
        println!("skipped: {}", String::from_utf8_lossy(&paired.stderr));
    }
}

#[test]
fn a_broken_tokenizer_stands_in_nobodys_way_who_gives_ids() {
    let copy = copy_of("llama-untied");
    harm(&copy.path().join("tokenizer.json"), |bytes| bytes.truncate(100));
    let by_ids = generate(copy.path(), &["--prompt-ids", "1,2", "--max-new-tokens", "3", "--format", "json"]);
    assert!(by_ids.status.success() && String::from_utf8_lossy(&by_ids.stderr).contains("the text is left out"));
    let shown: Value = serde_json::from_slice(&by_ids.stdout).unwrap();
    assert!(shown.get("text").is_none() && shown["token_ids"].as_array().unwrap().len() == 3);
    let by_text = generate(copy.path(), &["--prompt", "hello"]);
    assert_eq!(by_text.status.code(), Some(65));
}

#[test]
fn an_end_id_of_the_generation_configuration_ends_an_answer_unless_ignored() {
    let copy = copy_of("llama-untied");
    let prompt = &expected("llama-untied")["prompts"][1];
    let greedy: Vec<_> = prompt["greedy_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
    // The first id after the third that did not come before.
    let end = (3..48).find(|place| !greedy[..*place].contains(&greedy[*place])).unwrap();
    harm(&copy.path().join("generation_config.json"), |bytes| {
        let mut config: Value = serde_json::from_slice(bytes).unwrap();
        config["eos_token_id"] = serde_json::json!([greedy[end], 1020]);
        *bytes = config.to_string().into_bytes();
    });
    let ids = joined(&prompt["ids"]);
    let stopped = document(copy.path(), &["--prompt-ids", &ids, "--max-new-tokens", "48"]);
    assert_eq!(stopped["token_ids"], serde_json::json!(greedy[..=end]));
    let ignored = document(copy.path(), &["--prompt-ids", &ids, "--max-new-tokens", "48", "--ignore-eos"]);
    assert_eq!(ignored["token_ids"], prompt["greedy_ids"]);
}

#[test]
fn bad_model_files_end_with_65_in_text_and_in_json() {
    fn config(change: fn(&mut Value)) -> impl Fn(&Path) {
        move |folder| {
            harm(&folder.join("config.json"), |bytes| {
                let mut config: Value = serde_json::from_slice(bytes).unwrap();
                change(&mut config);
                *bytes = config.to_string().into_bytes();
            });
        }
    }
    let weights = |folder: &Path| folder.join("model.safetensors");
    type Harm<'a> = Box<dyn Fn(&Path) + 'a>;
    let cases: Vec<(&str, &str, Harm<'_>)> = vec![
        ("llama-untied", "cut short", Box::new(|folder| harm(&weights(folder), |bytes| bytes.truncate(1_000_000)))),
        ("llama-untied", "states a header of", Box::new(|folder| harm(&weights(folder), |bytes| bytes[7] = 1))),
        (
            "llama-untied",
            "stored as `U16`",
            Box::new(|folder| harm(&weights(folder), |bytes| replace(bytes, r#""dtype":"BF16""#, r#""dtype":"U16" "#))),
        ),
        (
            "qwen3",
            "the index names `model-00003-of-00003.safetensors`",
            Box::new(|folder| std::fs::remove_file(folder.join("model-00003-of-00003.safetensors")).unwrap()),
        ),
        ("llama-untied", "`vocab_size`", Box::new(config(|config| config["vocab_size"] = 2048.into()))),
        ("llama-untied", "the families llama, mistral, qwen2, qwen3", Box::new(config(|config| config["model_type"] = "gpt2".into()))),
        ("llama-untied", "is no JSON object", Box::new(|folder| harm(&folder.join("config.json"), |bytes| bytes.truncate(9)))),
        (
            "llama-untied",
            "generation_config.json",
            Box::new(|folder| harm(&folder.join("generation_config.json"), |bytes| bytes.truncate(9))),
        ),
    ];
    for (name, said, damage) in cases {
        let copy = copy_of(name);
        damage(copy.path());
        let text = generate(copy.path(), &["--prompt-ids", "1,2"]);
        let stderr = String::from_utf8_lossy(&text.stderr);
        assert_eq!(text.status.code(), Some(65), "{said}: {stderr}");
        assert!(stderr.contains(said) && text.stdout.is_empty(), "`{stderr}` does not say `{said}`");
        let json = generate(copy.path(), &["--prompt-ids", "1,2", "--format", "json"]);
        assert_eq!(json.status.code(), Some(65));
        let document: Value = serde_json::from_slice(&json.stdout).unwrap();
        assert_eq!(document["error"]["exit_code"], 65, "{document}");
    }
    let too_big = generate(Path::new("llama-3.1-70b"), &["--prompt-ids", "1", "--kv-blocks", "400000000", "--format", "json"]);
    let document: Value = serde_json::from_slice(&too_big.stdout).unwrap();
    assert_eq!((too_big.status.code(), &document["error"]["exit_code"]), (Some(69), &Value::from(69)));
}

#[test]
fn a_limit_on_the_address_space_is_seen_before_loading() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 400000 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_plimsoll")]);
    let ran = command.args(["generate", "--model", "llama-124m", "--prompt-ids", "1", "--threads", "1"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(69), "{stderr}");
    assert!(stderr.contains("running `llama-124m` needs") && !stderr.contains("loaded"), "{stderr}");
}
