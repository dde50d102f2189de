//! A server that speaks HTTP/2 alone is waited for, asked, measured and recorded over it from the first byte to the last, and one
//! that does not speak it is refused with a remedy.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::Ordering;
use std::time::Duration;

use plimsoll::http::client::{Client, ExchangeError};
use plimsoll::http::endpoint::Address;
use plimsoll::http::tls::{self, Trust};
use plimsoll::record::run::RunRecord;
use plimsoll::record::server::TokenSource;
use plimsoll::store::runs::{RunStore, load};
use plimsoll::target::openai::ask::PromptForm;
use plimsoll::target::openai::discover::{DiscoverError, Wish, discover};
use plimsoll::target::openai::ready::{self, NotReady, Patience};

use crate::support::h2_server::{Fault, H2Server, Script, closes_at_once, http1_only};
use crate::support::openai::OpenAiServer;
use crate::support::openai::script::Behaviour;
use crate::support::tls::{Manner, TlsRelay};
use crate::support::{plimsoll, stderr, stdout};

const NO_PATIENCE: Patience = Patience { loading: Duration::ZERO, absent: Duration::ZERO };

fn bench(url: &str, data: &Path, more: &[&str]) -> Output {
    let mut command = plimsoll();
    command.args(["bench", "--target", url, "--http2", "--quick", "--seed", "5", "--workload", "fixed:24:8", "--data-dir"]).arg(data);
    command.env("PLIMSOLL_LOCK_DIR", data).args(more).output().unwrap()
}

/// A run with answers enough to judge, and what it printed: with more time, where the machine is busy with other things.
fn measured(url: &str) -> (RunRecord, String) {
    let within = |budget: &str| {
        let data = tempfile::tempdir().unwrap();
        let output = bench(url, data.path(), &["--budget", budget]);
        assert!([0, 3, 4, 5].contains(&output.status.code().unwrap()), "{}", stderr(&output));
        let said = stdout(&output).split_whitespace().collect::<Vec<_>>().join(" ");
        (load(&RunStore::at(data.path()).find("latest").unwrap()).unwrap(), said)
    };
    ["6s", "30s", "120s"].into_iter().map(within).find(|(run, _)| answered(run)).expect("answers in two minutes")
}

fn answered(run: &RunRecord) -> bool {
    let enough = run.levels.first().and_then(|level| level.token_counts).is_some_and(|counts| counts.answers >= 3);
    enough && run.generator_ceiling.is_some()
}

fn client(url: &str, protocols: &[&str]) -> Client {
    let endpoint: plimsoll::http::endpoint::Endpoint = url.parse().unwrap();
    let tls = endpoint.tls.then(|| tls::config(&Trust::Anybody, protocols).unwrap());
    Client { endpoint, tls, headers: vec![("X-Tenant".to_owned(), "blue".to_owned())], timeout: Duration::from_secs(20), http2: true }
}

fn plain(addr: SocketAddr) -> Client {
    client(&format!("http://{addr}"), &[])
}

#[test]
fn a_whole_run_goes_over_http2() {
    let server = H2Server::start(Script { ttft: Duration::from_millis(4), gap: Duration::from_millis(1), ..Script::default() });
    let (run, said) = measured(&format!("http://{}", server.addr));
    let known = run.server.expect("a server is recorded");
    assert_eq!(known.protocol.as_deref(), Some("HTTP/2"));
    assert_eq!((known.api.as_str(), known.prompts.as_str()), ("/v1/completions", "token ids"));
    assert_eq!((known.token_source, known.length_forced), (TokenSource::FinalUsage, Some(true)));
    assert_eq!(known.max_context, Some(8192));
    assert!(run.generator_ceiling.is_some_and(|ceiling| ceiling > 0.0), "the generator is measured over HTTP/2 too");
    assert!(said.contains("/v1/completions over HTTP/2") && said.contains("calls/s over HTTP/2"), "{said}");
    let level = &run.levels[0];
    let counts = level.token_counts.expect("answers came over a wire");
    assert_eq!(level.counts.completed, level.counts.cohort, "{:?}", level.counts);
    assert_eq!((counts.with_usage, counts.disagreeing), (counts.answers, 0), "{counts:?}");
    assert_eq!(counts.tokens, counts.answers * 8, "every answer has its length");
    assert_eq!(counts.prompts_off, 0, "every prompt has its length");
}

