//! Demand from what the queries of [`crate::capacity::request_log::sql`] returned, told apart by their columns.

use std::collections::BTreeMap;

use crate::capacity::request_log::findings;
use crate::capacity::request_log::hours;
use crate::capacity::request_log::tally::{counted, with_incidents};
use crate::capacity::request_log::windows;
use crate::record::demand::{
    Concurrency, ConcurrencySource, DEMAND_SCHEMA_VERSION, Demand, Hour, LoadBucket, LogKind, LogToldBy, MinuteReadings, Recompute,
    WindowRates,
};
use crate::stats::counted::Counted;
use crate::table::row::{CellError, Row};

/// Results of the queries, as far as they were given.
#[derive(Debug, Default)]
pub struct Results {
    hours: BTreeMap<i64, Hour>,
    /// By length in seconds: how often which count, and the first and the last window.
    windows: BTreeMap<u64, (Counted, i64, i64)>,
    lengths: BTreeMap<String, Counted>,
    load: Vec<(u32, u64, f64)>,
    recompute: Option<Recompute>,
    totals: Option<Totals>,
}

#[derive(Clone, Copy, Debug)]
struct Totals {
    calls: u64,
    failed: u64,
    first_s: f64,
    last_s: f64,
    gap_mean_s: Option<f64>,
    gap_square_mean_s2: Option<f64>,
}

/// A result cannot be used.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ResultError {
    /// None of the queries has these columns.
    #[error(
        "`{name}` is no result of one of the queries: its columns are `{columns}`. Run what `plimsoll demand sql` prints and save each result with its header"
    )]
    Unknown {
        /// File.
        name: String,
        /// Columns it has.
        columns: String,
    },
    /// A cell is wrong.
    #[error("`{name}`, {wrong}. Save the result of the query again, as it comes")]
    Cell {
        /// File.
        name: String,
        /// Which and how.
        wrong: CellError,
    },
    /// The result that everything hangs on is not there.
    #[error("the result of the query `{0}` is missing. Run it and give its result too")]
    Missing(&'static str),
}

impl Results {
    /// Takes the result in `rows` of the file `name` that has these columns.
    ///
    /// # Errors
    /// When it is no result of one of the queries, or a cell is wrong.
    pub fn add(&mut self, name: &str, columns: &[String], rows: impl Iterator<Item = Row>) -> Result<(), ResultError> {
        // Some warehouses give names in capitals: they are looked for as they stand.
        let real = |wanted: &str| columns.iter().find(|column| column.eq_ignore_ascii_case(wanted)).cloned();
        let take: fn(&mut Self, &Named<'_>) -> Result<(), CellError> = match () {
            () if real("rpm_p95").is_some() => Self::hour,
            () if real("calls_in_window").is_some() => Self::window,
            () if real("gap_mean_s").is_some() => Self::totals,
            () if real("value_of").is_some() => Self::length,
            () if real("latency_p95").is_some() => Self::load,
            () if real("successful_outputs").is_some() => Self::requests,
            () => return Err(ResultError::Unknown { name: name.to_owned(), columns: columns.join("`, `") }),
        };
        for row in rows {
            let named = Named { row: &row, real: &real };
            take(self, &named).map_err(|wrong| ResultError::Cell { name: name.to_owned(), wrong })?;
        }
        Ok(())
    }

    fn of_hour(&mut self, start_s: i64) -> &mut Hour {
        let rpm = MinuteReadings { p95: 0.0, p95_of_occupied: 0.0, p95_of_rows: None, peak: 0 };
        let empty = Hour { start_s, calls: 0, failed: 0, rpm, calls_of_requests: 0, requests: 0, succeeded: 0, incident: false };
        self.hours.entry(start_s).or_insert(empty)
    }

    fn hour(&mut self, row: &Named<'_>) -> Result<(), CellError> {
        let (calls, failed, peak) = (row.whole("requests")?, row.whole("failed")?, row.whole("rpm_peak")?);
        let (p95, p95_of_occupied) = (row.number("rpm_p95")?, row.number("rpm_p95_of_occupied_minutes")?);
        let hour = self.of_hour(row.number("hour_start_s")? as i64);
        (hour.calls, hour.failed) = (calls, failed);
        hour.rpm = MinuteReadings { p95, p95_of_occupied, p95_of_rows: None, peak };
        Ok(())
    }

    fn requests(&mut self, row: &Named<'_>) -> Result<(), CellError> {
        let (requests, calls, succeeded) = (row.whole("visible_requests")?, row.whole("calls_of_them")?, row.whole("successful_outputs")?);
        let hour = self.of_hour(row.number("hour_start_s")? as i64);
        (hour.requests, hour.calls_of_requests, hour.succeeded) = (requests, calls, succeeded);
        let all = self.recompute.get_or_insert_default();
        (all.requests, all.calls, all.succeeded) = (all.requests + requests, all.calls + calls, all.succeeded + succeeded);
        Ok(())
    }

    fn window(&mut self, row: &Named<'_>) -> Result<(), CellError> {
        let (first, last) = (row.number("first_window")? as i64, row.number("last_window")? as i64);
        let (counts, from, to) = self.windows.entry(row.whole("window_s")?).or_insert((Counted::default(), first, last));
        counts.add_many(row.whole("calls_in_window")?, row.whole("windows")?);
        (*from, *to) = ((*from).min(first), (*to).max(last));
        Ok(())
    }

