//! A server over HTTP/2 is measured as one over HTTP/1.1: the same events, the same names for faults, nobody held up by windows.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use h2::Reason;
use plimsoll::clock::{Monotonic, Nanos};
use plimsoll::http::endpoint::Address;
use plimsoll::http::tls::{self, Trust};
use plimsoll::load::arrivals::Arrivals;
use plimsoll::load::stop::AfterRequests;
use plimsoll::load::{Chunks, Manner as DriveManner, drive};
use plimsoll::record::request::{Ending, FailureKind, RequestRecord};
use plimsoll::target::Target;
use plimsoll::target::openai::Server;
use plimsoll::target::openai::ask::{Api, PromptForm};
use plimsoll::target::openai::http2;

use crate::openai_target::{Alike, SOON, closed, driven, manner, server_at};
use crate::support::h2_server::{Fault, H2Server, Script};
use crate::support::tls::{Manner, TlsRelay};

fn asked(addr: std::net::SocketAddr) -> Server {
    server_at(&format!("http://{addr}"), Address::Tcp(addr), manner(Api::Completions), SOON)
}

fn against(server: &H2Server, concurrency: u32, count: usize) -> Vec<RequestRecord> {
    let mut clock = Monotonic::start();
    let mut target = http2::start(&Arc::new(asked(server.addr)), clock).unwrap();
    driven(&mut target, &mut clock, concurrency, count)
}

#[test]
fn many_streams_share_one_connection_and_stamps_are_in_order() {
    let server = H2Server::start(Script { ttft: Duration::from_millis(20), gap: Duration::from_millis(3), ..Script::default() });
    let records = against(&server, 32, 128);
    for record in &records {
        assert!(record.completed(), "{:?}", record.ending);
        assert_eq!(record.output_tokens, record.requested_tokens);
        assert_eq!(record.token_count.unwrap().output_by_usage, Some(record.requested_tokens));
        let (sent, byte, first) = (record.sent.unwrap(), record.first_byte.unwrap(), record.first_token.unwrap());
        assert!(sent <= byte && byte <= first && first <= record.last_token.unwrap() && record.last_token.unwrap() <= record.end);
        assert!(record.ttft().unwrap() >= Nanos::from_millis(19));
    }
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 1);
    assert_eq!(server.seen.most_at_once.load(Ordering::Relaxed), 32);
    let body = server.seen.bodies.lock().unwrap()[0].clone();
    assert!(body.contains("\"ignore_eos\":true") && body.contains("\"stream\":true"), "{body}");
}

#[test]
fn as_many_connections_are_made_as_the_server_asks_for() {
    let server = H2Server::start(Script { ttft: Duration::from_millis(30), most_streams: Some(10), ..Script::default() });
    assert!(against(&server, 32, 96).iter().all(RequestRecord::completed));
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 4);
    assert_eq!(server.seen.most_at_once.load(Ordering::Relaxed), 32);
}

#[test]
fn flow_control_holds_nobody_up() {
    // A megabyte an answer, 16 at once: windows as they are by default would be empty after 64 KiB.
    let server = H2Server::start(Script { letters: 128 << 10, ..Script::default() });
    let records = against(&server, 16, 48);
    assert!(records.iter().all(|record| record.completed() && record.output_tokens == record.requested_tokens));
}

#[test]
fn a_request_of_a_megabyte_is_sent_whole() {
    let server = H2Server::start(Script::default());
    let mut clock = Monotonic::start();
    let mut large = asked(server.addr);
    large.manner.prompt = PromptForm::Ids(100_000);
    large.limits.first_token = Nanos::from_secs(10);
    let mut target = http2::start(&Arc::new(large), clock).unwrap();
    let mut stop = AfterRequests { count: 4, ..AfterRequests::default() };
    let mut what = Alike { next: 0, prompt: 180_000, tokens: 8 };
    drive(Arrivals { when: closed(2), what: &mut what }, DriveManner::default(), &mut stop, &mut target, &mut clock);
    assert!(stop.records[..4].iter().all(RequestRecord::completed), "{:?}", stop.records[0].ending);
    assert!(server.seen.bodies.lock().unwrap().iter().all(|body| body.len() > 1_000_000));
}

/// How the one request ends that meets such a fault.
fn failed(fault: Fault) -> RequestRecord {
    let server = H2Server::start(Script { gap: Duration::from_millis(1), fault: Some((1, fault)), ..Script::default() });
    against(&server, 1, 1).remove(0)
}

