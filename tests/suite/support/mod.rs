//! What several promises need: the program itself, and records as a run would make them.

pub(crate) mod records;

use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Output};

/// The program, with an environment that no machine's settings leak into.
pub(crate) fn plimsoll() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    for name in ["PLIMSOLL_DATA_DIR", "NO_COLOR", "CLICOLOR_FORCE", "XDG_DATA_HOME"] {
        command.env_remove(name);
    }
    command
}

/// Runs the program to its end.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Output {
    plimsoll().args(arguments).output().expect("the program was built with this test")
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
