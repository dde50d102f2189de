//! What a run gives a simulation: its levels, and from its request log how long calls were and how fast those that were alone.

use anyhow::anyhow;

use crate::capacity::throughput::Throughput;
use crate::cli::exit::{Exit, ExitWith};
use crate::cli::plan::sustained;
use crate::cli::runs;
use crate::cli::terminal::Terminal;
use crate::curve::service_law::LevelCalls;
use crate::curve::service_law::alone::Alone;
use crate::queueing::fleet::calls::Arrival;
use crate::record::level::{LevelRecord, Offered};
use crate::record::request::{Ending, RequestRecord};
use crate::record::run::RunRecord;
use crate::record::slo::Slo;
use crate::store::request_log::reader::Requests;
use crate::store::runs::{REQUEST_LOG, RunStore};

/// Calls whose lengths are kept: they are drawn from with replacement.
const CALLS_MAX: usize = 20_000;

/// What a run gives.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) run: RunRecord,
    pub(super) slo: Slo,
    pub(super) throughput: Throughput,
    /// Requests that had the target to themselves.
    pub(super) alone: Vec<Alone>,
    /// Prompt and answer of calls that completed.
    pub(super) lengths: Vec<(u32, u32)>,
    /// Calls of its valid levels.
    pub(super) calls: LevelCalls,
}

pub(super) fn of_run(name: &str, slo: Option<&Slo>, out: &Terminal) -> anyhow::Result<Evidence> {
    let (folder, run) = runs::read(&RunStore::at(&out.data_dir()?), name, "simulate from")?;
    let throughput = sustained(&run, slo)?;
    let none = || anyhow!("run `{}` names no SLO. Give one with `--slo`, such as `--slo 'ttft:p99<1000ms'`", run.id);
    let slo = slo.or(run.slo.as_ref()).cloned().ok_or_else(none).exit_with(Exit::BadInput)?;
    let log = folder.join(REQUEST_LOG);
    let (mut alone, mut lengths) = (Vec::new(), Vec::new());
    let mut calls = LevelCalls::new();
    if log.is_file() {
        for logged in Requests::open(&log)? {
            let logged = logged?;
            let Some(level) = run.levels.iter().find(|level| level.index == logged.level) else { continue };
            note(level, &logged.request, &mut alone, &mut lengths);
            if level.verdict.is_valid() {
                calls.entry(level.index).or_default().push(arrival(&logged.request));
            }
        }
    } else {
        tracing::warn!("the run kept no request log: lengths of calls are drawn from the quantiles that it kept");
    }
    // They are logged as they end.
    calls.values_mut().for_each(|calls| calls.sort_by_key(|call| call.at));
    Ok(Evidence { run, slo, throughput, alone, lengths, calls })
}

/// A request as it came; one that was cut short as it was asked for.
fn arrival(request: &RequestRecord) -> Arrival {
    let prompt = request.prompt_tokens.saturating_sub(request.cached_tokens).max(1);
    let tokens = if request.ending == Ending::Completed { request.output_tokens } else { request.requested_tokens };
    Arrival { at: request.intended, prompt, tokens: tokens.max(1) }
}

fn note(level: &LevelRecord, request: &RequestRecord, alone: &mut Vec<Alone>, lengths: &mut Vec<(u32, u32)>) {
    if request.ending != Ending::Completed || !level.verdict.is_valid() {
        return;
    }
    if level.offered == (Offered::Closed { concurrency: 1 })
        && let (Some(sent), Some(first)) = (request.sent, request.first_token)
    {
        // What came from a cache was not computed.
        let prompt_tokens = request.prompt_tokens.saturating_sub(request.cached_tokens);
        alone.push(Alone { prompt_tokens, ttft_s: first.since(sent).as_secs_f64() });
    }
    // In closed loop the first wave is shortened.
    if matches!(level.offered, Offered::Open { .. }) && lengths.len() < CALLS_MAX {
        lengths.push((request.prompt_tokens, request.output_tokens));
    }
}
