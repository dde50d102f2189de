//! SIGINT, SIGTERM and SIGHUP ask for a stop: a run saves what it has and ends, a server lets its requests end. A second one
//! ends at once. A SIGHUP that was ignored when the process began (`nohup`) stays ignored.

use std::thread;

use anyhow::Context;
use tokio::signal::unix::{Signal as Watched, SignalKind, signal};

use crate::campaign::interrupt::{Interrupt, Signal};
use crate::cli::exit::Exit;

/// Watches for signals on a thread of its own, from now until the process ends. Call it once, before load is sent.
///
/// # Errors
/// When the system refuses the thread or the watch.
pub fn watch() -> anyhow::Result<Interrupt> {
    let interrupt = Interrupt::default();
    let raised = interrupt.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot watch for signals")?;
    let guard = runtime.enter();
    let mut stops = Stops::watch()?;
    drop(guard);
    let watching = async move {
        loop {
            let asked = stops.next().await;
            if raised.raise(asked) {
                tracing::warn!("stopping: what was measured is being saved. A second signal ends at once");
            } else {
                end_now(asked);
            }
        }
    };
    thread::Builder::new().name("signals".to_owned()).spawn(move || runtime.block_on(watching)).context("cannot watch for signals")?;
    Ok(interrupt)
}

/// The signals that ask for a stop, watched from when it is made until the process ends.
#[derive(Debug)]
pub(super) struct Stops {
    interrupts: Watched,
    terminations: Watched,
    hang_ups: Option<Watched>,
}

impl Stops {
    /// Needs a tokio runtime around it.
    ///
    /// # Errors
    /// When the system refuses the watch.
    pub(super) fn watch() -> anyhow::Result<Self> {
        let hang_ups = if ignores_hang_ups() { None } else { Some(signal(SignalKind::hangup()).context("cannot watch for SIGHUP")?) };
        Ok(Self {
            interrupts: signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?,
            terminations: signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?,
            hang_ups,
        })
    }

    /// The next stop that is asked for.
    pub(super) async fn next(&mut self) -> Signal {
        let Self { interrupts, terminations, hang_ups } = self;
        let hung_up = async {
            match hang_ups {
                Some(hang_ups) => hang_ups.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = interrupts.recv() => Signal::Interrupt,
            _ = terminations.recv() => Signal::Terminate,
            _ = hung_up => Signal::Terminate,
        }
    }
}

/// Whether the process was started with SIGHUP ignored. Where the system does not tell, it was not.
fn ignores_hang_ups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    // SIGHUP is signal 1: the lowest bit.
    mask.is_some_and(|mask| mask & 1 == 1)
}

#[expect(clippy::exit, reason = "the user asked twice; saved files are whole at every moment")]
pub(super) fn end_now(signal: Signal) -> ! {
    std::process::exit(i32::from(Exit::from(signal).code()))
}
