//! The cohort of a level as the other tools would have measured it: their clocks, their divisors, from our stamps.
//!
//! They take latencies from the send, we from the intended start (`docs/vocabulary.md`); a request has both stamps.

use jiff::Timestamp;

use crate::clock::Nanos;
use crate::interchange::spread::Spread;
use crate::record::level::LevelRecord;
use crate::record::request::RequestRecord;

/// A level and its cohort, in order of intended start.
#[derive(Debug)]
pub(super) struct Cohort<'a> {
    pub(super) level: &'a LevelRecord,
    /// `None` where the run kept no request log.
    pub(super) requests: Option<Vec<&'a RequestRecord>>,
}

impl<'a> Cohort<'a> {
    /// Of all requests of a level, those whose intended start lies in its window.
    pub(super) fn of(level: &'a LevelRecord, requests: Option<&'a [RequestRecord]>) -> Self {
        let requests = requests.map(|requests| {
            let mut cohort = requests.iter().filter(|request| is_in(level, request)).collect::<Vec<_>>();
            cohort.sort_by_key(|request| (request.intended, request.id));
            cohort
        });
        Self { level, requests }
    }

    /// Requests of the cohort; none where there is no log.
    pub(super) fn all(&self) -> impl Iterator<Item = &'a RequestRecord> + use<'a, '_> {
        self.requests.iter().flatten().copied()
    }

    /// A value of each completed request.
    pub(super) fn spread(&self, value: impl Fn(&RequestRecord) -> Option<f64>) -> Spread {
        Spread::of(self.all().filter(|request| request.completed()).filter_map(value))
    }

    /// Time to first token from the send, ms.
    pub(super) fn ttft_ms(&self) -> Spread {
        self.or_kept(|request| request.ttft_service().map(Nanos::as_millis_f64), |level| Spread::kept(&level.latency.ttft_service.raw))
    }

    /// Last token from the send, ms. Without a log from the intended start, which in a valid level is the same within the
    /// generator's lag.
    pub(super) fn latency_ms(&self) -> Spread {
        self.or_kept(|request| latency(request).map(Nanos::as_millis_f64), |level| Spread::kept(&level.latency.e2e.raw))
    }

    /// (last token - first token) / (tokens after the first), ms: the divisor of tools that take the first chunk for one token.
    /// Without a log that of ours, which knows what the first chunk held.
    pub(super) fn tpot_ms(&self) -> Spread {
        self.or_kept(|request| tpot_ns(request).map(|nanos| nanos / 1e6), |level| Spread::kept(&level.latency.tpot.raw))
    }

    /// Gaps between chunks, ms.
    pub(super) fn gaps_ms(&self) -> Spread {
        match &self.requests {
            Some(_) => Spread::of(self.all().filter(|request| request.completed()).flat_map(gaps_ns).map(|gap| gap as f64 / 1e6)),
            None => Spread::kept(&self.level.latency.itl),
        }
    }

    /// Requests of the cohort that did not complete.
    pub(super) fn failed(&self) -> u64 {
        self.level.counts.cohort.saturating_sub(self.level.counts.completed)
    }

    /// Prompt and output tokens of those that completed; the level's rates over its window where there is no log.
    pub(super) fn tokens(&self) -> (f64, f64) {
        let throughput = &self.level.throughput;
        match &self.requests {
            Some(_) => self.all().filter(|request| request.completed()).fold((0.0, 0.0), |(prompt, output), request| {
                (prompt + f64::from(request.prompt_tokens), output + f64::from(request.output_tokens))
            }),
            None => (throughput.prompt_tokens_per_s * self.level.window_s, throughput.output_tokens_per_s * self.level.window_s),
        }
    }

    fn or_kept(&self, value: impl Fn(&RequestRecord) -> Option<f64>, kept: impl Fn(&LevelRecord) -> Spread) -> Spread {
        if self.requests.is_some() { self.spread(value) } else { kept(self.level) }
    }
}

/// Whether a request counts: the rest is warm-up and tail.
pub(super) fn is_in(level: &LevelRecord, request: &RequestRecord) -> bool {
    (level.window.0..level.window.1).contains(&request.intended)
}

/// Last token minus send.
pub(super) fn latency(request: &RequestRecord) -> Option<Nanos> {
    Some(request.last_token?.since(request.sent?))
}

/// (last token - first token) / (output tokens - 1), nanoseconds; `None` for answers of one token.
pub(super) fn tpot_ns(request: &RequestRecord) -> Option<f64> {
    let later = request.output_tokens.checked_sub(1).filter(|later| *later > 0)?;
    Some(request.last_token?.since(request.first_token?).0 as f64 / f64::from(later))
}

/// Gaps between consecutive chunks, nanoseconds.
pub(super) fn gaps_ns(request: &RequestRecord) -> impl Iterator<Item = u64> + '_ {
    request.chunks.windows(2).map(|pair| pair[1].at.since(pair[0].at).0)
}

/// Why a request did not complete, in one word; empty of one that did.
pub(super) fn why(request: &RequestRecord) -> String {
    use crate::record::request::Ending;
    match request.ending {
        Ending::Completed => String::new(),
        Ending::Failed(kind) => serde_json::to_value(kind).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default(),
        Ending::TimedOut => "timed_out".to_owned(),
        Ending::Refused => "refused_by_the_generator".to_owned(),
        Ending::Cancelled => "cancelled".to_owned(),
    }
}

/// Wall-clock nanoseconds since 1970 of a stamp of the level: as exact as the date that the level keeps for people.
pub(super) fn wall_ns(level: &LevelRecord, stamp: Nanos) -> u64 {
    let began = level.started.parse::<Timestamp>().map_or(0, |date| u64::try_from(date.as_nanosecond()).unwrap_or(0));
    let origin = level.window.0.since(Nanos::from_secs_f64(level.warm_up_s));
    // A stamp may lie before the level's date, which is rounded.
    if stamp >= origin { began.saturating_add(stamp.since(origin).0) } else { began.saturating_sub(origin.since(stamp).0) }
}

/// The level's date as file names have it: `20261124-034100`.
pub(super) fn date(level: &LevelRecord) -> String {
    let digits = level.started.chars().filter(char::is_ascii_digit).take(14).collect::<String>();
    match digits.split_at_checked(8) {
        Some((day, time)) => format!("{day}-{time}"),
        None => digits,
    }
}

/// A model's name as a part of a file name: what follows the last slash, without what file systems dislike.
pub(super) fn file_part(model: &str) -> String {
    let last = model.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    last.chars().map(|letter| if letter.is_ascii_alphanumeric() || "-._".contains(letter) { letter } else { '-' }).collect()
}
