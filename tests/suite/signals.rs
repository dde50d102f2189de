//! SIGINT and SIGTERM end a run after saving; a second one ends it at once.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use plimsoll::campaign::interrupt::{Interrupt, Signal};
use plimsoll::cli::exit::Exit;
use plimsoll::cli::signals;
use rustix::process::Signal as System;

use crate::support::{CHILD_FOLDER, child, send, wait_for};

#[test]
fn the_first_stop_counts_and_the_second_is_told_apart() {
    let interrupt = Interrupt::default();
    assert_eq!(interrupt.raised(), None);
    assert!(interrupt.raise(Signal::Terminate));
    assert!(!interrupt.clone().raise(Signal::Interrupt));
    assert_eq!(interrupt.raised(), Some(Signal::Terminate));
    assert_eq!(Exit::from(Signal::Interrupt).code(), 130);
    assert_eq!(Exit::from(Signal::Terminate).code(), 143);
}

/// What the child leaves when it is told to stop.
fn saved(folder: &Path) -> PathBuf {
    folder.join("saved")
}

#[test]
#[ignore = "the child process of the tests below"]
#[expect(clippy::exit, reason = "a test that returns says only that it passed")]
fn waits_to_be_stopped() {
    let folder = PathBuf::from(std::env::var_os(CHILD_FOLDER).expect("its parent gives it a folder"));
    let interrupt = signals::watch().unwrap();
    fs::write(folder.join("ready"), "").unwrap();
    let signal = loop {
        match interrupt.raised() {
            Some(signal) => break signal,
            None => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    fs::write(saved(&folder), format!("{signal:?}")).unwrap();
    if folder.join("saves-for-long").exists() {
        std::thread::sleep(Duration::from_secs(60));
    }
    std::process::exit(i32::from(Exit::from(signal).code()));
}

fn waiting(folder: &Path) -> Child {
    let waiting = child("signals::waits_to_be_stopped", folder).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&folder.join("ready"));
    waiting
}

/// Whether these tests were started with SIGHUP ignored, which a child inherits and never watches.
fn ignores_hang_ups() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).expect("the kernel tells");
    u64::from_str_radix(ignored.trim(), 16).unwrap() & 1 == 1
}

#[test]
fn a_stop_is_seen_and_decides_the_exit_code() {
    let mut signals = vec![(System::INT, "Interrupt", 130), (System::TERM, "Terminate", 143)];
    if ignores_hang_ups() {
        println!("skipped: SIGHUP, which is ignored here and by every child (`nohup`)");
    } else {
        signals.push((System::HUP, "Terminate", 143));
    }
    for (signal, name, code) in signals {
        let folder = tempfile::tempdir().unwrap();
        let mut running = waiting(folder.path());
        send(&running, signal);
        assert_eq!(running.wait().unwrap().code(), Some(code), "{signal:?}");
        assert_eq!(fs::read_to_string(saved(folder.path())).unwrap(), name);
    }
}

#[test]
fn a_second_stop_ends_at_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("saves-for-long"), "").unwrap();
    let mut running = waiting(folder.path());
    send(&running, System::TERM);
    wait_for(&saved(folder.path()));
    send(&running, System::INT);
    assert_eq!(running.wait().unwrap().code(), Some(130));
}
