//! Requests by hour with the 95th percentile and the peak of requests per minute: the capacity model's first query.
//!
//! `requests_per_minute` is no column of a log, so the query can be read in three ways that differ by a fifth. The 95th percentile
//! is over all minutes of the hour, empty ones included; the other two readings stand beside it under their names. Minutes before
//! the log's first call and after its last belong to no hour.

use std::collections::BTreeMap;

use crate::record::demand::{Hour, MinuteReadings};
use crate::stats::counted::Counted;

const MINUTE: i64 = 60_000_000_000;
const HOUR: i64 = 60 * MINUTE;
/// An hour is one of an incident where more than this share of its calls failed …
const INCIDENT_SHARE: f64 = 0.05;
/// … and more than so many times the median hour's share.
const INCIDENT_TIMES: f64 = 3.0;

/// Hours that had a call, by their number since 1970.
#[derive(Debug, Default)]
pub struct Hours {
    hours: BTreeMap<i64, Tally>,
    first_minute: Option<i64>,
    /// The minute that is open, and what is in it: most calls fall into the minute of the one before.
    last_minute: i64,
    calls: u32,
    failed: u64,
}

#[derive(Debug)]
struct Tally {
    minutes: [u32; 60],
    failed: u64,
    /// Calls, outputs and successful outputs of the visible requests that began in it.
    calls_of_requests: u64,
    requests: u64,
    succeeded: u64,
}

impl Default for Tally {
    fn default() -> Self {
        Self { minutes: [0; 60], failed: 0, calls_of_requests: 0, requests: 0, succeeded: 0 }
    }
}

impl Hours {
    /// Adds a call.
    pub fn add(&mut self, at: i64, succeeded: bool) {
        let minute = at.div_euclid(MINUTE);
        if minute != self.last_minute {
            self.close_minute();
            self.last_minute = minute;
        }
        self.first_minute.get_or_insert(minute);
        self.calls += 1;
        self.failed += u64::from(!succeeded);
    }

    fn close_minute(&mut self) {
        let (minute, calls, failed) = (self.last_minute, std::mem::take(&mut self.calls), std::mem::take(&mut self.failed));
        if calls > 0 {
            let hour = self.of(minute.div_euclid(60));
            hour.minutes[minute.rem_euclid(60) as usize] += calls;
            hour.failed += failed;
        }
    }

    /// Adds a visible request that is over.
    pub fn add_request(&mut self, first_at: i64, calls: u64, succeeded: bool) {
        let hour = self.of(first_at.div_euclid(HOUR));
        hour.calls_of_requests += calls;
        hour.requests += 1;
        hour.succeeded += u64::from(succeeded);
    }

    fn of(&mut self, number: i64) -> &mut Tally {
        self.hours.entry(number).or_default()
    }

    /// In order of time, those of an incident marked.
    #[must_use]
    pub fn found(&mut self) -> Vec<Hour> {
        self.close_minute();
        let mut hours: Vec<Hour> = self.hours.iter().map(|(number, tally)| self.hour(*number, tally)).collect();
        mark_incidents(&mut hours);
        hours
    }

    fn hour(&self, number: i64, tally: &Tally) -> Hour {
        let from = self.first_minute.unwrap_or(0).max(number * 60);
        let to = self.last_minute.min(number * 60 + 59);
        let mut all = Counted::default();
        let (mut occupied, mut by_row) = (Counted::default(), Counted::default());
        for minute in from..=to {
            let calls = u64::from(tally.minutes[(minute - number * 60) as usize]);
            all.add(calls);
            if calls > 0 {
                occupied.add(calls);
                by_row.add_many(calls, calls);
            }
        }
        let p95 = |counts: &Counted| counts.quantile(0.95).unwrap_or(0.0);
        Hour {
            start_s: number * 3600,
            calls: tally.minutes.iter().map(|calls| u64::from(*calls)).sum(),
            failed: tally.failed,
            rpm: MinuteReadings {
                p95: p95(&all),
                p95_of_occupied: p95(&occupied),
                p95_of_rows: by_row.quantile(0.95),
                peak: all.max().unwrap_or(0),
            },
            calls_of_requests: tally.calls_of_requests,
            requests: tally.requests,
            succeeded: tally.succeeded,
            incident: false,
        }
    }
}

/// Marks the hours in which far more calls failed than usually do.
pub(super) fn mark_incidents(hours: &mut [Hour]) {
    let mut shares: Vec<f64> = hours.iter().map(Hour::failed_share).collect();
    shares.sort_by(f64::total_cmp);
    let usual = shares.get(shares.len() / 2).copied().unwrap_or(0.0);
    for hour in hours {
        hour.incident = hour.failed_share() > INCIDENT_SHARE.max(INCIDENT_TIMES * usual);
    }
}
