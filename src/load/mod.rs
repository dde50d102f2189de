//! The load generator: one `drive` over three independent axes, when and what to send, whom, and until when.
//!
//! It runs on one thread without async: a schedule that is absolute and seeded, seven stamps a request, every
//! request recorded however it ended. It knows no SLO and no verdict; `campaign` watches it through [`stop::Stop`].

pub mod arrivals;
mod in_flight;
pub mod stop;

use std::time::Duration;

use crate::clock::{Clock, Nanos, Rest};
use crate::load::arrivals::{Arrivals, Calendar, OnCap};
use crate::load::in_flight::{InFlight, blank_record};
use crate::load::stop::{Live, Stop, Turn};
use crate::record::request::{Ending, RequestRecord};
use crate::target::{EventKind, Target};

/// How a level is driven, beside its arrivals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// A request is given up when it has not ended this long after its intended start.
    pub timeout: Nanos,
    /// Whether each chunk is kept in the records.
    pub chunks: Chunks,
}

/// What becomes of the chunks of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    /// Kept in its record: 16 bytes a chunk until the request ends.
    Keep,
    /// Counted only.
    Count,
}

impl Default for Manner {
    fn default() -> Self {
        Self { timeout: Nanos::from_secs(600), chunks: Chunks::Keep }
    }
}

/// What the generator knows of a level after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Driven {
    /// When the level began and ended.
    pub span: (Nanos, Nanos),
    /// Requests given to the target.
    pub sent: u64,
    /// Arrivals that waited at the in-flight cap.
    pub waited_at_cap: u64,
    /// Events that the ring lost during the level.
    pub events_lost: u64,
    /// Requests that the target had not let go of when the generator stopped waiting for it.
    pub not_let_go: u64,
}

/// A real target is looked at as often as this while the generator waits for it to let go.
const LOOK: Nanos = Nanos::from_millis(1);

/// Drives `target` with `arrivals` until `stop` says it is over, then cancels what is left.
///
/// Each request that arrived ends in exactly one record, handed to `stop`.
pub fn drive<'a>(
    arrivals: Arrivals<'a>,
    manner: Manner,
    stop: &'a mut dyn Stop,
    target: &'a mut dyn Target,
    clock: &mut dyn Clock,
) -> Driven {
    target.wake_this_thread();
    let begin = clock.now();
    let calendar = Calendar::new(arrivals, begin);
    let in_flight = InFlight::new(calendar.cap, manner.chunks == Chunks::Keep);
    let lost_before = target.events_lost();
    let mut level = Level { calendar, in_flight, manner, stop, target, driven: Driven::default() };
    level.stop.begins(begin);
    loop {
        let now = clock.now();
        level.target.advance(now);
        level.take_events();
        level.give_up_late_ones(now);
        let live = level.live(&*clock);
        if level.stop.turn(now, &live) == Turn::Over {
            break;
        }
        level.send_due(clock);
        let live = level.live(&*clock);
        level.stop.carries(now, &live);
        let internal = level.target.advance(clock.now());
        if level.target.has_events() {
            continue;
        }
        let deadline = level.next_due(internal);
        clock.wait(deadline, &mut Beside(&mut *level.target));
    }
    level.cancel_rest(clock);
    level.driven.span = (begin, clock.now());
    level.driven.events_lost = level.target.events_lost() - lost_before;
    level.driven
}

/// Waits with the target: until it has something to tell.
struct Beside<'a>(&'a mut dyn Target);

impl Rest for Beside<'_> {
    fn is_over(&mut self) -> bool {
        self.0.has_events()
    }

    fn nap(&mut self, at_most: Duration) {
        self.0.doze(at_most);
    }
}

struct Level<'a> {
    calendar: Calendar<'a>,
    in_flight: InFlight,
    manner: Manner,
    stop: &'a mut dyn Stop,
    target: &'a mut dyn Target,
    driven: Driven,
}

