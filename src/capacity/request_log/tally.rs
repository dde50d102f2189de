//! Everything that is counted of a log in one pass over its calls, and the demand that comes of it.

use std::collections::BTreeMap;

use crate::capacity::request_log::busiest::BusiestTally;
use crate::capacity::request_log::call::Call;
use crate::capacity::request_log::columns::{Columns, Role};
use crate::capacity::request_log::concurrency::ConcurrencyTally;
use crate::capacity::request_log::findings;
use crate::capacity::request_log::hours::Hours;
use crate::capacity::request_log::recompute::Requests;
use crate::capacity::request_log::windows::Windows;
use crate::record::demand::{ConcurrencySource, DEMAND_SCHEMA_VERSION, Demand, Hour, Lengths, LogKind, LogToldBy, Recompute, WindowRates};
use crate::stats::counted::Counted;
use crate::stats::histogram::Histogram;

/// Windows in which rates are counted, seconds.
const WINDOWS_S: [i64; 3] = [1, 60, 3600];
/// Shares of the quantiles that a workload is made of.
pub(super) const SHARES: [f64; 13] = [0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.999, 1.0];

/// Lines of a log that are no call.
#[derive(Clone, Debug, Default)]
pub struct Rejected {
    /// How many, by what is wrong with them.
    pub by_reason: BTreeMap<String, u64>,
    /// The first few, in words.
    pub first: Vec<String>,
}

impl Rejected {
    /// Lines that are remembered in words.
    const REMEMBERED: usize = 5;

    /// Adds one; `place` says where it stands.
    pub fn add(&mut self, reason: String, place: impl FnOnce() -> String) {
        if self.first.len() < Self::REMEMBERED {
            self.first.push(format!("{}: {reason}", place()));
        }
        *self.by_reason.entry(reason).or_default() += 1;
    }

    /// How many.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_reason.values().sum()
    }
}

/// What is counted of a log; give it calls in order of time.
#[derive(Debug)]
pub struct LogTally {
    calls: u64,
    failed: u64,
    first: Option<i64>,
    last: i64,
    duplicates: u64,
    /// Calls that began at the last stamp: a call that stands twice has the same id and the same stamp.
    at_last: Vec<u64>,
    gaps: u64,
    /// Sums of gaps and of their squares, seconds.
    gap_sum: f64,
    gap_squares: f64,
    windows: [Windows; 3],
    visible: [Windows; 3],
    hours: Hours,
    busiest: BusiestTally,
    input: Counted,
    output: Counted,
    all_input: Counted,
    all_output: Counted,
    latency: Histogram,
    concurrency: ConcurrencyTally,
    peak: PeakMinute,
    requests: Requests,
    recompute: Option<Recompute>,
    calls_of_outcomes: Counted,
}

/// The busiest minute, and the most that was going on at once in it.
#[derive(Debug, Default)]
struct PeakMinute {
    number: i64,
    calls: u64,
    most: Option<u64>,
    best_calls: u64,
    best_most: Option<u64>,
}

impl PeakMinute {
    fn add(&mut self, at: i64, met: Option<u64>) {
        let number = at.div_euclid(60_000_000_000);
        if number != self.number {
            self.close();
            (self.number, self.calls, self.most) = (number, 0, None);
        }
        self.calls += 1;
        self.most = self.most.max(met);
    }

    fn close(&mut self) {
        if self.calls > self.best_calls {
            (self.best_calls, self.best_most) = (self.calls, self.most);
        }
    }
}

