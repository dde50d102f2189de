//! The fleet simulator, asked by a script: a question as a JSON object a line on standard input, an answer a line on standard output.
//!
//! `{"law": {..}, "prompt": 512, "answer": 128, "rate": 20, "requests": 4000, "slo": "ttft:p95<500ms,tpot:p95<30ms", "replicas": 4}` asks what
//! so many replicas do; with `"smallest": true` instead of `replicas`, how few hold the SLO. With `arrivals_s` in place of `rate`, the calls come
//! at those times, and the answer has the latencies of each in that order.

#![expect(clippy::print_stdout, reason = "answers go to standard output")]

use std::error::Error;
use std::io::{self, BufRead};

use plimsoll::capacity::spike::answer::Subject;
use plimsoll::capacity::spike::course::{Course, Phase};
use plimsoll::capacity::spike::lengths::CallLengths;
use plimsoll::capacity::spike::phases::PhaseHeld;
use plimsoll::capacity::spike::simulated;
use plimsoll::clock::{Nanos, thread_cpu};
use plimsoll::queueing::fleet::calls::{Arrival, Ended};
use plimsoll::queueing::fleet::routing::Routing;
use plimsoll::queueing::fleet::simulation::{Fleet, Witness, simulate};
use plimsoll::queueing::law::BatchingLaw;
use plimsoll::record::slo::{Slo, SloSource};
use plimsoll::workload::lengths::Distribution;
use serde::Deserialize;
use serde_json::{Value, json};

/// Seconds of the same load before the calls that are judged, as [`Subject::stands_load`] has them.
const BEFORE_S: f64 = 30.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    law: BatchingLaw,
    prompt: u32,
    answer: u32,
    /// Calls/s, Poisson.
    #[serde(default)]
    rate: f64,
    /// Calls that are judged; else `seconds`.
    requests: Option<f64>,
    seconds: Option<f64>,
    /// When each call comes, instead of a rate.
    arrivals_s: Option<Vec<f64>>,
    slo: String,
    #[serde(default)]
    routing: Routing,
    #[serde(default)]
    seed: u64,
    replicas: Option<u32>,
    #[serde(default)]
    smallest: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    for line in io::stdin().lock().lines() {
        let question: Question = serde_json::from_str(&line?)?;
        let before = thread_cpu();
        let mut answer = answered(&question)?;
        answer["cpu_s"] = json!(thread_cpu().since(before).as_secs_f64());
        println!("{answer}");
    }
    Ok(())
}

fn answered(question: &Question) -> Result<Value, Box<dyn Error>> {
    let slo = Slo::parse(&question.slo, SloSource::Flag)?;
    let replicas = question.replicas.unwrap_or(1);
    let fleet = Fleet { routing: question.routing, ..Fleet::fixed(question.law, replicas) };
    if let Some(arrivals_s) = &question.arrivals_s {
        return Ok(each(&fleet, question, arrivals_s));
    }
    let lengths = CallLengths::Drawn { prompt: Distribution::Fixed(question.prompt), answer: Distribution::Fixed(question.answer) };
    let rate = question.rate;
    let seconds =
        question.requests.map(|requests| requests / rate).or(question.seconds).ok_or("neither `requests` nor `seconds` is given")?;
    let subject = Subject { fleet, average: rate, slo: &slo, lengths: &lengths, seed: question.seed };
    if question.smallest {
        return Ok(json!({ "smallest": subject.smallest_fleet(rate, seconds, replicas) }));
    }
    let phase = |name: &str, seconds| Phase::steady(name, 1.0, seconds);
    let course = Course { average: rate, phases: vec![phase("before", BEFORE_S), phase("judged", seconds)] };
    let trial = simulated::trial(&fleet, &course, &slo, &lengths, question.seed);
    Ok(told(&trial.phases[1]))
}

fn told(phase: &PhaseHeld) -> Value {
    let calls = phase.calls as f64;
    let seconds = phase.span_s.1 - phase.span_s.0;
    json!({
        "calls": phase.calls,
        "completed": phase.completed,
        "ttft_ms": phase.ttft_ms,
        "tpot_ms": phase.tpot_ms,
        "calls_per_s": phase.completed as f64 / seconds,
        "miss_share": 1.0 - phase.goodput_calls_per_s * seconds / calls.max(1.0),
        "miss_share_each": phase.objectives.iter().map(|held| held.miss_share).collect::<Vec<f64>>(),
        "holds": phase.holds(),
    })
}

/// Keeps calls in order of arrival.
struct Kept(Vec<Ended>);

impl Witness for Kept {
    fn ended(&mut self, ended: &Ended) {
        self.0.push(*ended);
    }
}

fn each(fleet: &Fleet, question: &Question, arrivals_s: &[f64]) -> Value {
    let arrivals = arrivals_s.iter().map(|at| Arrival { at: Nanos::from_secs_f64(*at), prompt: question.prompt, tokens: question.answer });
    let mut kept = Kept(Vec::with_capacity(arrivals_s.len()));
    simulate(fleet, arrivals, Nanos::from_secs(1_000_000), Nanos::MAX, question.seed, &mut kept);
    kept.0.sort_by_key(|ended| ended.arrived);
    let ttft: Vec<Option<f64>> = kept.0.iter().map(|ended| ended.ttft().map(Nanos::as_millis_f64)).collect();
    let tpot: Vec<Option<f64>> = kept.0.iter().map(|ended| ended.tpot_ns().map(|nanos| nanos / 1e6)).collect();
    json!({ "ttft_ms_each": ttft, "tpot_ms_each": tpot })
}
