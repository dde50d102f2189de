//! The ring between a target's thread and the generator: single producer, single consumer, preallocated.
//!
//! Reporting an event is one store into a slot and one release of an index: it never blocks, never allocates and
//! takes no lock on the way of a token. A full ring loses the event, counts it, and so invalidates the level. Only
//! the end of a request wakes the generator, which otherwise looks by itself every fraction of a millisecond.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Thread;

use crate::target::{Event, EventKind};

/// On a cache line of its own, so that producer and consumer do not disturb each other.
#[repr(align(128))]
struct Padded<T>(T);

struct Ring {
    slots: Box<[UnsafeCell<MaybeUninit<Event>>]>,
    /// Events ever written; only the producer stores it.
    written: Padded<AtomicUsize>,
    /// Events ever read; only the consumer stores it.
    read: Padded<AtomicUsize>,
    lost: AtomicU64,
    /// Who is woken when a request ends.
    waiter: Mutex<Option<Thread>>,
}

// SAFETY: a slot is written by the one producer only while `written - read < capacity` says it is free, and read by
// the one consumer only after `written` was released past it; `Sink` and `Events` are the only owners and are not
// `Clone`, so there is one of each.
unsafe impl Sync for Ring {}

/// Makes a ring of at least `capacity` events.
#[must_use]
pub fn ring(capacity: usize) -> (Sink, Events) {
    let capacity = capacity.max(2).next_power_of_two();
    let ring = Arc::new(Ring {
        slots: (0..capacity).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect(),
        written: Padded(AtomicUsize::new(0)),
        read: Padded(AtomicUsize::new(0)),
        lost: AtomicU64::new(0),
        waiter: Mutex::new(None),
    });
    (Sink { ring: Arc::clone(&ring), written: 0, seen_read: 0 }, Events { ring, read: 0, seen_written: 0 })
}

/// The target's end.
pub struct Sink {
    ring: Arc<Ring>,
    written: usize,
    /// The consumer's position when it was last looked at: a lower bound.
    seen_read: usize,
}

impl Sink {
    /// Reports an event. Never blocks; a full ring loses it and counts it.
    #[inline]
    pub fn report(&mut self, event: Event) {
        let capacity = self.ring.slots.len();
        if self.written.wrapping_sub(self.seen_read) == capacity {
            self.seen_read = self.ring.read.0.load(Ordering::Acquire);
            if self.written.wrapping_sub(self.seen_read) == capacity {
                self.ring.lost.fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
        let slot = &self.ring.slots[self.written & (capacity - 1)];
        // SAFETY: the check above says that the consumer is done with this slot, and this is the only producer.
        unsafe { (*slot.get()).write(event) };
        self.written = self.written.wrapping_add(1);
        self.ring.written.0.store(self.written, Ordering::Release);
        if matches!(event.kind, EventKind::Completed | EventKind::Failed(_)) {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(thread) = &*self.ring.waiter.lock().unwrap_or_else(PoisonError::into_inner) {
            thread.unpark();
        }
    }
}

/// The generator's end.
pub struct Events {
    ring: Arc<Ring>,
    read: usize,
    /// The producer's position when it was last looked at: a lower bound.
    seen_written: usize,
}

impl Events {
    /// Takes the next event.
    #[inline]
    pub fn take(&mut self) -> Option<Event> {
        if self.read == self.seen_written {
            self.seen_written = self.ring.written.0.load(Ordering::Acquire);
            if self.read == self.seen_written {
                return None;
            }
        }
        let slot = &self.ring.slots[self.read & (self.ring.slots.len() - 1)];
        // SAFETY: `written` was acquired past this slot, so it is initialised, and the producer will not touch it
        // before `read` is released past it.
        let event = unsafe { (*slot.get()).assume_init() };
        self.read = self.read.wrapping_add(1);
        self.ring.read.0.store(self.read, Ordering::Release);
        Some(event)
    }

    /// Whether an event waits.
    #[inline]
    #[must_use]
    pub fn waiting(&self) -> bool {
        self.read != self.seen_written || self.read != self.ring.written.0.load(Ordering::Acquire)
    }

    /// Events lost so far.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.ring.lost.load(Ordering::Relaxed)
    }

    /// From now on the end of a request wakes the calling thread.
    pub fn wake_this_thread(&self) {
        *self.ring.waiter.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::current());
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Sink").field("written", &self.written).finish_non_exhaustive()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Events").field("read", &self.read).field("lost", &self.lost()).finish_non_exhaustive()
    }
}