impl LogTally {
    /// Nothing yet; concurrency is parted at `load_edges`, which rise.
    #[must_use]
    pub fn new(columns: &Columns, load_edges: &[u32]) -> Self {
        let source = if columns.of(Role::Concurrent).is_some() { ConcurrencySource::Column } else { ConcurrencySource::Counted };
        Self {
            calls: 0,
            failed: 0,
            first: None,
            last: i64::MIN,
            duplicates: 0,
            at_last: Vec::new(),
            gaps: 0,
            gap_sum: 0.0,
            gap_squares: 0.0,
            windows: WINDOWS_S.map(Windows::of_seconds),
            visible: WINDOWS_S.map(Windows::of_seconds),
            hours: Hours::default(),
            busiest: BusiestTally::default(),
            input: Counted::default(),
            output: Counted::default(),
            all_input: Counted::default(),
            all_output: Counted::default(),
            latency: Histogram::new(),
            concurrency: ConcurrencyTally::new(load_edges, source),
            peak: PeakMinute::default(),
            requests: Requests::default(),
            recompute: None,
            calls_of_outcomes: Counted::default(),
        }
    }

    /// Adds a call, which begins no earlier than the one before it.
    pub fn add(&mut self, call: &Call) {
        if self.is_duplicate(call) {
            self.duplicates += 1;
            return;
        }
        if self.first.is_some() {
            let gap = (call.at - self.last) as f64 / 1e9;
            self.gaps += 1;
            self.gap_sum += gap;
            self.gap_squares += gap * gap;
        }
        self.first.get_or_insert(call.at);
        self.last = call.at;
        self.calls += 1;
        self.failed += u64::from(!call.succeeded());
        for windows in &mut self.windows {
            windows.add(call.at);
        }
        self.hours.add(call.at, call.succeeded());
        self.busiest.add(call.at);
        let met = self.concurrency.add(call);
        self.peak.add(call.at, met);
        let (input, output) = (Call::told(call.input_tokens), Call::told(call.output_tokens));
        input.into_iter().for_each(|tokens| self.all_input.add(tokens));
        output.into_iter().for_each(|tokens| self.all_output.add(tokens));
        if call.succeeded() {
            input.into_iter().for_each(|tokens| self.input.add(tokens));
            output.into_iter().for_each(|tokens| self.output.add(tokens));
            call.latency_ms().into_iter().for_each(|ms| self.latency.record((ms * 1e6) as u64));
        }
        if call.request != 0 {
            if self.requests.add(call) {
                self.visible.iter_mut().for_each(|windows| windows.add(call.at));
            }
            self.take_over();
        }
    }

    fn is_duplicate(&mut self, call: &Call) -> bool {
        if call.id == 0 {
            return false;
        }
        if call.at != self.last {
            self.at_last.clear();
        }
        let known = self.at_last.contains(&call.id);
        // A log whose stamps are whole seconds has many calls at one: looking through them all would take too long.
        if !known && self.at_last.len() < 256 {
            self.at_last.push(call.id);
        }
        known
    }

    fn take_over(&mut self) {
        for over in self.requests.take_over() {
            let of_all = self.recompute.get_or_insert_default();
            of_all.calls += over.calls;
            of_all.requests += 1;
            of_all.succeeded += u64::from(over.succeeded);
            if over.succeeded {
                self.calls_of_outcomes.add(over.calls);
            }
            self.hours.add_request(over.first_at, over.calls, over.succeeded);
        }
    }

    /// Lines that stood twice.
    #[must_use]
    pub fn duplicates(&self) -> u64 {
        self.duplicates
    }

