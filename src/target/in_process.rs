//! The built-in engine as a target: it owns one thread, an inbox, and the producer's end of the event ring.
//!
//! The thread takes what has come in, runs one engine step, reports what happened in it, and parks when there is
//! nothing to do. The engine runs ahead where its device does: a token is stamped when the engine knows it, which is when it
//! could be delivered. Should the device fail or the engine panic, every request in flight and every later one fails; none
//! is left waiting.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;

use crate::clock::{Clock, Monotonic};
use crate::device::error::DeviceError;
use crate::engine::limits::RequestLimits;
use crate::engine::loading::LoadedModel;
use crate::engine::sequence::{EndOfSequence, EngineRequest};
use crate::engine::weights::LoadError;
use crate::engine::{Engine, EngineEvent};
use crate::record::request::FailureKind;
use crate::record::target::{BatchLimits, TargetCounters, TargetIdentity};
use crate::target::sink::{self, Events, Sink};
use crate::target::{Event, EventKind, Slot, Target};
use crate::workload::request::Request;

/// Events the ring holds: a generator may look away for a second from an engine at a quarter million tokens a second.
const RING_EVENTS: usize = 1 << 18;

enum Message {
    Submit(Request, Slot),
    Cancel(Slot),
}

/// An engine on a thread of its own. Dropping it ends the thread after the step it is in.
#[derive(Debug)]
pub struct InProcess {
    identity: TargetIdentity,
    /// `None` only while it is dropped.
    inbox: Option<Sender<Message>>,
    events: Events,
    counters: Arc<SharedCounters>,
    thread: Option<JoinHandle<()>>,
}

/// Why an engine could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is not what a fresh engine needs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The system gives no thread.
    #[error("cannot start the engine's thread: {0}. Check the limit on threads (`ulimit -u`)")]
    Thread(#[from] std::io::Error),
}

impl InProcess {
    /// A fresh engine over the weights of `model`, on a thread of its own; its stamps come from `clock`, whose origin
    /// the generator shares.
    ///
    /// # Errors
    /// When the device has not the memory, or the system no thread.
    pub fn of(model: &LoadedModel, clock: Monotonic) -> Result<Self, StartError> {
        Ok(Self::start(model.engine()?, Self::identity_of(model), clock)?)
    }

    /// What an engine over `model` is, before there is one.
    #[must_use]
    pub fn identity_of(model: &LoadedModel) -> TargetIdentity {
        let limits =
            RequestLimits { vocab_size: model.config.vocab_size, context: model.config.max_position_embeddings, shape: model.shape };
        bounded_by(
            limits,
            TargetIdentity {
                kind: "engine".to_owned(),
                model: model.name.clone(),
                device: model.device.label(),
                precision: model.precision(),
                devices: 1,
                labels: model.labels(),
                max_context: 0,
                vocab_size: 0,
                batch: BatchLimits::default(),
            },
        )
    }

    /// Puts `engine` on a thread; its stamps come from `clock`, whose origin the generator shares. `identity` is
    /// the engine's model and device; context and vocabulary are filled in here.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(mut engine: Engine, identity: TargetIdentity, clock: Monotonic) -> std::io::Result<Self> {
        engine.run_ahead();
        let limits = engine.limits();
        let identity = bounded_by(limits, identity);
        let (sender, inbox) = mpsc::channel();
        let (sink, events) = sink::ring(RING_EVENTS);
        let counters = Arc::new(SharedCounters::default());
        counters.kv_blocks_total.store(u64::from(limits.shape.num_kv_blocks), Ordering::Relaxed);
        let reporter = Reporter { sink, clock, in_flight: HashSet::new() };
        let served = Served { inbox, reporter, counters: Arc::clone(&counters), vocab_size: limits.vocab_size };
        let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(move || served.run(engine))?;
        Ok(Self { identity, inbox: Some(sender), events, counters, thread: Some(thread) })
    }

    fn send(&self, message: Message) {
        let inbox = self.inbox.as_ref().expect("the inbox is there until the target is dropped");
        inbox.send(message).expect("the thread takes messages until the inbox is dropped");
    }
}

/// `identity` with the context, vocabulary and batches that `limits` allow.
fn bounded_by(limits: RequestLimits, identity: TargetIdentity) -> TargetIdentity {
    let bounded = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let shape = limits.shape;
    let batch = BatchLimits {
        max_sequences: Some(bounded(shape.max_num_seqs)),
        max_step_tokens: Some(bounded(shape.max_num_batched_tokens)),
        kv_tokens: Some(u64::from(shape.num_kv_blocks) * shape.block_size as u64),
    };
    TargetIdentity { max_context: bounded(limits.longest()), vocab_size: bounded(limits.vocab_size), batch, ..identity }
}

impl Target for InProcess {
    fn identity(&self) -> TargetIdentity {
        self.identity.clone()
    }

    fn submit(&mut self, request: Request, slot: Slot) {
        self.send(Message::Submit(request, slot));
    }

    fn cancel(&mut self, slot: Slot) {
        self.send(Message::Cancel(slot));
    }

    fn next_event(&mut self) -> Option<Event> {
        self.events.take()
    }

    fn wake_this_thread(&mut self) {
        self.events.wake_this_thread();
    }

    fn has_events(&self) -> bool {
        self.events.waiting()
    }

    fn is_alive(&self) -> bool {
        !self.counters.dead.load(Ordering::Relaxed)
    }

    fn events_lost(&self) -> u64 {
        self.events.lost()
    }

    fn counters(&self) -> TargetCounters {
        self.counters.read()
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.inbox = None;
        if let Some(thread) = self.thread.take() {
            // A panic was caught and reported as failures; there is nothing more to say here.
            let _ = thread.join();
        }
    }
}

