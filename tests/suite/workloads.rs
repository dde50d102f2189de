//! Workloads: lengths as stated, prompts unique unless declared, sessions in order, nothing beyond caps or context.

use std::collections::{HashMap, HashSet};

use plimsoll::clock::Nanos;
use plimsoll::workload::fit::{Caps, Limits};
use plimsoll::workload::lengths::Distribution;
use plimsoll::workload::mix::{MIX_REQUESTS, Mix};
use plimsoll::workload::request::{Request, RequestSource};
use plimsoll::workload::spec::{History, Sessions, SharedPrefix, Workload, WorkloadError};
use proptest::prelude::*;

const ROOMY: Limits = Limits { max_context: 131_072, vocab_size: 32_000 };

fn preset(name: &str) -> Workload {
    Workload::preset(name).expect("a preset")
}

fn source(workload: &Workload, seed: u64, limits: Limits) -> Box<dyn RequestSource + Send> {
    workload.source(seed, limits).expect("the workload fits")
}

/// The next requests of a source, each ended at once.
fn requests(source: &mut dyn RequestSource, count: usize) -> Vec<Request> {
    let next = || {
        let request = source.next_request()?;
        source.ended(request.id);
        Some(request)
    };
    std::iter::from_fn(next).take(count).collect()
}

/// The first 16 tokens of a prompt: a KV block.
fn first_block(request: &Request) -> Vec<u32> {
    request.prompt.token_ids(32_000).take(16).collect()
}

#[test]
fn every_preset_is_read_and_makes_the_lengths_it_states() {
    for (name, input, output) in [
        ("chat", 1154.7, 211.1),
        ("code", 2047.8, 27.9),
        ("fixed-128-128", 128.0, 128.0),
        ("fixed-1024-128", 1024.0, 128.0),
        ("fixed-128-1024", 128.0, 1024.0),
        ("quick", 23.8, 12.0),
    ] {
        let workload = preset(name);
        assert!((workload.input.mean() / input - 1.0).abs() < 0.015, "{name}: prompts of {}", workload.input.mean());
        assert!((workload.output.mean() / output - 1.0).abs() < 0.015, "{name}: answers of {}", workload.output.mean());
        let mix = Mix::of(&mut *source(&workload, 1, ROOMY), MIX_REQUESTS);
        assert!((mix.input_tokens.mean / input - 1.0).abs() < 0.03, "{name}: {mix:?}");
        assert!((mix.output_tokens.mean / output - 1.0).abs() < 0.05, "{name}: {mix:?}");
        assert_eq!((mix.capped_share, mix.repeated_share), (0.0, 0.0), "{name}");
    }
}

#[test]
fn the_presets_are_complete_and_each_says_where_its_lengths_come_from() {
    let names: Vec<_> = Workload::preset_names().collect();
    for wanted in ["chat", "rag", "code", "summarize", "agentic", "quick"] {
        assert!(names.contains(&wanted), "{wanted} is missing");
    }
    for name in names {
        let workload = preset(name);
        assert_eq!(workload.name, name);
        assert!(!workload.citation.is_empty() && !workload.description.is_empty(), "{name}");
        let mix = Mix::of(&mut *source(&workload, 0, ROOMY), 2_000);
        assert_eq!(mix.requests, 2_000, "{name}");
    }
}

#[test]
fn chat_and_code_have_the_quantiles_of_their_traces() {
    let close =
        |name: &str, found: u32, stated: u32| assert!(found.abs_diff(stated) * 100 <= stated + 100, "{name}: {found}, not {stated}");
    for (name, inputs, outputs) in [("chat", [1020, 4083, 4142], [129, 451, 601]), ("code", [1469, 7303, 7436], [13, 90, 251])] {
        let workload = preset(name);
        for (at, q) in [0.5, 0.95, 0.99].into_iter().enumerate() {
            close(name, workload.input.quantile(q), inputs[at]);
            close(name, workload.output.quantile(q), outputs[at]);
        }
    }
}

