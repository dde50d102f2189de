//! The one model that is served: takes requests in, and divides what the engine tells among those who asked.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::watch;

use crate::clock::wall_now;
use crate::engine::Engine;
use crate::engine::limits::RequestLimits;
use crate::engine::sequence::{EndOfSequence, EngineRequest};
use crate::model::tokenizer::{SpecialTokens, Tokenizer};
use crate::rng;
use crate::serve::ServeError;
use crate::serve::asked::{Asked, Beginning, Endpoint};
use crate::serve::detokenizer::Detokenizer;
use crate::serve::failure::Failure;
use crate::serve::progress::{Progress, Stops};
use crate::serve::stepping::{self, Gauges, Message, Stepping, Told, What};

/// Answers of completions that do not say how long they may be, as OpenAI has it.
const COMPLETION_TOKENS: u32 = 16;
/// Bytes of a text that make a made-up id, where there is no tokenizer.
const BYTES_PER_ID: usize = 4;

/// What is served, and how it is called.
#[derive(Debug)]
pub struct Served {
    /// The model's name, as clients ask for it.
    pub name: String,
    /// The device, as a person would write it.
    pub device: String,
    /// Element types of weights and arithmetic.
    pub precision: String,
    /// What stands beside every answer, such as `synthetic weights`.
    pub labels: Vec<String>,
    /// Text to ids and back; without one, texts are made up.
    pub tokenizer: Option<Tokenizer>,
    /// Ids that end an answer.
    pub end_ids: Vec<u32>,
    /// What clients have to show.
    pub api_key: Option<String>,
    /// Requests that may wait for the engine; more are turned away. `None` is any number.
    pub max_waiting: Option<usize>,
}

/// The service.
#[derive(Debug)]
pub struct Service {
    pub(super) served: Served,
    pub(super) limits: RequestLimits,
    /// When it began, seconds since 1970.
    pub(super) created: i64,
    /// What it is, in every answer.
    pub(super) fingerprint: String,
    pub(super) gauges: Arc<Gauges>,
    /// Prompt tokens of requests that were started.
    pub(super) prompt_tokens: AtomicU64,
    next_key: AtomicU64,
    routes: Mutex<Routes>,
    /// `None` once it has ended.
    engine: Mutex<Option<(Sender<Message>, Stepping)>>,
    /// Whether the engine is there.
    alive: watch::Sender<bool>,
}

/// Requests in flight, and who listens.
#[derive(Debug, Default)]
struct Routes {
    by_key: HashMap<u64, Route>,
    /// Those that were not started yet.
    waiting: usize,
}

#[derive(Debug)]
struct Route {
    to: UnboundedSender<What>,
    prompt_tokens: u64,
    started: bool,
}

impl Routes {
    fn remove(&mut self, key: u64) {
        if let Some(route) = self.by_key.remove(&key) {
            self.waiting -= usize::from(!route.started);
        }
    }
}

/// A request that was understood.
#[derive(Debug)]
pub(super) struct Job {
    request: EngineRequest,
    wish: Wish,
}

/// How its answer is wanted.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) endpoint: Endpoint,
    pub(super) stream: bool,
    /// An end id is a token like any other.
    pub(super) ignores_end: bool,
    /// A stream ends with its usage; each event has one.
    pub(super) usage: (bool, bool),
    pub(super) prompt_tokens: u32,
    pub(super) progress: Progress,
}

