//! How much was going on at once, and what it did to latency: the capacity model's second query.
//!
//! Taken from the log's own column where there is one, else counted from beginnings and latencies.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::capacity::request_log::call::Call;
use crate::record::demand::{Concurrency, ConcurrencySource, LoadBucket};
use crate::stats::counted::Counted;
use crate::stats::histogram::Histogram;

/// Concurrency as calls met it, and latency by it.
#[derive(Debug)]
pub struct ConcurrencyTally {
    /// Lower ends of the buckets above the first, rising.
    edges: Vec<u32>,
    by_load: Vec<Histogram>,
    met: Counted,
    /// Ends of the calls in flight, nanoseconds.
    ends: BinaryHeap<Reverse<i64>>,
    source: ConcurrencySource,
}

impl ConcurrencyTally {
    /// Buckets that begin at 0 and at each of `edges`, which rise.
    #[must_use]
    pub fn new(edges: &[u32], source: ConcurrencySource) -> Self {
        let by_load = vec![Histogram::new(); edges.len() + 1];
        Self { edges: edges.to_vec(), by_load, met: Counted::default(), ends: BinaryHeap::new(), source }
    }

    /// Adds a call, in order of time; gives what was going on when it began, itself included, where that is known.
    pub fn add(&mut self, call: &Call) -> Option<u64> {
        let met = match self.source {
            ConcurrencySource::Column => Call::told(call.concurrent)?,
            ConcurrencySource::Counted => self.count(call)?,
        };
        self.met.add(met);
        // A call that failed has no latency to judge capacity by: an error may be quick.
        if let (Some(latency), true) = (call.latency_ms(), call.succeeded()) {
            let bucket = self.edges.partition_point(|edge| u64::from(*edge) <= met);
            self.by_load[bucket].record((latency * 1e6) as u64);
        }
        Some(met)
    }

    fn count(&mut self, call: &Call) -> Option<u64> {
        let latency = call.latency_ms()?;
        while self.ends.peek().is_some_and(|Reverse(end)| *end <= call.at) {
            self.ends.pop();
        }
        self.ends.push(Reverse(call.at.saturating_add((latency * 1e6) as i64)));
        Some(self.ends.len() as u64)
    }

    /// What was found, with the most that was going on within the busiest minute; `None` where the log tells nothing of it.
    #[must_use]
    pub fn found(&self, at_peak_minute: Option<u64>) -> Option<Concurrency> {
        let of = |q| self.met.quantile(q);
        Some(Concurrency {
            source: self.source,
            p50: of(0.50)?,
            p95: of(0.95)?,
            p99: of(0.99)?,
            max: self.met.max()?,
            at_peak_minute,
            buckets: self.by_load.iter().enumerate().map(|(at, latencies)| self.bucket(at, latencies)).collect(),
        })
    }

    fn bucket(&self, at: usize, latencies: &Histogram) -> LoadBucket {
        let from = at.checked_sub(1).map_or(0, |at| self.edges[at]);
        let to = self.edges.get(at).copied();
        let p95_ms = latencies.continuous(0.95).map(|nanos| nanos / 1e6);
        LoadBucket { from, to, calls: latencies.count(), p95_ms }
    }
}