#[test]
fn draws_have_the_stated_mean_whatever_the_distribution() {
    for distribution in [
        Distribution::Fixed(7),
        Distribution::Uniform { min: 3, max: 12 },
        Distribution::Normal { mean: 100.0, std_dev: 40.0, min: 50, max: 120 },
        Distribution::Lognormal { median: 200.0, sigma: 1.2, min: 10, max: 4_000 },
        Distribution::Quantiles(vec![(0.0, 5), (0.5, 10), (0.9, 200), (1.0, 1_000)]),
    ] {
        let draws = 200_000_u32;
        let drawn: Vec<f64> = (0..u64::from(draws)).map(|k| f64::from(distribution.draw(99, k))).collect();
        let mean = drawn.iter().sum::<f64>() / f64::from(draws);
        let deviation = (drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / f64::from(draws)).sqrt();
        let tolerance = 4.0 * deviation / f64::from(draws).sqrt() + 1e-3 * mean;
        assert!((mean - distribution.mean()).abs() < tolerance, "{distribution:?}: drew {mean}, stated {}", distribution.mean());
    }
}

#[test]
fn the_lognormal_mean_is_the_textbook_one_where_nothing_is_clamped() {
    let free = Distribution::Lognormal { median: 500.0, sigma: 0.5, min: 1, max: 1_000_000 };
    assert!((free.mean() / (500.0 * (0.125_f64).exp()) - 1.0).abs() < 1e-3, "{}", free.mean());
}

#[test]
fn the_same_seed_makes_the_same_requests() {
    for name in Workload::preset_names() {
        let make = |seed| requests(&mut *source(&preset(name), seed, ROOMY), 300);
        assert_eq!(make(5), make(5), "{name}");
        assert_ne!(make(5), make(6), "{name}");
    }
}

#[test]
fn undeclared_prompts_never_share_a_first_block_across_requests_levels_and_repeats() {
    for name in ["chat", "code", "quick", "fixed-128-128"] {
        let mut seen = HashSet::new();
        for seed in 0..20 {
            for request in requests(&mut *source(&preset(name), seed, ROOMY), 200) {
                // A prompt shorter than a block fills none.
                if request.prompt.len() >= 16 {
                    assert!(seen.insert(first_block(&request)), "{name}, seed {seed}, request {}", request.id);
                }
            }
        }
    }
}

#[test]
fn declared_prefixes_are_shared_by_their_share_and_across_seeds() {
    let mut workload = Workload::fixed(64, 8).expect("fixed lengths");
    workload.shared_prefix = Some(SharedPrefix { tokens: 32, share: 0.6, distinct: 5 });
    let mut blocks: HashMap<Vec<u32>, usize> = HashMap::new();
    for seed in 0..4 {
        for request in requests(&mut *source(&workload, seed, ROOMY), 2_500) {
            assert!(request.prompt.len() == 64 || request.prompt.len() == 96);
            *blocks.entry(first_block(&request)).or_default() += 1;
        }
    }
    let shared: Vec<usize> = blocks.into_values().filter(|count| *count > 1).collect();
    assert_eq!(shared.len(), 5);
    let total: usize = shared.iter().sum();
    assert!((total as f64 / 10_000.0 - 0.6).abs() < 0.02, "{total} of 10000 share");
    assert!(shared.iter().all(|count| count.abs_diff(1_200) < 150), "{shared:?}");
}

fn conversation(turns: u32, think_ms: u32) -> Workload {
    let mut workload = Workload::fixed(10, 5).expect("fixed lengths");
    let (turns, think_ms) = (Distribution::Fixed(turns), Distribution::Fixed(think_ms));
    workload.sessions = Some(Sessions { turns, think_ms, history: History::Carried });
    workload
}

