//! A server over HTTP as a target: what it does is recorded as what it is, each fault by its name.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::{Monotonic, Nanos};
use plimsoll::http::endpoint::{Address, Endpoint};
use plimsoll::load::arrivals::{Arrivals, OnCap, When};
use plimsoll::load::stop::AfterRequests;
use plimsoll::load::{Chunks, Manner as DriveManner, drive};
use plimsoll::record::request::{Ending, FailureKind, RequestRecord};
use plimsoll::record::target::TargetIdentity;
use plimsoll::target::Target;
use plimsoll::target::openai::ask::{Api, Manner, PromptForm, RequestIds};
use plimsoll::target::openai::reactor::OpenAi;
use plimsoll::target::openai::words::WordRate;
use plimsoll::target::openai::{Server, TimeLimits};
use plimsoll::workload::request::{Prompt, Request, RequestSource, Sampling};

use crate::support::openai::script::{Asked, Behaviour, Content, End, Flavour, Framing, Role, Usage};
use crate::support::openai::truth::Ended;
use crate::support::openai::{OpenAiServer, Settings};

/// Requests of one shape.
pub(crate) struct Alike {
    pub(crate) next: u64,
    pub(crate) prompt: u32,
    pub(crate) tokens: u32,
}

impl RequestSource for Alike {
    fn next_request(&mut self) -> Option<Request> {
        let id = self.next;
        self.next += 1;
        Some(Request {
            id,
            prompt: Prompt::unique(id, self.prompt),
            output_tokens: self.tokens,
            sampling: Sampling::default(),
            session: None,
        })
    }
}

pub(crate) fn manner(api: Api) -> Manner {
    let prompt = if api == Api::Completions { PromptForm::Ids(1000) } else { PromptForm::Words(WordRate::default()) };
    Manner {
        api,
        model: "fake".to_owned(),
        prompt,
        force_length: true,
        ask_usage: true,
        ask_running_usage: false,
        completion_limit: false,
        more: String::new(),
    }
}

pub(crate) const SOON: TimeLimits =
    TimeLimits { connect: Nanos::from_millis(300), first_token: Nanos::from_millis(300), token_gap: Nanos::from_millis(300) };

/// A server at `address`, which is called `endpoint`.
pub(crate) fn server_at(endpoint: &str, address: Address, manner: Manner, limits: TimeLimits) -> Server {
    Server {
        endpoint: endpoint.parse::<Endpoint>().unwrap(),
        address,
        tls: None,
        headers: vec![("X-Tenant".to_owned(), "blue".to_owned())],
        manner,
        limits,
        identity: TargetIdentity::unknown(),
        tokens_per_event: 1.0,
        tokenizer: None,
        tag: "test".to_owned(),
    }
}

fn client_at(address: Address, manner: Manner, limits: TimeLimits, clock: Monotonic) -> OpenAi {
    OpenAi::new(Arc::new(server_at("http://127.0.0.1:1", address, manner, limits)), clock).unwrap()
}

pub(crate) fn closed(concurrency: u32) -> When {
    When::Closed { concurrency, stagger: Nanos::ZERO, seed: 0 }
}

/// Drives `count` requests of 8 tokens, so many at once.
pub(crate) fn driven(target: &mut dyn Target, clock: &mut Monotonic, concurrency: u32, count: usize) -> Vec<RequestRecord> {
    let mut stop = AfterRequests { count, ..AfterRequests::default() };
    let mut what = Alike { next: 0, prompt: 20, tokens: 8 };
    let manner = DriveManner { timeout: Nanos::from_secs(20), chunks: Chunks::Keep };
    drive(Arrivals { when: closed(concurrency), what: &mut what }, manner, &mut stop, target, clock);
    let mut records = stop.records;
    records.retain(|record| record.ending != Ending::Cancelled);
    records
}

/// The same, against a server that answers so.
fn against(server: &OpenAiServer, api: Api, concurrency: u32, count: usize) -> (Vec<RequestRecord>, OpenAi) {
    let mut clock = Monotonic::start();
    let mut target = client_at(Address::Tcp(server.addr), manner(api), SOON, clock);
    let records = driven(&mut target, &mut clock, concurrency, count);
    (records, target)
}

