//! What became of the calls of a litmus test's course: as they end, or as its log kept them where the process that drove it was killed.

use std::path::Path;

use crate::campaign::litmus::Driven;
use crate::campaign::tally::Brief;
use crate::capacity::spike::course::Course;
use crate::capacity::spike::ledger::{Ledger, Trial};
use crate::capacity::spike::live::Audit;
use crate::capacity::spike::moments::Full;
use crate::capacity::spike::phases::Felt;
use crate::clock::Nanos;
use crate::record::request::{Ending, RequestRecord};
use crate::record::slo::Slo;
use crate::stats::histogram::Histogram;
use crate::store::request_log::reader::Requests;

/// Calls of a course. Times are from its beginning.
#[derive(Debug)]
pub(super) struct Account<'a> {
    ledger: Ledger<'a>,
    lags: Histogram,
    failed: u64,
    last_end: Nanos,
}

impl<'a> Account<'a> {
    pub(super) fn new(course: &'a Course, slo: &'a Slo) -> Self {
        Self { ledger: Ledger::new(course, slo), lags: Histogram::new(), failed: 0, last_end: Nanos::ZERO }
    }

    /// How often somebody should say how full the target is.
    pub(super) fn every(&self) -> Nanos {
        self.ledger.every()
    }

    pub(super) fn full(&mut self, at: Nanos, full: Full) {
        self.ledger.full(at, full);
    }

    pub(super) fn ended(&mut self, record: &RequestRecord) {
        self.last_end = self.last_end.max(record.end);
        // What a stop cut off is nobody's failure, and is not known of a process that was killed.
        if record.ending == Ending::Cancelled {
            return;
        }
        let brief = Brief::of(record);
        if let Some(sent) = brief.sent {
            self.lags.record(sent.since(brief.intended).0);
        }
        let nanos = |at: Nanos| at.since(brief.intended).0 as f64;
        let felt =
            brief.e2e().zip(brief.first_token).map(|(e2e, first)| Felt { ttft: nanos(first), tpot: brief.tpot_ns, e2e: e2e.0 as f64 });
        self.failed += u64::from(felt.is_none());
        self.ledger.ended(brief.intended, brief.end, 1, felt.as_ref());
    }

    /// The verdict of all of it, or of what came until `until`.
    pub(super) fn judged(&self, until: Option<Nanos>) -> Trial {
        until.map_or_else(|| self.ledger.judged(), |until| self.ledger.judged_until(until))
    }

    /// As far as the calls tell what the generator did.
    pub(super) fn audit(&self) -> Audit {
        Audit { send_lag_p99_ms: self.lags.quantile(0.99).map_or(0.0, |nanos| nanos as f64 / 1e6), failed: self.failed, ..Audit::default() }
    }
}

/// What a course came to whose driving process was killed, by the calls in its log; one that never wrote any had none.
#[must_use]
pub fn of_log(course: &Course, slo: &Slo, log: &Path) -> Driven {
    let mut account = Account::new(course, slo);
    let mut damage = None;
    if log.is_file() {
        match Requests::open(log) {
            Err(error) => damage = Some(error.to_string()),
            Ok(requests) => {
                for logged in requests {
                    match logged {
                        Ok(logged) => account.ended(&logged.request),
                        Err(error) => damage = Some(error.to_string()),
                    }
                }
            }
        }
    }
    Driven { trial: account.judged(Some(account.last_end)), audit: account.audit(), is_cut: true, damage, stopped: None, logged: Ok(()) }
}