#[test]
fn a_turn_is_sent_only_after_the_turn_before_it_has_ended() {
    let mut source = source(&conversation(3, 0), 1, ROOMY);
    let first = source.next_request().expect("a request");
    let other = source.next_request().expect("a request");
    assert_ne!(first.session, other.session, "the first session waits for its answer");
    source.ended(first.id);
    let second = source.next_request().expect("a request");
    assert_eq!(second.session, first.session);
    assert_eq!(second.prompt.segments[0], first.prompt.segments[0], "the history stands in front");
    assert_eq!((first.prompt.len(), second.prompt.len()), (10, 10 + 5 + 10));
    source.ended(second.id);
    let third = source.next_request().expect("a request");
    assert_eq!((third.session, third.prompt.len()), (first.session, 40));
    source.ended(third.id);
    let next = source.next_request().expect("a request");
    assert!(next.session != first.session && next.session != other.session, "three turns are over");
    assert_eq!(source.tally().sessions, 3);
}

#[test]
fn a_turn_waits_for_its_think_time_while_new_sessions_keep_the_rate() {
    let mut source = source(&conversation(2, 500), 1, ROOMY);
    source.advance(Nanos::from_millis(0));
    let first = source.next_request().expect("a request");
    source.advance(Nanos::from_millis(100));
    source.ended(first.id);
    source.advance(Nanos::from_millis(599));
    assert_ne!(source.next_request().expect("never held up").session, first.session);
    source.advance(Nanos::from_millis(600));
    assert_eq!(source.next_request().expect("a request").session, first.session);
}

#[test]
fn history_that_is_dropped_leaves_prompts_unique() {
    let mut workload = conversation(3, 0);
    workload.sessions = Some(Sessions { history: History::Dropped, ..workload.sessions.expect("sessions") });
    let made = requests(&mut *source(&workload, 1, ROOMY), 300);
    assert!(made.iter().all(|request| request.prompt.len() == 10));
    assert_eq!(made.iter().map(first_block).collect::<HashSet<_>>().len(), 300);
}

#[test]
fn a_session_that_fills_the_context_ends_and_is_counted() {
    let mut source = source(&conversation(10, 0), 1, Limits { max_context: 50, vocab_size: 100 });
    let made = requests(&mut *source, 30);
    assert!(made.iter().all(|request| request.prompt.len() + request.output_tokens <= 50));
    let tally = source.tally();
    assert_eq!((tally.made, tally.capped), (30, 0));
    // Prompts of 10, 25 and 40 with an answer of 5 fit in 50; a fourth of 55 does not.
    assert_eq!((tally.sessions, tally.sessions_cut), (10, 9));
}

#[test]
fn what_is_shortened_is_counted_and_the_longer_side_gives_way() {
    let limits = Limits { max_context: 100, vocab_size: 100 };
    for ((input, output), expected, capped) in
        [((60, 40), (60, 40), 0), ((500, 20), (80, 20), 5), ((20, 500), (20, 80), 5), ((500, 500), (50, 50), 5)]
    {
        let mut source = source(&Workload::fixed(input, output).expect("fixed lengths"), 1, limits);
        for request in requests(&mut *source, 5) {
            assert_eq!((request.prompt.len(), request.output_tokens), expected);
        }
        assert_eq!(source.tally().capped, capped);
    }
}

#[test]
fn a_scaled_workload_is_smaller_and_says_so() {
    let chat = preset("chat");
    let small = chat.scaled(0.1);
    assert_eq!((small.name.as_str(), small.scale), ("chat x0.1", 0.1));
    assert!((small.input.mean() / chat.input.mean() - 0.1).abs() < 0.001);
    assert_eq!(small.output.min(), 1);
    small.check().expect("scaled workloads stay possible");
    assert_eq!(preset("rag").scaled(0.01).shared_prefix.expect("a prefix").tokens, 4);
}

#[test]
fn a_prefix_longer_than_the_context_is_refused() {
    let refused = preset("rag").source(0, Limits { max_context: 400, vocab_size: 32_000 }).err().expect("it does not fit").to_string();
    assert!(refused.contains("shared prefix of `400` tokens") && refused.contains("`--length-scale`"), "{refused}");
}

