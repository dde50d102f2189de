//! A disk that is full, too small or not writable: said in time, with a code of its own, and nothing saved is lost.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use plimsoll::record::run::RunStatus;
use plimsoll::store::atomic::{self, WriteError};
use plimsoll::store::request_log::reader::Requests;
use plimsoll::store::request_log::writer::RequestLog;
use plimsoll::store::runs::{RunStore, StoreError, load};

use crate::support::{records, run, stderr, with_file_limit};

/// A file system of one MiB, where this process may make one.
pub(crate) struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    pub(crate) fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "plimsoll-test"]).arg(folder.path()).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(Self { folder });
        }
        println!("skipped: this process may not mount a file system of one MiB");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Leaves `bytes` free, about.
    fn fill_but(&self, bytes: usize) -> PathBuf {
        let filler = self.path().join("filler");
        fs::write(&filler, vec![1; (1 << 20) - bytes]).unwrap();
        filler
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg(self.path()).output());
    }
}

#[test]
fn a_folder_that_cannot_be_created_is_refused_before_load_is_sent() {
    for folder in ["/proc/nowhere/runs", "/dev/null/runs"] {
        assert!(matches!(RunStore::open(Path::new(folder)), Err(StoreError::Write(WriteError::Create { .. }))), "{folder}");
        let output = run(["man", folder]);
        assert_eq!(output.status.code(), Some(73), "{}", stderr(&output));
        assert!(stderr(&output).contains(folder) && stderr(&output).contains("may write to"), "{}", stderr(&output));
    }
}

#[test]
fn too_little_room_is_said_with_both_numbers_before_the_start() {
    let folder = tempfile::tempdir().unwrap();
    atomic::require_space(folder.path(), 1).unwrap();
    let error = atomic::require_space(folder.path(), u64::MAX).unwrap_err();
    let WriteError::NoSpace { needed, free, .. } = &error else { panic!("{error}") };
    assert!(*needed == u64::MAX && *free > 0);
    assert!(error.to_string().contains(&free.to_string()) && error.to_string().contains("Free space"), "{error}");
}

#[test]
fn a_write_that_does_not_fit_exits_74_and_leaves_no_half_file() {
    let folder = tempfile::tempdir().unwrap();
    let output = with_file_limit(1, ["man", folder.path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(74), "{}", stderr(&output));
    assert!(stderr(&output).contains("bytes to") && stderr(&output).contains("ulimit -f"), "{}", stderr(&output));
    let halves = fs::read_dir(folder.path()).unwrap().flatten().filter(|entry| !entry.file_name().to_string_lossy().ends_with(".1"));
    assert_eq!(halves.count(), 0);
}

#[test]
fn a_disk_that_fills_up_keeps_the_levels_saved_before() {
    let Some(disk) = SmallDisk::mount() else { return };
    let store = RunStore::open(disk.path()).unwrap();
    let record = records::run(&RunStore::new_id());
    let folder = store.create(&record).unwrap();
    folder.save_level(&records::level(0)).unwrap();
    let filler = disk.fill_but(96 << 10);
    let error = (1..1000).find_map(|index| folder.save_level(&records::level(index)).err()).expect("a thousand levels do not fit");
    let StoreError::Write(WriteError::Write { cause, bytes, .. }) = &error else { panic!("{error}") };
    assert!(cause.kind() == io::ErrorKind::StorageFull && *bytes > 100, "{error}");
    let path = folder.path().to_owned();
    assert!(fs::read_dir(path.join("levels")).unwrap().flatten().all(|entry| !atomic::is_temporary(&entry.path())));
    drop(folder);
    let run = load(&path).unwrap();
    assert_eq!((run.status, run.levels.first()), (RunStatus::Aborted, Some(&records::level(0))));
    assert!(run.levels.iter().eq((0..).take(run.levels.len()).map(records::level).collect::<Vec<_>>().iter()));
    fs::remove_file(filler).unwrap();
    let (folder, _) = store.resume(&path).unwrap();
    folder.save_level(&records::level(999)).expect("there is room again");
}

#[test]
fn a_request_log_on_a_full_disk_says_so_at_the_end_of_the_level_and_keeps_the_level_before() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.path().join("requests.jsonl.zst");
    let mut log = RequestLog::open(&path, 0).unwrap();
    log.begin_level(0);
    (0..100).for_each(|id| log.log(records::request(id)));
    let first = log.end_level().unwrap().log_bytes;
    disk.fill_but(64 << 10);
    log.begin_level(1);
    let mut sent = 0;
    let error = loop {
        (0..2000).for_each(|id| log.log(records::request(sent + id)));
        sent += 2000;
        match log.end_level() {
            Err(error) => break error,
            Ok(_) => assert!(sent < 1_000_000, "it never filled up"),
        }
    };
    assert!(matches!(&error, WriteError::Write { cause, .. } if cause.kind() == io::ErrorKind::StorageFull), "{error}");
    drop(log);
    let read = Requests::open(&path).unwrap().take(100).collect::<Result<Vec<_>, _>>().unwrap();
    assert!(read.len() == 100 && read.iter().all(|logged| logged.level == 0));
    drop(RequestLog::open(&path, first).expect("the run can be resumed at the level before"));
}
