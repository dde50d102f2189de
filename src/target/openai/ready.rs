//! Waits until a server serves, and asks it what.

use std::time::Duration;

use serde_json::Value;

use crate::clock::{Clock, Monotonic};
use crate::http::client::{Answer, Client, ExchangeError};

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// The model's name.
    pub model: String,
    /// Every model that it lists.
    pub models: Vec<String>,
    /// Such as `vLLM`, where it can be told.
    pub name: Option<String>,
    /// Of the server, where it says so.
    pub version: Option<String>,
    /// Longest prompt plus answer, where it says so.
    pub max_context: Option<u32>,
    /// Ids that the model has, where it says so.
    pub vocab_size: Option<u32>,
    /// Labels that it gives its own figures.
    pub labels: Vec<String>,
}

/// A server that does not serve.
#[derive(Debug, thiserror::Error)]
pub enum NotReady {
    /// Nobody is there.
    #[error("{error} (tried {tries} times). Start the server, check the address, or let it be waited for with `--wait-ready 10m`")]
    Unreachable {
        /// The last try.
        error: ExchangeError,
        /// How many there were.
        tries: u32,
    },
    /// It is there, and not believed, or speaks something else.
    #[error(transparent)]
    NoAgreement(ExchangeError),
    /// It is there and not ready.
    #[error("{server} is not ready after {seconds:.0} s: {said}. See its own log, or wait longer with `--wait-ready`")]
    StillLoading {
        /// Which.
        server: String,
        /// How long it was waited for.
        seconds: f64,
        /// What it said last.
        said: String,
    },
    /// It refuses to be talked to.
    #[error("{server} wants a key ({said}). Give it with `--api-key-file FILE` or in PLIMSOLL_API_KEY")]
    Unauthorised {
        /// Which.
        server: String,
        /// Its own words.
        said: String,
    },
    /// It does not say what it serves.
    #[error("{server} does not say which model it serves ({said}). Name it with `--model`")]
    NoModel {
        /// Which.
        server: String,
        /// What it said.
        said: String,
    },
    /// It serves others.
    #[error("{server} does not serve `{asked}`; it serves {served}. Name one of these with `--model`, or leave it out")]
    OtherModel {
        /// Which.
        server: String,
        /// The model that was asked for.
        asked: String,
        /// Those that it lists.
        served: String,
    },
    /// Stopped from outside.
    #[error("stopped while waiting for {server}")]
    Stopped {
        /// Which.
        server: String,
    },
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a server that is there and loads its model.
    pub loading: Duration,
    /// For one that nobody answers for; three tries at least.
    pub absent: Duration,
}

/// Between two tries.
const PAUSE: Duration = Duration::from_millis(500);
const TRIES: u32 = 3;

/// Waits until the server says which models it serves; `asked` is the one that was named. Tells how long it has been
/// waiting, and why, about twice a second; `stop` ends it.
///
/// # Errors
/// When it does not, or does not serve that one.
pub fn served(
    client: &Client,
    asked: Option<&str>,
    patience: Patience,
    tell: &mut dyn FnMut(Duration, &str),
    stop: &dyn Fn() -> bool,
) -> Result<Served, NotReady> {
    let server = || client.endpoint.to_string();
    let clock = Monotonic::start();
    let mut tries = 0;
    let answer = loop {
        tries += 1;
        let waited = Duration::from_nanos(clock.now().0);
        match client.get("/v1/models") {
            Ok(answer) if matches!(answer.head.status, 401 | 403) => {
                return Err(NotReady::Unauthorised { server: server(), said: answer.said() });
            }
            // A list that fails for good, as transformers' does without a folder of its own, keeps nobody from a model that was named.
            Ok(answer) if answer.head.status == 500 && asked.is_some() && is_healthy(client) => break answer,
            Ok(answer) if answer.head.status >= 500 => {
                if waited >= patience.loading {
                    return Err(NotReady::StillLoading { server: server(), seconds: waited.as_secs_f64(), said: answer.said() });
                }
                tell(waited, &format!("{}: {}", answer.head.status, answer.said()));
            }
            Ok(answer) => break answer,
            Err(error @ (ExchangeError::Encryption { .. } | ExchangeError::NoHttp2 { .. })) => return Err(NotReady::NoAgreement(error)),
            Err(error) => {
                if tries >= TRIES && waited >= patience.absent {
                    return Err(NotReady::Unreachable { error, tries });
                }
                tell(waited, &error.to_string());
            }
        }
        if stop() {
            return Err(NotReady::Stopped { server: server() });
        }
        std::thread::sleep(PAUSE);
    };
    let mut served = listed(&answer);
    served.model = match asked {
        Some(asked) if served.models.is_empty() || served.models.iter().any(|model| model == asked) => asked.to_owned(),
        Some(asked) => {
            let models = served.models.iter().map(|model| format!("`{model}`")).collect::<Vec<_>>().join(", ");
            return Err(NotReady::OtherModel { server: server(), asked: asked.to_owned(), served: models });
        }
        None => served.models.first().cloned().ok_or_else(|| NotReady::NoModel { server: server(), said: answer.said() })?,
    };
    identify(client, &mut served);
    Ok(served)
}

