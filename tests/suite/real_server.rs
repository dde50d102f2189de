//! A server that nobody here wrote, llama.cpp's: found out, asked, measured and reported by the program as a user runs it.
//!
//! `.ci/llama-server` brings it to `target/xllamacpp` (or `PLIMSOLL_XLLAMACPP` names its folder). Where it is not there the tests
//! say so, and fail in CI.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use plimsoll::record::run::RunRecord;
use plimsoll::record::server::TokenSource;
use plimsoll::store::runs::{RunStore, load};

use crate::support::{plimsoll, stderr};

/// Starts it on a port, with a model of 2.8 MB and four slots; prints its address when it listens.
const START: &str = "
import sys, time, xllamacpp as x
p = x.CommonParams()
p.model.path = sys.argv[1]
p.port = int(sys.argv[2])
p.n_ctx = 2048
p.n_parallel = 4
s = x.Server(p)
print(s.listening_address, flush=True)
time.sleep(600)
";

struct LlamaServer {
    child: Child,
    url: String,
}

impl Drop for LlamaServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// `None`, said aloud, where it is not there.
fn start() -> Option<LlamaServer> {
    let folder = std::env::var_os("PLIMSOLL_XLLAMACPP").map_or_else(|| root().join("target/xllamacpp"), PathBuf::from);
    if !folder.join("xllamacpp").is_dir() {
        assert!(std::env::var_os("CI").is_none(), "no server at {}: run .ci/llama-server", folder.display());
        println!("skipped: no server at {} (.ci/llama-server brings it)", folder.display());
        return None;
    }
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let model = root().join("tests/fixtures/models/llama-untied.gguf");
    let mut command = Command::new("python3");
    command.args(["-c", START]).arg(model).arg(port.to_string()).env("PYTHONPATH", folder);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.trim().is_empty(), "the server did not start");
    Some(LlamaServer { child, url: format!("http://127.0.0.1:{port}") })
}

/// A run whose first level has answers enough to judge: with more time, where the machine is busy with other things.
fn measured(server: &LlamaServer, more: &[&str]) -> RunRecord {
    let budgets = ["8s", "30s", "120s"];
    budgets.iter().map(|budget| measured_within(budget, server, more)).find(answered).expect("answers in two minutes")
}

fn answered(run: &RunRecord) -> bool {
    run.levels.first().and_then(|level| level.token_counts).is_some_and(|counts| counts.answers >= 3)
}

fn measured_within(budget: &str, server: &LlamaServer, more: &[&str]) -> RunRecord {
    let data = tempfile::tempdir().unwrap();
    let mut command = plimsoll();
    command.args(["bench", "--target", &server.url, "--quick", "--budget", budget, "--workload", "fixed:24:8", "--seed", "5"]);
    command.arg("--data-dir").arg(data.path()).env("PLIMSOLL_LOCK_DIR", data.path());
    let output = command.args(more).output().unwrap();
    // A server that has little of a busy machine may be found too slow for its objectives (3).
    assert!([0, 3, 4, 5].contains(&output.status.code().unwrap()), "{}", stderr(&output));
    load(&RunStore::at(data.path()).find("latest").unwrap()).unwrap()
}

#[test]
fn llama_cpp_is_measured_with_ids_exact_lengths_and_its_own_usage() {
    let Some(server) = start() else { return };
    let run = measured(&server, &[]);
    let known = run.server.expect("a server is recorded");
    assert_eq!(known.name.as_deref(), Some("llama.cpp"));
    assert_eq!((known.api.as_str(), known.prompts.as_str()), ("/v1/completions", "token ids"));
    assert_eq!((known.token_source, known.length_forced), (TokenSource::FinalUsage, Some(true)));
    assert_eq!(known.repeat_probe.and_then(|probe| probe.caches()), Some(true), "{:?}", known.repeat_probe);
    let level = &run.levels[0];
    let counts = level.token_counts.expect("answers came over a wire");
    assert!(counts.with_usage == counts.answers, "{counts:?}");
    assert_eq!(level.counts.completed, level.counts.cohort, "{:?}", level.counts);
    assert_eq!(counts.tokens, counts.answers * 8, "every answer has its length");
    assert_eq!(counts.prompts_off, 0, "every prompt has its length");
}

#[test]
fn llama_cpp_is_measured_over_chat_with_prompts_as_words() {
    let Some(server) = start() else { return };
    let run = measured(&server, &["--api", "chat"]);
    let known = run.server.expect("a server is recorded");
    assert_eq!(known.api, "/v1/chat/completions");
    assert!(known.prompts.starts_with("words"), "{}", known.prompts);
    let counts = run.levels[0].token_counts.expect("answers came over a wire");
    assert!(counts.with_usage == counts.answers, "{counts:?}");
    assert_eq!(run.levels[0].counts.completed, run.levels[0].counts.cohort);
}
