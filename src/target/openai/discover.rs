//! Finds out how a server wants to be asked: which interface, prompts as ids or words, what forces an answer to its length,
//! who counts its tokens. By trying, from the most exact way down.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, Monotonic, Nanos};
use crate::http::client::Client;
use crate::http::endpoint::Address;
use crate::model::tokenizer::Tokenizer;
use crate::record::request::{FailureKind, TokenCount};
use crate::record::server::{RepeatProbe, TokenSource};
use crate::record::target::TargetIdentity;
use crate::rng;
use crate::target::openai::ask::{Api, Manner, PromptForm};
use crate::target::openai::protocol::Protocol;
use crate::target::openai::ready::Served;
use crate::target::openai::words::WordRate;
use crate::target::openai::{Server, TimeLimits};
use crate::target::{EventKind, Slot};
use crate::workload::request::{Prompt, Request, Sampling};

/// Ids of a vocabulary whose size nobody told: every vocabulary of today is larger.
const VOCABULARY: u32 = 20_000;
/// Tokens of the answers that are tried.
const ANSWER: u32 = 24;
/// Tokens of the prompts that are tried.
const PROMPT: u32 = 40;
/// Tokens of the prompt that is sent twice: several blocks of any cache.
const REPEATED: u32 = 256;

/// What was asked for; what is not is found out.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// The interface.
    pub api: Option<Api>,
    /// Whether prompts are token ids.
    pub ids: Option<bool>,
    /// Whether the length of answers is left to the model.
    pub natural_length: bool,
    /// The vocabulary, where it is known.
    pub vocab_size: Option<u32>,
    /// Counts tokens where the server does not.
    pub tokenizer: Option<Arc<Tokenizer>>,
    /// More fields of every request's body.
    pub more: String,
}

/// How a server is asked, and what it was seen to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// How requests are written.
    pub manner: Manner,
    /// How its tokens are counted.
    pub token_source: TokenSource,
    /// Tokens an event carried.
    pub tokens_per_event: f64,
    /// Whether an answer that was forced to its length had it; `None` where it was not forced.
    pub length_forced: Option<bool>,
    /// What a repeated prompt did.
    pub repeat: Option<RepeatProbe>,
}

/// A server that cannot be asked for a stream of tokens.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// Whatever was tried, it refused.
    #[error("{server} gave no stream of tokens: {reasons}. Name its interface with `--api`, its model with `--model`, and see its own log")]
    NoStream {
        /// Which.
        server: String,
        /// Each way that was tried, and what it said.
        reasons: String,
    },
    /// It wants a key.
    #[error("{server} wants a key ({said}). Give it with `--api-key-file FILE` or in PLIMSOLL_API_KEY")]
    Unauthorised {
        /// Which.
        server: String,
        /// Its own words.
        said: String,
    },
    /// The system gives no descriptor.
    #[error("cannot wait for sockets: {0}. Check `ulimit -n`")]
    System(#[from] std::io::Error),
}

/// One answer to a probe.
#[derive(Clone, Debug, Default)]
struct Asked {
    ttft: Option<Nanos>,
    count: TokenCount,
    counted: u32,
    failure: Option<(FailureKind, String)>,
}

