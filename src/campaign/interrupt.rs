//! A stop asked for from outside. Whoever measures looks at it between events; nobody is torn out of a write.
//!
//! It knows nothing of the system's signals beyond their names: `cli::signals` raises it, `campaign::instruments` where a GPU fails, and
//! tests do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// Which stop was asked for: it decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: a person at the terminal.
    Interrupt,
    /// SIGTERM or SIGHUP: a scheduler, a shutdown, a closed terminal.
    Terminate,
    /// A GPU that is measured no longer answers, or its driver reported a fault after which nothing measured is worth anything.
    GpuFailed,
}

const NONE: u8 = 0;
const INTERRUPT: u8 = 1;
const TERMINATE: u8 = 2;
const GPU_FAILED: u8 = 3;

/// The flag. Clones are the same flag.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    raised: Arc<AtomicU8>,
}

impl Interrupt {
    /// Asks for a stop. Answers whether it was the first to ask: a second means "now".
    #[must_use]
    pub fn raise(&self, signal: Signal) -> bool {
        let value = match signal {
            Signal::Interrupt => INTERRUPT,
            Signal::Terminate => TERMINATE,
            Signal::GpuFailed => GPU_FAILED,
        };
        self.raised.compare_exchange(NONE, value, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The stop that was asked for first, if any was.
    #[must_use]
    pub fn raised(&self) -> Option<Signal> {
        match self.raised.load(Ordering::Relaxed) {
            INTERRUPT => Some(Signal::Interrupt),
            TERMINATE => Some(Signal::Terminate),
            GPU_FAILED => Some(Signal::GpuFailed),
            _ => None,
        }
    }
}