/// How one request ends against such an answer.
fn one(behaviour: Behaviour) -> RequestRecord {
    let server = OpenAiServer::start(move |_| behaviour.clone());
    against(&server, Api::Chat, 1, 1).0.remove(0)
}

fn failed(behaviour: Behaviour) -> FailureKind {
    match one(behaviour).ending {
        Ending::Failed(kind) => kind,
        other => panic!("it ended as {other:?}"),
    }
}

#[test]
fn every_interface_and_dialect_streams_what_was_asked() {
    for api in [Api::Completions, Api::Chat, Api::Responses] {
        for flavour in [Flavour::Vllm, Flavour::LlamaServer, Flavour::LlamaCppPython, Flavour::Transformers] {
            let server = OpenAiServer::start(move |_| Behaviour::like(flavour));
            let (records, target) = against(&server, api, 4, 40);
            assert!(records.len() >= 40);
            for record in &records {
                assert!(record.completed(), "{api:?} {flavour:?}: {:?}, {:?}", record.ending, target.failures());
                assert_eq!(record.output_tokens, record.requested_tokens, "{api:?} {flavour:?}");
                let (sent, byte, first) = (record.sent.unwrap(), record.first_byte.unwrap(), record.first_token.unwrap());
                assert!(sent <= byte && byte <= first && first <= record.last_token.unwrap() && record.last_token.unwrap() <= record.end);
            }
            let truth = server.stop();
            assert_eq!(truth.connections, 4, "connections are kept");
            assert!(truth.requests[0].text.contains("X-Tenant: blue"));
            let first = RequestIds::tagged("test").of(0).to_string();
            assert!(truth.requests.iter().any(|request| request.id.as_ref() == Some(&first)), "{first}");
        }
    }
}

#[test]
fn prompts_are_as_long_as_asked_and_answers_are_forced() {
    let server = OpenAiServer::start(|_| Behaviour::default());
    let (records, _) = against(&server, Api::Completions, 1, 3);
    let truth = server.stop();
    assert!(truth.requests.iter().all(|request| request.prompt_tokens == 20));
    assert!(records.iter().all(|record| record.prompt_tokens == 20 && record.made_tokens.is_none()));
    let text = &truth.requests[0].text;
    for wanted in ["\"ignore_eos\":true", "\"min_tokens\":8", "\"max_tokens\":8", "\"include_usage\":true", "\"temperature\":0"] {
        assert!(text.contains(wanted), "{text}");
    }
}

#[test]
fn requests_have_ids_of_their_own_that_are_uuids() {
    // llama-cpp-python's server answers 400 to any other.
    let server = OpenAiServer::start(|_| Behaviour::default());
    against(&server, Api::Completions, 2, 6);
    let requests = server.stop().requests;
    let ids: HashSet<String> = requests.iter().map(|request| request.id.clone().unwrap_or_default()).collect();
    assert!(requests.len() >= 6 && ids.len() == requests.len(), "{ids:?}");
    for id in ids {
        assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12], "{id}");
        assert!(id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{id}");
        assert_eq!((&id[14..15], &id[19..20]), ("8", "8"), "version and variant: {id}");
    }
    assert_ne!(RequestIds::tagged("one").of(7).to_string(), RequestIds::tagged("two").of(7).to_string());
}

#[test]
fn what_the_network_does_to_a_stream_changes_nothing() {
    let shapes = [
        Behaviour { split: vec![1], ..Behaviour::default() },
        Behaviour { split: vec![3, 7, 2], crlf: true, comments: true, event_lines: true, ..Behaviour::default() },
        Behaviour { split: vec![11], framing: Framing::UntilClose, ..Behaviour::default() },
        Behaviour { role: Role::Early, ttft: Duration::from_millis(30), ..Behaviour::default() },
        Behaviour { content: Content::ReasoningFirst(3), ..Behaviour::default() },
        Behaviour { content: Content::ToolCall, ..Behaviour::default() },
        Behaviour { events_per_write: 3, gap: Duration::from_millis(2), ..Behaviour::default() },
    ];
    for shape in shapes {
        let record = one(shape.clone());
        assert!(record.completed(), "{shape:?}: {:?}", record.ending);
        assert_eq!(record.output_tokens, 8, "{shape:?}");
    }
}