/// Asks the server of `client` at `address`, which serves `served`, until it is known how.
///
/// # Errors
/// When no way leads to tokens.
pub fn discover(client: &Client, address: &Address, served: &Served, wish: &Wish, seed: u64) -> Result<Found, DiscoverError> {
    let probe = Probe { client, address, tokenizer: wish.tokenizer.as_ref(), seed };
    let apis = wish.api.map_or_else(|| vec![Api::Completions, Api::Chat, Api::Responses], |api| vec![api]);
    let vocab_size =
        wish.vocab_size.or(wish.tokenizer.as_ref().map(|tokenizer| tokenizer.vocab_size())).or(served.vocab_size).unwrap_or(VOCABULARY);
    let mut reasons = Vec::new();
    for api in apis {
        for manner in ways(api, vocab_size, &served.model, wish) {
            let asked = probe.ask(&manner, 0, PROMPT, ANSWER)?;
            match asked.failure {
                None => return probe.refine(manner, &asked),
                Some((_, said)) if said.starts_with("401") || said.starts_with("403") => {
                    return Err(DiscoverError::Unauthorised { server: client.endpoint.to_string(), said });
                }
                // A path that is not there, or nobody who listens, is no matter of fields.
                Some((kind, said)) => {
                    let elsewhere = said.starts_with("404") || said.starts_with("405");
                    let reason = format!("{}: {said}", api.path());
                    if !reasons.contains(&reason) {
                        reasons.push(reason);
                    }
                    if elsewhere || matches!(kind, FailureKind::Unreachable | FailureKind::ConnectTimeout) {
                        break;
                    }
                }
            }
        }
    }
    Err(DiscoverError::NoStream { server: client.endpoint.to_string(), reasons: reasons.join("; ") })
}

/// Ways to ask, the most exact first.
fn ways(api: Api, vocab_size: u32, model: &str, wish: &Wish) -> Vec<Manner> {
    let ids = match (api, wish.ids) {
        (Api::Completions, None) => vec![true, false],
        (Api::Completions, Some(ids)) => vec![ids],
        _ => vec![false],
    };
    let forces = if wish.natural_length { vec![false] } else { vec![true, false] };
    let mut ways = Vec::new();
    for ids in ids {
        for force_length in &forces {
            for (ask_usage, ask_running_usage) in [(true, true), (true, false), (false, false)] {
                // Without any usage only as the last resort of all.
                if !ask_usage && (*force_length || ids) {
                    continue;
                }
                ways.push(Manner {
                    api,
                    model: model.to_owned(),
                    prompt: if ids { PromptForm::Ids(vocab_size) } else { PromptForm::Words(WordRate::default()) },
                    force_length: *force_length,
                    ask_usage,
                    ask_running_usage,
                    completion_limit: false,
                    more: wish.more.clone(),
                });
            }
        }
    }
    if api == Api::Chat {
        let modern: Vec<_> = ways.iter().cloned().map(|way| Manner { completion_limit: true, force_length: false, ..way }).collect();
        ways.extend(modern.into_iter().take(2));
    }
    ways
}

struct Probe<'a> {
    client: &'a Client,
    address: &'a Address,
    tokenizer: Option<&'a Arc<Tokenizer>>,
    seed: u64,
}