#[test]
fn faults_of_a_stream_have_the_names_they_have_elsewhere() {
    let kind = |fault| match failed(fault).ending {
        Ending::Failed(kind) => kind,
        other => panic!("{fault:?} ended as {other:?}"),
    };
    assert_eq!(kind(Fault::Reset(Reason::CANCEL, 4)), FailureKind::ConnectionLost);
    assert_eq!(kind(Fault::Reset(Reason::INTERNAL_ERROR, 4)), FailureKind::TargetError);
    assert_eq!(kind(Fault::Reset(Reason::REFUSED_STREAM, 0)), FailureKind::Refused);
    assert_eq!(kind(Fault::Reset(Reason::ENHANCE_YOUR_CALM, 0)), FailureKind::Refused);
    assert_eq!(kind(Fault::Silence), FailureKind::FirstTokenTimeout);
    assert_eq!(kind(Fault::Stall(4)), FailureKind::TokenGapTimeout);
    assert_eq!(kind(Fault::Cut(4)), FailureKind::Truncated);
    assert_eq!(kind(Fault::Status(429)), FailureKind::Refused);
    assert_eq!(kind(Fault::Status(500)), FailureKind::TargetError);
    assert_eq!(kind(Fault::Close), FailureKind::ConnectionLost);
    assert_eq!(failed(Fault::Status(429)).retry_after, Some(Nanos::from_secs(2)));
    assert_eq!(failed(Fault::Reset(Reason::CANCEL, 4)).output_tokens, 4, "tokens before a fault are kept apart");
}

#[test]
fn a_fault_of_one_stream_leaves_the_others_alone() {
    let script = Script { gap: Duration::from_millis(2), fault: Some((8, Fault::Reset(Reason::CANCEL, 2))), ..Script::default() };
    let server = H2Server::start(script);
    let records = against(&server, 16, 160);
    let lost = records.iter().filter(|record| record.ending == Ending::Failed(FailureKind::ConnectionLost)).count();
    assert!(records.iter().all(|record| record.completed() || record.ending == Ending::Failed(FailureKind::ConnectionLost)));
    assert!((records.len() / 8).abs_diff(lost) <= 3, "{lost} of {}", records.len());
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 1);
}

#[test]
fn a_goodbye_of_the_server_costs_no_request() {
    let server = H2Server::start(Script { gap: Duration::from_millis(2), goodbye_after: Some(20), ..Script::default() });
    let records = against(&server, 8, 120);
    let endings: Vec<_> = records.iter().filter(|record| !record.completed()).map(|record| record.ending).collect();
    assert!(endings.is_empty(), "{endings:?}");
    assert!(server.seen.connections.load(Ordering::Relaxed) >= 5);
}

#[test]
fn a_cancelled_request_is_reset_and_its_connection_lives() {
    let server = H2Server::start(Script { gap: Duration::from_millis(60), ..Script::default() });
    let mut clock = Monotonic::start();
    let mut target = http2::start(&Arc::new(asked(server.addr)), clock).unwrap();
    let mut stop = AfterRequests { count: 4, ..AfterRequests::default() };
    let mut what = Alike { next: 0, prompt: 20, tokens: 8 };
    let manner = DriveManner { timeout: Nanos::from_millis(50), chunks: Chunks::Count };
    let driven = drive(Arrivals { when: closed(2), what: &mut what }, manner, &mut stop, &mut target, &mut clock);
    assert!(stop.records.iter().all(|record| !record.completed()), "{:?}", stop.records);
    assert_eq!(driven.not_let_go, 0);
    std::thread::sleep(Duration::from_millis(150));
    assert!(server.seen.resets.load(Ordering::Relaxed) >= 4);
    assert_eq!(server.seen.connections.load(Ordering::Relaxed), 1);
}

#[test]
fn a_server_that_goes_away_is_unreachable_and_the_target_is_gone() {
    let server = H2Server::start(Script::default());
    let mut clock = Monotonic::start();
    let mut target = http2::start(&Arc::new(asked(server.addr)), clock).unwrap();
    assert!(driven(&mut target, &mut clock, 4, 20).iter().all(RequestRecord::completed));
    drop(server);
    let records = driven(&mut target, &mut clock, 4, 12);
    assert!(records.iter().all(|record| !record.completed()));
    assert!(records.iter().any(|record| record.ending == Ending::Failed(FailureKind::Unreachable)));
    std::thread::sleep(Duration::from_millis(50));
    assert!(!target.is_alive());
}

#[test]
fn it_is_chosen_inside_the_encryption_too() {
    let server = H2Server::start(Script { gap: Duration::from_millis(1), ..Script::default() });
    let relay = TlsRelay::before(server.addr, Manner { protocols: vec!["h2"], records: vec![1, 700, 9], ..Manner::default() });
    let mut clock = Monotonic::start();
    let endpoint = format!("https://localhost:{}", relay.addr.port());
    let tls = Some(tls::config(&Trust::Anybody, &["h2"]).unwrap());
    let encrypted = Server { tls, ..server_at(&endpoint, Address::Tcp(relay.addr), manner(Api::Completions), SOON) };
    let mut target = http2::start(&Arc::new(encrypted), clock).unwrap();
    let records = driven(&mut target, &mut clock, 8, 40);
    assert!(records.iter().all(RequestRecord::completed), "{:?}", records[0].ending);
}