#[test]
fn an_early_role_and_an_early_head_are_no_first_token() {
    let ttft = Duration::from_millis(60);
    let record = one(Behaviour { role: Role::Early, ttft, ..Behaviour::default() });
    assert!(record.ttft().unwrap() >= Nanos::from_millis(59), "{record:?}");
    assert!(record.first_byte.unwrap().since(record.sent.unwrap()) < Nanos::from_millis(40), "the head came at once");
}

#[test]
fn four_tokens_an_event_are_four_tokens() {
    let behaviour = Behaviour { tokens_per_event: 4, gap: Duration::from_millis(40), tokens: Some(32), ..Behaviour::default() };
    let server = OpenAiServer::start(move |_| behaviour.clone());
    let (records, _) = against(&server, Api::Completions, 2, 6);
    for record in &records {
        assert_eq!((record.output_tokens, record.token_count.unwrap().events), (32, 8));
        assert!((3..=5).contains(&record.chunks[0].tokens), "{:?}", record.chunks);
        let tpot_ms = record.tpot_ns().unwrap() / 1e6;
        assert!((tpot_ms - 10.0).abs() < 2.0, "{tpot_ms} ms a token instead of 10");
        assert!(record.token_count.unwrap().disagrees());
    }
}

#[test]
fn faults_have_names() {
    let ends = |end: End| Behaviour { end, end_after: Some(4), gap: Duration::from_millis(1), ..Behaviour::default() };
    assert_eq!(failed(ends(End::Close)), FailureKind::ConnectionLost);
    assert_eq!(failed(ends(End::Reset)), FailureKind::ConnectionLost);
    assert_eq!(failed(ends(End::Half)), FailureKind::Truncated);
    assert_eq!(failed(ends(End::ErrorEvent)), FailureKind::TargetError);
    assert_eq!(failed(ends(End::Stall)), FailureKind::TokenGapTimeout);
    assert_eq!(failed(ends(End::NeverAnswer)), FailureKind::FirstTokenTimeout);
    assert_eq!(failed(Behaviour { bad_event: Some(2), ..Behaviour::default() }), FailureKind::Malformed);
    assert_eq!(failed(Behaviour { tokens: Some(0), ..Behaviour::default() }), FailureKind::Empty);
    assert_eq!(failed(Behaviour::refusal(429, Some(1))), FailureKind::Refused);
    assert_eq!(failed(Behaviour::refusal(503, None)), FailureKind::Refused);
    assert_eq!(failed(Behaviour::refusal(500, None)), FailureKind::TargetError);
    assert_eq!(failed(Behaviour::refusal(400, None)), FailureKind::Rejected);
    assert_eq!(failed(Behaviour { head_delay: Duration::from_secs(2), ..Behaviour::default() }), FailureKind::FirstTokenTimeout);
    let cut = one(Behaviour { end: End::NoDone, ..Behaviour::default() });
    assert!(cut.completed(), "a missing `[DONE]` alone is none: {:?}", cut.ending);
}

#[test]
fn tokens_that_came_before_a_fault_are_kept_apart() {
    let record = one(Behaviour { end: End::Close, end_after: Some(4), gap: Duration::from_millis(1), ..Behaviour::default() });
    assert!(!record.completed());
    assert_eq!(record.output_tokens, 4);
}

#[test]
fn nobody_who_listens_is_unreachable_and_the_target_is_gone() {
    let server = OpenAiServer::start(|_| Behaviour::default());
    let address = Address::Tcp(server.addr);
    server.stop();
    let mut clock = Monotonic::start();
    let mut target = client_at(address, manner(Api::Chat), SOON, clock);
    let records = driven(&mut target, &mut clock, 2, 10);
    assert!(records.iter().all(|record| record.ending == Ending::Failed(FailureKind::Unreachable)));
    assert!(!target.is_alive());
    assert!(target.failures()[&FailureKind::Unreachable].1.contains("refused"), "{:?}", target.failures());
}

#[test]
fn a_crash_and_a_restart_in_the_middle_are_seen_as_such() {
    let server =
        OpenAiServer::start(|_| Behaviour { ttft: Duration::from_millis(5), gap: Duration::from_millis(2), ..Behaviour::default() });
    let mut clock = Monotonic::start();
    let mut target = client_at(Address::Tcp(server.addr), manner(Api::Chat), SOON, clock);
    assert!(driven(&mut target, &mut clock, 4, 20).iter().all(RequestRecord::completed));
    server.crash();
    let records = driven(&mut target, &mut clock, 4, 20);
    assert!(records.iter().all(|record| !record.completed()));
    server.listen_again();
    assert!(driven(&mut target, &mut clock, 4, 20).iter().all(RequestRecord::completed));
    assert!(target.is_alive());
}

