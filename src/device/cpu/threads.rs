//! A small pool of persistent threads that share out the parts of one operation.
//!
//! An operation takes some ten microseconds on a small model, so threads that wait spin for a while before they
//! sleep. Which thread computes which part is fixed by the part's number, so results do not depend on timing. With
//! one thread the caller computes everything and no thread is started.

use std::any::Any;
use std::fmt;
use std::num::NonZeroUsize;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// How often a waiting thread looks again before it sleeps: about 50 microseconds.
const SPINS: usize = 4_000;

/// What the threads do: a function of the thread's number.
type Work = &'static (dyn Fn(usize) + Sync);

/// State between the caller and its threads.
struct Shared {
    /// Raised by one for every piece of work.
    round: AtomicUsize,
    /// Threads that have not finished this round.
    unfinished: AtomicUsize,
    /// Whether work is being run: one piece at a time.
    busy: AtomicBool,
    stop: AtomicBool,
    work: Mutex<Option<Work>>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// The pool. The caller is its thread 0.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    others: Vec<JoinHandle<()>>,
}

impl fmt::Debug for Threads {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Threads").field("count", &self.count()).finish_non_exhaustive()
    }
}

impl Threads {
    /// A pool of `count` threads, the caller among them.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(count: NonZeroUsize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            round: AtomicUsize::new(0),
            unfinished: AtomicUsize::new(0),
            busy: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            work: Mutex::new(None),
            panic: Mutex::new(None),
        });
        let mut threads = Self { shared, others: Vec::new() };
        for number in 1..count.get() {
            let shared = Arc::clone(&threads.shared);
            let handle = std::thread::Builder::new().name(format!("cpu-{number}")).spawn(move || attend(&shared, number))?;
            threads.others.push(handle);
        }
        Ok(threads)
    }

    /// Threads, the caller included.
    pub(crate) fn count(&self) -> usize {
        self.others.len() + 1
    }

    /// Runs `work` once on every thread with the thread's number, and returns when all have finished.
    ///
    /// # Panics
    /// When work is being run already: work may not call it, nor may two threads at once. A panic of `work` is passed on.
    pub(crate) fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        if self.others.is_empty() {
            return work(0);
        }
        assert!(!self.shared.busy.swap(true, Ordering::Acquire), "threads run one piece of work at a time");
        // SAFETY: the reference outlives its use. There is one caller at a time. Threads touch it only between the raise
        // of `round` below and their decrement of `unfinished`; this function does not return, nor unwind, before
        // `unfinished` is 0, and nothing keeps the reference then.
        let work: Work = unsafe { std::mem::transmute::<&(dyn Fn(usize) + Sync), Work>(work) };
        *self.shared.work.lock().unwrap_or_else(PoisonError::into_inner) = Some(work);
        self.shared.unfinished.store(self.others.len(), Ordering::Relaxed);
        self.shared.round.fetch_add(1, Ordering::Release);
        for other in &self.others {
            other.thread().unpark();
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        let mut looked = 0;
        while self.shared.unfinished.load(Ordering::Acquire) != 0 {
            // With fewer cores than threads, spinning would keep the last thread from its core.
            looked += 1;
            if looked % SPINS == 0 { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        *self.shared.work.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.shared.busy.store(false, Ordering::Release);
        let theirs = self.shared.panic.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(panic) = own.err().or(theirs) {
            resume_unwind(panic);
        }
    }

    /// Gives each item to `work`: thread `t` of `n` takes items `t`, `t + n`, `t + 2n` and so on. `work` is also
    /// given the thread's number.
    pub(crate) fn each<T: Send>(&self, items: impl Iterator<Item = T>, work: impl Fn(usize, T) + Sync) {
        if self.others.is_empty() {
            return items.for_each(|item| work(0, item));
        }
        let mut shares: Vec<Vec<T>> = (0..self.count()).map(|_| Vec::new()).collect();
        for (number, item) in items.enumerate() {
            shares[number % self.count()].push(item);
        }
        let shares: Vec<Mutex<Vec<T>>> = shares.into_iter().map(Mutex::new).collect();
        self.run(&|thread| {
            let share = std::mem::take(&mut *shares[thread].lock().unwrap_or_else(PoisonError::into_inner));
            share.into_iter().for_each(|item| work(thread, item));
        });
    }

    /// The part of `0..total` that thread `thread` computes, in whole multiples of `unit`.
    pub(crate) fn part(&self, thread: usize, total: usize, unit: usize) -> std::ops::Range<usize> {
        let units = total.div_ceil(unit);
        let edge = |number: usize| (units * number / self.count() * unit).min(total);
        edge(thread)..edge(thread + 1)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.round.fetch_add(1, Ordering::Release);
        for other in self.others.drain(..) {
            other.thread().unpark();
            // A panic in a thread's work was already handed to the caller of that work.
            let _ = other.join();
        }
    }
}

/// What a pool thread does until the pool is dropped.
fn attend(shared: &Shared, number: usize) {
    let mut seen = 0;
    loop {
        let mut looked = 0;
        while shared.round.load(Ordering::Acquire) == seen {
            looked += 1;
            if looked < SPINS { std::hint::spin_loop() } else { std::thread::park() }
        }
        seen = seen.wrapping_add(1);
        if shared.stop.load(Ordering::Relaxed) {
            return;
        }
        let work = *shared.work.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(panic)) = work.map(|work| catch_unwind(AssertUnwindSafe(|| work(number)))) {
            *shared.panic.lock().unwrap_or_else(PoisonError::into_inner) = Some(panic);
        }
        shared.unfinished.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn threads(count: usize) -> Threads {
        Threads::start(NonZeroUsize::new(count).expect("above 0")).expect("two threads are given")
    }

    #[test]
    fn nested_work_is_refused_and_the_pool_goes_on() {
        let pool = threads(2);
        let nested = catch_unwind(AssertUnwindSafe(|| {
            pool.run(&|thread| {
                if thread == 0 {
                    pool.run(&|_| {})
                }
            })
        }));
        assert!(nested.is_err());
        let ran = AtomicUsize::new(0);
        pool.run(&|_| {
            ran.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(ran.into_inner(), 2);
    }

    #[test]
    fn a_panic_of_any_thread_reaches_the_caller() {
        let pool = threads(2);
        for which in 0..2 {
            let ran = catch_unwind(AssertUnwindSafe(|| pool.run(&|thread| assert_ne!(thread, which))));
            assert!(ran.is_err());
        }
    }
}
