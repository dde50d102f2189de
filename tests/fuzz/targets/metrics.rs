//! A page of metrics: what is read of it and written again is read the same.
#![no_main]

use std::fmt::Write;

use libfuzzer_sys::fuzz_target;
use plimsoll::telemetry::counters::ServerCounters;
use plimsoll::telemetry::prometheus::{Series, series};

fn written(of: &Series<'_>) -> String {
    let mut line = format!("{}{{", of.name);
    for (name, value) in &of.labels {
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(line, "{name}=\"{value}\",");
    }
    let _ = write!(line, "}} {}", of.value);
    line
}

fuzz_target!(|bytes: &[u8]| {
    let page = String::from_utf8_lossy(bytes);
    for found in series(&page) {
        assert!(!found.name.is_empty());
        for (name, _) in &found.labels {
            assert!(found.label(name).is_some());
        }
        let line = written(&found);
        let again = series(&line).next().expect("it is a series");
        let same = again.value == found.value || (again.value.is_nan() && found.value.is_nan());
        assert!(same && again.name == found.name && again.labels == found.labels, "{found:?} became {again:?} through `{line}`");
    }
    let _ = ServerCounters::read(&page).says_something();
});
