//! Work on several threads whose results come in the order of its beginning, with few pieces under way at a time.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::sync::mpsc::{self, Sender};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// What the threads share: where pieces come from, and how far things are.
struct Gate<S> {
    state: Mutex<State<S>>,
    moved: Condvar,
}

struct State<S> {
    source: S,
    /// Pieces given out.
    given: u64,
    /// Results handed over.
    taken: u64,
    over: bool,
}

impl<S> Gate<S> {
    fn lock(&self) -> MutexGuard<'_, State<S>> {
        // A thread that panicked has closed the gate, and its panic is passed on: nobody reads a half-made state.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        self.lock().over = true;
        self.moved.notify_all();
    }
}

/// Closes the gate however its owner ends, so that nobody waits for a thread that panicked.
struct Closing<'a, S>(&'a Gate<S>);

impl<S> Drop for Closing<'_, S> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Fills pieces from `source` until that says false, works on each on one of `threads` threads, and gives the results to `each` on this
/// one in the order of the pieces, until it breaks. A piece, and what `buffers` makes, belong to a thread and are used again.
///
/// At most `2 * threads + 2` pieces are under way or wait for their turn.
pub(super) fn run<P: Default, B, R: Send>(
    threads: NonZeroUsize,
    source: impl FnMut(&mut P) -> bool + Send,
    buffers: impl Fn() -> B + Sync,
    work: impl Fn(&P, &mut B) -> R + Sync,
    mut each: impl FnMut(R) -> ControlFlow<()>,
) {
    let gate = Gate { state: Mutex::new(State { source, given: 0, taken: 0, over: false }), moved: Condvar::new() };
    let at_most = 2 * threads.get() as u64 + 2;
    let (sender, results) = mpsc::channel();
    thread::scope(|scope| {
        let _closing = Closing(&gate);
        let started = (0..threads.get()).map(|_| {
            let (gate, buffers, work, sender) = (&gate, &buffers, &work, sender.clone());
            scope.spawn(move || pieces(gate, at_most, &mut buffers(), work, &sender))
        });
        let started = started.collect::<Vec<_>>();
        drop(sender);
        let (mut waiting, mut turn) = (VecDeque::new(), 0);
        'all: for (place, result) in results {
            let place = (place - turn) as usize;
            if waiting.len() <= place {
                waiting.resize_with(place + 1, || None);
            }
            waiting[place] = Some(result);
            while let Some(result) = waiting.front_mut().and_then(Option::take) {
                waiting.pop_front();
                turn += 1;
                if each(result).is_break() {
                    break 'all;
                }
                gate.lock().taken = turn;
                gate.moved.notify_all();
            }
        }
        gate.close();
        for thread in started {
            if let Err(panic) = thread.join() {
                resume_unwind(panic);
            }
        }
    });
}

fn pieces<S: FnMut(&mut P) -> bool, P: Default, B, R>(
    gate: &Gate<S>,
    at_most: u64,
    buffers: &mut B,
    work: &impl Fn(&P, &mut B) -> R,
    results: &Sender<(u64, R)>,
) {
    let mut piece = P::default();
    let panicking = Closing(gate);
    loop {
        let mut state = gate.lock();
        while !state.over && state.given >= state.taken + at_most {
            state = gate.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.over {
            break;
        }
        if !(state.source)(&mut piece) {
            state.over = true;
            break;
        }
        let place = state.given;
        state.given += 1;
        drop(state);
        if results.send((place, work(&piece, buffers))).is_err() {
            break;
        }
    }
    // The gate is closed in any case: by the end of the source, or because nobody takes results.
    drop(panicking);
}
