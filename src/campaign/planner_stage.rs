//! The levels of `--for-planner`, after the search and before the last reference: drift is judged over them too.

use crate::campaign::measure::Bench;
use crate::campaign::planner_levels::{PREFILL_ANSWER, PlannerLevels, Room};
use crate::campaign::targets::Held;
use crate::record::level::Purpose;

/// Measures them, where the plan asks for them.
///
/// # Errors
/// As [`Bench::closed`].
pub(super) fn measure(bench: &mut Bench<'_>, target: &mut Held<'_>) -> anyhow::Result<()> {
    if !bench.plan.for_planner {
        return Ok(());
    }
    let identity = target.identity();
    // Each device of the built-in engine is a replica of its own; a server is one, whatever it computes on.
    let replicas = if identity.kind == "server" { 1 } else { identity.devices.max(1) };
    let workload = bench.traffic.record();
    let most = bench.plan.most_concurrency.min(target.most_in_flight()) / replicas;
    let levels = PlannerLevels::within(&Room {
        context: (identity.max_context > 0).then_some(identity.max_context),
        kv_tokens: identity.batch.kv_tokens,
        sequences: identity.batch.max_sequences.unwrap_or(u32::MAX).min(most).max(1),
        step_tokens: identity.batch.max_step_tokens,
        long_prompt: workload.mix.as_ref().map_or(workload.mean_input_tokens.round() as u32, |mix| mix.input_tokens.p95),
        quick: bench.plan.quick,
    });
    target.renew();
    for prompt_tokens in levels.prefill {
        let purpose = Purpose::PlannerPrefill { prompt_tokens, output_tokens: PREFILL_ANSWER };
        bench.closed(target.alive()?, purpose, 1, None)?;
    }
    for level in levels.decode {
        let purpose = Purpose::PlannerDecode { prompt_tokens: level.prompt_tokens, output_tokens: level.output_tokens };
        bench.closed(target.alive()?, purpose, level.concurrency * replicas, None)?;
    }
    Ok(())
}
