//! `bench --target http://...` with an eye on what stands behind the address: its GPUs, its counters, another node's exporter.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll::record::run::RunRecord;
use plimsoll::record::verdict::Invalid;
use plimsoll::store::runs::{RunStore, load};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::fake_nvml::FakeNvml;
use crate::support::openai::OpenAiServer;
use crate::support::openai::script::Behaviour;
use crate::support::{CHILD_FOLDER, child, plimsoll, send, stderr, stdout, wait_for};

const GIB: u64 = 1 << 30;

fn pace() -> Behaviour {
    Behaviour { ttft: Duration::from_millis(4), gap: Duration::from_millis(2), ..Behaviour::default() }
}

/// A quick run against a server at `url`; its data and its locks are in `data`.
fn bench(url: &str, data: &TempDir, more: &[&str]) -> Command {
    let mut command = plimsoll();
    command.args(["bench", "--quick", "--no-request-log", "--seed", "7", "--workload", "fixed:16:8", "--target", url]);
    command.args(more).arg("--data-dir").arg(data.path()).env("PLIMSOLL_LOCK_DIR", data.path());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The run of `command`, stopped once it has saved this many levels; its status code and what it said are checked.
#[track_caller]
fn levels_of(command: &mut Command, data: &TempDir, count: usize, meanwhile: impl FnOnce()) -> RunRecord {
    let child = command.spawn().unwrap();
    let begun = Instant::now();
    let folder = loop {
        match RunStore::at(data.path()).find("latest") {
            Ok(folder) => break folder,
            Err(_) if begun.elapsed() < Duration::from_secs(30) => std::thread::sleep(Duration::from_millis(20)),
            Err(_) => panic!("no run was begun: {}", stderr(&child.wait_with_output().unwrap())),
        }
    };
    wait_for(&folder.join("levels/000.json"));
    meanwhile();
    wait_for(&folder.join(format!("levels/{:03}.json", count - 1)));
    send(&child, Signal::TERM);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    load(&folder).unwrap()
}

/// A server in a process of its own, which ends with this.
struct OwnProcess {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl OwnProcess {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = child("behind_server::a_process_that_serves", folder.path());
        let child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let file = folder.path().join("url");
        wait_for(&file);
        Self { child, url: fs::read_to_string(file).unwrap(), _folder: folder }
    }

    fn on(&self, gpus: &str) -> String {
        gpus.replace("SERVER", &format!("{}:{}", self.child.id(), 60 * GIB))
    }
}

impl Drop for OwnProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "a child process of the tests beside it"]
fn a_process_that_serves() {
    let folder = std::env::var_os(CHILD_FOLDER).expect("its parent says where");
    let server = OpenAiServer::start(|_| pace());
    let half = Path::new(&folder).join("half");
    fs::write(&half, server.url()).unwrap();
    fs::rename(half, Path::new(&folder).join("url")).unwrap();
    // Until the parent is gone.
    let _ = std::io::stdin().read(&mut [0]);
}

fn with_nvml<'a>(command: &'a mut Command, fake: &FakeNvml) -> &'a mut Command {
    command.arg("--nvml").arg(fake.library())
}

#[test]
fn the_gpus_that_the_servers_process_computes_on_are_its_gpus() {
    let server = OwnProcess::start();
    let data = tempfile::tempdir().unwrap();
    let fake = FakeNvml::new(&server.on("gpus 3\n0.processes SERVER\n2.processes SERVER\n1.processes 4242:1073741824"));
    let run = levels_of(with_nvml(&mut bench(&server.url, &data, &[]), &fake), &data, 3, || {
        fake.set("2.processes", server.on("SERVER,77:1048576"));
    });
    assert_eq!((run.target.devices, run.target.device.starts_with("2 GPUs at http://")), (2, true), "{:?}", run.target);
    assert!(!run.target.labels.iter().any(|label| label.contains("not stated")), "{:?}", run.target.labels);
    let process = run.server.as_ref().unwrap().process.as_ref().unwrap();
    assert_eq!(process.pid, server.child.id());
    let uuids =
        |level: usize| run.levels[level].telemetry.measured().unwrap().gpus.iter().map(|gpu| gpu.uuid[..12].to_owned()).collect::<Vec<_>>();
    assert_eq!(uuids(0), ["GPU-000000a0", "GPU-000000a2"], "GPU 1 is somebody else's, and nobody's business here");
    let strangers =
        |level: usize| run.levels[level].verdict.invalid.iter().filter(|reason| matches!(reason, Invalid::ForeignProcess { .. })).count();
    assert_eq!(strangers(0), 0, "the server is no stranger: {}", run.levels[0].verdict);
    let foreign = |reason: &Invalid| matches!(reason, Invalid::ForeignProcess { process, .. } if process.pid == 77);
    assert!(run.levels[2].verdict.invalid.iter().any(foreign), "{}", run.levels[2].verdict);
}

