//! `bench --target URL`: a server that somebody else runs.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use rustls::ClientConfig;

use crate::campaign::interrupt::Interrupt;
use crate::campaign::servers::{Reached, ServerWish, reach};
use crate::cli::bench::args::BenchArgs;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::length_of_time;
use crate::clock::Nanos;
use crate::http::client::Client;
use crate::http::endpoint::Endpoint;
use crate::http::tls::{self, Trust};
use crate::model::tokenizer::Tokenizer;
use crate::rng;
use crate::target::openai::TimeLimits;
use crate::target::openai::ask::Api;
use crate::target::openai::discover::Wish;
use crate::target::openai::protocol::Protocol;
use crate::target::openai::ready::Patience;

/// Where a key is looked for when no file is named.
const API_KEY: &str = "PLIMSOLL_API_KEY";
/// One exchange around the measurement may take so long.
const EXCHANGE: Duration = Duration::from_secs(120);

/// A server that is measured, and how it is asked.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "A server as the target")]
pub struct ServerArgs {
    /// Interface of the server [default: the first that answers]
    #[arg(long, value_enum, value_name = "API")]
    pub api: Option<ApiArg>,
    /// GPUs behind the server: the divisor of everything per GPU [default: those its process computes on, on this node]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub gpus: Option<u32>,
    /// Prompts as token ids or as words [default: ids where the server takes them]
    #[arg(long, value_enum, value_name = "FORM")]
    pub prompts: Option<PromptsArg>,
    /// Let the model end its answers: lengths are then the model's, and no fault
    #[arg(long)]
    pub natural_length: bool,
    /// Ids the model has, for prompts as ids [default: what the server says, else 20000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub vocab_size: Option<u32>,
    /// Folder or file of the model's tokenizer.json: counts the tokens of answers where the server does not, and checks it where it does
    #[arg(long, value_name = "DIR|FILE")]
    pub tokenizer: Option<PathBuf>,
    /// File with the key that the server wants [default: PLIMSOLL_API_KEY, where it is set]
    #[arg(long, value_name = "FILE")]
    pub api_key_file: Option<PathBuf>,
    /// One more header of every request, such as 'X-Tenant: blue'; as often as needed
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header)]
    pub headers: Vec<(String, String)>,
    /// More fields of every request's body, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = more)]
    pub extra_body: Option<String>,
    /// PEM file of the authority that signed the server's certificate [default: those of this machine]
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca_file: Option<PathBuf>,
    /// Believe any certificate
    #[arg(long)]
    pub insecure: bool,
    /// Threads that send and read, each on a core of its own where there are enough; 1 is the generator's own thread
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub client_threads: u32,
    /// Ask over HTTP/2 and nothing else: many requests on few connections, on one thread of its own; the server must speak it
    #[arg(long, conflicts_with = "client_threads")]
    pub http2: bool,
    /// Page with the server's own counters, once a second [default: its /metrics, where it has one]
    #[arg(long, value_name = "URL", conflicts_with = "no_metrics")]
    pub metrics_url: Option<Endpoint>,
    /// Do not read the server's counters
    #[arg(long)]
    pub no_metrics: bool,
    /// Wait this long for a server that is not there yet [default: three tries; ten minutes while it loads]
    #[arg(long, value_name = "TIME", value_parser = length_of_time::read)]
    pub wait_ready: Option<Duration>,
    /// A connection is given up after this long [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = length_of_time::read)]
    pub connect_timeout: Option<Duration>,
    /// A request without a first token is given up after this long [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = length_of_time::read)]
    pub first_token_timeout: Option<Duration>,
    /// An answer without a next token is given up after this long [default: 1m]
    #[arg(long, value_name = "TIME", value_parser = length_of_time::read)]
    pub token_gap_timeout: Option<Duration>,
}

