//! Checkpoints and configurations are read as they are, and refused by name when they are wrong.

use std::path::{Path, PathBuf};

use plimsoll::model::arithmetic;
use plimsoll::model::config::{Family, ModelConfig};
use plimsoll::model::presets;
use plimsoll::model::rope::RopeScaling;
use plimsoll::model::safetensors::Checkpoint;
use plimsoll::model::tensors;
use plimsoll::model::tokenizer::{SpecialTokens, Tokenizer};
use serde_json::{Value, json};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name)
}

fn json_file(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A configuration of the fixture `name` with `keys` put over it; a null removes nothing, it is stated as null.
fn altered(name: &str, keys: Value) -> Result<ModelConfig, String> {
    let mut config = json_file(&fixture(name).join("config.json"));
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    ModelConfig::parse(&config.to_string(), "config.json").map_err(|error| error.to_string())
}

fn without(name: &str, key: &str) -> Result<ModelConfig, String> {
    let mut config = json_file(&fixture(name).join("config.json"));
    config.as_object_mut().unwrap().remove(key);
    ModelConfig::parse(&config.to_string(), "config.json").map_err(|error| error.to_string())
}

#[test]
fn both_layouts_of_the_configuration_are_read() {
    let llama = ModelConfig::open(&fixture("llama-untied")).unwrap();
    assert_eq!((llama.family, llama.head_dim, llama.tie_word_embeddings), (Family::Llama, 32, false));
    assert!(matches!(llama.rope.scaling, RopeScaling::Llama3 { factor: 8.0, original_max_position_embeddings: 64.0, .. }));
    let qwen2 = ModelConfig::open(&fixture("qwen2")).unwrap();
    assert_eq!((qwen2.head_dim, qwen2.qkv_bias, qwen2.qk_norm, qwen2.tie_word_embeddings), (64, true, false, true));
    assert_eq!(qwen2.windows, [None; 3], "`use_sliding_window: false` turns the stated window off");
    let qwen3 = ModelConfig::open(&fixture("qwen3")).unwrap();
    assert_eq!((qwen3.head_dim, qwen3.qkv_bias, qwen3.qk_norm), (64, false, true));
    assert_eq!((qwen3.rope.theta, qwen3.rope.scaling), (1e6, RopeScaling::None));
    assert_eq!(qwen3.eos_token_ids, [1023, 1021]);
}

#[test]
fn windows_are_per_layer() {
    let qwen2 = altered("qwen2", json!({"use_sliding_window": true, "max_window_layers": 1})).unwrap();
    assert_eq!(qwen2.windows, [None, Some(32), Some(32)]);
    let mistral = altered("llama-untied", json!({"model_type": "mistral", "sliding_window": 16})).unwrap();
    assert_eq!(mistral.windows, [Some(16); 3]);
    let mistral = altered("llama-untied", json!({"model_type": "mistral", "sliding_window": null})).unwrap();
    assert_eq!(mistral.windows, [None; 3]);
    let types = json!(["sliding_attention", "full_attention", "sliding_attention"]);
    let qwen3 = altered("qwen3", json!({"use_sliding_window": true, "sliding_window": 8, "layer_types": types})).unwrap();
    assert_eq!(qwen3.windows, [Some(8), None, Some(8)]);
}

#[test]
fn an_unknown_family_is_refused_with_the_list_of_those_known() {
    let refusal = altered("llama-untied", json!({"model_type": "gpt_oss"})).unwrap_err();
    assert!(refusal.contains("`gpt_oss`") && refusal.contains("llama, mistral, qwen2, qwen3"), "{refusal}");
}

#[test]
fn nonsense_in_the_configuration_names_file_key_and_value() {
    let cases = [
        (json!({"num_attention_heads": 0}), "`num_attention_heads` in `config.json` is `0`"),
        (json!({"num_key_value_heads": 3}), "must divide `num_attention_heads`, 4"),
        (json!({"head_dim": 33}), "`head_dim` in `config.json` is `33`"),
        (json!({"hidden_size": -128}), "`hidden_size` in `config.json` is `-128`"),
        (json!({"hidden_size": "128"}), "`hidden_size` in `config.json` is `128`"),
        (json!({"head_dim": null, "hidden_size": 126}), "must be a multiple of `num_attention_heads`, 4"),
        (json!({"num_hidden_layers": 1_u64 << 40}), "whole number from 1 to 10000"),
        (json!({"rms_norm_eps": 0.0}), "`rms_norm_eps` in `config.json` is `0.0`"),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), "`rope_scaling.rope_type` in `config.json` is `yarn`"),
        (json!({"rope_scaling": {"rope_type": "llama3", "factor": 4.0}}), "no `rope_scaling.low_freq_factor`"),
        (json!({"hidden_act": "gelu"}), "`hidden_act` in `config.json` is `gelu`"),
        (json!({"attention_bias": true}), "`attention_bias` in `config.json` is `true`"),
        (json!({"quantization_config": {"bits": 4}}), "weights in f32, f16 and bf16"),
        (json!({"torch_dtype": "float8"}), "`torch_dtype` in `config.json` is `float8`"),
        (json!({"eos_token_id": "two"}), "must be a token id or a list of them"),
    ];
    for (keys, said) in cases {
        let refusal = altered("llama-untied", keys).unwrap_err();
        assert!(refusal.contains(said), "`{refusal}` does not say `{said}`");
    }
    for key in ["hidden_size", "vocab_size", "max_position_embeddings", "model_type", "rms_norm_eps"] {
        let refusal = without("llama-untied", key).unwrap_err();
        assert!(refusal.starts_with(&format!("`config.json` has no `{key}`")), "{refusal}");
    }
    assert!(ModelConfig::parse("[]", "config.json").unwrap_err().to_string().contains("no JSON object"));
    assert!(ModelConfig::open(Path::new("/nowhere")).unwrap_err().to_string().contains("`/nowhere/config.json`"));
}

