//! One monotonic clock for every stamp, and the same interface in virtual time.
//!
//! Nothing else in the crate asks the system what time it is for a measurement. Dates for people (when a run
//! was made) come from [`wall_now`]. This module does not schedule anything: it waits when told to.

use std::cell::Cell;
use std::ops::{Add, AddAssign, Sub};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Nanoseconds on one monotonic clock, counted from the clock's own origin; also a length of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub u64);

impl Nanos {
    /// The origin of the clock, and the empty length of time.
    pub const ZERO: Self = Self(0);
    /// Later than any stamp.
    pub const MAX: Self = Self(u64::MAX);

    /// From seconds; negative and NaN become 0, too large becomes [`Nanos::MAX`].
    #[must_use]
    pub fn from_secs_f64(seconds: f64) -> Self {
        // A float-to-integer `as` saturates, and NaN becomes 0.
        Self((seconds * 1e9).round() as u64)
    }

    /// From whole milliseconds.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(seconds: u64) -> Self {
        Self(seconds * 1_000_000_000)
    }

    /// In seconds.
    #[must_use]
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// In milliseconds.
    #[must_use]
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// `self - earlier`, or zero when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self(self.0.saturating_sub(earlier.0))
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, length: Self) -> Self {
        Self(self.0.saturating_add(length.0))
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, length: Self) {
        *self = *self + length;
    }
}

impl Sub for Nanos {
    type Output = Self;
    /// Saturates at zero, as [`Nanos::since`].
    fn sub(self, earlier: Self) -> Self {
        self.since(earlier)
    }
}

/// Where stamps come from, and how a thread waits for one.
pub trait Clock {
    /// The time now.
    fn now(&self) -> Nanos;

    /// Waits until `deadline`, or until `rest` is over (real clocks ask it often, virtual ones never), and returns the time then.
    fn wait(&mut self, deadline: Nanos, rest: &mut dyn Rest) -> Nanos;

    /// How long waiting has been spinning rather than sleeping: not work, in the generator's own audit.
    fn spun(&self) -> Nanos {
        Nanos::ZERO
    }

    /// Whether time is simulated: such figures are labelled in every output.
    fn is_virtual(&self) -> bool {
        false
    }
}

/// What may end a wait before its deadline, and how the thread sleeps meanwhile.
pub trait Rest {
    /// Whether there is something to do.
    fn is_over(&mut self) -> bool;

    /// Sleeps, no longer than this.
    fn nap(&mut self, at_most: Duration) {
        nap(at_most);
    }
}

impl<Ready: FnMut() -> bool> Rest for Ready {
    fn is_over(&mut self) -> bool {
        self()
    }
}

/// Sleeps until the thread is unparked, no longer than `at_most` or a fraction of a millisecond.
pub fn nap(at_most: Duration) {
    std::thread::park_timeout(at_most.min(NAP));
}

/// How long before a deadline a real clock stops sleeping and spins: above the scheduler's wake-up error.
const SPIN: Duration = Duration::from_micros(120);
/// The longest single sleep of a thread that nobody wakes, so that it looks at least this often.
const NAP: Duration = Duration::from_micros(200);

/// The process's monotonic clock. Copies share the origin, so their stamps compare.
#[derive(Clone, Copy, Debug)]
pub struct Monotonic {
    origin: Instant,
    /// Time spent spinning rather than working, for the generator's own audit.
    spun: Nanos,
}

impl Monotonic {
    /// A clock whose origin is now.
    #[must_use]
    pub fn start() -> Self {
        #[expect(clippy::disallowed_methods, reason = "the one door to the monotonic clock")]
        let origin = Instant::now();
        Self { origin, spun: Nanos::ZERO }
    }
}

impl Clock for Monotonic {
    fn now(&self) -> Nanos {
        Nanos(u64::try_from(self.origin.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    fn wait(&mut self, deadline: Nanos, rest: &mut dyn Rest) -> Nanos {
        loop {
            let now = self.now();
            if now >= deadline || rest.is_over() {
                return now;
            }
            let left = Duration::from_nanos(deadline.0 - now.0);
            if left > SPIN {
                rest.nap(left - SPIN);
            } else {
                std::hint::spin_loop();
                self.spun += self.now().since(now);
            }
        }
    }

    fn spun(&self) -> Nanos {
        self.spun
    }
}

/// Time that only moves when it is told to: whole sweeps run in milliseconds, and give the same answer each time.
#[derive(Clone, Debug, Default)]
pub struct Virtual {
    now: Rc<Cell<Nanos>>,
}

impl Virtual {
    /// A virtual clock at its origin. Clones share the time.
    #[must_use]
    pub fn start() -> Self {
        Self::default()
    }
}

impl Clock for Virtual {
    fn now(&self) -> Nanos {
        self.now.get()
    }

    fn wait(&mut self, deadline: Nanos, _rest: &mut dyn Rest) -> Nanos {
        if deadline > self.now.get() {
            self.now.set(deadline);
        }
        self.now.get()
    }

    fn is_virtual(&self) -> bool {
        true
    }
}

/// CPU time that the calling thread has used.
#[must_use]
pub fn thread_cpu() -> Nanos {
    read(rustix::time::ClockId::ThreadCPUTime)
}

/// CPU time that all threads of this process have used.
#[must_use]
pub fn process_cpu() -> Nanos {
    read(rustix::time::ClockId::ProcessCPUTime)
}

/// How long the calling thread has been ready to run without being given a core; `None` where the kernel does not say.
#[must_use]
pub fn thread_starved() -> Option<Nanos> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().nth(1)?.parse().ok().map(Nanos)
}

/// What a thread has used of its core, and what it lacked, as it says itself from time to time. Clones are of the same thread.
#[derive(Clone, Debug, Default)]
pub struct ThreadUse(Arc<(AtomicU64, AtomicU64)>);

impl ThreadUse {
    /// The calling thread, whose use this is, says how much it was so far.
    pub fn tell(&self) {
        self.0.0.store(thread_cpu().0, Ordering::Relaxed);
        self.0.1.store(thread_starved().unwrap_or_default().0, Ordering::Relaxed);
    }

    /// CPU time that it had used when it last said so.
    #[must_use]
    pub fn cpu(&self) -> Nanos {
        Nanos(self.0.0.load(Ordering::Relaxed))
    }

    /// How long it had been ready without a core.
    #[must_use]
    pub fn starved(&self) -> Nanos {
        Nanos(self.0.1.load(Ordering::Relaxed))
    }
}

fn read(clock: rustix::time::ClockId) -> Nanos {
    let time = rustix::time::clock_gettime(clock);
    Nanos(u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// The date and time now, for people: never used to measure.
#[must_use]
pub fn wall_now() -> jiff::Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the one door to the wall clock")]
    jiff::Timestamp::now()
}
