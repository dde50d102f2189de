//! A run that was cut after any level goes on as if nothing had happened.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use plimsoll::campaign::interrupt::Interrupt;
use plimsoll::campaign::journal::{Journal, KeepRequests};
use plimsoll::campaign::plan::Plan;
use plimsoll::campaign::progress::{Progress, Silent, Watcher};
use plimsoll::campaign::targets::SimulatedTargets;
use plimsoll::clock::Nanos;
use plimsoll::queueing::law::{ServiceLaw, ServiceTime};
use plimsoll::record::level::{LevelRecord, Offered};
use plimsoll::rng;
use plimsoll::store::request_log::reader::Requests;
use plimsoll::store::runs::{RunStore, load};

use crate::campaign::{Ran, campaign_on, slo};
use crate::support::records;

/// Draws nothing and lets go at once, so that a level is a function of what is asked.
fn law() -> ServiceLaw {
    ServiceLaw::Servers { count: 2, service: ServiceTime::Deterministic { mean_s: 0.02 } }
}

fn plan() -> Plan {
    Plan { slo: Some(slo("e2e:p90<60ms")), ..Plan::quick(9) }
}

/// Goes on with the run in `folder`, to its end.
fn finish(store: &RunStore, folder: &Path, watcher: &mut dyn Watcher) -> Ran {
    let (opened, run) = store.resume(folder).unwrap();
    let mut journal = Journal::open(opened, run, KeepRequests::Yes).unwrap();
    let plan = plan();
    let mut targets = SimulatedTargets::new("test", law(), rng::derive(plan.seed, "target"));
    let ran = campaign_on(4, &mut targets, &plan, &mut journal, watcher, &Interrupt::default());
    journal.finish().unwrap();
    ran
}

fn begun(store: &RunStore) -> PathBuf {
    store.create(&records::run(&RunStore::new_id())).unwrap().path().to_owned()
}

/// What a level showed, without where and when.
fn shown(levels: &[LevelRecord]) -> Vec<LevelRecord> {
    let shown = |level: &LevelRecord| LevelRecord {
        started: String::new(),
        window: (Nanos::ZERO, Nanos::ZERO),
        request_log_bytes: 0,
        unlogged_requests: 0,
        ..level.clone()
    };
    levels.iter().map(shown).collect()
}

/// Cuts the run at `from` off after its first `levels`, as a kill in the middle of the next one leaves it.
fn cut(from: &Path, to: &Path, levels: usize) {
    fs::create_dir_all(to.join("levels")).unwrap();
    fs::copy(from.join("run.json"), to.join("run.json")).unwrap();
    for index in 0..levels {
        let name = format!("levels/{index:03}.json");
        fs::copy(from.join(&name), to.join(&name)).unwrap();
    }
    let log = fs::read(from.join("requests.jsonl.zst")).unwrap();
    let kept = load(to).unwrap().levels.last().map_or(0, |level| level.request_log_bytes);
    // Half of what came after: inside a frame.
    let torn = kept as usize + (log.len() - kept as usize) / 2;
    fs::write(to.join("requests.jsonl.zst"), &log[..torn]).unwrap();
}

/// Every logged request once, and as many of each level as it says.
fn check_log(folder: &Path, levels: &[LevelRecord]) {
    let mut seen = BTreeSet::new();
    for logged in Requests::open(&folder.join("requests.jsonl.zst")).unwrap() {
        let logged = logged.unwrap();
        assert!(seen.insert((logged.level, logged.request.id)), "request {} of level {} is there twice", logged.request.id, logged.level);
    }
    for level in levels {
        let rows = seen.range((level.index, 0)..(level.index + 1, 0)).count() as u64;
        assert!(rows + level.unlogged_requests >= level.counts.whole_level, "level {}: {rows} rows", level.index);
    }
}

#[test]
fn a_run_cut_after_any_level_keeps_the_levels_before_and_ends_with_the_same_headline() {
    let data = tempfile::tempdir().unwrap();
    let store = RunStore::open(data.path()).unwrap();
    let whole = begun(&store);
    let uninterrupted = finish(&store, &whole, &mut Silent);
    assert!(uninterrupted.result.headline.as_ref().is_some_and(|headline| headline.throughput_per_gpu.is_some()));
    let saved = load(&whole).unwrap().levels;
    assert!(saved == uninterrupted.levels, "no figure loses anything on its way through the file");
    for levels in 0..=saved.len() {
        let folder = data.path().join(format!("cut-{levels}"));
        cut(&whole, &folder, levels);
        let ran = finish(&store, &folder, &mut Silent);
        let read = load(&folder).unwrap().levels;
        assert!(read[..levels] == saved[..levels], "cut after {levels} levels");
        assert!(shown(&ran.levels) == shown(&uninterrupted.levels), "cut after {levels} levels");
        assert_eq!(ran.result.headline, uninterrupted.result.headline, "cut after {levels} levels");
        check_log(&folder, &read);
    }
}

#[derive(Default)]
struct Notes(Vec<String>);

impl Watcher for Notes {
    fn tell(&mut self, progress: Progress<'_>) {
        if let Progress::Note(text) = progress {
            self.0.push(text);
        }
    }
}

#[test]
fn levels_that_would_not_be_measured_today_are_removed_with_their_requests_and_that_is_said() {
    let data = tempfile::tempdir().unwrap();
    let store = RunStore::open(data.path()).unwrap();
    let whole = begun(&store);
    let uninterrupted = finish(&store, &whole, &mut Silent);
    let folder = data.path().join("strange");
    cut(&whole, &folder, uninterrupted.levels.len());
    let path = folder.join("levels/003.json");
    let mut strange: LevelRecord = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    strange.offered = Offered::Closed { concurrency: 77 };
    fs::write(&path, serde_json::to_vec(&strange).unwrap()).unwrap();
    let mut notes = Notes::default();
    let ran = finish(&store, &folder, &mut notes);
    assert!(notes.0.iter().any(|note| note.contains("from 3 on") && note.contains("removed")), "{:?}", notes.0);
    assert!(shown(&ran.levels) == shown(&uninterrupted.levels));
    check_log(&folder, &load(&folder).unwrap().levels);
}
