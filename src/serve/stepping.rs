//! The engine's thread: takes requests in between two steps, and hands over what a step told in one piece.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, TryRecvError};
use std::thread::JoinHandle;

use tokio::sync::mpsc::UnboundedSender;

use crate::device::error::DeviceError;
use crate::engine::sequence::EngineRequest;
use crate::engine::{Engine, EngineEvent};

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Serve this.
    Add(EngineRequest),
    /// Give this up.
    Cancel(u64),
    /// Find no prefix again that was computed so far.
    ForgetPrefixes,
}

/// What a step tells of one request.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) key: u64,
    pub(super) what: What,
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// It was scheduled for the first time.
    Started { cached_tokens: u32 },
    /// Its next token; after the last one nothing more is told.
    Token { id: u32, is_last: bool },
}

/// Totals and states, written by the thread after each step and read at any time.
#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) running: AtomicU64,
    pub(super) kv_blocks_used: AtomicU64,
    pub(super) kv_blocks_total: AtomicU64,
    pub(super) preemptions: AtomicU64,
    pub(super) cached_tokens: AtomicU64,
    pub(super) generated_tokens: AtomicU64,
    pub(super) steps: AtomicU64,
}

/// The thread, and how it ended: `Err` when it ended before its time.
pub(super) type Stepping = JoinHandle<Result<(), String>>;

/// Puts `engine` on a thread. It ends when the sender is dropped; `told` is dropped when it ends.
pub(super) fn start(mut engine: Engine, told: UnboundedSender<Vec<Told>>, gauges: Arc<Gauges>) -> io::Result<(Sender<Message>, Stepping)> {
    engine.run_ahead();
    gauges.kv_blocks_total.store(engine.scheduler().kv_blocks().total() as u64, Ordering::Relaxed);
    let (sender, inbox) = mpsc::channel();
    let run = move || {
        let outcome = catch_unwind(AssertUnwindSafe(|| serve(engine, &inbox, &told, &gauges)));
        match outcome {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("it has a fault, which the lines above show".to_owned()),
        }
    };
    let thread = std::thread::Builder::new().name("engine".to_owned()).spawn(run)?;
    Ok((sender, thread))
}

/// Until the inbox is dropped.
fn serve(mut engine: Engine, inbox: &Receiver<Message>, told: &UnboundedSender<Vec<Told>>, gauges: &Gauges) -> Result<(), DeviceError> {
    loop {
        let message = if engine.is_idle() { inbox.recv().map_err(|_| TryRecvError::Disconnected) } else { inbox.try_recv() };
        match message {
            Ok(Message::Add(request)) => {
                // It was held against the same limits before it came.
                engine.add(request).unwrap_or_else(|refusal| tracing::error!("a request was refused late: {refusal}"));
            }
            Ok(Message::Cancel(key)) => {
                engine.cancel(key);
                gauges.store(&engine);
            }
            Ok(Message::ForgetPrefixes) => engine.forget_prefixes(),
            Err(TryRecvError::Disconnected) => return Ok(()),
            Err(TryRecvError::Empty) => {
                let mut step = Vec::new();
                engine.step(&mut |event| tell(event, &mut step))?;
                gauges.store(&engine);
                if !step.is_empty() && told.send(step).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

fn tell(event: EngineEvent, step: &mut Vec<Told>) {
    match event {
        EngineEvent::Started { key, cached_tokens } => {
            step.push(Told { key, what: What::Started { cached_tokens: u32::try_from(cached_tokens).unwrap_or(u32::MAX) } });
        }
        EngineEvent::Token { key, token } => step.push(Told { key, what: What::Token { id: token, is_last: false } }),
        // Told right after the token that ended it.
        EngineEvent::Finished { .. } => {
            if let Some(Told { what: What::Token { is_last, .. }, .. }) = step.last_mut() {
                *is_last = true;
            }
        }
        EngineEvent::Preempted { .. } => {}
    }
}

impl Gauges {
    fn store(&self, engine: &Engine) {
        let (counters, scheduler) = (engine.counters(), engine.scheduler());
        let blocks = scheduler.kv_blocks();
        self.running.store(scheduler.num_running() as u64, Ordering::Relaxed);
        self.kv_blocks_used.store((blocks.total() - blocks.num_free()) as u64, Ordering::Relaxed);
        self.preemptions.store(counters.preemptions, Ordering::Relaxed);
        self.cached_tokens.store(counters.cached_tokens, Ordering::Relaxed);
        self.generated_tokens.store(counters.decode_tokens, Ordering::Relaxed);
        self.steps.store(counters.steps, Ordering::Relaxed);
    }
}