impl Service {
    /// Puts `engine` on its thread. Needs a tokio runtime around it, which divides what the engine tells.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(engine: Engine, served: Served) -> Result<Arc<Self>, ServeError> {
        let limits = engine.limits();
        let (sender, told) = mpsc::unbounded_channel();
        let gauges = Arc::new(Gauges::default());
        let thread = stepping::start(engine, sender, Arc::clone(&gauges)).map_err(ServeError::Thread)?;
        let placeholder = served.tokenizer.is_none().then_some("placeholder text: no tokenizer");
        let labels = served.labels.iter().map(String::as_str).chain(placeholder);
        let parts = std::iter::once(concat!("plimsoll-", env!("CARGO_PKG_VERSION"))).chain(labels);
        let service = Arc::new(Self {
            limits,
            created: wall_now().as_second(),
            fingerprint: parts.collect::<Vec<_>>().join("; "),
            gauges,
            prompt_tokens: AtomicU64::new(0),
            next_key: AtomicU64::new(1),
            routes: Mutex::default(),
            engine: Mutex::new(Some(thread)),
            alive: watch::Sender::new(true),
            served,
        });
        tokio::spawn(divide(Arc::clone(&service), told));
        Ok(service)
    }

    /// Whether `shown` is the key, or none is needed.
    pub(super) fn admits(&self, shown: Option<&[u8]>) -> bool {
        let Some(key) = &self.served.api_key else { return true };
        let Some(shown) = shown else { return false };
        // Every byte is looked at, so that the time it takes says nothing of where they differ.
        shown.len() == key.len() && shown.iter().zip(key.as_bytes()).fold(0, |differs, (one, other)| differs | (one ^ other)) == 0
    }

    /// Understands a request, and holds it against what the engine can serve.
    pub(super) fn job(&self, endpoint: Endpoint, body: &[u8]) -> Result<Job, Failure> {
        let mut asked = Asked::parse(body)?;
        if let Some(model) = asked.model.as_ref().filter(|model| **model != self.served.name) {
            return Err(Failure::unknown_model(model, &self.served.name));
        }
        let prompt = match asked.beginning(endpoint)? {
            Beginning::Ids(ids) => ids,
            Beginning::Text(text) => self.encode(&text)?,
        };
        let room = u32::try_from(self.limits.longest().saturating_sub(prompt.len())).unwrap_or(u32::MAX);
        let unsaid = if endpoint == Endpoint::Chat { room } else { COMPLETION_TOKENS.min(room) };
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let request = EngineRequest {
            key,
            max_new_tokens: asked.most_tokens().unwrap_or(unsaid.max(1)),
            sampling: asked.sampling(rng::at(key, self.created.cast_unsigned()))?,
            end_of_sequence: match (asked.ignore_eos, asked.min_tokens) {
                (Some(true), _) => EndOfSequence::Ignore,
                (_, Some(least)) => EndOfSequence::StopAfter(least),
                _ => EndOfSequence::Stop,
            },
            prompt,
        };
        self.limits.check(&request)?;
        let wish = Wish {
            endpoint,
            stream: asked.stream.unwrap_or(false),
            ignores_end: request.end_of_sequence == EndOfSequence::Ignore,
            usage: asked.usage_wanted(),
            prompt_tokens: u32::try_from(request.prompt.len()).unwrap_or(u32::MAX),
            progress: Progress::new(Detokenizer::new(), Stops::new(asked.stops())),
        };
        Ok(Job { request, wish })
    }

    fn encode(&self, text: &str) -> Result<Vec<u32>, Failure> {
        match &self.served.tokenizer {
            Some(tokenizer) => tokenizer.encode(text, SpecialTokens::Keep).map_err(|error| Failure::bad(error.to_string(), Some("prompt"))),
            // Equal beginnings give equal ids, as a tokenizer's do.
            None => Ok(text.as_bytes().chunks(BYTES_PER_ID).map(|bytes| self.made_up_id(bytes)).collect()),
        }
    }

    fn made_up_id(&self, bytes: &[u8]) -> u32 {
        let number = bytes.iter().fold(1, |number, byte| number << 8 | u64::from(*byte));
        (rng::mix(number) % self.limits.vocab_size as u64) as u32
    }

    /// Hands a job to the engine.
    pub(super) fn submit(self: &Arc<Self>, job: Job) -> Result<(Ticket, Wish), Failure> {
        let Job { request, wish } = job;
        let key = request.key;
        let (to, told) = mpsc::unbounded_channel();
        {
            let mut routes = self.routes();
            if self.served.max_waiting.is_some_and(|most| routes.waiting >= most) {
                return Err(Failure::full(routes.waiting));
            }
            routes.waiting += 1;
            routes.by_key.insert(key, Route { to, prompt_tokens: u64::from(wish.prompt_tokens), started: false });
        }
        let ticket = Ticket { key, told, service: Arc::clone(self), is_over: false };
        if self.tell(Message::Add(request)) { Ok((ticket, wish)) } else { Err(Failure::engine_ended()) }
    }

    /// Requests in flight that the engine has not in its running batch.
    pub(super) fn waiting(&self) -> u64 {
        let in_flight = self.routes().by_key.len() as u64;
        in_flight.saturating_sub(self.gauges.running.load(Ordering::Relaxed))
    }

    /// Tells the engine something; whether it is there to hear it.
    pub(super) fn tell(&self, message: Message) -> bool {
        let engine = self.engine.lock().unwrap_or_else(PoisonError::into_inner);
        engine.as_ref().is_some_and(|(sender, _)| sender.send(message).is_ok())
    }

    /// Whether the engine is there.
    pub(super) fn is_alive(&self) -> bool {
        *self.alive.borrow()
    }

    /// Ready when the engine ended by itself.
    pub(super) async fn engine_ended(&self) {
        let mut alive = self.alive.subscribe();
        drop(alive.wait_for(|alive| !alive).await);
    }

    /// Ends the engine after the step it is in; why it had ended before, if it had.
    pub(super) fn end(&self) -> Option<String> {
        let (sender, thread) = self.engine.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        drop(sender);
        thread.join().ok()?.err()
    }

    fn routes(&self) -> MutexGuard<'_, Routes> {
        self.routes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Divides what each step told, until the engine is gone; then nobody is left waiting.
async fn divide(service: Arc<Service>, mut told: UnboundedReceiver<Vec<Told>>) {
    while let Some(step) = told.recv().await {
        let mut routes = service.routes();
        let routes = &mut *routes;
        for Told { key, what } in step {
            // Who has gone is not told.
            let Some(route) = routes.by_key.get_mut(&key) else { continue };
            let is_last = matches!(what, What::Token { is_last: true, .. });
            if matches!(what, What::Started { .. }) {
                route.started = true;
                routes.waiting -= 1;
                service.prompt_tokens.fetch_add(route.prompt_tokens, Ordering::Relaxed);
            }
            // A receiver that was dropped just now is about to give its request up.
            let _ = route.to.send(what);
            if is_last {
                routes.remove(key);
            }
        }
    }
    *service.routes() = Routes::default();
    service.alive.send_replace(false);
}

/// A request in flight. Dropping it gives the request up, unless it has ended.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) key: u64,
    pub(super) service: Arc<Service>,
    told: UnboundedReceiver<What>,
    is_over: bool,
}

impl Ticket {
    /// What is told next; `None` when the engine is gone.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<What>> {
        let told = self.told.poll_recv(context);
        self.is_over |= matches!(told, Poll::Ready(None | Some(What::Token { is_last: true, .. })));
        told
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.is_over {
            self.service.routes().remove(self.key);
            self.service.tell(Message::Cancel(self.key));
        }
    }
}
