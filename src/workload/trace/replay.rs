//! The second pass: a trace as an arrival schedule and as a request source, each reading it for itself, row by row.

use crate::clock::Nanos;
use crate::rng;
use crate::workload::arrivals::Schedule;
use crate::workload::fit::{Caps, Limits, Size, fit};
use crate::workload::lengths::scaled;
use crate::workload::request::{Prompt, Request, RequestSource, Sampling, Segment, Tally};
use crate::workload::trace::format::{BLOCK_TOKENS, TraceRow};
use crate::workload::trace::options::AtEnd;
use crate::workload::trace::rows::TraceRows;
use crate::workload::trace::survey::{Trace, TraceError};

/// The calls that are replayed, pass after pass.
struct Replay {
    trace: Trace,
    rows: TraceRows,
    /// Passes that are over.
    pass: u64,
    given: u64,
    broke_off: Option<String>,
}

impl Replay {
    fn new(trace: &Trace) -> Result<Self, TraceError> {
        Ok(Self { rows: trace.rows()?, trace: trace.clone(), pass: 0, given: 0, broke_off: None })
    }

    fn next(&mut self) -> Option<TraceRow> {
        if self.broke_off.is_some() {
            return None;
        }
        loop {
            match self.rows.next() {
                Some(Ok(row)) if row.failed() => {}
                Some(Ok(row)) => {
                    self.given += 1;
                    return Some(row);
                }
                Some(Err(error)) => return self.break_off(error.to_string()),
                None if self.given != self.trace.calls() * (self.pass + 1) => {
                    return self.break_off(format!("`{}` changed while it was replayed", self.trace.facts.name));
                }
                None if self.trace.options.at_end == AtEnd::Stop => return None,
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

    /// Its own stamps, sped up as its options say; the first call at 0.
    pub fn own_schedule(&self) -> Result<Schedule, TraceError> {
        self.stretched(1.0 / self.options.speed)
    }

    /// Its own stamps, stretched or squeezed to a mean of `rate` calls/s (above 0): bursts keep their shape.
    pub fn schedule(&self, rate: f64) -> Result<Schedule, TraceError> {
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(TraceError::Option { option: "rate", value: rate });
        }
        self.stretched(self.own_rate() / rate / self.options.speed)
    }

    /// What [`Self::schedule`] does to the trace, in words for the report.
    #[must_use]
    pub fn rate_note(&self, rate: f64) -> String {
        let recorded = self.own_rate() / self.options.speed;
        format!("stamps of the trace run {:.4} times as fast as recorded: {recorded:.4} calls/s became {rate:.4}", rate / recorded)
    }

    fn stretched(&self, factor: f64) -> Result<Schedule, TraceError> {
        let mut replay = Replay::new(self)?;
        let first_at = self.facts.first_at;
        // A pass ends one mean gap after its last call, so that repeated passes keep the mean rate.
        let span = self.facts.replay_span as f64;
        let period = span + span / self.calls().saturating_sub(1) as f64;
        Ok(Box::new(std::iter::from_fn(move || {
            let row = replay.next()?;
            let since = row.at.abs_diff(first_at) as f64 + replay.pass as f64 * period;
            Some(Nanos((since * factor).round() as u64))
        })))
    }

    /// Its calls as requests for one level. Prompts share what their prefix blocks say, and nothing with another seed or pass.
    pub fn source(&self, seed: u64, limits: Limits) -> Result<Box<dyn RequestSource + Send>, TraceError> {
        Ok(Box::new(TraceRequests {
            replay: Replay::new(self)?,
            limits,
            prompts: rng::derive(seed, "prompts"),
            blocks: rng::derive(seed, "prefix blocks"),
            sampling: rng::derive(seed, "sampling"),
            tally: Tally::default(),
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
        let Caps { prompt_tokens, output_tokens } = self.replay.trace.options.caps;
        let mut prompt = self.prompt(&row, id);
        let asked = Size { fixed: 0, own: prompt.len(), output: scaled(row.output_tokens, self.replay.trace.options.scale) };
        let Some(size) = fit(asked, Caps { prompt_tokens, output_tokens }, self.limits) else {
            self.tally.broke_off = Some(format!("a context of `{}` tokens holds no request", self.limits.max_context));
            return None;
        };
        cut(&mut prompt, size.own);
        self.tally.made += 1;
        self.tally.capped += u64::from(size != asked);
        let sampling = Sampling { seed: rng::at(self.sampling, id), ..Sampling::default() };
        Some(Request { id, prompt, output_tokens: size.output, sampling, session: row.session })
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