#[test]
fn an_unknown_preset_is_answered_with_those_known() {
    let message = Workload::preset("chit-chat").expect_err("no such preset").to_string();
    assert!(message.starts_with("there is no workload `chit-chat`. Take one of `chat`, "), "{message}");
    assert_eq!(preset("fixed:128:128").input, preset("fixed-128-128").input);
    assert!(matches!(Workload::preset("fixed:0:8"), Err(WorkloadError::Impossible { part: "input", .. })));
}

/// A workload file with one line added under `[part]`, read.
fn refused(part: &str, line: &str) -> String {
    let file = format!("name = \"x\"\nsource = \"ours\"\ninput = {{ fixed = 8 }}\noutput = {{ fixed = 8 }}\n{part}\n{line}\n");
    Workload::parse(&file, "x.toml").expect_err("the line is wrong").to_string()
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
    for (part, line, at, wrong, nearest) in [
        ("", "slos = \"ttft:p99<2s\"", 6, "slos", "slo"),
        ("[sampling]", "tempreature = 0.5", 6, "tempreature", "temperature"),
        ("[caps]", "prompt_token = 5", 6, "prompt_token", "prompt_tokens"),
        ("[shared_prefix]\ntokens = 3", "shares = 0.5", 7, "shares", "share"),
        ("[sessions]\nturns = { fixed = 2 }", "think = 5", 7, "think", "think_ms"),
        ("[arrivals.gamma]\nburstiness = 1", "burstyness = 2", 7, "burstyness", "burstiness"),
        ("[arrivals]", "poison = 1", 6, "poison", "poisson"),
        ("[sessions]", "turns = { uniform = { min = 1, max = 2, mx = 3 } }", 6, "mx", "max"),
    ] {
        let message = refused(part, line);
        assert!(message.contains(&format!("`x.toml`, line {at}: unknown ")), "{message}");
        assert!(message.contains(&format!("`{wrong}`")), "{message}");
        assert!(message.ends_with(&format!("The nearest known name is `{nearest}`")), "{message}");
    }
}

#[test]
fn a_key_that_is_like_none_is_not_taken_for_another_misspelt() {
    let message = refused("", "bogus = 1");
    assert!(message.contains("`bogus`") && !message.contains("nearest"), "{message}");
}