#[test]
fn somebody_else_on_the_servers_gpu_at_the_start_is_refused() {
    let server = OwnProcess::start();
    let data = tempfile::tempdir().unwrap();
    let fake = FakeNvml::new(&server.on("processes SERVER,4242:1073741824\nprocess_name.4242 python3"));
    let refused = with_nvml(&mut bench(&server.url, &data, &[]), &fake).output().unwrap();
    assert_eq!(refused.status.code(), Some(75), "{}", stderr(&refused));
    let said = stderr(&refused);
    assert!(said.contains("process 4242 (python3), 1.0 GiB") && !said.contains(&format!("process {} ", server.child.id())), "{said}");
    let run = levels_of(with_nvml(&mut bench(&server.url, &data, &["--allow-shared", "--gpus", "4"]), &fake), &data, 2, || {});
    assert!(run.labels.contains(&"GPU shared with process 4242 (python3), 1.0 GiB".to_owned()), "{:?}", run.labels);
    assert_eq!(run.target.devices, 4, "what was said counts");
}

#[test]
fn a_number_of_gpus_that_nvml_contradicts_is_a_finding() {
    let server = OwnProcess::start();
    let data = tempfile::tempdir().unwrap();
    let fake = FakeNvml::new(&server.on("gpus 2\n1.processes SERVER\n1.reasons 0x48"));
    // A GPU that is too hot ends the run after three references.
    let output = with_nvml(&mut bench(&server.url, &data, &["--gpus", "2"]), &fake).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    assert!(stdout(&output).contains("`--gpus 2` was given, and the server's processes compute on 1 GPUs"), "{}", stdout(&output));
}

#[test]
fn where_the_driver_counts_processes_otherwise_the_gpus_that_are_named_are_taken_for_the_servers() {
    let server = OwnProcess::start();
    let data = tempfile::tempdir().unwrap();
    let fake = FakeNvml::new("processes 990001:1073741824");
    let refused = with_nvml(&mut bench(&server.url, &data, &["--watch-gpus", "0"]), &fake).output().unwrap();
    assert_eq!(refused.status.code(), Some(75), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("`--gpus N` takes them for it"), "{}", stderr(&refused));
    let run = levels_of(with_nvml(&mut bench(&server.url, &data, &["--watch-gpus", "0", "--gpus", "1"]), &fake), &data, 2, || {});
    let label = run.labels.iter().find(|label| label.contains("taken for the server's"));
    assert!(label.is_some_and(|label| label.contains("process 990001")), "{:?}", run.labels);
    assert!(!run.levels[1].verdict.to_string().contains("computes on"), "{}", run.levels[1].verdict);
}

#[test]
fn each_level_has_the_servers_own_counters() {
    let server = OpenAiServer::start(|_| pace());
    let data = tempfile::tempdir().unwrap();
    let run = levels_of(&mut bench(&server.url(), &data, &["--nvml", "/nowhere"]), &data, 3, || {});
    assert_eq!(run.server.as_ref().unwrap().metrics.as_deref(), Some(format!("{}/metrics", server.url()).as_str()));
    assert!(run.target.labels.iter().any(|label| label.contains("not stated")), "{:?}", run.target.labels);
    // The last one was interrupted.
    for level in &run.levels[..3] {
        let seen = level.server.unwrap();
        assert!(seen.samples >= 2 && seen.coverage > 0.7, "{seen:?}");
        let running = seen.running.get().unwrap();
        assert!(running.mean > 0.0 && running.max <= level.in_flight.max as f64, "{seen:?}");
        let added = seen.added.get().unwrap();
        let (by_server, received) = (added.generation_tokens.get().unwrap(), added.received_tokens.get().unwrap());
        assert!((by_server / received - 1.0).abs() < 0.1, "{added:?}");
        assert!(!level.verdict.to_string().contains("somebody else"), "{}", level.verdict);
    }
    let show = |format: &str| {
        stdout(&plimsoll().args(["runs", "show", "latest", "--format", format, "--data-dir"]).arg(data.path()).output().unwrap())
    };
    for format in ["text", "markdown"] {
        let text = show(format);
        assert!(text.contains("Server under load") && text.contains("running") && text.contains("KV in use"), "{text}");
    }
    assert!(show("csv").lines().next().unwrap().contains("server_running_mean,server_waiting_mean,server_kv_usage_max"));
    let json: serde_json::Value = serde_json::from_str(&show("json")).unwrap();
    assert!(json["levels"][1]["server"]["running"]["mean"].as_f64().unwrap() > 0.0, "{}", json["levels"][1]["server"]);
    let data = tempfile::tempdir().unwrap();
    let run = levels_of(&mut bench(&server.url(), &data, &["--nvml", "/nowhere", "--no-metrics"]), &data, 1, || {});
    assert!(run.levels[0].server.is_none() && run.server.unwrap().metrics.is_none());
    let refused =
        bench(&server.url(), &data, &["--nvml", "/nowhere", "--metrics-url", &format!("{}/nothing", server.url())]).output().unwrap();
    assert_eq!(refused.status.code(), Some(69), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("/nothing") && stderr(&refused).contains("--metrics-url"), "{}", stderr(&refused));
}

