//! A plan from a log: what the log says goes in once, with its source, and what it cannot say is said.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::support::{document, run, stderr, stdout};

/// An hour of calls, two for each visible request, a third in the last ten minutes.
fn log(folder: &Path) -> String {
    let mut text = "created_at,visible_request_id,input_tokens,output_tokens,status\n".to_owned();
    for second in 0..3600 {
        for call in 0..if second >= 3000 { 6 } else { 2 } {
            text += &format!("2026-03-02T{:02}:{:02}:{:02}.{call}Z,{},100,50,ok\n", 10, second / 60, second % 60, second * 3 + call / 2);
        }
    }
    let path = folder.join("log.csv");
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

fn saved(folder: &Path) -> String {
    let demand = folder.join("demand.json").to_str().unwrap().to_owned();
    let output = run(["demand", &log(folder), "--save", &demand]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    demand
}

fn plan(arguments: &[&str]) -> Value {
    let output = run(["plan", "--throughput-per-gpu", "2", "--format", "json"].iter().chain(arguments));
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    document(&output)
}

fn codes(plan: &Value) -> Vec<String> {
    plan["findings"].as_array().unwrap().iter().map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_log_of_calls_is_not_multiplied_again() {
    let folder = tempfile::tempdir().unwrap();
    let demand = saved(folder.path());
    let planned = plan(&["--demand", &demand]);
    let peak = &planned["requirements"][0];
    // 6 calls/s in the busiest minutes, at 2 calls/s and GPU, and a quarter of headroom.
    assert!((peak["calls"].as_f64().unwrap() - 6.0).abs() < 1e-9, "{peak}");
    assert!((peak["exact"].as_f64().unwrap() - 3.75).abs() < 1e-9, "{peak}");
    assert_eq!(planned["inputs"]["recompute"]["value"], 2.0);
    assert_eq!(planned["inputs"]["recompute"]["provenance"]["from"], "logged");
    assert!(!codes(&planned).contains(&"recompute_assumed".to_owned()));
    let twice = plan(&["--demand", &demand, "--recompute", "2"]);
    assert!(codes(&twice).contains(&"log_counted_twice".to_owned()), "{:?}", codes(&twice));
    let by_hour = plan(&["--demand", &demand, "--peak-of", "max:1h"]);
    assert_eq!(by_hour["inputs"]["average"], planned["inputs"]["average"], "whichever peak is asked for");
    assert!((by_hour["requirements"][0]["calls"].as_f64().unwrap() - 9600.0 / 3600.0).abs() < 1e-9);
}

#[test]
fn a_fleet_has_spares_nodes_and_a_price() {
    let folder = tempfile::tempdir().unwrap();
    let demand = saved(folder.path());
    let planned = plan(&["--demand", &demand, "--gpus-per-replica", "2", "--gpus-per-node", "8", "--price-per-gpu-hour", "3"]);
    let fleet = &planned["requirements"][0]["fleet"];
    // 3.75 GPUs are 2 replicas of 2; a node holds 4 and may be lost; 6 replicas stand on 2 nodes of 8 GPUs.
    assert_eq!(
        (&fleet["replicas"], &fleet["replicas_with_spare"], &fleet["nodes"], &fleet["gpus"]),
        (&2.into(), &6.into(), &2.into(), &16.into())
    );
    assert_eq!(fleet["cost"]["per_hour"], 48.0);
    let average = 9600.0 / 3600.0;
    let per_output = 48.0 / 3600.0 / (average / 2.0);
    assert!((fleet["cost"]["per_output_at_average"].as_f64().unwrap() / per_output - 1.0).abs() < 1e-9, "{fleet}");
    let per_million = 48.0 / 3600.0 / (average * 50.0) * 1e6;
    assert!((fleet["cost"]["per_million_tokens_at_average"].as_f64().unwrap() / per_million - 1.0).abs() < 1e-9, "{fleet}");
    assert!((fleet["utilisation_at_average"].as_f64().unwrap() - average / 2.0 / 16.0).abs() < 1e-9, "{fleet}");
    let without = plan(&["--demand", &demand, "--gpus-per-replica", "2", "--spare-domains", "0"]);
    assert_eq!(without["requirements"][0]["fleet"]["gpus"], 4);
    let viral = &without["requirements"][3];
    assert!(viral["on_first_fleet"]["amplification"].as_f64().unwrap() > 1.0, "{viral}");
    let output = run(["plan", "--throughput-per-gpu", "2", "--demand", &demand, "--price-per-gpu-hour", "3"]);
    assert!(stdout(&output).contains("too small") && stdout(&output).contains("log, p99:1m"), "{}", stdout(&output));
}

#[test]
fn inputs_come_from_a_file_and_flags_go_before_it() {
    let folder = tempfile::tempdir().unwrap();
    saved(folder.path());
    let file = folder.path().join("plan.toml");
    fs::write(
        &file,
        "demand = \"demand.json\"\nheadroom = 0.5\ngpus_per_node = 8\nspare_domains = 0\n[[scenarios]]\nname = \"Friday\"\ntimes_average = 7\nlasts = \"days\"\nrecompute = 3\n",
    )
    .unwrap();
    let file = file.to_str().unwrap();
    let planned = plan(&["--inputs", file]);
    assert!((planned["requirements"][0]["exact"].as_f64().unwrap() - 4.5).abs() < 1e-9);
    assert_eq!(planned["inputs"]["headroom"]["provenance"]["from"], "file");
    let friday = planned["requirements"].as_array().unwrap().last().unwrap();
    assert_eq!((friday["name"].as_str(), friday["lasts"].as_str()), (Some("Friday"), Some("days")));
    assert!((friday["calls"].as_f64().unwrap() - 7.0 * 9600.0 / 3600.0 / 2.0 * 3.0).abs() < 1e-9, "{friday}");
    let flagged = plan(&["--inputs", file, "--headroom", "0"]);
    assert!((flagged["requirements"][0]["exact"].as_f64().unwrap() - 3.0).abs() < 1e-9);
    fs::write(file, "headrom = 0.5\n").unwrap();
    let output = run(["plan", "--throughput-per-gpu", "2", "--inputs", file]);
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("headrom"), "{}", stderr(&output));
}

#[test]
fn a_demand_of_a_newer_schema_is_refused_and_a_broken_one_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("demand.json");
    for (text, says) in [("{\"demand_schema_version\": 999}", "version 999"), ("{}", "is no demand"), ("[", "is no demand")] {
        fs::write(&path, text).unwrap();
        let output = run(["plan", "--throughput-per-gpu", "2", "--demand", path.to_str().unwrap()]);
        assert_eq!(output.status.code(), Some(65), "{text}");
        assert!(stderr(&output).contains(says), "{}", stderr(&output));
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
}
