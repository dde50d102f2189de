//! Exports made of requests: a trace has the arrivals of an open loop, a training entry what its replica held when the request came.

use plimsoll::clock::Nanos;
use plimsoll::interchange::export::File;
use plimsoll::interchange::planner::export::{Asked, PlannerExport};
use plimsoll::interchange::planner::form::Form;
use plimsoll::record::level::{LevelRecord, Offered};
use plimsoll::record::request::{Ending, FailureKind, RequestRecord};
use plimsoll::record::run::RunRecord;
use proptest::prelude::*;
use serde_json::Value;

use crate::support::planner_run::{json, text};
use crate::support::records;

/// A request that is sent at `sent` ms, admitted and answered so many ms later, with so many tokens.
fn request(id: u64, (sent, wait, prefill, decode): (u64, u64, u64, u64), (prompt, output): (u32, u32)) -> RequestRecord {
    let at = |millis: u64| Nanos::from_millis(1000 + millis);
    let first = sent + wait + prefill;
    RequestRecord {
        intended: at(sent),
        sent: Some(at(sent)),
        admitted: Some(at(sent + wait)),
        first_token: Some(at(first)),
        last_token: Some(at(first + decode)),
        end: at(first + decode),
        prompt_tokens: prompt,
        output_tokens: output,
        requested_tokens: output,
        chunks: Vec::new(),
        ..records::request(id)
    }
}

fn open(index: u32) -> LevelRecord {
    let offered = Offered::Open { calls_per_s: 10.0, process: "poisson".to_owned() };
    LevelRecord { offered, window: (Nanos::from_secs(1), Nanos::from_secs(100)), ..records::level(index) }
}

fn exported(run: &RunRecord, form: Form, level: &LevelRecord, requests: &[RequestRecord]) -> Vec<File> {
    let asked = Asked { kv_tokens: Some(1000), ..Asked::default() };
    let mut export = PlannerExport::new(run, form, vec![level], asked, true).unwrap();
    export.level(level, requests);
    export.finish().unwrap().0
}

#[test]
fn a_trace_is_the_cohort_of_an_open_loop_as_it_was_asked_for() {
    let run = records::run("01RUN");
    let mut failed = request(2, (500, 0, 10, 50), (300, 40));
    (failed.ending, failed.output_tokens, failed.requested_tokens) = (Ending::Failed(FailureKind::Refused), 0, 40);
    let early = RequestRecord { intended: Nanos::from_millis(999), ..request(9, (0, 0, 10, 50), (7, 7)) };
    let requests = [early, request(1, (250, 0, 10, 50), (100, 20)), failed];
    let trace = text(&exported(&run, Form::Vidur, &open(3), &requests), "trace-level003.csv");
    assert_eq!(trace, "arrived_at,num_prefill_tokens,num_decode_tokens\n0,100,20\n0.25,300,40\n");
    let closed = records::level(4);
    let mut export = PlannerExport::new(&run, Form::Vidur, vec![&closed], Asked::default(), true).unwrap();
    export.level(&closed, &requests);
    let said = export.finish().unwrap_err().to_string();
    assert!(said.contains("no valid open-loop level"), "{said}");
}

#[test]
fn a_training_entry_needs_to_know_which_replica_served_and_what_its_cache_holds() {
    let mut run = records::run("01RUN");
    let level = open(0);
    let refused = |run: &RunRecord, asked: Asked| PlannerExport::new(run, Form::LatencyPredictor, vec![&level], asked, true).unwrap_err();
    assert!(refused(&run, Asked::default()).to_string().contains("--kv-tokens N"));
    run.target.devices = 2;
    let said = refused(&run, Asked { kv_tokens: Some(9), ..Asked::default() }).to_string();
    assert!(said.contains("2 replicas shared the load"), "{said}");
}

proptest! {
    #[test]
    fn a_training_entry_has_what_counting_one_by_one_finds(
        shapes in proptest::collection::vec(((0_u64..2000, 0_u64..300, 1_u64..200, 1_u64..800), (1_u32..400, 2_u32..50)), 1..40),
    ) {
        let requests: Vec<_> = shapes.iter().enumerate().map(|(id, (times, tokens))| request(id as u64, *times, *tokens)).collect();
        let files = exported(&records::run("01RUN"), Form::LatencyPredictor, &open(0), &requests);
        let entries: Vec<Value> = text(&files, "training.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        prop_assert_eq!(entries.len(), requests.len());
        prop_assert_eq!(json(&files, "plimsoll-export.json")["details"]["entries"].as_u64(), Some(requests.len() as u64));
        let mut sorted: Vec<_> = requests.iter().collect();
        sorted.sort_by_key(|request| (request.sent, request.id));
        for (place, (entry, own)) in entries.iter().zip(&sorted).enumerate() {
            let now = own.sent.unwrap();
            let there: Vec<_> = sorted[..place].iter().filter(|other| other.end > now).collect();
            let running: Vec<_> = there.iter().filter(|other| other.admitted.unwrap() <= now).collect();
            let prefilling = there.iter().filter(|other| other.first_token.unwrap() > now);
            let tokens = prefilling.map(|other| other.prompt_tokens).sum::<u32>() + own.prompt_tokens;
            prop_assert_eq!(entry["num_request_running"].as_u64(), Some(running.len() as u64));
            prop_assert_eq!(entry["num_request_waiting"].as_u64(), Some((there.len() - running.len()) as u64));
            prop_assert_eq!(entry["prefill_tokens_in_flight"].as_u64(), Some(u64::from(tokens)));
            let prompts: u32 = running.iter().map(|other| other.prompt_tokens).sum();
            let whole: u32 = running.iter().map(|other| other.prompt_tokens + other.output_tokens).sum();
            let share = entry["kv_cache_percentage"].as_f64().unwrap();
            let (least, most) = ((f64::from(prompts) / 1000.0).min(1.0), (f64::from(whole) / 1000.0).min(1.0));
            prop_assert!((least - 1e-12..=most + 1e-12).contains(&share), "{share} is not in {least}..{most}");
            let ttft = own.first_token.unwrap().since(now).as_millis_f64();
            prop_assert!((entry["actual_ttft_ms"].as_f64().unwrap() - ttft).abs() < 1e-9);
            prop_assert!(entry["timestamp"].as_str().unwrap().starts_with("2026-01-02T03:04:0"));
        }
    }
}
