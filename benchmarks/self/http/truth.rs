//! What the server wrote against what the client read, request by request.

use std::collections::HashMap;

use plimsoll::record::request::RequestRecord;

use crate::openai::truth::{RequestTruth, Truth};

/// A few quantiles of a series.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Quantiles {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Quantiles {
    /// By nearest rank.
    pub(crate) fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let at = |share: f64| values.get(((values.len() as f64 * share).ceil() as usize).max(1) - 1).copied().unwrap_or(f64::NAN);
        Self { p50: at(0.50), p99: at(0.99), max: at(1.0) }
    }
}

/// What the server knows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TrueFigures {
    pub(crate) ttft_ms: Quantiles,
    pub(crate) gap_ms: Quantiles,
    /// From the intended start to the whole request at the server.
    pub(crate) arrival_ms: Quantiles,
    /// Between the 10th and the 90th percentile of all writes.
    pub(crate) chunks_per_s: f64,
    /// What as many streams would give at the server's pace.
    pub(crate) offered_chunks_per_s: f64,
}

/// What the client says.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SaidFigures {
    pub(crate) ttft_ms: Quantiles,
    pub(crate) gap_ms: Quantiles,
    pub(crate) tpot_ms: Quantiles,
    pub(crate) lag_ms: Quantiles,
}

/// By the records alone.
pub(crate) fn said(records: &[RequestRecord]) -> SaidFigures {
    let gaps = records.iter().flat_map(|record| record.chunks.windows(2).map(|pair| pair[1].at.since(pair[0].at).as_millis_f64()));
    SaidFigures {
        ttft_ms: Quantiles::of(records.iter().filter_map(|record| Some(record.ttft_service()?.as_millis_f64())).collect()),
        gap_ms: Quantiles::of(gaps.collect()),
        tpot_ms: Quantiles::of(records.iter().filter_map(|record| Some(record.tpot_ns()? / 1e6)).collect()),
        lag_ms: Quantiles::of(records.iter().filter_map(|record| Some(record.send_lag()?.as_millis_f64())).collect()),
    }
}

/// By the server's log; `origin` is the client's clock zero on the system's. The errors of the client's TTFT come along.
pub(crate) fn truth(
    truth: &Truth,
    records: &[RequestRecord],
    origin: u64,
    streams: u32,
    cycle_ms: f64,
    tokens: u32,
) -> (TrueFigures, Quantiles) {
    let by_id: HashMap<&str, &RequestTruth> = truth.requests.iter().filter_map(|request| Some((request.id.as_deref()?, request))).collect();
    let joined: Vec<(&RequestRecord, &RequestTruth)> =
        records.iter().filter_map(|record| Some((record, *by_id.get(format!("bench-{}", record.id).as_str())?))).collect();
    let ms = |nanos: u64| nanos as f64 / 1e6;
    let first = |request: &RequestTruth| request.writes.first().map(|write| write.at);
    let ttft = |request: &RequestTruth| first(request).map(|at| ms(at - request.read_at));
    let errors = joined.iter().filter_map(|(record, request)| Some(record.ttft_service()?.as_millis_f64() - ttft(request)?));
    let gaps = joined.iter().flat_map(|(_, request)| request.writes.windows(2).map(|pair| ms(pair[1].at - pair[0].at)));
    let mut writes: Vec<u64> = joined.iter().flat_map(|(_, request)| request.writes.iter().map(|write| write.at)).collect();
    writes.sort_unstable();
    let (low, high) = (writes.len() / 10, writes.len() * 9 / 10);
    let span = writes.get(high.saturating_sub(1)).zip(writes.get(low)).map_or(f64::NAN, |(end, begin)| (end - begin) as f64 / 1e9);
    let figures = TrueFigures {
        ttft_ms: Quantiles::of(joined.iter().filter_map(|(_, request)| ttft(request)).collect()),
        gap_ms: Quantiles::of(gaps.collect()),
        arrival_ms: Quantiles::of(
            joined.iter().map(|(record, request)| ms(request.read_at.saturating_sub(origin + record.intended.0))).collect(),
        ),
        chunks_per_s: (high - low) as f64 / span,
        offered_chunks_per_s: f64::from(streams) * f64::from(tokens) / cycle_ms * 1000.0,
    };
    (figures, Quantiles::of(errors.collect()))
}
