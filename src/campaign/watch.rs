//! Watches one level while it is driven: warm-up until the rule says settled, a window until enough is known, then
//! the cohort followed to its end while load goes on.
//!
//! What "settled" and "enough" mean is a [`Judge`]'s business; this file keeps time, cohort and series straight.

use crate::campaign::failures::Failures;
use crate::campaign::interrupt::{Interrupt, Signal};
use crate::campaign::judge::{Enough, Judge, Pulse, Settled, Window};
use crate::campaign::progress::{Part, Progress, Watcher};
use crate::campaign::series::Series;
use crate::campaign::tally::{Brief, Gaps};
use crate::campaign::validity::Course;
use crate::clock::{Nanos, ThreadUse, thread_cpu, thread_starved};
use crate::load::stop::{LET_GO, Live, Stop, Turn};
use crate::record::request::RequestRecord;

/// What one thread of the generator had used of its core at an edge of the window, less its spinning, and what it lacked.
type Used = (Nanos, Nanos);

/// The generator's own thread, then those that help it.
fn used_so_far(live: &Live, helpers: &[ThreadUse]) -> Vec<Used> {
    let own = (thread_cpu().since(live.spun), thread_starved().unwrap_or_default());
    [own].into_iter().chain(helpers.iter().map(|helper| (helper.cpu(), helper.starved()))).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    WarmUp,
    Window,
    Tail,
}

/// The watch over one level.
pub struct Watch<'a> {
    judge: &'a mut dyn Judge,
    interrupt: &'a Interrupt,
    watcher: &'a mut dyn Watcher,
    log: &'a mut dyn FnMut(RequestRecord),
    bin: Nanos,
    stage: Stage,
    begin: Nanos,
    /// The window so far, and its end as far as it is known.
    from: Nanos,
    to: Nanos,
    series: Series,
    cohort: Vec<Brief>,
    gaps: Gaps,
    /// Ended records that were due after `to`: part of the cohort if the window goes on.
    beyond: Vec<RequestRecord>,
    /// Arrivals of the window that have not ended.
    open_inside: u64,
    /// Due times of the arrivals beyond it, ended or not.
    due_beyond: Vec<Nanos>,
    whole_level: u64,
    whole_level_tokens: u64,
    last_turn: Nanos,
    longest_gap: Nanos,
    helpers: Vec<ThreadUse>,
    used_from: Vec<Used>,
    used_to: Vec<Used>,
    waited_at_cap: u64,
    waited_before: u64,
    said: Nanos,
    failures: Failures,
    course: Course,
}

impl std::fmt::Debug for Watch<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Watch").field("stage", &self.stage).field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

/// What is left when the level is over.
#[derive(Debug)]
pub struct Watched {
    /// When the level began.
    pub begin: Nanos,
    /// The window.
    pub window: (Nanos, Nanos),
    /// Its cohort.
    pub cohort: Vec<Brief>,
    /// The gaps between the cohort's chunks.
    pub gaps: Gaps,
    /// The level over time, from the window's beginning.
    pub series: Series,
    /// Requests that ended in the whole level.
    pub whole_level: u64,
    /// Their tokens.
    pub whole_level_tokens: u64,
    /// CPU in the window of the busiest of the generator's threads, less its spinning.
    pub generator_cpu: Nanos,
    /// Time of the window in which the one that lacked most was ready and had no core.
    pub generator_starved: Nanos,
    /// Longest time between two turns of the loop in the window.
    pub longest_gap: Nanos,
    /// Arrivals of the window and tail that waited at the cap.
    pub waited_at_cap: u64,
    /// Whether the target ran out of memory for a request, in whatever part of the level.
    pub out_of_memory: bool,
    /// How it went.
    pub course: Course,
}

/// How often a level's course is told, on its own clock.
const SAY: Nanos = Nanos::from_millis(250);
/// How long requests in flight may take to end after an interruption.
const LET_GO_INTERRUPTED: Nanos = Nanos::from_secs(10);
/// The same where a GPU failed, which may never let go.
const LET_GO_FAILED: Nanos = Nanos::from_secs(2);
/// The longest time between two looks at an otherwise quiet level.
const LOOK: Nanos = Nanos::from_millis(50);