#[test]
fn values_that_make_no_sense_are_refused_by_name() {
    for (part, line, expected) in [
        ("[shared_prefix]", "tokens = 0", "`shared_prefix` `tokens` and `distinct` must be 1 or more"),
        ("[shared_prefix]\ntokens = 5", "share = 1.5", "`share` must be above 0"),
        ("[sampling]", "top_p = 0.0", "`top_p` must be above 0"),
        ("[caps]", "output_tokens = 0", "a cap must be 1 or more"),
        ("[sessions]", "turns = { fixed = 0 }", "in `sessions.turns` the smallest value is 0"),
        ("[sessions]", "turns = { uniform = { min = 5, max = 2 } }", "`min` 5 is above `max` 2"),
        ("[sessions]", "turns = { quantiles = [[0.0, 1], [0.5, 2]] }", "from share 0 to share 1"),
        ("[sessions]", "turns = { quantiles = [[0.0, 5], [1.0, 2]] }", "must rise"),
        ("[arrivals]", "gamma = { burstiness = -1 }", "the burstiness `-1`"),
        ("[arrivals]", "series = { segments = [] }", "has no arrivals at all"),
        ("[sessions]", "turns = { lognormal = { median = 0.0, sigma = 1.0, min = 1, max = 2 } }", "`median` is 0 and must be above 0"),
        ("[caps]", "output_tokens = -5", "line 6"),
        ("[caps]", "output_tokens = ", "line 6"),
    ] {
        let message = refused(part, line);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn a_workload_written_out_reads_back_the_same() {
    let rate = "[arrivals.series]\nthen = \"repeat\"\nsegments = [{ seconds = 5, from = 1, to = 10 }]\n";
    let file =
        format!("name = \"x\"\nsource = \"ours\"\nslo = \"ttft:p99<2000ms\"\ninput = {{ fixed = 8 }}\noutput = {{ fixed = 8 }}\n{rate}");
    let series = Workload::parse(&file, "x.toml").expect("a workload");
    for workload in Workload::preset_names().map(preset).chain([series, preset("agentic").scaled(0.25)]) {
        let again = Workload::parse(&workload.to_toml(), "again").expect("what was written is readable");
        assert_eq!(again, workload);
    }
}

#[test]
fn a_million_requests_hold_no_memory_of_themselves() {
    // Sessions of which nobody ever says that a turn ended are the only state: a workload without them keeps none.
    let mut source = source(&preset("quick"), 1, ROOMY);
    let tokens: u64 = std::iter::from_fn(|| source.next_request()).take(1_000_000).map(|request| u64::from(request.prompt.len())).sum();
    assert!((tokens as f64 / 1e6 - preset("quick").input.mean()).abs() < 0.2);
}

fn distributions() -> impl Strategy<Value = Distribution> {
    prop_oneof![
        (1_u32..5_000).prop_map(Distribution::Fixed),
        (1_u32..500, 0_u32..5_000).prop_map(|(min, more)| Distribution::Uniform { min, max: min + more }),
        (1.0_f64..3_000.0, 0.1_f64..2.0, 1_u32..50, 0_u32..9_000).prop_map(|(median, sigma, min, more)| Distribution::Lognormal {
            median,
            sigma,
            min,
            max: min + more
        }),
        (1.0_f64..3_000.0, 1.0_f64..900.0, 1_u32..50, 0_u32..9_000).prop_map(|(mean, std_dev, min, more)| Distribution::Normal {
            mean,
            std_dev,
            min,
            max: min + more
        }),
        (1_u32..100, 0_u32..100, 0_u32..5_000).prop_map(|(low, more, most)| Distribution::Quantiles(vec![
            (0.0, low),
            (0.3, low + more),
            (1.0, low + more + most)
        ])),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn requests_respect_caps_and_context(
        input in distributions(),
        output in distributions(),
        turns in 1_u32..6,
        prefix in prop::option::of((1_u32..40, 0.1_f64..1.0, 1_u32..4)),
        caps in (prop::option::of(42_u32..3_000), prop::option::of(1_u32..500)),
        max_context in 43_u32..4_000,
        factor in 0.05_f64..2.0,
        seed: u64,
    ) {
        let mut workload = Workload::fixed(1, 1).expect("fixed lengths");
        workload.input = input;
        workload.output = output;
        workload.shared_prefix = prefix.map(|(tokens, share, distinct)| SharedPrefix { tokens, share, distinct });
        workload.caps = Caps { prompt_tokens: caps.0, output_tokens: caps.1 };
        if turns > 1 {
            workload.sessions = Some(Sessions { turns: Distribution::Uniform { min: 1, max: turns }, think_ms: Distribution::Fixed(0), history: History::Carried });
        }
        for workload in [workload.clone(), workload.scaled(factor)] {
            let limits = Limits { max_context, vocab_size: 100 };
            let Ok(mut source) = workload.source(seed, limits) else {
                // Scaled up, a prefix may outgrow the context; as stated it never does.
                prop_assert!(workload.scale > 1.0 || workload.caps.prompt_tokens.is_some());
                continue;
            };
            for request in requests(&mut *source, 100) {
                prop_assert!(request.output_tokens >= 1 && request.prompt.segments.iter().all(|segment| segment.tokens >= 1));
                prop_assert!(request.prompt.len() + request.output_tokens <= max_context);
                prop_assert!(workload.caps.prompt_tokens.is_none_or(|cap| request.prompt.len() <= cap));
                prop_assert!(workload.caps.output_tokens.is_none_or(|cap| request.output_tokens <= cap));
            }
            prop_assert_eq!(source.tally().made, 100);
        }
    }
}
