//! A server behind TLS is measured as one without it, and one that nobody vouches for is not measured at all.

use std::sync::Arc;
use std::time::Duration;

use plimsoll::clock::{Clock, Monotonic, Nanos};
use plimsoll::http::endpoint::Address;
use plimsoll::http::tls::{self, Trust};
use plimsoll::load::arrivals::Arrivals;
use plimsoll::load::stop::AfterRequests;
use plimsoll::load::{Manner as DriveManner, drive};
use plimsoll::record::request::{Ending, FailureKind, RequestRecord};
use plimsoll::target::openai::Server;
use plimsoll::target::openai::ask::{Api, PromptForm};
use plimsoll::target::openai::reactor::OpenAi;

use crate::openai_target::{Alike, SOON, closed, driven, manner, server_at};
use crate::support::openai::OpenAiServer;
use crate::support::openai::script::{Behaviour, Framing};
use crate::support::tls::{Manner, TlsRelay};
use crate::support::{plimsoll, stderr};

fn trusting(relay: &TlsRelay) -> Trust {
    let file = tempfile::Builder::new().suffix(".pem").tempfile().unwrap();
    std::fs::write(file.path(), &relay.identity.pem).unwrap();
    Trust::File(file.keep().unwrap().1)
}

fn server_behind(relay: &TlsRelay, trust: &Trust, api: Api) -> Server {
    let endpoint = format!("https://localhost:{}", relay.addr.port());
    let tls = Some(tls::config(trust, &["http/1.1"]).unwrap());
    Server { tls, ..server_at(&endpoint, Address::Tcp(relay.addr), manner(api), SOON) }
}

fn through(relay: &TlsRelay, trust: &Trust, count: usize) -> (Vec<RequestRecord>, OpenAi) {
    let mut clock = Monotonic::start();
    let mut target = OpenAi::new(Arc::new(server_behind(relay, trust, Api::Chat)), clock).unwrap();
    let records = driven(&mut target, &mut clock, 3, count);
    (records, target)
}

#[test]
fn encrypted_streams_are_read_wherever_records_and_frames_are_cut() {
    let shapes = [
        (Manner::default(), Behaviour::default()),
        (Manner { records: vec![1], ..Manner::default() }, Behaviour::default()),
        (Manner { records: vec![7, 300, 2], ..Manner::default() }, Behaviour { split: vec![5, 90], ..Behaviour::default() }),
        // One record each for the last event and for what ends the body: both may come in one read of the socket.
        (Manner { records: vec![900, 3], ..Manner::default() }, Behaviour { gap: Duration::from_millis(2), ..Behaviour::default() }),
    ];
    for (relayed, behaviour) in shapes {
        let shape = behaviour.clone();
        let server = OpenAiServer::start(move |_| shape.clone());
        let relay = TlsRelay::before(server.addr, relayed.clone());
        let (records, target) = through(&relay, &trusting(&relay), 12);
        for record in &records {
            assert!(record.completed(), "{relayed:?} {behaviour:?}: {:?} {:?}", record.ending, target.failures());
            assert_eq!(record.output_tokens, record.requested_tokens);
        }
        assert_eq!(server.stop().connections, 3, "connections are kept: {relayed:?}");
    }
}

#[test]
fn what_waits_inside_the_encryption_is_not_waited_for_on_the_socket() {
    // Everything comes in one read of the socket, in many records: `[DONE]` ends the request, the rest frees the connection.
    let server = OpenAiServer::start(|_| Behaviour::default());
    let relay = TlsRelay::before(server.addr, Manner { records: vec![40], ..Manner::default() });
    let mut clock = Monotonic::start();
    let mut target = OpenAi::new(Arc::new(server_behind(&relay, &Trust::Anybody, Api::Chat)), clock).unwrap();
    let began = clock.now();
    let records = driven(&mut target, &mut clock, 1, 30);
    assert!(records.iter().all(RequestRecord::completed), "{:?}", target.failures());
    assert!(clock.now().since(began) < Nanos::from_secs(3));
    assert_eq!(server.stop().connections, 1);
}