/// Whether it says that it serves, where it has a path for that.
fn is_healthy(client: &Client) -> bool {
    client.get("/health").is_ok_and(|answer| answer.head.status == 200)
}

/// What the list of models says.
fn listed(answer: &Answer) -> Served {
    let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let entries = list.get("data").and_then(Value::as_array).cloned().unwrap_or_default();
    let names = entries.iter().filter_map(|entry| Some(entry.get("id")?.as_str()?.to_owned()));
    let first = entries.first().cloned().unwrap_or_default();
    let number = |value: Option<&Value>| value.and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    let meta = first.get("meta");
    let labels = first.get("labels").and_then(Value::as_array).cloned().unwrap_or_default();
    let owner = first.get("owned_by").and_then(Value::as_str).unwrap_or_default();
    let name = match owner {
        "vllm" => Some("vLLM"),
        "sglang" => Some("SGLang"),
        "llamacpp" => Some("llama.cpp"),
        "plimsoll" => Some("plimsoll"),
        "tensorrt_llm" | "TensorRT-LLM" => Some("TensorRT-LLM"),
        _ => match answer.head.server.as_deref() {
            Some("llama.cpp") => Some("llama.cpp"),
            _ => None,
        },
    };
    Served {
        model: String::new(),
        models: names.collect(),
        name: name.map(str::to_owned),
        version: None,
        max_context: number(first.get("max_model_len")).or_else(|| number(meta.and_then(|meta| meta.get("n_ctx")))),
        vocab_size: number(meta.and_then(|meta| meta.get("n_vocab"))).or_else(|| number(first.get("vocab_size"))),
        labels: labels.iter().filter_map(|label| Some(label.as_str()?.to_owned())).collect(),
    }
}

/// What else it says, where it has a path for it: none is required.
fn identify(client: &Client, served: &mut Served) {
    let json = |path: &str| -> Option<Value> {
        let answer = client.get(path).ok().filter(|answer| answer.head.status == 200)?;
        serde_json::from_slice(&answer.body).ok()
    };
    let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
    let number = |value: &Value, key: &str| value.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    match served.name.as_deref() {
        Some("llama.cpp") => {
            if let Some(props) = json("/props") {
                served.version = text(&props, "build_info");
                let each = props.get("default_generation_settings").and_then(|settings| number(settings, "n_ctx"));
                // A slot's share of the context, not the whole.
                served.max_context = each.or(served.max_context);
            }
        }
        Some("SGLang") => {
            if let Some(info) = json("/get_server_info") {
                served.version = text(&info, "version");
                served.max_context = served.max_context.or_else(|| number(&info, "context_length"));
            }
        }
        _ => served.version = json("/version").and_then(|version| text(&version, "version")),
    }
}

/// Paths that empty a prefix cache: vLLM's, SGLang's.
pub const CACHE_RESETS: [&str; 2] = ["/reset_prefix_cache", "/flush_cache"];

/// Empties the server's prefix cache; the path that did it, where it has one.
#[must_use]
pub fn reset_cache(client: &Client, known: Option<&'static str>) -> Option<&'static str> {
    let paths: &[&'static str] = match &known {
        Some(path) => std::slice::from_ref(path),
        None => &CACHE_RESETS,
    };
    paths.iter().copied().find(|path| client.post(path, b"").is_ok_and(|answer| (200..300).contains(&answer.head.status)))
}