    fn totals(&mut self, row: &Named<'_>) -> Result<(), CellError> {
        self.totals = Some(Totals {
            calls: row.whole("requests")?,
            failed: row.whole("failed")?,
            first_s: row.number("first_s")?,
            last_s: row.number("last_s")?,
            gap_mean_s: row.number("gap_mean_s").ok(),
            gap_square_mean_s2: row.number("gap_square_mean_s2").ok(),
        });
        Ok(())
    }

    fn length(&mut self, row: &Named<'_>) -> Result<(), CellError> {
        let counts = self.lengths.entry(row.string("of_what")?).or_default();
        counts.add_many(row.whole("value_of")?, row.whole("calls")?);
        Ok(())
    }

    fn load(&mut self, row: &Named<'_>) -> Result<(), CellError> {
        self.load.push((row.whole("load_from")? as u32, row.whole("calls")?, row.number("latency_p95")?));
        Ok(())
    }

    /// The demand in them. `latency_unit_ms` are the milliseconds of one unit of the latency column.
    ///
    /// # Errors
    /// When the totals or the rates are not among them.
    pub fn demand(mut self, sources: Vec<String>, latency_unit_ms: f64) -> Result<Demand, ResultError> {
        let totals = self.totals.ok_or(ResultError::Missing("totals"))?;
        let rates: Vec<WindowRates> = self.windows.iter().filter_map(|(seconds, windows)| of_windows(*seconds, windows)).collect();
        if rates.is_empty() && totals.calls > 0 {
            return Err(ResultError::Missing("rates"));
        }
        let mut hours: Vec<Hour> = std::mem::take(&mut self.hours).into_values().collect();
        hours::mark_incidents(&mut hours);
        let is_calls = self.recompute.is_some_and(|found| found.calls > found.requests);
        let of = |name: &str| self.lengths.get(name).and_then(counted);
        let span_s = totals.last_s - totals.first_s;
        let mut demand = Demand {
            demand_schema_version: DEMAND_SCHEMA_VERSION,
            sources,
            columns: BTreeMap::new(),
            log: if is_calls { LogKind::Calls } else { LogKind::VisibleRequests },
            log_told_by: if self.recompute.is_some() { LogToldBy::Ids } else { LogToldBy::Assumed },
            calls: totals.calls,
            failed: totals.failed,
            rejected: BTreeMap::new(),
            first_rejected: Vec::new(),
            first_ns: (totals.first_s * 1e9).round() as i64,
            last_ns: (totals.last_s * 1e9).round() as i64,
            mean_rps: (span_s > 0.0).then(|| totals.calls as f64 / span_s),
            rates,
            visible_rates: Vec::new(),
            gap_cv: totals.gap_cv(),
            input_tokens: of("input"),
            output_tokens: of("output"),
            all_input_tokens: of("all_input"),
            all_output_tokens: of("all_output"),
            latency_ms: None,
            outcome_ms: None,
            calls_of_outcomes: None,
            concurrency: self.concurrency(latency_unit_ms),
            recompute: self.recompute.filter(|_| is_calls).map(|all| with_incidents(all, &hours)),
            hours,
            busiest: None,
            findings: Vec::new(),
        };
        demand.findings = findings::of_counts(&demand);
        // A note: it goes last.
        demand.findings.push(findings::own_spike_unknown());
        Ok(demand)
    }

    fn concurrency(&self, latency_unit_ms: f64) -> Option<Concurrency> {
        let met = self.lengths.get("concurrent")?;
        let mut load = self.load.clone();
        load.sort_by_key(|(from, ..)| *from);
        let to = |at: usize| load.get(at + 1).map(|(from, ..)| *from);
        Some(Concurrency {
            source: ConcurrencySource::Column,
            p50: met.quantile(0.50)?,
            p95: met.quantile(0.95)?,
            p99: met.quantile(0.99)?,
            max: met.max()?,
            at_peak_minute: None,
            buckets: load
                .iter()
                .enumerate()
                .map(|(at, (from, calls, p95))| LoadBucket { from: *from, to: to(at), calls: *calls, p95_ms: Some(p95 * latency_unit_ms) })
                .collect(),
        })
    }
}

impl Totals {
    fn gap_cv(&self) -> Option<f64> {
        let mean = self.gap_mean_s.filter(|mean| *mean > 0.0)?;
        Some((self.gap_square_mean_s2? - mean * mean).max(0.0).sqrt() / mean)
    }
}

/// Windows without a call are those that are missing between the first and the last.
fn of_windows(seconds: u64, (counts, first, last): &(Counted, i64, i64)) -> Option<WindowRates> {
    let mut all = counts.clone();
    let there = (last - first + 1).max(0) as u64;
    all.add_many(0, there.saturating_sub(counts.count()));
    windows::rates(&all, seconds as f64)
}

/// A row whose columns are looked for in any case.
struct Named<'a> {
    row: &'a Row,
    real: &'a dyn Fn(&str) -> Option<String>,
}

impl Named<'_> {
    fn real(&self, wanted: &str) -> String {
        (self.real)(wanted).unwrap_or_else(|| wanted.to_owned())
    }

    /// Sums come as decimals from some warehouses: `12.000`.
    fn whole(&self, column: &str) -> Result<u64, CellError> {
        self.row.whole(&self.real(column))
    }

    fn number(&self, column: &str) -> Result<f64, CellError> {
        self.row.number(&self.real(column))
    }

    fn string(&self, column: &str) -> Result<String, CellError> {
        self.row.string(&self.real(column))
    }
}