/// Answers of 400 tokens, one after the other, until it is told to stop.
fn somebody_else(server: &OpenAiServer, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    let (address, stop) = (server.addr, Arc::clone(stop));
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            let mut stream = TcpStream::connect(address).unwrap();
            let body = r#"{"model":"fake","prompt":[1,2,3],"max_tokens":400,"stream":true}"#;
            let length = body.len();
            let head = format!(
                "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
            );
            stream.write_all((head + body).as_bytes()).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
    })
}

#[test]
fn a_server_that_somebody_else_uses_gives_no_valid_level() {
    let server = OpenAiServer::start(|_| pace());
    let data = tempfile::tempdir().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let others = [somebody_else(&server, &stop), somebody_else(&server, &stop)];
    let output = bench(&server.url(), &data, &["--nvml", "/nowhere"]).output().unwrap();
    stop.store(true, Ordering::Relaxed);
    for other in others {
        other.join().unwrap();
    }
    assert_eq!(output.status.code(), Some(4), "{}", stderr(&output));
    let run = load(&RunStore::at(data.path()).find("latest").unwrap()).unwrap();
    let other = |reason: &Invalid| matches!(reason, Invalid::OtherTraffic { by_server, received } if by_server > received);
    assert!(run.levels.iter().all(|level| level.verdict.invalid.iter().any(other)), "{:?}", run.levels[0].verdict);
    assert!(run.findings.iter().any(|finding| finding.code == "other_traffic"), "{:?}", run.findings);
}

/// An exporter with two GPUs whose energy counters go on, as long as the test runs.
fn exporter() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    let begun = Instant::now();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut asked = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while asked.read_line(&mut line).unwrap_or(0) > 2 {
                line.clear();
            }
            let mut body = String::new();
            for gpu in 0..2 {
                let labels =
                    format!("{{gpu=\"{gpu}\",UUID=\"GPU-exported-{gpu}\",modelName=\"NVIDIA H100 80GB HBM3\",Hostname=\"node-7\"}}");
                let millijoules = begun.elapsed().as_millis() as u64 * 600;
                for (name, value) in [("SM_CLOCK", 1980), ("POWER_USAGE", 600), ("GPU_TEMP", 61), ("TOTAL_ENERGY_CONSUMPTION", millijoules)]
                {
                    body.push_str(&format!("DCGM_FI_DEV_{name}{labels} {value}\n"));
                }
            }
            let length = body.len();
            let _ = write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
        }
    });
    url
}

#[test]
fn gpus_of_another_node_are_watched_through_its_exporter() {
    let server = OpenAiServer::start(|_| pace());
    let (url, data) = (exporter(), tempfile::tempdir().unwrap());
    let more = ["--nvml", "/nowhere", "--gpus", "1", "--dcgm-url", &url, "--watch-gpus", "1", "--require-telemetry"];
    let run = levels_of(&mut bench(&server.url(), &data, &more), &data, 3, || {});
    let gpus = &run.levels[2].telemetry.measured().unwrap().gpus;
    assert_eq!(gpus.iter().map(|gpu| gpu.uuid.as_str()).collect::<Vec<_>>(), ["GPU-exported-1"]);
    assert_eq!((gpus[0].power_mean_w.get(), gpus[0].temperature_max_c.get()), (Some(600.0), Some(61)));
    assert!(gpus[0].clock_reasons.value().is_none() && gpus[0].processes.value().is_none(), "what it does not tell is not guessed");
    assert!(!run.levels[2].verdict.to_string().contains("telemetry"), "{}", run.levels[2].verdict);
    assert!(run.labels.iter().any(|label| label.contains("DCGM exporter at http://") && label.contains("node-7")), "{:?}", run.labels);
    assert!(!run.findings.iter().any(|finding| finding.code == "telemetry_unavailable"), "{:?}", run.findings);
    let text = stdout(&plimsoll().args(["runs", "show", "latest", "--data-dir"]).arg(data.path()).output().unwrap());
    assert!(text.contains("DCGM exporter; NVIDIA H100") && text.contains("GPUs under load"), "{text}");
    for (wrong, why) in [
        (["--dcgm-url", &url, "--watch-gpus", "5"], "knows no GPU `5`"),
        (["--dcgm-url", &server.url(), "--watch-gpus", "all"], "no GPU of DCGM's"),
    ] {
        let refused = bench(&server.url(), &data, &[&["--nvml", "/nowhere"], &wrong[..]].concat()).output().unwrap();
        assert_eq!(refused.status.code(), Some(69), "{}", stderr(&refused));
        assert!(stderr(&refused).contains(why), "{}", stderr(&refused));
    }
}