#[test]
fn a_certificate_is_believed_by_its_authority_or_on_demand_and_otherwise_the_server_is_unreachable() {
    let server = OpenAiServer::start(|_| Behaviour::default());
    let relay = TlsRelay::before(server.addr, Manner::default());
    for trust in [trusting(&relay), Trust::Anybody] {
        let (records, target) = through(&relay, &trust, 6);
        assert!(records.iter().all(RequestRecord::completed), "{trust:?} {:?}", target.failures());
    }
    // What was cancelled at the end may still be on its way through the relay.
    std::thread::sleep(Duration::from_millis(300));
    let before = server.truth().requests.len();
    let (records, target) = through(&relay, &Trust::System, 4);
    assert!(records.iter().all(|record| record.ending == Ending::Failed(FailureKind::Unreachable)), "{records:?}");
    let (_, said) = &target.failures()[&FailureKind::Unreachable];
    assert!(said.contains("--ca-file") && said.contains("--insecure"), "{said}");
    assert_eq!(server.stop().requests.len(), before, "nothing is sent to whom is not believed");
}

#[test]
fn a_server_without_encryption_is_told_as_such() {
    let server = OpenAiServer::start(|_| Behaviour::default());
    let mut clock = Monotonic::start();
    let endpoint = format!("https://localhost:{}", server.addr.port());
    let tls = Some(tls::config(&Trust::Anybody, &["http/1.1"]).unwrap());
    let asked = Server { tls, ..server_at(&endpoint, Address::Tcp(server.addr), manner(Api::Chat), SOON) };
    let mut target = OpenAi::new(Arc::new(asked), clock).unwrap();
    let records = driven(&mut target, &mut clock, 1, 2);
    assert!(records.iter().all(|record| record.ending == Ending::Failed(FailureKind::Unreachable)), "{records:?} {:?}", target.failures());
}

#[test]
fn a_connection_that_ends_without_goodbye_ends_an_answer_that_has_no_other_end() {
    for rude in [false, true] {
        let server = OpenAiServer::start(|_| Behaviour { framing: Framing::UntilClose, ..Behaviour::default() });
        let relay = TlsRelay::before(server.addr, Manner { rude, ..Manner::default() });
        let (records, target) = through(&relay, &Trust::Anybody, 6);
        assert!(records.iter().all(RequestRecord::completed), "rude {rude}: {:?}", target.failures());
    }
}

#[test]
fn a_request_of_a_megabyte_goes_through_a_narrow_window() {
    let server = OpenAiServer::start(|_| Behaviour::default());
    let relay = TlsRelay::before(server.addr, Manner { slow: Some(Duration::from_micros(300)), ..Manner::default() });
    let mut clock = Monotonic::start();
    let mut asked = server_behind(&relay, &Trust::Anybody, Api::Completions);
    asked.manner.prompt = PromptForm::Ids(100_000);
    asked.limits.first_token = Nanos::from_secs(20);
    let mut target = OpenAi::new(Arc::new(asked), clock).unwrap();
    let mut stop = AfterRequests { count: 3, ..AfterRequests::default() };
    let mut what = Alike { next: 0, prompt: 180_000, tokens: 8 };
    drive(Arrivals { when: closed(2), what: &mut what }, DriveManner::default(), &mut stop, &mut target, &mut clock);
    assert!(stop.records[..3].iter().all(RequestRecord::completed), "{:?}", target.failures());
    let truth = server.stop();
    assert!(truth.requests.iter().take(3).all(|request| request.prompt_tokens == 180_000 && request.text.len() > 1_000_000));
}

#[test]
fn bench_refuses_a_server_that_is_not_believed_and_says_how_to_believe_it() {
    let server = OpenAiServer::start(|_| Behaviour::default());
    let relay = TlsRelay::before(server.addr, Manner::default());
    let data = tempfile::tempdir().unwrap();
    let url = format!("https://localhost:{}", relay.addr.port());
    let output = plimsoll().args(["bench", "--quick", "--target", &url, "--data-dir"]).arg(data.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains("UnknownIssuer") && said.contains("--ca-file") && said.contains("--insecure"), "{said}");
}
