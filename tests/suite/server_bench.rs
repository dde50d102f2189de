//! `bench --target URL` through the program: what stands in the way is said with a remedy, and what was measured is kept.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plimsoll::http::client::Client;
use plimsoll::record::run::{RunRecord, RunStatus};
use plimsoll::record::server::TokenSource;
use plimsoll::record::verdict::Invalid;
use plimsoll::store::runs::{RunStore, load};
use plimsoll::target::openai::ready::{NotReady, Patience, served};

use crate::support::openai::OpenAiServer;
use crate::support::openai::script::{Behaviour, Flavour};
use crate::support::{plimsoll, stderr};

fn bench(url: &str, data: &Path, more: &[&str]) -> Command {
    let mut command = plimsoll();
    command.args(["bench", "--target", url, "--seed", "7", "--workload", "fixed:24:8", "--format", "json", "--data-dir"]).arg(data);
    command.env("PLIMSOLL_LOCK_DIR", data).args(more);
    command
}

fn saved(data: &Path) -> RunRecord {
    load(&RunStore::at(data).find("latest").expect("a run was begun")).unwrap()
}

fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "`{word}` is not in: {said}");
    }
}

#[test]
fn a_server_that_is_not_there_is_tried_three_times_and_named() {
    let data = tempfile::tempdir().unwrap();
    let server = OpenAiServer::start(|_| Behaviour::default());
    let url = server.url();
    server.stop();
    let output = bench(&url, data.path(), &[]).output().unwrap();
    refused(&output, 69, &[&url, "refused", "tried 3 times", "--wait-ready"]);
    assert!(RunStore::at(data.path()).find("latest").is_err(), "nothing was measured, so there is no run");
}

#[test]
fn a_server_that_comes_up_is_waited_for() {
    let data = tempfile::tempdir().unwrap();
    let server = OpenAiServer::start(|_| Behaviour::default());
    server.refuse();
    let url = server.url();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(2500));
            server.listen_again();
        });
        let output = bench(&url, data.path(), &["--wait-ready", "30s", "--quick", "--budget", "4s"]).output().unwrap();
        assert!([0, 4, 5].contains(&output.status.code().unwrap()), "{}", stderr(&output));
    });
}

#[test]
fn a_model_that_is_named_needs_no_list_of_models_from_a_server_in_good_health() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, mut asked) = (stream.unwrap(), [0; 1024]);
            let length = stream.read(&mut asked).unwrap();
            let status = if asked[..length].starts_with(b"GET /health ") { 200 } else { 500 };
            let _ = write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
    let client = Client { endpoint, tls: None, http2: false, headers: Vec::new(), timeout: Duration::from_secs(5) };
    let patience = Patience { loading: Duration::ZERO, absent: Duration::ZERO };
    let served = |model| served(&client, model, patience, &mut |_, _| {}, &|| false);
    assert_eq!(served(Some("mine")).unwrap().model, "mine");
    // Without a name nobody knows what to ask for.
    assert!(matches!(served(None), Err(NotReady::StillLoading { .. })));
}

#[test]
fn the_name_of_a_servers_model_is_no_folder_that_is_called_the_same() {
    let data = tempfile::tempdir().unwrap();
    std::fs::create_dir(data.path().join("fake")).unwrap();
    let server = OpenAiServer::start(|_| Behaviour::default());
    let mut command = bench(&server.url(), data.path(), &["--model", "fake", "--quick", "--budget", "4s"]);
    let output = command.current_dir(data.path()).output().unwrap();
    assert!([0, 4, 5].contains(&output.status.code().unwrap()), "{}", stderr(&output));
    assert_eq!(saved(data.path()).target.model, "fake");
}

#[test]
fn what_a_server_refuses_is_said_in_its_words() {
    let data = tempfile::tempdir().unwrap();
    let locked = OpenAiServer::start(|_| Behaviour::refusal(401, None));
    refused(&bench(&locked.url(), data.path(), &[]).output().unwrap(), 69, &["401", "--api-key-file"]);
    let broken = OpenAiServer::start(|_| Behaviour::refusal(500, None));
    refused(&bench(&broken.url(), data.path(), &[]).output().unwrap(), 69, &["no stream of tokens", "500"]);
    let server = OpenAiServer::start(|_| Behaviour::default());
    refused(&bench(&server.url(), data.path(), &["--model", "other"]).output().unwrap(), 69, &["does not serve `other`", "`fake`"]);
    refused(&bench("http://", data.path(), &[]).output().unwrap(), 2, &["names no server"]);
    refused(&bench("nonsense", data.path(), &[]).output().unwrap(), 2, &["http://127.0.0.1:8000"]);
    refused(&bench(&server.url(), data.path(), &["--extra-body", "{\"stream\":false}"]).output().unwrap(), 2, &["decided by the workload"]);
    refused(&bench(&server.url(), data.path(), &["--header", "bad"]).output().unwrap(), 2, &["Name: value"]);
}

#[test]
fn too_few_descriptors_are_said_before_load_is_sent() {
    let data = tempfile::tempdir().unwrap();
    let server = OpenAiServer::start(|_| Behaviour::default());
    let inner = bench(&server.url(), data.path(), &["--in-flight-cap", "4000"]);
    let mut command = Command::new("sh");
    command.arg("-c").arg("ulimit -Sn 500 && ulimit -Hn 1000 && exec \"$@\"").arg("sh").arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    refused(&command.output().unwrap(), 69, &["4000 requests at once", "1000", "ulimit -Hn"]);
    assert!(server.stop().requests.is_empty());
}

