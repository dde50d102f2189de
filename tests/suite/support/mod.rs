//! What several promises need: the program itself, records as a run would make them, and a CUDA device.

pub(crate) mod fake_cuda;
pub(crate) mod fake_nvml;
pub(crate) mod h2_server;
pub(crate) mod host_gpu;
#[path = "../../fakes/openai/mod.rs"]
pub(crate) mod openai;
pub(crate) mod planner_run;
pub(crate) mod raw_http;
pub(crate) mod records;
pub(crate) mod tls;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The program, with an environment that no machine's settings leak into.
pub(crate) fn plimsoll() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    for name in
        ["PLIMSOLL_DATA_DIR", "NO_COLOR", "CLICOLOR_FORCE", "XDG_DATA_HOME", "PLIMSOLL_NVML", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"]
    {
        command.env_remove(name);
    }
    // Not the node's own: tests and runs on one machine do not wait for each other.
    command.env("PLIMSOLL_LOCK_DIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

/// A real trace or log by its name; `None`, said aloud, where it is absent.
pub(crate) fn real(name: &str) -> Option<PathBuf> {
    let folder =
        std::env::var_os("PLIMSOLL_TEST_DATA").map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let path = folder.join("data").join(name);
    if path.exists() {
        return Some(path);
    }
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{} is absent, and CI must not skip", path.display());
    #[expect(clippy::print_stdout, reason = "a check that is not made is said aloud")]
    {
        println!("skipped: {} is absent", path.display());
    }
    None
}

/// Runs the program to its end.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    plimsoll().args(arguments).output().expect("the program was built with this test")
}

/// The program under a limit on the size of files, which fails writes as a full disk does.
pub(crate) fn with_file_limit<S: AsRef<OsStr>>(kibibytes: u32, arguments: impl IntoIterator<Item = S>) -> Output {
    under(&format!("trap '' XFSZ; ulimit -f {kibibytes}"), arguments).output().expect("there is a bash")
}

/// The program as a shell starts it after `setting`.
pub(crate) fn under<S: AsRef<OsStr>>(setting: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("{setting}; exec \"$0\" \"$@\"")]).arg(plimsoll().get_program()).args(arguments);
    command
}

/// Sends a signal to a child.
pub(crate) fn send(to: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(to.id()).expect("a process id")).expect("a process id");
    kill_process(pid, signal).expect("the child is there");
}

/// Waits until there is a file.
#[track_caller]
pub(crate) fn wait_for(path: &Path) {
    for _ in 0..6000 {
        if path.exists() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("{} did not appear", path.display());
}

/// Standard output as text.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output as the one JSON document it must be.
#[track_caller]
pub(crate) fn document(output: &Output) -> serde_json::Value {
    let text = stdout(output);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in:\n{text}\nstandard error:\n{}", stderr(output)))
}

/// This test binary again, running one test that is a child process of another.
pub(crate) fn child(test: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("a running test has a path"));
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(CHILD_FOLDER, folder);
    command
}

/// Where a child works.
pub(crate) const CHILD_FOLDER: &str = "PLIMSOLL_TEST_CHILD_FOLDER";