    /// Calls so far.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.calls
    }

    /// The demand. `kind` is what the person who asked says a line is.
    #[must_use]
    pub fn finish(mut self, columns: &Columns, sources: Vec<String>, mut rejected: Rejected, kind: Option<LogKind>) -> Demand {
        self.requests.close_all();
        self.take_over();
        self.peak.close();
        if self.duplicates > 0 {
            *rejected.by_reason.entry("call stands twice".to_owned()).or_default() += self.duplicates;
        }
        let hours = self.hours.found();
        let (log, log_told_by) = self.kind(kind);
        let recompute = self.recompute.filter(|_| log == LogKind::Calls).map(|all| with_incidents(all, &hours));
        let of_calls = |windows: &[Windows; 3]| windows.iter().filter_map(Windows::rates).collect::<Vec<WindowRates>>();
        let span_s = self.first.map_or(0.0, |first| (self.last - first) as f64 / 1e9);
        let mut demand = Demand {
            demand_schema_version: DEMAND_SCHEMA_VERSION,
            sources,
            columns: columns.iter().map(|(role, column)| (role.name().to_owned(), column.to_owned())).collect(),
            log,
            log_told_by,
            calls: self.calls,
            failed: self.failed,
            rejected: rejected.by_reason,
            first_rejected: rejected.first,
            first_ns: self.first.unwrap_or(0),
            last_ns: self.first.map_or(0, |_| self.last),
            mean_rps: (span_s > 0.0).then(|| self.calls as f64 / span_s),
            rates: of_calls(&self.windows),
            visible_rates: if recompute.is_some() { of_calls(&self.visible) } else { Vec::new() },
            gap_cv: self.gap_cv(),
            input_tokens: counted(&self.input),
            output_tokens: counted(&self.output),
            all_input_tokens: counted(&self.all_input),
            all_output_tokens: counted(&self.all_output),
            latency_ms: lasting(&self.latency),
            outcome_ms: recompute.and_then(|_| lasting(self.requests.outcome_latency())),
            calls_of_outcomes: recompute.and_then(|_| by_percent(&self.calls_of_outcomes)),
            concurrency: self.concurrency.found(self.peak.best_most),
            recompute,
            hours,
            busiest: self.busiest.found(),
            findings: Vec::new(),
        };
        demand.findings = findings::of(&demand, columns);
        demand
    }

    fn kind(&self, told: Option<LogKind>) -> (LogKind, LogToldBy) {
        match (told, self.recompute) {
            (Some(kind), _) => (kind, LogToldBy::Flag),
            (None, Some(found)) if found.calls > found.requests => (LogKind::Calls, LogToldBy::Ids),
            (None, Some(_)) => (LogKind::VisibleRequests, LogToldBy::Ids),
            (None, None) => (LogKind::VisibleRequests, LogToldBy::Assumed),
        }
    }

    fn gap_cv(&self) -> Option<f64> {
        let count = self.gaps as f64;
        let mean = self.gap_sum / count;
        (mean > 0.0).then(|| (self.gap_squares / count - mean * mean).max(0.0).sqrt() / mean)
    }
}

pub(super) fn with_incidents(all: Recompute, hours: &[Hour]) -> Recompute {
    let incidents = || hours.iter().filter(|hour| hour.incident);
    let incident_calls = incidents().map(|hour| hour.calls_of_requests).sum();
    Recompute { incident_calls, incident_succeeded: incidents().map(|hour| hour.succeeded).sum(), ..all }
}

pub(super) fn counted(values: &Counted) -> Option<Lengths> {
    let of = |q| values.quantile(q);
    Some(Lengths {
        count: values.count(),
        mean: values.mean()?,
        p50: of(0.50)?,
        p95: of(0.95)?,
        p99: of(0.99)?,
        max: values.max()? as f64,
        quantiles: SHARES.iter().filter_map(|share| Some((*share, of(*share)?))).collect(),
    })
}

/// Small numbers, most of them alike: a quantile of each percent tells how many have which.
fn by_percent(values: &Counted) -> Option<Lengths> {
    let quantiles = (0..=100_u32).filter_map(|percent| Some((f64::from(percent) / 100.0, values.quantile(f64::from(percent) / 100.0)?)));
    Some(Lengths { quantiles: quantiles.collect(), ..counted(values)? })
}

/// Of nanoseconds, in milliseconds.
fn lasting(values: &Histogram) -> Option<Lengths> {
    let of = |q| values.continuous(q).map(|nanos| nanos / 1e6);
    Some(Lengths {
        count: values.count(),
        mean: values.mean()? / 1e6,
        p50: of(0.50)?,
        p95: of(0.95)?,
        p99: of(0.99)?,
        max: values.max()? as f64 / 1e6,
        quantiles: SHARES.iter().filter_map(|share| Some((*share, of(*share)?))).collect(),
    })
}