#[test]
fn a_run_says_what_was_measured_and_how_its_tokens_were_counted() {
    for (flavour, source) in [(Flavour::Vllm, TokenSource::RunningUsage), (Flavour::LlamaCppPython, TokenSource::Events)] {
        let data = tempfile::tempdir().unwrap();
        let behaviour = Behaviour { ttft: Duration::from_millis(3), ..Behaviour::like(flavour) };
        let server = OpenAiServer::start(move |_| behaviour.clone());
        let output = bench(&server.url(), data.path(), &["--quick", "--budget", "5s", "--gpus", "2"]).output().unwrap();
        assert!([0, 4, 5].contains(&output.status.code().unwrap()), "{}", stderr(&output));
        let run = saved(data.path());
        assert_eq!((run.target.kind.as_str(), run.target.devices, run.target.model.as_str()), ("server", 2, "fake"));
        if source == TokenSource::RunningUsage {
            assert_eq!(run.target.batch.kv_tokens, Some(4096 * 16), "by its own metrics, in blocks of 16");
        }
        let known = run.server.expect("a server is recorded");
        assert_eq!((known.token_source, known.api.as_str(), known.length_forced), (source, "/v1/completions", Some(true)));
        assert_eq!(known.max_context, Some(8192));
        let level = &run.levels[0];
        let counts = level.token_counts.expect("answers came over a wire");
        assert!(counts.answers > 0 && counts.tokens > 0);
        assert_eq!(counts.with_usage > 0, source != TokenSource::Events);
        assert_eq!((counts.disagreeing, counts.prompts_off), (0, 0));
        assert_eq!(run.findings.iter().any(|finding| finding.code == "tokens_by_events"), source == TokenSource::Events);
    }
}

#[test]
fn answers_shorter_than_asked_make_levels_invalid_unless_that_is_wanted() {
    let behaviour = Behaviour { tokens: Some(5), ttft: Duration::from_millis(3), ..Behaviour::default() };
    for natural in [false, true] {
        let data = tempfile::tempdir().unwrap();
        let behaviour = behaviour.clone();
        let server = OpenAiServer::start(move |_| behaviour.clone());
        let more: &[&str] = if natural { &["--natural-length"] } else { &[] };
        let output = bench(&server.url(), data.path(), &[&["--quick", "--budget", "4s"], more].concat()).output().unwrap();
        let run = saved(data.path());
        let off =
            run.levels.iter().any(|level| level.verdict.invalid.iter().any(|invalid| matches!(invalid, Invalid::OutputLength { .. })));
        assert_eq!(off, !natural, "{}", stderr(&output));
        assert_eq!(run.findings.iter().any(|finding| finding.code == "short_output"), !natural);
        assert_eq!(run.labels.iter().any(|label| label.contains("the model ends them")), natural, "{:?}", run.labels);
    }
}

#[test]
fn a_server_that_dies_in_the_middle_ends_the_run_with_what_was_measured() {
    let data = tempfile::tempdir().unwrap();
    let asked = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&asked);
    let server = OpenAiServer::start(move |_| {
        counter.fetch_add(1, Ordering::Relaxed);
        Behaviour { ttft: Duration::from_millis(3), ..Behaviour::default() }
    });
    let mut child = bench(&server.url(), data.path(), &["--quick"]).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    // The reference is one request at a time: by so many it is over.
    while asked.load(Ordering::Relaxed) < 2500 {
        std::thread::sleep(Duration::from_millis(20));
        assert!(child.try_wait().unwrap().is_none(), "it ended before the server did");
    }
    server.crash();
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(69), "{said}");
    assert!(said.contains("the server went away"), "{said}");
    let run = saved(data.path());
    assert_eq!(run.status, RunStatus::Aborted);
    assert!(!run.levels.is_empty(), "what was measured is kept");
    assert!(
        run.levels.iter().all(|level| level.counts.completed > 0 || level.throughput.calls_per_s == 0.0),
        "no zero is called throughput"
    );
}

#[test]
fn a_starved_generator_is_called_saturated_and_never_a_knee() {
    let data = tempfile::tempdir().unwrap();
    let server =
        OpenAiServer::start(|_| Behaviour { ttft: Duration::from_millis(2), gap: Duration::from_millis(1), ..Behaviour::default() });
    // Nine others want the generator's core, so it has a tenth of it.
    let core = "0";
    let mut others: Vec<_> =
        (0..9).map(|_| Command::new("taskset").args(["-c", core, "sh", "-c", "while :; do :; done"]).spawn().unwrap()).collect();
    let inner = bench(&server.url(), data.path(), &["--quick", "--budget", "6s"]);
    let mut command = Command::new("taskset");
    command.args(["-c", core]).arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    for other in &mut others {
        other.kill().unwrap();
        other.wait().unwrap();
    }
    // Where the first levels still came out well the budget is over before anything is decided: no number either.
    assert!([Some(4), Some(5)].contains(&output.status.code()), "{}", stderr(&output));
    let run = saved(data.path());
    let saturated =
        |invalid: &Invalid| matches!(invalid, Invalid::GeneratorSaturated { .. } | Invalid::SendLag { .. } | Invalid::Paused { .. });
    assert!(
        run.levels.iter().any(|level| level.verdict.invalid.iter().any(|invalid| matches!(invalid, Invalid::GeneratorSaturated { .. })))
    );
    assert!(run.levels.iter().filter(|level| !level.verdict.is_valid()).all(|level| level.verdict.invalid.iter().any(saturated)));
    assert!(run.headline.is_none_or(|headline| headline.throughput_per_gpu.is_none()));
}
