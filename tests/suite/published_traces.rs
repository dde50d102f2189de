//! The real traces: what is read from them has their published figures.

use std::collections::HashSet;
use std::path::PathBuf;

use plimsoll::clock::Nanos;
use plimsoll::table::read::Table;
use plimsoll::table::source::Source;
use plimsoll::workload::fit::Limits;
use plimsoll::workload::mix::Mix;
use plimsoll::workload::trace::format::{TraceFormat, TraceRow};
use plimsoll::workload::trace::options::TraceOptions;
use plimsoll::workload::trace::survey::Trace;

use crate::support::real;

fn surveyed(path: PathBuf) -> Trace {
    let source = Source::Path(path);
    Trace::survey(move || Table::open(&source), TraceOptions::default()).expect("a good trace")
}

fn rows(trace: &Trace) -> Vec<TraceRow> {
    trace.rows().expect("a good trace").map(|row| row.expect("a good row")).collect()
}

/// Quantile with a straight line between neighbours, as the published figures were made.
fn between(sorted: &[u32], q: f64) -> f64 {
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (f64::from(sorted[at as usize]), f64::from(sorted[(at as usize + 1).min(sorted.len() - 1)]));
    low + (high - low) * at.fract()
}

/// Whether mean, p50, p95 and p99 are the published whole numbers.
fn is_as_stated(tokens: impl Iterator<Item = u32>, stated: [u32; 4]) -> bool {
    let mut tokens: Vec<u32> = tokens.collect();
    tokens.sort_unstable();
    let mean = tokens.iter().map(|tokens| f64::from(*tokens)).sum::<f64>() / tokens.len() as f64;
    let found = [mean, between(&tokens, 0.5), between(&tokens, 0.95), between(&tokens, 0.99)];
    found.iter().zip(stated).all(|(found, stated)| (found - f64::from(stated)).abs() < 0.500_001)
}

#[test]
fn the_real_traces_have_their_published_figures() {
    use TraceFormat::{Azure, Burstgpt, Mooncake, Plain};
    for (name, format, count, span_s, mean_rps, inputs, outputs, failed) in [
        ("azure_llm_2023_code.csv.gz", Azure, 8_819, 3_436.0, 2.5667, [2_048, 1_469, 7_303, 7_436], [28, 13, 90, 251], 0),
        ("azure_llm_2023_conv.csv.gz", Azure, 19_366, 3_502.0, 5.5304, [1_155, 1_020, 4_083, 4_142], [211, 129, 451, 601], 0),
        ("burstgpt_1_head400.csv", Burstgpt, 400, 37_269.0, 0.0107, [520, 314, 1_637, 1_958], [277, 230, 814, 1_421], 17),
        ("mooncake_conversation.jsonl.gz", Mooncake, 12_031, 3_537.0, 3.4015, [12_035, 6_909, 39_550, 85_400], [343, 350, 698, 1_118], 0),
        ("mooncake_synthetic.jsonl.gz", Mooncake, 3_993, 1_022.0, 3.9070, [15_325, 11_587, 48_905, 66_456], [149, 69, 519, 768], 0),
        ("synthetic_request_log.csv.gz", Plain, 82_444, 259_196.0, 0.3181, [1_160, 1_021, 4_082, 4_141], [204, 123, 449, 598], 2_801),
    ] {
        let Some(path) = real(name) else { continue };
        let trace = surveyed(path);
        let facts = trace.facts();
        assert_eq!((facts.format, facts.rows, facts.failed), (format, count, failed), "{name}");
        assert!(facts.rejected.is_empty(), "{name}: {:?}", facts.rejected);
        assert_eq!(facts.span_s.round(), span_s, "{name}");
        // The published 3.9070 of the synthetic trace is 3.90695 rounded twice.
        assert!((facts.mean_rps - mean_rps).abs() < 0.000_051, "{name}: {} calls/s", facts.mean_rps);
        let rows = rows(&trace);
        assert_eq!(rows.len() as u64, count, "{name}");
        assert!(is_as_stated(rows.iter().map(|row| row.input_tokens), inputs), "{name}");
        assert!(is_as_stated(rows.iter().map(|row| row.output_tokens), outputs), "{name}");
        assert_eq!(trace.schedule(trace.own_rate(), 0).expect("a good trace").count() as u64, count - failed, "{name}");
    }
}

#[test]
fn the_conversation_trace_repeats_what_its_block_ids_say() {
    let Some(path) = real("mooncake_conversation.jsonl.gz") else { return };
    let trace = surveyed(path);
    let mut seen = HashSet::new();
    let (mut tokens, mut repeated) = (0_u64, 0_u64);
    for row in rows(&trace) {
        tokens += u64::from(row.input_tokens);
        let mut left = row.input_tokens;
        let mut known = true;
        for block in &row.blocks {
            known &= !seen.insert(*block);
            repeated += if known { u64::from(left.min(512)) } else { 0 };
            left = left.saturating_sub(512);
        }
    }
    let mix = Mix::of(&mut *trace.source(3, 0, Limits { max_context: 1 << 20, vocab_size: 32_000 }).expect("a good trace"), usize::MAX);
    assert_eq!((mix.requests, mix.capped_share), (12_031, 0.0));
    assert!((mix.repeated_share - repeated as f64 / tokens as f64).abs() < 1e-12, "{}", mix.repeated_share);
    assert!(mix.repeated_share > 0.3, "{}", mix.repeated_share);
}

/// A minute at 8 calls/s, as a level of the full method holds the rate: 480 calls, give or take what bursts at both ends of the window
/// bring. Over the whole trace alone they would be 300 to 750 of the conversation trace.
#[test]
fn a_level_sees_the_rate_that_it_offers_whichever_part_of_a_real_trace_it_enters() {
    for name in ["azure_llm_2023_conv.csv.gz", "mooncake_conversation.jsonl.gz", "mooncake_synthetic.jsonl.gz"] {
        let Some(path) = real(name) else { return };
        let trace = surveyed(path);
        for seed in 0..12 {
            let schedule = trace.steady_schedule(8.0, trace.start(seed), Nanos::from_secs(15)).expect("a good trace");
            let (from, to) = (Nanos::from_secs(7), Nanos::from_secs(67));
            let calls = schedule.take_while(|at| *at < to).filter(|at| *at >= from).count();
            assert!((440..=520).contains(&calls), "{name}, seed {seed}: {calls} calls in a window of 480");
        }
    }
}