/// Interfaces by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ApiArg {
    /// `/v1/completions`.
    Completions,
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/responses`.
    Responses,
}

/// Forms of prompts by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PromptsArg {
    /// Token ids: lengths are exact.
    Ids,
    /// English words, as many as the server counts for the length.
    Words,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it like 'Name: value'")?;
    let (name, value) = (name.trim(), value.trim());
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) || value.bytes().any(|byte| byte < b' ' || byte == 127) {
        return Err("a name has letters, digits and dashes, and a value is on one line".to_owned());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The fields of a JSON object, without its braces.
fn more(text: &str) -> Result<String, String> {
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON object ({error})"))?;
    let decided = ["model", "prompt", "messages", "input", "stream", "max_tokens", "max_completion_tokens", "max_output_tokens"];
    if let Some(key) = object.keys().find(|key| decided.contains(&key.as_str())) {
        return Err(format!("`{key}` is decided by the workload"));
    }
    let text = serde_json::to_string(&object).map_err(|error| error.to_string())?;
    Ok(text[1..text.len() - 1].to_owned())
}

/// What an encrypted connection to `endpoint` is made with, over which this protocol is to be spoken.
///
/// # Errors
/// When a certificate cannot be read.
pub(super) fn tls(server: &ServerArgs, endpoint: &Endpoint, protocol: &str) -> anyhow::Result<Option<Arc<ClientConfig>>> {
    let trust = match (&server.ca_file, server.insecure) {
        (Some(file), _) => Trust::File(file.clone()),
        (None, true) => Trust::Anybody,
        (None, false) => Trust::System,
    };
    endpoint.tls.then(|| tls::config(&trust, &[protocol])).transpose().exit_with(Exit::BadInput)
}

/// How the server is talked to.
///
/// # Errors
/// When the key or a certificate cannot be read.
pub(super) fn client(server: &ServerArgs, endpoint: &Endpoint) -> anyhow::Result<Client> {
    let mut headers = server.headers.clone();
    if let Some(key) = key(server)? {
        headers.push(("Authorization".to_owned(), format!("Bearer {key}")));
    }
    let tls = tls(server, endpoint, if server.http2 { "h2" } else { "http/1.1" })?;
    Ok(Client { endpoint: endpoint.clone(), tls, headers, timeout: EXCHANGE, http2: server.http2 })
}

/// Waits for the server of `client`, and finds out how it is asked.
///
/// # Errors
/// When it does not serve.
pub(super) fn connect(
    args: &BenchArgs,
    client: Client,
    seed: u64,
    interrupt: &Interrupt,
    tell: &mut dyn FnMut(String),
) -> anyhow::Result<Reached> {
    let server = &args.server;
    let length = |time: Option<Duration>, default: Nanos| time.map_or(default, |time| Nanos::from_secs_f64(time.as_secs_f64()));
    let limits = TimeLimits::default();
    let api = server.api.map(|api| match api {
        ApiArg::Completions => Api::Completions,
        ApiArg::Chat => Api::Chat,
        ApiArg::Responses => Api::Responses,
    });
    let protocol = if server.http2 { Protocol::Http2 } else { Protocol::Http1 { threads: server.client_threads } };
    let wish = ServerWish {
        client,
        model: args.target.model.clone(),
        ways: Wish {
            api,
            ids: server.prompts.map(|prompts| prompts == PromptsArg::Ids),
            natural_length: server.natural_length,
            vocab_size: server.vocab_size,
            tokenizer: server.tokenizer.as_deref().map(Tokenizer::read).transpose()?.map(Arc::new),
            more: server.extra_body.clone().unwrap_or_default(),
        },
        limits: TimeLimits {
            connect: length(server.connect_timeout, limits.connect),
            first_token: length(server.first_token_timeout, limits.first_token),
            token_gap: length(server.token_gap_timeout, limits.token_gap),
        },
        patience: Patience {
            loading: server.wait_ready.unwrap_or(Duration::from_secs(600)),
            absent: server.wait_ready.unwrap_or(Duration::ZERO),
        },
        protocol,
        gpus: server.gpus,
        seed: rng::derive(seed, "server"),
    };
    reach(wish, interrupt, tell)
}

fn key(server: &ServerArgs) -> anyhow::Result<Option<String>> {
    let Some(file) = &server.api_key_file else {
        return Ok(std::env::var_os(API_KEY).map(|key| key.to_string_lossy().trim().to_owned()).filter(|key| !key.is_empty()));
    };
    let what = || format!("cannot read the key from `{}`. Give a file that holds the key alone", file.display());
    let text = std::fs::read_to_string(file).with_context(what).exit_with(Exit::BadInput)?;
    let key = text.trim();
    if key.is_empty() || key.bytes().any(|byte| byte <= b' ' || byte == 127) {
        return Err(anyhow::anyhow!(what())).exit_with(Exit::BadInput);
    }
    Ok(Some(key.to_owned()))
}

/// Raises the limit of open files to what `connections` need.
///
/// # Errors
/// When the system allows fewer.
pub(super) fn allow_connections(connections: u64) -> anyhow::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    /// Files, sockets and libraries beside the connections.
    const BESIDE: u64 = 256;
    let needed = connections + BESIDE;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    let raised = Rlimit { current: Some(needed.min(limit.maximum.unwrap_or(needed))), maximum: limit.maximum };
    if limit.maximum.is_none_or(|maximum| maximum >= needed) && setrlimit(Resource::Nofile, raised).is_ok() {
        return Ok(());
    }
    let most = limit.maximum.unwrap_or_default();
    let what = format!(
        "{connections} requests at once need {needed} open files, and this process may have {most}. Raise the limit (`ulimit -Hn {needed}`), or ask for fewer with `--in-flight-cap` and `--max-concurrency`"
    );
    Err(anyhow::anyhow!(what)).exit_with(Exit::Unavailable)
}