impl<'a> Watch<'a> {
    /// A watch that keeps its series in bins of `bin`, and hands every record on to `log`.
    pub fn new(
        judge: &'a mut dyn Judge,
        bin: Nanos,
        interrupt: &'a Interrupt,
        watcher: &'a mut dyn Watcher,
        log: &'a mut dyn FnMut(RequestRecord),
    ) -> Self {
        Self {
            judge,
            interrupt,
            watcher,
            log,
            bin,
            stage: Stage::WarmUp,
            begin: Nanos::ZERO,
            from: Nanos::MAX,
            to: Nanos::MAX,
            series: Series::new(Nanos::ZERO, bin, 0),
            cohort: Vec::new(),
            gaps: Gaps::default(),
            beyond: Vec::new(),
            open_inside: 0,
            due_beyond: Vec::new(),
            whole_level: 0,
            whole_level_tokens: 0,
            last_turn: Nanos::ZERO,
            longest_gap: Nanos::ZERO,
            helpers: Vec::new(),
            used_from: Vec::new(),
            used_to: Vec::new(),
            waited_at_cap: 0,
            waited_before: 0,
            said: Nanos::ZERO,
            failures: Failures::default(),
            course: Course::Settled,
        }
    }

    /// These threads of the target do a part of the generator's work: its audit is that of the busiest.
    #[must_use]
    pub fn beside(self, helpers: Vec<ThreadUse>) -> Self {
        Self { helpers, ..self }
    }

    /// What was seen. Records from beyond the window are handed to the log.
    pub fn finish(mut self) -> Watched {
        for record in self.beyond.drain(..) {
            (self.log)(record);
        }
        let most = |of: fn(&Used) -> Nanos| {
            let each = self.used_from.iter().zip(&self.used_to);
            each.map(|(from, to)| of(to).since(of(from))).max().unwrap_or_default()
        };
        let (generator_cpu, generator_starved) = (most(|used| used.0), most(|used| used.1));
        Watched {
            begin: self.begin,
            window: (self.from, self.to),
            cohort: self.cohort,
            gaps: self.gaps,
            series: self.series,
            whole_level: self.whole_level,
            whole_level_tokens: self.whole_level_tokens,
            generator_cpu,
            generator_starved,
            longest_gap: self.longest_gap,
            waited_at_cap: self.waited_at_cap.saturating_sub(self.waited_before),
            out_of_memory: self.failures.out_of_memory,
            course: self.course,
        }
    }

    fn open_window(&mut self, now: Nanos, length: Nanos, live: &Live) {
        self.stage = Stage::Window;
        self.from = now;
        self.to = now + length;
        self.series = Series::new(now, self.bin, u64::from(live.in_flight) + live.waiting);
        self.used_from = used_so_far(live, &self.helpers);
        self.longest_gap = Nanos::ZERO;
        self.waited_before = live.waited_at_cap;
    }

    /// The window's end moves: what was beyond it may now be inside.
    fn extend(&mut self, to: Nanos) {
        self.stage = Stage::Window;
        self.to = to;
        let inside = self.due_beyond.iter().filter(|due| **due < to).count() as u64;
        self.due_beyond.retain(|due| *due >= to);
        let ended: Vec<RequestRecord> = std::mem::take(&mut self.beyond);
        let mut ended_inside = 0;
        for record in ended {
            if record.intended < to {
                ended_inside += 1;
                self.take_into_cohort(&record);
                (self.log)(record);
            } else {
                self.beyond.push(record);
            }
        }
        self.open_inside += inside - ended_inside;
    }

    fn take_into_cohort(&mut self, record: &RequestRecord) {
        self.cohort.push(Brief::of(record));
        self.gaps.add(record);
    }

    fn over(&mut self, now: Nanos, course: Option<Course>) -> Turn {
        if let Some(course) = course {
            self.course = course;
        }
        if self.from == Nanos::MAX {
            (self.from, self.to) = (now, now);
        }
        self.to = self.to.min(now);
        Turn::Over
    }

    /// Everything fails. Before there is a window, what failed is the cohort: the evidence.
    fn failed(&mut self, now: Nanos) -> Turn {
        if self.stage == Stage::WarmUp {
            self.from = self.begin;
            self.cohort = self.failures.take();
        }
        if self.stage != Stage::Tail {
            self.to = now;
        }
        self.over(now, Some(Course::Failing))
    }

    fn say(&mut self, now: Nanos, live: &Live) {
        if now.since(self.said) < SAY {
            return;
        }
        self.said = now;
        let part = match self.stage {
            Stage::WarmUp => Part::WarmUp,
            Stage::Window => Part::Window,
            Stage::Tail => Part::Tail,
        };
        self.watcher.tell(Progress::LevelGoesOn {
            part,
            elapsed_s: now.since(self.begin).as_secs_f64(),
            in_flight: live.in_flight,
            tokens: self.whole_level_tokens,
        });
    }
}

