//! The second pass: a trace as an arrival schedule and as a request source, each reading it for itself, row by row.

use crate::clock::Nanos;
use crate::rng;
use crate::workload::arrivals::Schedule;
use crate::workload::fit::{Limits, Size, fit};
use crate::workload::lengths::scaled;
use crate::workload::request::{Prompt, Request, RequestSource, Sampling, Segment, Tally};
use crate::workload::trace::format::{BLOCK_TOKENS, TraceRow};
use crate::workload::trace::options::AtEnd;
use crate::workload::trace::pace::paced;
use crate::workload::trace::rows::TraceRows;
use crate::workload::trace::survey::{Trace, TraceError};

/// Calls over which the rate is held steady at least: fewer have no burst to speak of.
const STEADY_CALLS: f64 = 32.0;

/// The calls that are replayed, pass after pass, from one in the middle on.
struct Replay {
    trace: Trace,
    rows: TraceRows,
    /// Passes that are over.
    pass: u64,
    /// Calls read, those before the start included.
    read: u64,
    /// The last call, counted as `read`, of a trace that does not repeat: it goes round once.
    until: Option<u64>,
    /// The first call, which is given before any other is read.
    first: Option<TraceRow>,
    broke_off: Option<String>,
}

impl Replay {
    /// From call `start` on, counted from 0 among those that are replayed.
    fn new(trace: &Trace, start: u64) -> Result<Self, TraceError> {
        let start = start % trace.calls().max(1);
        let until = (trace.options.at_end == AtEnd::Stop).then(|| trace.calls() + start);
        let mut replay = Self { rows: trace.rows()?, trace: trace.clone(), pass: 0, read: 0, until, first: None, broke_off: None };
        while replay.read <= start && replay.broke_off.is_none() {
            replay.first = replay.read_on();
        }
        Ok(replay)
    }

    fn next(&mut self) -> Option<TraceRow> {
        self.first.take().or_else(|| self.read_on())
    }

    fn read_on(&mut self) -> Option<TraceRow> {
        if self.broke_off.is_some() || self.until == Some(self.read) {
            return None;
        }
        loop {
            match self.rows.next() {
                Some(Ok(row)) if row.failed() => {}
                Some(Ok(row)) => {
                    self.read += 1;
                    return Some(row);
                }
                Some(Err(error)) => return self.break_off(error.to_string()),
                None if self.read != self.trace.calls() * (self.pass + 1) => {
                    return self.break_off(format!("`{}` changed while it was replayed", self.trace.facts.name));
                }
                None => match self.trace.rows() {
                    Ok(rows) => {
                        self.rows = rows;
                        self.pass += 1;
                    }
                    Err(error) => return self.break_off(error.to_string()),
                },
            }
        }
    }

    fn break_off(&mut self, why: String) -> Option<TraceRow> {
        self.broke_off = Some(why);
        None
    }
}

impl Trace {
    /// All its calls, failed ones included, as its options select them.
    pub fn rows(&self) -> Result<TraceRows, TraceError> {
        TraceRows::new((self.open)()?, &self.options)
    }