#[test]
fn presets_cost_what_another_implementation_counted() {
    let mut counted = 0;
    for preset in presets::PRESETS {
        let config = preset.config().unwrap();
        assert!(!preset.source().is_empty(), "{} names its source", preset.name);
        let Some(derived) = preset.derived() else { continue };
        counted += 1;
        assert_eq!(arithmetic::parameters(&config), derived.parameters, "{}", preset.name);
        assert_eq!(arithmetic::embedding_parameters(&config), derived.embedding_parameters, "{}", preset.name);
        assert_eq!(arithmetic::kv_bytes_per_token(&config, 2), derived.kv_bytes_per_token_16bit, "{}", preset.name);
        assert_eq!(arithmetic::weight_bytes(&config, tensors::Dtype::Bf16), derived.weight_bytes_bf16, "{}", preset.name);
    }
    assert_eq!(counted, 7);
    let small = presets::find("Llama-5M").unwrap().config().unwrap();
    assert!((4_500_000..5_500_000).contains(&arithmetic::parameters(&small)));
    let middle = presets::find("llama-124m").unwrap().config().unwrap();
    assert_eq!((arithmetic::parameters(&middle) + 50_000) / 100_000, 1247);
    // By hand: 2 x products of 12 layers and the head, plus 4 x 768 x 12 for each token attended to.
    let products = 12 * (2 * 768 * (768 + 256) + 3 * 768 * 2048) + 32_000 * 768;
    assert_eq!(arithmetic::flops_per_token(&middle, 100), 2 * products + 4 * 768 * 12 * 100);
}

