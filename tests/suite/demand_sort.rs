//! A log that is sorted outside of memory: where there is no room it is said with what to do, and nothing is left behind, however it ends.

use std::fs;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::disk::SmallDisk;
use crate::support::{document, plimsoll, run, send, stderr, with_file_limit};

/// More calls than are sorted in memory, the latest first.
const CALLS: usize = 510_000;

fn backwards(calls: usize) -> String {
    (0..calls).rev().fold("created_at\n".to_owned(), |text, second| text + &format!("{second}\n"))
}

fn written(folder: &Path) -> String {
    let path = folder.join("backwards.csv");
    fs::write(&path, backwards(CALLS)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn sorted_in(folder: &Path, log: &str) -> Output {
    plimsoll().args(["demand", log]).env("TMPDIR", folder).output().unwrap()
}

#[test]
fn a_file_size_limit_is_said_with_74_and_without_one_every_call_counts() {
    let folder = tempfile::tempdir().unwrap();
    let log = written(folder.path());
    let output = with_file_limit(100, ["demand", &log]);
    assert_eq!(output.status.code(), Some(74), "{}", stderr(&output));
    assert!(stderr(&output).contains("ulimit -f"), "{}", stderr(&output));
    assert_eq!(document(&run(["demand", "--format", "json", &log]))["calls"], CALLS);
}

#[test]
fn a_full_disk_is_said_with_74_and_keeps_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let folder = tempfile::tempdir().unwrap();
    let output = sorted_in(disk.path(), &written(folder.path()));
    assert_eq!(output.status.code(), Some(74), "{}", stderr(&output));
    let said = stderr(&output);
    assert!(said.contains(disk.path().to_str().unwrap()) && said.contains("Free space") && said.contains("TMPDIR"), "{said}");
    assert_eq!(disk.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_folder_that_is_not_there_or_is_none_is_said_with_73_and_is_not_made() {
    let folder = tempfile::tempdir().unwrap();
    let log = written(folder.path());
    let nowhere = folder.path().join("nowhere");
    for to_sort_in in [nowhere.as_path(), Path::new("/dev/null"), Path::new("/proc/self")] {
        let output = sorted_in(to_sort_in, &log);
        assert_eq!(output.status.code(), Some(73), "{}", stderr(&output));
        let said = stderr(&output);
        assert!(said.contains(to_sort_in.to_str().unwrap()) && said.contains("may be written to with TMPDIR"), "{said}");
    }
    assert!(!nowhere.exists());
}

#[test]
fn a_folder_that_is_set_to_nothing_is_not_set() {
    let folder = tempfile::tempdir().unwrap();
    let output = sorted_in(Path::new(""), &written(folder.path()));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
}

/// Waits until the process holds a file in the folder that has no name.
fn wait_until_sorting(child: &Child, folder: &Path) {
    let open = Path::new("/proc").join(child.id().to_string()).join("fd");
    let in_folder = |link: &Path| fs::read_link(link).is_ok_and(|file| file.starts_with(folder));
    for _ in 0..6000 {
        if fs::read_dir(&open).unwrap().flatten().any(|link| in_folder(&link.path())) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("nothing is written to {}", folder.display());
}

#[test]
fn a_stop_while_it_sorts_ends_with_the_signals_code_and_leaves_nothing_behind() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let folder = tempfile::tempdir().unwrap();
        let saved = tempfile::tempdir().unwrap();
        let mut sorting = plimsoll();
        sorting.args(["demand", "-", "--save"]).arg(saved.path().join("demand.json")).env("TMPDIR", folder.path());
        let mut sorting = sorting.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut pipe = sorting.stdin.take().unwrap();
        // What is read ahead of the pipe's end is more than is held in memory; the pipe stays open.
        pipe.write_all(backwards(2 * CALLS).as_bytes()).unwrap();
        wait_until_sorting(&sorting, folder.path());
        send(&sorting, signal);
        let status = sorting.wait().unwrap();
        assert_eq!(status.code().or(status.signal().map(|signal| 128 + signal)), Some(code));
        assert_eq!(folder.path().read_dir().unwrap().count() + saved.path().read_dir().unwrap().count(), 0);
    }
}
