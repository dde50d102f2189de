//! A server as the target of a campaign: waited for, asked how it wants to be asked, and looked for again when it went away.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use crate::campaign::ceiling;
use crate::campaign::interrupt::Interrupt;
use crate::campaign::measure::Halt;
use crate::campaign::targets::Targets;
use crate::clock::{Clock, Monotonic};
use crate::http::client::Client;
use crate::http::endpoint::Address;
use crate::record::run::ColdStart;
use crate::record::server::{ServerProcess, ServerRecord, TokenSource};
use crate::record::target::{BatchLimits, TargetIdentity};
use crate::target::Target;
use crate::target::openai::ask::PromptForm;
use crate::target::openai::discover::{Found, Wish, discover};
use crate::target::openai::protocol::Protocol;
use crate::target::openai::ready::{self, NotReady, Patience, Served};
use crate::target::openai::{Server, TimeLimits};

/// How long a server that went away in the middle of a run is waited for.
const COMES_BACK: Patience = Patience { loading: Duration::from_secs(300), absent: Duration::from_secs(10) };

/// What was asked for of a server.
#[derive(Clone, Debug)]
pub struct ServerWish {
    /// Where it is, and how to talk to it.
    pub client: Client,
    /// The model, where it was named.
    pub model: Option<String>,
    /// How it is to be asked, as far as that was said.
    pub ways: Wish,
    /// How long each part of a request may take.
    pub limits: TimeLimits,
    /// How long it is waited for.
    pub patience: Patience,
    /// What is spoken with it.
    pub protocol: Protocol,
    /// GPUs behind it, where that was said.
    pub gpus: Option<u32>,
    /// Names probes and requests apart from those of other runs.
    pub seed: u64,
}

/// A server that answers.
#[derive(Debug)]
pub struct Reached {
    wish: ServerWish,
    served: Served,
    address: Address,
    found: Found,
    cache_reset: Option<&'static str>,
    /// Its process, where that was found.
    pub process: Option<ServerProcess>,
    /// GPUs that it was found on, where nobody said how many it has.
    pub gpus_found: u32,
    /// Where its counters are read, where it has some.
    pub metrics: Option<String>,
    /// Tokens that its KV cache holds, where its counters say so.
    pub kv_tokens: Option<u64>,
    waited: Duration,
}

/// Waits for the server and finds out how to ask it. `tell` hears how it goes.
///
/// # Errors
/// When it does not serve, or gives no stream of tokens.
pub fn reach(wish: ServerWish, interrupt: &Interrupt, tell: &mut dyn FnMut(String)) -> anyhow::Result<Reached> {
    let clock = Monotonic::start();
    let said =
        &mut |waited: Duration, why: &str| tell(format!("waiting for {} ({:.0} s): {why}", wish.client.endpoint, waited.as_secs_f64()));
    let served = match ready::served(&wish.client, wish.model.as_deref(), wish.patience, said, &|| interrupt.raised().is_some()) {
        Err(NotReady::Stopped { .. }) if interrupt.raised().is_some() => {
            let signal = interrupt.raised().context("somebody asked for it")?;
            return Err(Halt::Signal(signal)).context("stopped while the server was waited for, before anything was measured");
        }
        served => served?,
    };
    let waited = Duration::from_nanos(clock.now().0);
    tell(format!("{} serves `{}`; finding out how it is asked", wish.client.endpoint, served.model));
    let address = wish.client.reach()?;
    let found = discover(&wish.client, &address, &served, &wish.ways, wish.seed)?;
    let cache_reset = ready::reset_cache(&wish.client, None);
    Ok(Reached { wish, served, address, found, cache_reset, process: None, gpus_found: 0, metrics: None, kv_tokens: None, waited })
}

impl Reached {
    /// What is known of it.
    #[must_use]
    pub fn record(&self) -> ServerRecord {
        let found = &self.found;
        ServerRecord {
            url: self.wish.client.endpoint.to_string(),
            protocol: Some(self.wish.protocol.name().to_owned()),
            name: self.served.name.clone(),
            version: self.served.version.clone(),
            api: found.manner.api.path().to_owned(),
            prompts: match found.manner.prompt {
                PromptForm::Ids(_) => "token ids".to_owned(),
                PromptForm::Words(rate) => format!("words ({:.2} tokens each, {:.0} around them)", rate.per_word, rate.overhead),
            },
            token_source: found.token_source,
            tokens_per_event: found.tokens_per_event,
            length_forced: found.length_forced,
            repeat_probe: found.repeat,
            cache_reset: self.cache_reset.map(str::to_owned),
            max_context: self.served.max_context,
            process: self.process.clone(),
            metrics: self.metrics.clone(),
        }
    }

    /// Whether the length of its answers is left to the model.
    #[must_use]
    pub fn natural_length(&self) -> bool {
        self.wish.ways.natural_length
    }

    /// It, as the `number`th client is to ask it.
    fn server(&self, identity: TargetIdentity, number: u64) -> Server {
        let Self { wish, address, found, .. } = self;
        Server {
            endpoint: wish.client.endpoint.clone(),
            address: address.clone(),
            tls: wish.client.tls.clone(),
            headers: wish.client.headers.clone(),
            manner: found.manner.clone(),
            limits: wish.limits,
            identity,
            tokens_per_event: found.tokens_per_event,
            tokenizer: wish.ways.tokenizer.clone(),
            tag: format!("plimsoll-{:x}-{number}", wish.seed),
        }
    }