#[test]
fn presets_are_the_public_shapes() {
    let data = std::env::var("PLIMSOLL_TEST_DATA").unwrap_or_else(|_| "../shared".to_owned());
    let shapes = Path::new(&data).join("models/shapes.json");
    if !shapes.exists() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "`{}` is missing", shapes.display());
        println!("skipped: no `{}`", shapes.display());
        return;
    }
    let known = |shape: &&Value| ["llama", "mistral", "qwen2", "qwen3"].contains(&shape["model_type"].as_str().unwrap());
    let shapes = json_file(&shapes);
    let shapes: Vec<_> = shapes["models"].as_array().unwrap().iter().filter(known).collect();
    assert_eq!(shapes.len(), 7);
    for shape in shapes {
        let preset = presets::find(shape["name"].as_str().unwrap()).unwrap();
        let config = preset.config().unwrap();
        let mut stated = shape.clone();
        if stated["max_position_embeddings"].is_null() {
            stated["max_position_embeddings"] = config.max_position_embeddings.into();
        }
        stated["dtype"] = "bfloat16".into();
        assert_eq!(ModelConfig::parse(&stated.to_string(), "shapes.json").unwrap(), config);
        let derived = preset.derived().unwrap();
        assert_eq!(shape["derived"]["parameters"], derived.parameters);
        assert_eq!(shape["derived"]["kv_bytes_per_token_16bit"], derived.kv_bytes_per_token_16bit);
    }
}

#[test]
fn text_and_ids_convert_as_the_reference_does() {
    for name in ["llama-untied", "qwen2", "qwen3"] {
        let config = ModelConfig::open(&fixture(name)).unwrap();
        let tokenizer = Tokenizer::open(&fixture(name), config.vocab_size).unwrap().unwrap();
        let ids = |value: &Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
        let expected = json_file(&fixture(name).join("expected.json"));
        let cases = expected["tokenizer_cases"].as_array().unwrap();
        assert!(cases.len() > 3);
        for case in cases {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, SpecialTokens::Keep).unwrap(), ids(&case["ids"]), "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text, SpecialTokens::Skip).unwrap(), ids(&case["ids_no_special"]), "{name}: {text:?}");
            assert_eq!(tokenizer.decode(&ids(&case["ids"]), SpecialTokens::Skip).unwrap(), case["decoded_skip_special"], "{name}");
        }
    }
}

#[test]
fn a_tokenizer_with_more_ids_than_the_model_is_refused() {
    let refusal = Tokenizer::open(&fixture("qwen3"), 1000).unwrap_err().to_string();
    assert!(refusal.contains("ids up to `1023`") && refusal.contains("`vocab_size` is `1000`"), "{refusal}");
}

#[test]
fn every_tensor_of_a_checkpoint_is_found() {
    for name in ["llama-untied", "qwen2", "qwen3"] {
        let config = ModelConfig::open(&fixture(name)).unwrap();
        let checkpoint = Checkpoint::open(&fixture(name), &config).unwrap();
        let bytes: usize = tensors::tensors(&config).iter().map(|spec| checkpoint.tensor(spec).unwrap().range.len()).sum();
        assert_eq!(bytes as u64, arithmetic::weight_bytes(&config, config.dtype), "{name}");
    }
}

/// A copy of a fixture whose files may be harmed.
pub(crate) fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture(name)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
    }
    folder
}

fn refusal(folder: &Path) -> String {
    let config = ModelConfig::open(folder).unwrap();
    Checkpoint::open(folder, &config).unwrap_err().to_string()
}

#[expect(clippy::disallowed_methods, reason = "a test harms a copy of its own")]
pub(crate) fn harm(file: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(file).unwrap();
    change(&mut bytes);
    std::fs::write(file, bytes).unwrap();
}

/// Replaces text in the header, keeping its length, so that all offsets stay what they were.
pub(crate) fn replace(bytes: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
}