#[test]
fn readiness_and_discovery_go_over_http2_encrypted_or_not() {
    let server = H2Server::start(Script::default());
    let relay = TlsRelay::before(server.addr, Manner { protocols: vec!["h2"], ..Manner::default() });
    let encrypted = format!("https://localhost:{}", relay.addr.port());
    for (client, addr) in [(plain(server.addr), server.addr), (client(&encrypted, &["h2"]), relay.addr)] {
        let served = ready::served(&client, None, NO_PATIENCE, &mut |_, _| {}, &|| false).unwrap();
        assert_eq!((served.model.as_str(), served.max_context), ("scripted", Some(8192)));
        let found = discover(&client, &Address::Tcp(addr), &served, &Wish::default(), 3).unwrap();
        assert_eq!(found.manner.prompt, PromptForm::Ids(20_000));
        assert_eq!((found.token_source, found.length_forced), (TokenSource::FinalUsage, Some(true)));
        assert_eq!(ready::reset_cache(&client, None), None);
        assert_eq!(client.get("/nowhere").unwrap().head.status, 404);
    }
    assert!(server.seen.requests.load(Ordering::Relaxed) > 10);
}

#[test]
fn what_a_server_refuses_over_http2_is_said_in_its_words() {
    let server = H2Server::start(Script { fault: Some((1, Fault::Status(500))), ..Script::default() });
    let client = plain(server.addr);
    let served = ready::served(&client, None, NO_PATIENCE, &mut |_, _| {}, &|| false).unwrap();
    let refusal = discover(&client, &Address::Tcp(server.addr), &served, &Wish::default(), 3).unwrap_err();
    assert!(matches!(&refusal, DiscoverError::NoStream { reasons, .. } if reasons.contains("500: too many")), "{refusal}");
    let locked = H2Server::start(Script { fault: Some((1, Fault::Status(401))), ..Script::default() });
    let refusal = discover(&plain(locked.addr), &Address::Tcp(locked.addr), &served, &Wish::default(), 3).unwrap_err();
    assert!(matches!(refusal, DiscoverError::Unauthorised { .. }), "{refusal}");
}

#[test]
fn a_server_that_speaks_something_else_is_told_from_one_that_says_nothing() {
    let refusal = plain(http1_only()).get("/v1/models").unwrap_err();
    assert!(matches!(refusal, ExchangeError::NoHttp2 { .. }), "{refusal:?}");
    let silent = plain(closes_at_once());
    let refusal = silent.get("/v1/models").unwrap_err();
    assert!(matches!(refusal, ExchangeError::Broken { .. }), "it may be there in a moment: {refusal:?}");
    let refusal = ready::served(&silent, None, NO_PATIENCE, &mut |_, _| {}, &|| false).unwrap_err();
    assert!(matches!(refusal, NotReady::Unreachable { tries: 3, .. }), "{refusal:?}");
    assert!(refusal.to_string().contains("leave `--http2` out"), "{refusal}");
    let server = H2Server::start(Script::default());
    for protocols in [vec!["http/1.1"], Vec::new()] {
        let relay = TlsRelay::before(server.addr, Manner { protocols: protocols.clone(), ..Manner::default() });
        let refusal = client(&format!("https://localhost:{}", relay.addr.port()), &["h2"]).get("/v1/models").unwrap_err();
        assert!(matches!(refusal, ExchangeError::NoHttp2 { .. }), "{protocols:?}: {refusal:?}");
    }
    assert_eq!(server.seen.requests.load(Ordering::Relaxed), 0);
}

#[test]
fn bench_over_http2_refuses_a_server_that_does_not_speak_it() {
    let server = OpenAiServer::start(|_| Behaviour::default());
    let data = tempfile::tempdir().unwrap();
    let output = bench(&server.url(), data.path(), &[]);
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    let said = stderr(&output).to_lowercase();
    assert!(said.contains("does not speak http/2") && said.contains("leave `--http2` out"), "{said}");
    assert!(RunStore::at(data.path()).find("latest").is_err(), "nothing was measured, so there is no run");
}