    fn identity(&self) -> TargetIdentity {
        let url = self.wish.client.endpoint.to_string();
        let devices = self.wish.gpus.or((self.gpus_found > 0).then_some(self.gpus_found));
        let setting = |flag: &str| self.process.as_ref().and_then(|process| process.settings.get(flag).cloned());
        let mut labels = self.served.labels.clone();
        if devices.is_none() {
            labels.push("GPUs behind the server not stated (`--gpus`): figures per GPU are of the whole server".to_owned());
        }
        if self.natural_length() {
            labels.push("answers end when the model ends them".to_owned());
        }
        if self.wish.protocol == Protocol::Http2 {
            labels.push("asked over HTTP/2".to_owned());
        }
        if self.found.token_source == TokenSource::Tokenizer {
            labels.push("tokens counted by the local tokenizer: the server gives no usage".to_owned());
        }
        if self.found.token_source == TokenSource::Events {
            labels.push("tokens counted one an event: the server gives no usage".to_owned());
        }
        let precision = [setting("quantization"), setting("dtype")].into_iter().flatten().collect::<Vec<_>>().join(", ");
        let precision = if precision.is_empty() { "unknown".to_owned() } else { precision };
        TargetIdentity {
            kind: "server".to_owned(),
            model: self.served.model.clone(),
            device: match devices {
                Some(1) => format!("1 GPU at {url}"),
                Some(gpus) => format!("{gpus} GPUs at {url}"),
                None => url,
            },
            precision,
            devices: devices.unwrap_or(1),
            labels,
            max_context: self.served.max_context.unwrap_or(0),
            vocab_size: match self.found.manner.prompt {
                PromptForm::Ids(vocab_size) => vocab_size,
                PromptForm::Words(_) => 0,
            },
            batch: {
                let limits = self.process.as_ref().map(|process| batch_limits(&process.settings)).unwrap_or_default();
                // What the server made of its settings goes before them.
                BatchLimits { kv_tokens: self.kv_tokens.or(limits.kv_tokens), ..limits }
            },
        }
    }
}

/// What a server's command line says of its batches: the flags of vLLM, SGLang and llama.cpp.
fn batch_limits(settings: &BTreeMap<String, String>) -> BatchLimits {
    fn first<T: std::str::FromStr>(settings: &BTreeMap<String, String>, flags: &[&str]) -> Option<T> {
        flags.iter().find_map(|flag| settings.get(*flag)?.parse().ok())
    }
    BatchLimits {
        max_sequences: first(settings, &["max-num-seqs", "max-running-requests", "parallel", "np"]),
        max_step_tokens: first(settings, &["max-num-batched-tokens", "chunked-prefill-size", "batch-size"]),
        kv_tokens: first(settings, &["max-total-tokens"]),
    }
}

/// Clients of one server.
#[derive(Debug)]
pub struct ServerTargets {
    reached: Reached,
    identity: TargetIdentity,
    clock: Monotonic,
    interrupt: Interrupt,
    made: u64,
}

impl ServerTargets {
    /// Clients of the server that was reached; their stamps come from `clock`.
    #[must_use]
    pub fn new(reached: Reached, clock: Monotonic, interrupt: &Interrupt) -> Self {
        let identity = reached.identity();
        Self { reached, identity, clock, interrupt: interrupt.clone(), made: 0 }
    }

    /// What the server is in every detail that a resumed run must find again.
    #[must_use]
    pub fn made_of(&self) -> String {
        let http2 = self.reached.wish.protocol == Protocol::Http2;
        format!("{:?}{}", self.reached.found.manner, if http2 { " over HTTP/2" } else { "" })
    }
}

impl Targets for ServerTargets {
    fn identity(&self) -> TargetIdentity {
        self.identity.clone()
    }

    fn generator_ceiling(&self, prompt_tokens: u32, output_tokens: u32) -> Option<f64> {
        ceiling::over_http(prompt_tokens, output_tokens, self.reached.wish.protocol).ok()
    }

    fn server(&self) -> Option<ServerRecord> {
        Some(self.reached.record())
    }

    fn fresh(&mut self) -> anyhow::Result<Box<dyn Target>> {
        let wish = &self.reached.wish;
        if self.made > 0 {
            let mut quiet = |_: Duration, _: &str| {};
            let stop = || self.interrupt.raised().is_some();
            match ready::served(&wish.client, Some(&self.identity.model), COMES_BACK, &mut quiet, &stop) {
                Err(NotReady::Stopped { .. }) | Ok(_) => {}
                Err(gone) => return Err(gone).context("the server went away"),
            }
        }
        // Prompts are new in every level all the same; a full cache of old ones would only be in the way.
        if let Some(path) = self.reached.cache_reset {
            let _ = ready::reset_cache(&wish.client, Some(path));
        }
        self.made += 1;
        let server = Arc::new(self.reached.server(self.identity.clone(), self.made));
        wish.protocol.client(server, self.clock).context("cannot wait for sockets. Check `ulimit -n` and `ulimit -u`")
    }

    fn cold_start(&self) -> ColdStart {
        ColdStart { load_s: self.reached.waited.as_secs_f64(), first_request_ms: None }
    }

    fn most_in_flight(&self) -> u32 {
        1024
    }
}