    /// Calls of one pass that are replayed.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.facts.rows - self.facts.failed
    }

    /// Mean rate of the calls that are replayed, as recorded and sped up, calls/s: one per mean gap.
    #[must_use]
    pub fn own_rate(&self) -> f64 {
        self.calls().saturating_sub(1) as f64 / (self.facts.replay_span as f64 / 1e9) * self.options.speed
    }

    /// The call that a level of this seed starts from: any, equally likely, so that levels see different parts of a long trace.
    #[must_use]
    pub fn start(&self, seed: u64) -> u64 {
        (rng::uniform_at(rng::derive(seed, "start of the trace"), 0) * self.calls() as f64) as u64
    }

    /// Its own stamps from call `start` on, stretched or squeezed to a mean of `rate` calls/s (above 0) over the whole trace: bursts
    /// keep their shape. The first call is at 0; after the last one it goes round.
    pub fn schedule(&self, rate: f64, start: u64) -> Result<Schedule, TraceError> {
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(TraceError::Option { option: "rate", value: rate });
        }
        let factor = self.own_rate() / rate / self.options.speed;
        let mut replay = Replay::new(self, start)?;
        let start_at = replay.first.as_ref().map_or(self.facts.first_at, |row| row.at);
        // A pass ends one mean gap after its last call, so that going round keeps the mean rate.
        let span = self.facts.replay_span as f64;
        let period = span + span / self.calls().saturating_sub(1) as f64;
        Ok(Box::new(std::iter::from_fn(move || {
            let row = replay.next()?;
            let since = (i128::from(row.at) - i128::from(start_at)) as f64 + replay.pass as f64 * period;
            Some(Nanos((since * factor).round() as u64))
        })))
    }

    /// The same at a mean of `rate` calls/s over every `steady`, so that a level sees the rate that it offers whichever part of the
    /// trace it enters: bursts shorter than that keep their shape.
    pub fn steady_schedule(&self, rate: f64, start: u64, steady: Nanos) -> Result<Schedule, TraceError> {
        let calls = (rate * steady.as_secs_f64()).ceil().max(STEADY_CALLS) as usize;
        Ok(Box::new(paced(self.schedule(rate, start)?, rate, calls)))
    }

    /// What [`Self::schedule`] does to the trace, in words for the report.
    #[must_use]
    pub fn rate_note(&self, rate: f64) -> String {
        let recorded = self.own_rate() / self.options.speed;
        format!("stamps of the trace, {:.4} times as fast as recorded: {recorded:.4} calls/s became {rate:.4}", rate / recorded)
    }

    /// Its calls from `start` on as requests for one level. Prompts share what their prefix blocks say, and nothing with another
    /// seed or pass.
    pub fn source(&self, seed: u64, start: u64, limits: Limits) -> Result<Box<dyn RequestSource + Send>, TraceError> {
        let replay = Replay::new(self, start)?;
        let from_line = replay.first.as_ref().map(|row| row.line);
        Ok(Box::new(TraceRequests {
            replay,
            limits,
            prompts: rng::derive(seed, "prompts"),
            blocks: rng::derive(seed, "prefix blocks"),
            sampling: rng::derive(seed, "sampling"),
            tally: Tally { from_line, ..Tally::default() },
        }))
    }
}

/// The requests of one level.
struct TraceRequests {
    replay: Replay,
    limits: Limits,
    prompts: u64,
    blocks: u64,
    sampling: u64,
    tally: Tally,
}

impl TraceRequests {
    /// The prompt of a row before it is made to fit, lengths scaled.
    fn prompt(&self, row: &TraceRow, id: u64) -> Prompt {
        let scale = self.replay.trace.options.scale;
        if row.blocks.is_empty() {
            return Prompt::unique(rng::at(self.prompts, id), scaled(row.input_tokens, scale));
        }
        let block_tokens = scaled(BLOCK_TOKENS, scale);
        let seed = rng::at(self.blocks, self.replay.pass);
        let whole = row.input_tokens / BLOCK_TOKENS;
        let rest = row.input_tokens % BLOCK_TOKENS;
        let tokens = |at: usize| if (at as u64) < u64::from(whole) { block_tokens } else { scaled(rest, scale).min(block_tokens) };
        let segment = |(at, block): (usize, &u64)| Segment { seed: rng::at(seed, *block), tokens: tokens(at) };
        Prompt { segments: row.blocks.iter().enumerate().map(segment).collect() }
    }
}

impl RequestSource for TraceRequests {
    fn next_request(&mut self) -> Option<Request> {
        let row = self.replay.next();
        self.tally.broke_off.clone_from(&self.replay.broke_off);
        let row = row?;
        let id = self.tally.made;
        let caps = self.replay.trace.options.caps;
        let mut prompt = self.prompt(&row, id);
        let asked = Size { fixed: 0, own: prompt.len(), output: scaled(row.output_tokens, self.replay.trace.options.scale) };
        let Some(size) = fit(asked, caps, self.limits) else {
            self.tally.broke_off = Some(format!("a context of `{}` tokens holds no request", self.limits.max_context));
            return None;
        };
        cut(&mut prompt, size.own);
        self.tally.count(asked, caps, size);
        // A conversation that goes round is another one, as its prompts are.
        let session = row.session.map(|session| if self.replay.pass == 0 { session } else { rng::at(session, self.replay.pass) });
        let sampling = Sampling { seed: rng::at(self.sampling, id), ..Sampling::default() };
        Some(Request { id, prompt, output_tokens: size.output, sampling, session })
    }

    fn tally(&self) -> Tally {
        self.tally.clone()
    }
}

/// Keeps the first `tokens` tokens.
fn cut(prompt: &mut Prompt, tokens: u32) {
    let mut left = tokens;
    prompt.segments.retain_mut(|segment| {
        segment.tokens = segment.tokens.min(left);
        left -= segment.tokens;
        segment.tokens > 0
    });
}