/// What lives on the engine's thread beside the engine.
struct Served {
    inbox: Receiver<Message>,
    reporter: Reporter,
    counters: Arc<SharedCounters>,
    vocab_size: usize,
}

impl Served {
    /// Until the inbox is dropped.
    fn run(mut self, engine: Engine) {
        let failure = match catch_unwind(AssertUnwindSafe(|| self.serve(engine))) {
            Ok(Ok(())) => return,
            Ok(Err(error)) => {
                tracing::error!("the engine ended: {error}");
                failure_of(&error)
            }
            Err(_) => FailureKind::TargetGone,
        };
        self.counters.dead.store(true, Ordering::Relaxed);
        self.reporter.fail_all(failure);
        while let Ok(message) = self.inbox.recv() {
            if let Message::Submit(_, slot) = message {
                self.reporter.report(slot, EventKind::Failed(FailureKind::TargetGone));
            }
        }
    }

    fn serve(&mut self, mut engine: Engine) -> Result<(), DeviceError> {
        loop {
            let message = if engine.is_idle() { self.inbox.recv().map_err(|_| TryRecvError::Disconnected) } else { self.inbox.try_recv() };
            match message {
                Ok(Message::Submit(request, slot)) => self.add(&mut engine, &request, slot),
                Ok(Message::Cancel(slot)) => {
                    if engine.cancel(u64::from(slot.0)) {
                        self.reporter.end(slot, EventKind::Failed(FailureKind::TargetError));
                    }
                }
                Err(TryRecvError::Disconnected) => return Ok(()),
                Err(TryRecvError::Empty) => {
                    engine.step(&mut |event| self.reporter.tell(event))?;
                    self.counters.store(&engine);
                }
            }
        }
    }

    fn add(&mut self, engine: &mut Engine, request: &Request, slot: Slot) {
        self.reporter.in_flight.insert(slot.0);
        let asked = EngineRequest {
            key: u64::from(slot.0),
            prompt: request.prompt.token_ids(u32::try_from(self.vocab_size).unwrap_or(u32::MAX)).collect(),
            max_new_tokens: request.output_tokens,
            sampling: request.sampling,
            end_of_sequence: EndOfSequence::Ignore,
        };
        if let Err(refusal) = engine.add(asked) {
            tracing::debug!("request {} refused: {refusal}", request.id);
            self.reporter.end(slot, EventKind::Failed(FailureKind::Rejected));
        }
    }
}

/// Stamps events and puts them into the ring.
struct Reporter {
    sink: Sink,
    clock: Monotonic,
    /// Slots whose end was not reported yet.
    in_flight: HashSet<u32>,
}

impl Reporter {
    fn report(&mut self, slot: Slot, kind: EventKind) {
        self.sink.report(Event { slot, at: self.clock.now(), kind });
    }

    fn end(&mut self, slot: Slot, kind: EventKind) {
        self.in_flight.remove(&slot.0);
        self.report(slot, kind);
    }

    fn tell(&mut self, event: EngineEvent) {
        let slot = |key: u64| Slot(u32::try_from(key).expect("keys are made from slots"));
        match event {
            EngineEvent::Started { key, cached_tokens } => {
                self.report(slot(key), EventKind::Started { cached_tokens: u32::try_from(cached_tokens).unwrap_or(u32::MAX) });
            }
            EngineEvent::Preempted { key } => self.report(slot(key), EventKind::Preempted),
            EngineEvent::Token { key, .. } => self.report(slot(key), EventKind::Tokens(1)),
            EngineEvent::Finished { key } => self.end(slot(key), EventKind::Completed),
        }
    }

    fn fail_all(&mut self, failure: FailureKind) {
        for slot in std::mem::take(&mut self.in_flight) {
            self.report(Slot(slot), EventKind::Failed(failure));
        }
    }
}

/// What a device's failure means for the requests in flight.
fn failure_of(error: &DeviceError) -> FailureKind {
    match error {
        DeviceError::OutOfMemory { .. } | DeviceError::Exhausted { .. } => FailureKind::OutOfMemory,
        _ => FailureKind::TargetGone,
    }
}

/// Counters written by the engine's thread at the end of each step, just after its events, and read at any time. Each
/// is right by itself; they are not of one instant together, which edges of windows of seconds do not need.
#[derive(Debug, Default)]
struct SharedCounters {
    steps: AtomicU64,
    prefill_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    decode_tokens: AtomicU64,
    preemptions: AtomicU64,
    kv_blocks_peak: AtomicU64,
    kv_blocks_total: AtomicU64,
    /// The engine ended before its time.
    dead: AtomicBool,
}

impl SharedCounters {
    fn store(&self, engine: &Engine) {
        let counters = engine.counters();
        self.steps.store(counters.steps, Ordering::Relaxed);
        self.prefill_tokens.store(counters.prefill_tokens, Ordering::Relaxed);
        self.cached_tokens.store(counters.cached_tokens, Ordering::Relaxed);
        self.decode_tokens.store(counters.decode_tokens, Ordering::Relaxed);
        self.preemptions.store(counters.preemptions, Ordering::Relaxed);
        self.kv_blocks_peak.store(counters.kv_blocks_peak, Ordering::Relaxed);
    }

    fn read(&self) -> TargetCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        TargetCounters {
            steps: read(&self.steps),
            prefill_tokens: read(&self.prefill_tokens),
            cached_tokens: read(&self.cached_tokens),
            decode_tokens: read(&self.decode_tokens),
            preemptions: read(&self.preemptions),
            kv_blocks_peak: read(&self.kv_blocks_peak),
            kv_blocks_total: read(&self.kv_blocks_total),
        }
    }
}