#[test]
fn damaged_weights_are_refused_with_what_is_wrong() {
    type Change = fn(&mut Vec<u8>);
    let cases: [(Change, &str); 9] = [
        (|bytes| bytes.truncate(1_000_000), "cut short"),
        (|bytes| bytes.truncate(5), "it has 5 bytes"),
        (|bytes| bytes.truncate(0), "it has 0 bytes"),
        (|bytes| bytes.extend([0; 64]), "something was added"),
        (|bytes| bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes()), "states a header of 18446744073709551615 bytes"),
        (|bytes| bytes[..8].copy_from_slice(&50_000_000_u64.to_le_bytes()), "states a header of 50000000 bytes"),
        (|bytes| bytes[8] = b'x', "JSON"),
        (|bytes| replace(bytes, r#""BF16","shape":[1024,128]"#, r#""BQ16","shape":[1024,128]"#), "`BQ16`"),
        (|bytes| replace(bytes, r#""shape":[1024,128]"#, r#""shape":[1024,999]"#), "a tensor's length"),
    ];
    for (change, said) in cases {
        let folder = copy_of("llama-untied");
        harm(&folder.path().join("model.safetensors"), change);
        let refusal = refusal(folder.path());
        assert!(refusal.contains(said) && refusal.contains("is damaged"), "`{refusal}` does not say `{said}`");
    }
}

#[test]
fn weights_that_do_not_fit_the_configuration_are_refused() {
    let with_config = |key: &str, value: Value| {
        let folder = copy_of("llama-untied");
        harm(&folder.path().join("config.json"), |bytes| {
            let mut config: Value = serde_json::from_slice(bytes).unwrap();
            config[key] = value;
            *bytes = config.to_string().into_bytes();
        });
        refusal(folder.path())
    };
    let said = with_config("vocab_size", 2048.into());
    assert!(said.contains("`[1024, 128]`") && said.contains("`[2048, 128]`") && said.contains("vocab_size"), "{said}");
    assert!(with_config("num_hidden_layers", 4.into()).contains("have no tensor `model.layers.3.input_layernorm.weight`"));
    assert!(with_config("num_hidden_layers", 2.into()).contains("have a tensor `model.layers.2."));
    assert!(with_config("model_type", "qwen2".into()).contains("have no tensor `model.layers.0.self_attn.q_proj.bias`"));
    let folder = copy_of("llama-untied");
    harm(&folder.path().join("model.safetensors"), |bytes| replace(bytes, r#""dtype":"BF16""#, r#""dtype":"U16" "#));
    let said = refusal(folder.path());
    assert!(said.contains("is stored as `U16`") && said.contains("Convert"), "{said}");
}

#[test]
fn a_missing_shard_or_no_weights_at_all_is_said() {
    let folder = copy_of("qwen3");
    std::fs::remove_file(folder.path().join("model-00002-of-00003.safetensors")).unwrap();
    assert!(refusal(folder.path()).contains("the index names `model-00002-of-00003.safetensors`"));
    let folder = copy_of("qwen3");
    harm(&folder.path().join("model.safetensors.index.json"), |bytes| replace(bytes, "model-00003", "../../00003"));
    assert!(refusal(folder.path()).contains("is not the name of a file beside it"));
    let folder = copy_of("qwen3");
    std::fs::remove_file(folder.path().join("model.safetensors.index.json")).unwrap();
    assert!(refusal(folder.path()).contains("neither `model.safetensors` nor"));
}

#[test]
fn end_ids_of_both_configurations_count() {
    let ends = |stated: Option<Value>, generation: Option<Value>| {
        let copy = copy_of("llama-untied");
        for (file, ids) in [("config.json", stated), ("generation_config.json", generation)] {
            harm(&copy.path().join(file), |bytes| {
                let mut config: Value = serde_json::from_slice(bytes).unwrap();
                config["eos_token_id"] = ids.unwrap_or_default();
                *bytes = config.to_string().into_bytes();
            });
        }
        ModelConfig::open(copy.path()).map(|config| config.eos_token_ids).map_err(|error| error.to_string())
    };
    assert_eq!(ends(None, Some(7.into())).unwrap(), [7]);
    assert_eq!(ends(None, Some(serde_json::json!([9, 3]))).unwrap(), [9, 3]);
    assert_eq!(ends(Some(5.into()), Some(serde_json::json!([5, 3]))).unwrap(), [5, 3]);
    assert_eq!(ends(None, None).unwrap(), [0_u32; 0]);
    assert!(ends(None, Some("x".into())).unwrap_err().contains("generation_config.json"));
}