impl Probe<'_> {
    /// The way is known: what else is worth knowing of it.
    fn refine(&self, mut manner: Manner, first: &Asked) -> Result<Found, DiscoverError> {
        if let PromptForm::Words(_) = manner.prompt {
            manner.prompt = PromptForm::Words(self.word_rate(&manner)?);
        }
        let output = first.count.output_by_usage;
        // A running usage that is asked for may be ignored: it is there when the count was right at every event.
        let running = manner.ask_running_usage && first.count.running;
        manner.ask_running_usage = running;
        let token_source = match output {
            Some(_) if running => TokenSource::RunningUsage,
            Some(_) => TokenSource::FinalUsage,
            None if first.count.output_by_tokenizer.is_some() => TokenSource::Tokenizer,
            None => TokenSource::Events,
        };
        let tokens = f64::from(first.count.output().unwrap_or(first.counted));
        let length_forced = manner.force_length.then_some(output.unwrap_or(first.counted) == ANSWER);
        let repeat = self.repeat(&manner)?;
        Ok(Found {
            tokens_per_event: (tokens / f64::from(first.count.events.max(1))).max(1.0),
            manner,
            token_source,
            length_forced,
            repeat,
        })
    }

    /// Tokens a word, by what the server counts for a short prompt and a long one; what it does not count the tokenizer does.
    fn word_rate(&self, manner: &Manner) -> Result<WordRate, DiscoverError> {
        let mut counts = Vec::new();
        for words in [16, 64] {
            let asked = self.ask(manner, u64::from(words), words, 4)?;
            let local = || {
                let mut text = Vec::new();
                WordRate::default().write(&self.prompt(u64::from(words), words), &mut text);
                self.tokenizer?.count(&String::from_utf8_lossy(&text))
            };
            match asked.count.prompt_by_usage.or_else(local) {
                Some(tokens) => counts.push((words, tokens)),
                None => return Ok(WordRate::default()),
            }
        }
        Ok(WordRate::from_counts(counts[0], counts[1]))
    }

    /// The same prompt twice.
    fn repeat(&self, manner: &Manner) -> Result<Option<RepeatProbe>, DiscoverError> {
        let first = self.ask(manner, 7, REPEATED, 4)?;
        let second = self.ask(manner, 7, REPEATED, 4)?;
        let (Some(first_ttft), Some(second_ttft)) = (first.ttft, second.ttft) else { return Ok(None) };
        Ok(Some(RepeatProbe {
            prompt_tokens: second.count.prompt_by_usage.unwrap_or(REPEATED),
            cached_tokens: second
                .count
                .prompt_by_usage
                .map(|_| second.count.cached)
                .filter(|cached| *cached > 0 || second.count.tells_cached),
            first_ms: first_ttft.as_millis_f64(),
            second_ms: second_ttft.as_millis_f64(),
        }))
    }

    /// The prompt that is sent as the `which`th.
    fn prompt(&self, which: u64, tokens: u32) -> Prompt {
        Prompt::unique(rng::at(self.seed, which), tokens)
    }

    /// One request, to its end.
    fn ask(&self, manner: &Manner, which: u64, prompt: u32, tokens: u32) -> Result<Asked, DiscoverError> {
        let limit = Nanos(u64::try_from(self.client.timeout.as_nanos()).unwrap_or(u64::MAX));
        let server = Server {
            endpoint: self.client.endpoint.clone(),
            address: self.address.clone(),
            tls: self.client.tls.clone(),
            headers: self.client.headers.clone(),
            manner: manner.clone(),
            limits: TimeLimits { first_token: limit, token_gap: limit, ..TimeLimits::default() },
            identity: TargetIdentity::unknown(),
            tokens_per_event: 1.0,
            tokenizer: self.tokenizer.cloned(),
            tag: format!("probe-{:x}-{which}", self.seed),
        };
        let clock = Monotonic::start();
        let protocol = if self.client.http2 { Protocol::Http2 } else { Protocol::Http1 { threads: 1 } };
        let mut target = protocol.client(Arc::new(server), clock)?;
        target.wake_this_thread();
        let prompt = self.prompt(which, prompt);
        target.submit(Request { id: 0, prompt, output_tokens: tokens, sampling: Sampling::default(), session: None }, Slot(0));
        let mut asked = Asked::default();
        loop {
            target.doze(Duration::from_millis(50));
            while let Some(event) = target.next_event() {
                match event.kind {
                    EventKind::Tokens(count) => {
                        asked.ttft.get_or_insert(event.at);
                        asked.counted += count;
                    }
                    EventKind::Reckoned(count) => asked.count = count,
                    EventKind::Completed => return Ok(asked),
                    EventKind::Failed(kind) => {
                        let said = target.said(kind).unwrap_or_default();
                        asked.failure = Some((kind, said));
                        return Ok(asked);
                    }
                    EventKind::Started { .. } | EventKind::FirstByte | EventKind::Preempted | EventKind::RetryAfter(_) => {}
                }
            }
            if clock.now() > limit + limit {
                asked.failure = Some((FailureKind::TokenGapTimeout, "its answer had no end in time".to_owned()));
                return Ok(asked);
            }
        }
    }
}