impl Stop for Watch<'_> {
    fn begins(&mut self, now: Nanos) {
        self.begin = now;
        self.said = now;
        self.last_turn = now;
        self.series = Series::new(now, self.bin, 0);
        self.judge.begins(now);
    }

    fn turn(&mut self, now: Nanos, live: &Live) -> Turn {
        if self.stage == Stage::Window {
            self.longest_gap = self.longest_gap.max(now.since(self.last_turn));
        }
        self.last_turn = now;
        self.say(now, live);
        if self.interrupt.raised().is_some() {
            return self.over(now, Some(Course::Interrupted));
        }
        if self.failures.everything_fails() {
            return self.failed(now);
        }
        if self.stage == Stage::WarmUp {
            let pulse = Pulse { in_flight: u64::from(live.in_flight) + live.waiting, tokens: self.whole_level_tokens };
            match self.judge.settled(now, pulse) {
                Settled::NotYet if live.exhausted && live.in_flight == 0 => return self.over(now, Some(Course::Exhausted)),
                Settled::NotYet => return Turn::GoOn,
                Settled::Yes { window } => self.open_window(now, window, live),
                Settled::GaveUp { window } => {
                    self.course = Course::NotSettled { waited_s: now.since(self.begin).as_secs_f64() };
                    self.open_window(now, window, live);
                }
            }
        }
        if self.stage == Stage::Window && now >= self.to {
            self.stage = Stage::Tail;
            self.used_to = used_so_far(live, &self.helpers);
            self.waited_at_cap = live.waited_at_cap;
            // What is due up to now is sent after this turn, and counted by the next one.
            return Turn::GoOn;
        }
        if self.stage == Stage::Window && live.exhausted && live.in_flight == 0 {
            return self.over(now, Some(Course::Exhausted));
        }
        // Arrivals that wait at the cap were due inside, and are not among those that were sent.
        let all_sent = live.waiting == 0 || self.due_beyond.last().is_some();
        if self.stage == Stage::Tail && self.open_inside == 0 && all_sent {
            let window = Window { from: self.from, to: self.to, cohort: &self.cohort, series: &self.series };
            match self.judge.enough(&window) {
                // A level too short for failure upon failure still had nothing else.
                Enough::Yes if self.failures.nothing_completed() => return self.failed(now),
                Enough::Yes => return self.over(now, None),
                Enough::Until(to) => self.extend(to),
            }
        }
        Turn::GoOn
    }

    fn carries(&mut self, now: Nanos, live: &Live) {
        self.series.in_flight(now, u64::from(live.in_flight) + live.waiting);
    }

    fn next_due(&self) -> Nanos {
        match self.stage {
            Stage::Window => self.to.min(self.last_turn + LOOK),
            Stage::WarmUp | Stage::Tail => self.last_turn + LOOK.min(self.bin),
        }
    }

    fn arrived(&mut self, intended: Nanos) {
        if intended < self.from {
            return;
        }
        if intended < self.to {
            self.open_inside += 1;
        } else {
            self.due_beyond.push(intended);
        }
    }

    fn tokens(&mut self, at: Nanos, count: u32) {
        self.whole_level_tokens += u64::from(count);
        self.series.tokens(at, count);
    }

    fn recounted(&mut self, at: Nanos, more: i64) {
        self.whole_level_tokens = self.whole_level_tokens.saturating_add_signed(more);
        self.series.recounted(at, more);
    }

    fn let_go(&self) -> Nanos {
        match self.interrupt.raised() {
            Some(Signal::GpuFailed) => LET_GO_FAILED,
            Some(_) if self.course == Course::Interrupted => LET_GO_INTERRUPTED,
            _ => LET_GO,
        }
    }

    fn ended(&mut self, record: RequestRecord) {
        self.whole_level += 1;
        self.failures.observe(&record);
        if record.completed() {
            self.series.completed(record.end);
        }
        if let Some(first_token) = record.first_token {
            self.series.prompted(first_token, record.prompt_tokens);
        }
        if record.intended < self.from {
            if self.stage == Stage::WarmUp {
                self.judge.warms_up(&Brief::of(&record));
            }
        } else if record.intended < self.to {
            self.open_inside = self.open_inside.saturating_sub(1);
            self.take_into_cohort(&record);
        } else {
            self.beyond.push(record);
            return;
        }
        (self.log)(record);
    }
}
