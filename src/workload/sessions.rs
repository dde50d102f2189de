//! The requests of a workload: fresh sessions, and the next turns of those whose last turn has ended.
//!
//! Every request that is asked for is answered with one: a turn that may be sent now, else a new session, so an
//! open-loop schedule keeps its rate whatever the target does.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use crate::clock::Nanos;
use crate::rng;
use crate::workload::fit::{Limits, Size, fit};
use crate::workload::request::{Prompt, Request, RequestSource, Sampling, Segment, Tally};
use crate::workload::spec::{History, Sessions, Workload, WorkloadError};

/// Counter-based streams: the k-th request of a level draws the k-th number of each.
struct Streams {
    prompts: u64,
    answers: u64,
    inputs: u64,
    outputs: u64,
    turns: u64,
    thinks: u64,
    prefixed: u64,
    prefix_choice: u64,
    sampling: u64,
}

impl Streams {
    fn of(seed: u64) -> Self {
        let named = |name| rng::derive(seed, name);
        Self {
            prompts: named("prompts"),
            answers: named("answers"),
            inputs: named("input lengths"),
            outputs: named("output lengths"),
            turns: named("turns"),
            thinks: named("think times"),
            prefixed: named("prefixed"),
            prefix_choice: named("prefix choice"),
            sampling: named("sampling"),
        }
    }
}

/// A conversation between two of its turns.
struct Session {
    number: u64,
    /// What stands in front of the next prompt.
    before: Vec<Segment>,
    /// Requests still to come.
    turns_left: u32,
}

/// A session that waits for its think time: ordered by when it is ready, then by when its last turn ended.
struct Waiting {
    ready: Nanos,
    order: u64,
    session: Session,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.ready, self.order).cmp(&(other.ready, other.order))
    }
}

/// The requests of one level.
pub(super) struct WorkloadRequests {
    workload: Workload,
    limits: Limits,
    streams: Streams,
    /// Seed of the prefixes, which depends on the workload alone.
    prefix_seed: u64,
    next_id: u64,
    next_session: u64,
    /// Sessions with a turn in flight, by request id.
    in_flight: HashMap<u64, Session>,
    waiting: BinaryHeap<Reverse<Waiting>>,
    now: Option<Nanos>,
    tally: Tally,
}

impl WorkloadRequests {
    pub(super) fn new(workload: &Workload, seed: u64, limits: Limits) -> Result<Self, WorkloadError> {
        workload.check()?;
        let too_long = |problem| Err(WorkloadError::TooLong { name: workload.name.clone(), problem });
        if limits.vocab_size < 2 {
            return too_long(format!("prompts cannot differ with a vocabulary of `{}`", limits.vocab_size));
        }
        let fixed = workload.shared_prefix.map_or(0, |prefix| prefix.tokens);
        if fit(Size { fixed, own: 1, output: 1 }, workload.caps, limits).is_none() {
            return too_long(format!(
                "its shared prefix of `{fixed}` tokens leaves no room for a prompt and an answer in a context of `{}` with a prompt cap of {}",
                limits.max_context,
                workload.caps.prompt_tokens.map_or("none".to_owned(), |cap| format!("`{cap}`"))
            ));
        }
        Ok(Self {
            prefix_seed: rng::derive(0, &format!("shared prefix of {}", workload.name)),
            workload: workload.clone(),
            limits,
            streams: Streams::of(seed),
            next_id: 0,
            next_session: 0,
            in_flight: HashMap::new(),
            waiting: BinaryHeap::new(),
            now: None,
            tally: Tally::default(),
        })
    }

    fn new_session(&mut self) -> Session {
        let number = self.next_session;
        self.next_session += 1;
        let turns_left = match &self.workload.sessions {
            Some(Sessions { turns, .. }) => {
                self.tally.sessions += 1;
                turns.draw(self.streams.turns, number)
            }
            None => 1,
        };
        let prefix = self.workload.shared_prefix.filter(|prefix| rng::uniform_at(self.streams.prefixed, number) < prefix.share);
        let before = prefix.map_or_else(Vec::new, |prefix| {
            let which = (rng::uniform_at(self.streams.prefix_choice, number) * f64::from(prefix.distinct)) as u64;
            vec![Segment { seed: rng::at(self.prefix_seed, which), tokens: prefix.tokens }]
        });
        Session { number, before, turns_left }
    }

    /// A session whose next turn may be sent now and fits, with the size of that turn.
    fn ready_turn(&mut self, own: u32, output: u32) -> Option<(Session, Size)> {
        while self.waiting.peek().is_some_and(|Reverse(next)| self.now.is_none_or(|now| next.ready <= now)) {
            let Reverse(Waiting { session, .. }) = self.waiting.pop()?;
            let size = Size { fixed: session.before.iter().map(|segment| segment.tokens).sum(), own, output };
            // A later turn is not shortened: the conversation has reached the end of the context, and is over.
            if fit(size, self.workload.caps, self.limits).is_some_and(|fitted| fitted.own == own) {
                return Some((session, size));
            }
            self.tally.sessions_cut += 1;
        }
        None
    }
}

impl RequestSource for WorkloadRequests {
    fn next_request(&mut self) -> Option<Request> {
        let id = self.next_id;
        self.next_id += 1;
        let own = self.workload.input.draw(self.streams.inputs, id);
        let output = self.workload.output.draw(self.streams.outputs, id);
        let (mut session, asked) = self.ready_turn(own, output).unwrap_or_else(|| {
            let session = self.new_session();
            let fixed = session.before.iter().map(|segment| segment.tokens).sum();
            (session, Size { fixed, own, output })
        });
        // `new` saw to it that a first turn has room, and `ready_turn` that a later one has.
        let size = fit(asked, self.workload.caps, self.limits)?;
        self.tally.count(asked, self.workload.caps, size);

        let fresh = Segment { seed: rng::at(self.streams.prompts, id), tokens: size.own };
        let mut segments = Vec::with_capacity(session.before.len() + 1);
        segments.extend_from_slice(&session.before);
        segments.push(fresh);
        let sampling = self.workload.sampling;
        let sampling = Sampling {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            seed: rng::at(self.streams.sampling, id),
        };
        let number = self.workload.sessions.as_ref().map(|_| session.number);
        session.turns_left = session.turns_left.saturating_sub(1);
        if session.turns_left > 0 {
            if self.workload.sessions.as_ref().is_some_and(|sessions| sessions.history == History::Carried) {
                session.before.extend([fresh, Segment { seed: rng::at(self.streams.answers, id), tokens: size.output }]);
            }
            self.in_flight.insert(id, session);
        }
        Some(Request { id, prompt: Prompt { segments }, output_tokens: size.output, sampling, session: number })
    }

    fn ended(&mut self, id: u64) {
        let Some(session) = self.in_flight.remove(&id) else { return };
        let think_ms = self.workload.sessions.as_ref().map_or(0, |sessions| sessions.think_ms.draw(self.streams.thinks, id));
        let ready = self.now.unwrap_or(Nanos::ZERO) + Nanos::from_millis(u64::from(think_ms));
        self.waiting.push(Reverse(Waiting { ready, order: id, session }));
    }

    fn advance(&mut self, now: Nanos) {
        self.now = Some(now);
    }

    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}