#[test]
fn a_kept_connection_that_was_closed_meanwhile_costs_no_request() {
    let server = OpenAiServer::start(|_| Behaviour::default());
    let mut clock = Monotonic::start();
    let mut target = client_at(Address::Tcp(server.addr), manner(Api::Chat), SOON, clock);
    assert!(driven(&mut target, &mut clock, 2, 4).iter().all(RequestRecord::completed));
    server.crash();
    server.listen_again();
    let records = driven(&mut target, &mut clock, 2, 6);
    assert!(records.iter().all(RequestRecord::completed), "{:?} {:?}", records, target.failures());
}

#[test]
fn a_cancelled_request_is_let_go_and_the_server_sees_it_leave() {
    let server = OpenAiServer::start(|_| Behaviour { gap: Duration::from_millis(50), ..Behaviour::default() });
    let mut clock = Monotonic::start();
    let mut target = client_at(Address::Tcp(server.addr), manner(Api::Chat), SOON, clock);
    let mut stop = AfterRequests { count: 1, ..AfterRequests::default() };
    let mut what = Alike { next: 0, prompt: 20, tokens: 8 };
    let manner = DriveManner { timeout: Nanos::from_millis(120), chunks: Chunks::Count };
    let driven = drive(Arrivals { when: closed(1), what: &mut what }, manner, &mut stop, &mut target, &mut clock);
    assert_eq!(stop.records[0].ending, Ending::TimedOut);
    assert_eq!(driven.not_let_go, 0);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(server.stop().requests[0].ended, Ended::ClientGone);
}

#[test]
fn a_stop_of_the_server_is_in_the_latencies_with_and_without_a_cap() {
    for cap in [4096, 8] {
        let server = OpenAiServer::start(|_| Behaviour { ttft: Duration::from_millis(2), ..Behaviour::default() });
        let mut clock = Monotonic::start();
        let limits = TimeLimits { first_token: Nanos::from_secs(5), ..SOON };
        let mut target = client_at(Address::Tcp(server.addr), manner(Api::Chat), limits, clock);
        let schedule = Box::new((0..200_u64).map(|index| Nanos::from_millis(index * 5)));
        let mut stop = AfterRequests { count: 200, ..AfterRequests::default() };
        let mut what = Alike { next: 0, prompt: 20, tokens: 8 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(300));
                server.pause();
                std::thread::sleep(Duration::from_millis(600));
                server.resume();
            });
            let arrivals = Arrivals { when: When::Open { schedule, cap, on_cap: OnCap::Wait }, what: &mut what };
            drive(arrivals, DriveManner::default(), &mut stop, &mut target, &mut clock);
        });
        let mut ttft: Vec<f64> = stop.records.iter().map(|record| record.ttft().unwrap().as_millis_f64()).collect();
        ttft.sort_by(f64::total_cmp);
        assert!(ttft[ttft.len() * 9 / 10] > 300.0, "cap {cap}: p90 {} ms hides a stop of 600 ms", ttft[ttft.len() * 9 / 10]);
    }
}

#[test]
fn a_unix_socket_serves_as_well() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("server.sock");
    let settings = Settings { path: Some(path.clone()), ..Settings::default() };
    let _server = OpenAiServer::with(settings, Box::new(|_: &Asked<'_>| Behaviour::default())).unwrap();
    let mut clock = Monotonic::start();
    let mut target = client_at(Address::Unix(path), manner(Api::Chat), SOON, clock);
    assert!(driven(&mut target, &mut clock, 2, 10).iter().all(RequestRecord::completed));
}

#[test]
fn usage_that_counts_otherwise_is_told_and_believed() {
    let record = one(Behaviour { usage: Usage::Wrong, ..Behaviour::default() });
    let count = record.token_count.unwrap();
    assert!(count.disagrees());
    assert_eq!((record.output_tokens, count.events), (15, 8));
    let absent = one(Behaviour { usage: Usage::Absent, ..Behaviour::default() });
    assert_eq!((absent.output_tokens, absent.token_count.unwrap().output_by_usage), (8, None));
}