impl Level<'_> {
    fn take_events(&mut self) {
        while let Some(event) = self.target.next_event() {
            match event.kind {
                EventKind::Tokens(count) => self.stop.tokens(event.at, count),
                EventKind::Reckoned(count) => {
                    let counted = self.in_flight.tokens_of(event.slot);
                    if let Some((counted, told)) = counted.zip(count.output_by_usage).filter(|(counted, told)| counted != told) {
                        self.stop.recounted(event.at, i64::from(told) - i64::from(counted));
                    }
                }
                _ => {}
            }
            if let Some(record) = self.in_flight.apply(&event) {
                self.calendar.ended(&record, event.at);
                self.stop.ended(record);
            }
        }
    }

    fn give_up_late_ones(&mut self, now: Nanos) {
        while let Some((slot, record)) = self.in_flight.give_up_oldest(now, self.manner.timeout) {
            self.target.cancel(slot);
            self.calendar.ended(&record, now);
            self.stop.ended(record);
        }
    }

    fn live(&mut self, clock: &dyn Clock) -> Live {
        Live {
            in_flight: self.in_flight.open(),
            waiting: self.calendar.overdue(),
            waited_at_cap: self.driven.waited_at_cap,
            spun: clock.spun(),
            exhausted: self.calendar.exhausted(),
        }
    }

    fn send_due(&mut self, clock: &dyn Clock) {
        let now = clock.now();
        while let Some(due) = self.calendar.next_due().filter(|due| *due <= now) {
            if !self.in_flight.has_room() {
                if self.calendar.on_cap == OnCap::Refuse {
                    self.refuse(due);
                    continue;
                }
                self.driven.waited_at_cap += self.calendar.hold_back(now);
                return;
            }
            self.send(due, clock);
        }
    }

    fn send(&mut self, due: Nanos, clock: &dyn Clock) {
        let closed = self.calendar.is_closed();
        let sent = clock.now();
        let Some(request) = self.calendar.take(sent) else { return };
        let intended = if closed { sent } else { due };
        let slot = self.in_flight.open_record(|record| {
            record.id = request.id;
            record.intended = intended;
            record.sent = Some(sent);
            record.prompt_tokens = request.prompt.len();
            record.requested_tokens = request.output_tokens;
        });
        let slot = slot.expect("the caller saw room");
        self.stop.arrived(intended);
        self.driven.sent += 1;
        self.target.submit(request, slot);
    }

    fn refuse(&mut self, due: Nanos) {
        let Some(request) = self.calendar.take(due) else { return };
        self.stop.arrived(due);
        let record = RequestRecord {
            id: request.id,
            intended: due,
            end: due,
            prompt_tokens: request.prompt.len(),
            requested_tokens: request.output_tokens,
            ending: Ending::Refused,
            ..blank_record()
        };
        self.calendar.ended(&record, due);
        self.stop.ended(record);
    }

    /// The next time at which something is to be done though no event comes.
    fn next_due(&mut self, internal: Option<Nanos>) -> Nanos {
        let arrival = if self.in_flight.has_room() || self.calendar.on_cap == OnCap::Refuse { self.calendar.next_due() } else { None };
        let timeout = self.in_flight.oldest_intended().map(|intended| intended + self.manner.timeout);
        [arrival, timeout, internal, Some(self.stop.next_due())].into_iter().flatten().min().unwrap_or(Nanos::MAX)
    }

    fn cancel_rest(&mut self, clock: &mut dyn Clock) {
        let now = clock.now();
        let (target, stop) = (&mut *self.target, &mut *self.stop);
        self.in_flight.cancel_all(now, |slot, record| {
            target.cancel(slot);
            stop.ended(record);
        });
        let give_up = now + self.stop.let_go();
        while self.in_flight.held() > 0 && clock.now() < give_up {
            let internal = self.target.advance(clock.now());
            while let Some(event) = self.target.next_event() {
                self.in_flight.apply(&event);
            }
            if self.in_flight.held() > 0 {
                let deadline = internal.unwrap_or(clock.now() + LOOK).min(give_up);
                clock.wait(deadline, &mut Beside(&mut *self.target));
            }
        }
        self.driven.not_let_go = self.in_flight.held() as u64;
    }
}
