//! The request log keeps what it was given, never makes the generator wait, and survives a kill.

use std::fs;
use std::path::Path;

use plimsoll::store::request_log::reader::{End, ReadError, Requests};
use plimsoll::store::request_log::writer::RequestLog;
use plimsoll::store::request_log::{LoggedRequest, estimated_bytes};

use crate::support::records;

fn write_level(log: &mut RequestLog, level: u32, requests: u64) -> u64 {
    log.begin_level(level);
    (0..requests).for_each(|id| log.log(records::request(id)));
    let logged = log.end_level().unwrap();
    assert_eq!(logged.unlogged, 0);
    logged.log_bytes
}

fn expected(level: u32, requests: u64) -> impl Iterator<Item = LoggedRequest> {
    (0..requests).map(move |id| LoggedRequest { level, request: records::request(id) })
}

fn read(path: &Path) -> (Vec<LoggedRequest>, Option<End>) {
    let mut requests = Requests::open(path).unwrap();
    let read = requests.by_ref().collect::<Result<Vec<_>, _>>().unwrap();
    (read, requests.end())
}

#[test]
fn what_was_logged_is_read_back_level_by_level() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.jsonl.zst");
    let mut log = RequestLog::open(&path, 0).unwrap();
    let first = write_level(&mut log, 0, 1000);
    let second = write_level(&mut log, 1, 500);
    let third = write_level(&mut log, 2, 0);
    drop(log);
    assert!(first < second && second == third && third == fs::metadata(&path).unwrap().len());
    let (read, end) = read(&path);
    assert_eq!(end, Some(End::Whole));
    assert!(read.into_iter().eq(expected(0, 1000).chain(expected(1, 500))));
}

#[test]
fn a_resumed_log_goes_on_where_its_last_saved_level_ended() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.jsonl.zst");
    let mut log = RequestLog::open(&path, 0).unwrap();
    let saved = write_level(&mut log, 0, 200);
    write_level(&mut log, 1, 300);
    drop(log);
    let mut log = RequestLog::open(&path, saved).unwrap();
    write_level(&mut log, 1, 50);
    drop(log);
    let (read, _) = read(&path);
    assert!(read.into_iter().eq(expected(0, 200).chain(expected(1, 50))));
    let refused = RequestLog::open(&path, 1 << 40).unwrap_err().to_string();
    assert!(refused.contains("its levels speak of"), "{refused}");
}

#[test]
fn a_log_cut_anywhere_gives_the_requests_before_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.jsonl.zst");
    let mut log = RequestLog::open(&path, 0).unwrap();
    let first = write_level(&mut log, 0, 40);
    write_level(&mut log, 1, 40);
    drop(log);
    let whole = fs::read(&path).unwrap();
    let all = expected(0, 40).chain(expected(1, 40)).collect::<Vec<_>>();
    for cut in (0..whole.len()).step_by(7).chain([first as usize]) {
        fs::write(&path, &whole[..cut]).unwrap();
        let (read, end) = read(&path);
        assert_eq!(read, all[..read.len()], "cut at {cut}");
        assert_eq!(end == Some(End::Whole), cut == 0 || cut == first as usize, "cut at {cut}");
        assert!(cut < first as usize || read.len() >= 40, "cut at {cut}: a whole frame is read whole");
    }
}

#[test]
fn a_damaged_log_says_so_and_gives_what_comes_before() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.jsonl.zst");
    let mut log = RequestLog::open(&path, 0).unwrap();
    let first = write_level(&mut log, 0, 30) as usize;
    write_level(&mut log, 1, 30);
    drop(log);
    let mut bytes = fs::read(&path).unwrap();
    bytes[first..first + 4].copy_from_slice(b"junk");
    fs::write(&path, bytes).unwrap();
    let mut requests = Requests::open(&path).unwrap();
    let good = requests.by_ref().take_while(Result::is_ok).count();
    assert_eq!((good, requests.end()), (30, Some(End::Damaged)));
    assert!(matches!(Requests::open(&path).unwrap().find_map(Result::err), Some(ReadError::Damaged { requests: 30, .. })));
}

#[test]
fn a_flood_of_records_is_counted_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("requests.jsonl.zst");
    let mut log = RequestLog::open(&path, 0).unwrap();
    log.begin_level(0);
    let mut flood = records::request(0);
    flood.chunks = vec![flood.chunks[0]; 400_000];
    let floods = 20;
    (0..floods).for_each(|_| log.log(flood.clone()));
    let unlogged = log.end_level().unwrap().unlogged;
    drop(log);
    assert!(unlogged > 0, "20 records of 6.4 MB do not fit 32 MiB at once");
    assert_eq!(read(&path).0.len() as u64, floods - unlogged);
}

#[test]
fn the_estimate_of_room_is_an_upper_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut log = RequestLog::open(&folder.path().join("requests.jsonl.zst"), 0).unwrap();
    let written = write_level(&mut log, 0, 5000);
    assert!(written <= estimated_bytes(5000, 5.0), "{written} > {}", estimated_bytes(5000, 5.0));
}
