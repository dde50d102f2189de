//! The terminal: flags, exit codes, messages, one document.

use std::fs;
use std::io::Read;
use std::process::Stdio;

use plimsoll::record::node::NodeRecord;
use plimsoll::record::run::RunStatus;
use plimsoll::store::runs::RunStore;

use crate::support::{document, plimsoll, records, run, stderr, stdout};

#[test]
fn help_is_for_standard_output_and_lists_the_exit_codes() {
    let output = run(["--help"]);
    assert!(output.status.success() && output.stderr.is_empty());
    let text = stdout(&output);
    for code in ["65  bad input", "74  an output cannot be written", "143  ended by SIGTERM"] {
        assert!(text.contains(code), "{code} is missing in:\n{text}");
    }
}

#[test]
fn a_wrong_command_line_exits_2_and_says_so_in_json_where_asked() {
    for arguments in [&["frob"][..], &["node", "--frob"], &["node", "--format", "xml"], &["completions", "csh"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{arguments:?}");
    }
    for arguments in [&["--format", "json", "frob"][..], &["runs", "show", "--frob", "--format=json"], &["man", "--format", "json"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        let document = document(&output);
        assert_eq!(document["schema_version"], 1);
        assert_eq!(document["error"]["kind"], "usage");
        assert_eq!(document["error"]["exit_code"], 2);
        assert!(!document["error"]["message"].as_str().unwrap().contains("Usage:"), "{document}");
        assert!(stderr(&output).starts_with("plimsoll: "), "{}", stderr(&output));
    }
}

#[test]
fn a_usage_error_in_json_names_what_is_missing() {
    let message = |arguments: &[&str]| document(&run(arguments))["error"]["message"].as_str().unwrap().to_owned();
    let missing = message(&["generate", "--format", "json"]);
    assert!(missing.contains("--model <DIR|PRESET>") && missing.contains("--prompt <TEXT>"), "{missing}");
    let together = message(&["bench", "--format", "json", "--trace-speed", "2"]);
    assert!(together.contains("--trace <FILE>"), "{together}");
}

#[test]
fn every_verb_explains_itself_with_an_example() {
    let text = stdout(&run(["--help"]));
    let verbs = text.lines().skip_while(|line| !line.starts_with("Verbs:")).skip(1).take_while(|line| line.starts_with("  "));
    let verbs = verbs.filter_map(|line| line.split_whitespace().next()).filter(|verb| *verb != "help").collect::<Vec<_>>();
    assert!(verbs.contains(&"node") && verbs.contains(&"runs"), "{verbs:?}");
    for verb in verbs {
        let help = stdout(&run([verb, "--help"]));
        assert!(help.contains("Example") && help.contains(&format!("plimsoll {verb}")), "{verb}:\n{help}");
    }
}

#[test]
fn node_says_what_this_machine_is() {
    let text = stdout(&run(["node"]));
    for label in ["host", "processor", "cores", "memory", "telemetry", "bench"] {
        assert!(text.lines().any(|line| line.starts_with(label)), "{label} is missing in:\n{text}");
    }
    let document = document(&run(["node", "--format", "json"]));
    assert!(document["node"]["cores"].as_u64().is_some_and(|cores| cores > 0), "{document}");
    assert!(document["node"]["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 1 << 26), "{document}");
}

#[test]
fn a_cpu_quota_bounds_the_threads_and_one_core_is_left_to_the_generator() {
    let with = |cores, quota| {
        let node = NodeRecord { cores, cpu_quota_cores: quota, ..records::run("x").node };
        plimsoll::cli::defaults::of(&node, None).threads
    };
    assert_eq!([with(64, None), with(64, Some(2.5)), with(64, Some(0.5)), with(2, Some(8.0)), with(1, None)], [63, 2, 1, 1, 1]);
}

#[test]
fn runs_are_listed_and_shown_from_the_data_folder() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    let empty = run(["runs", "list", "--data-dir", folder]);
    assert!(empty.status.success() && stdout(&empty).starts_with("no runs in"), "{}", stdout(&empty));
    let store = RunStore::open(data.path()).unwrap();
    let mut record = records::run(&RunStore::new_id());
    let open = store.create(&record).unwrap();
    open.save_level(&records::level(0)).unwrap();
    record.status = RunStatus::Complete;
    open.save_run(&record).unwrap();
    open.finish().unwrap();
    let listed = stdout(&run(["runs", "list", "--data-dir", folder]));
    assert!(listed.contains(&record.id) && listed.contains("complete"), "{listed}");
    let listed = document(&plimsoll().args(["runs", "list", "--format", "json"]).env("PLIMSOLL_DATA_DIR", folder).output().unwrap());
    let summary = &listed["runs"][0];
    assert_eq!(
        (&summary["status"], &summary["levels"], &summary["throughput_per_gpu"]),
        (&"complete".into(), &1.into(), &serde_json::Value::Null)
    );
    let rows = stdout(&run(["runs", "list", "--format", "csv", "--data-dir", folder]));
    assert!(rows.starts_with("id,created,status,") && rows.lines().nth(1).is_some_and(|row| row.starts_with(&record.id)), "{rows}");
    fs::create_dir(store.folder().join("01J00000000000000000000000")).unwrap();
    let with_broken = stdout(&run(["runs", "list", "--data-dir", folder]));
    let widths = with_broken.lines().take(3).map(|line| line.trim_end().chars().count()).collect::<Vec<_>>();
    assert!(with_broken.contains("unreadable") && widths.iter().all(|width| *width < 140), "{with_broken}");
    fs::remove_dir(store.folder().join("01J00000000000000000000000")).unwrap();
    let shown = document(&run(["runs", "show", "--format", "json", "--data-dir", folder]));
    assert_eq!((shown["id"].as_str(), shown["schema_version"].as_u64()), (Some(record.id.as_str()), Some(1)));
    assert_eq!(shown["levels"][0]["verdict"]["outcome"], "measured");
    for (format, sign) in [("text", "chat"), ("markdown", "|"), ("csv", ",")] {
        let output = run(["runs", "show", "--format", format, "--data-dir", folder]);
        assert!(output.status.success() && stdout(&output).contains(sign), "{format}:\n{}{}", stdout(&output), stderr(&output));
    }
}

#[test]
fn a_run_that_is_not_there_or_damaged_is_bad_input() {
    let data = tempfile::tempdir().unwrap();
    let folder = data.path().to_str().unwrap();
    let output = run(["runs", "show", "--format", "json", "--data-dir", folder]);
    assert_eq!(output.status.code(), Some(65));
    assert!(document(&output)["error"]["message"].as_str().is_some_and(|message| message.contains("`latest`")));
    let broken = data.path().join("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join("run.json"), "{").unwrap();
    let output = run(["runs", "show", "--format", "json", broken.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("run.json"), "{}", stderr(&output));
    fs::write(broken.join("run.json"), r#"{"schema_version": 2}"#).unwrap();
    let output = run(["runs", "show", "--format", "json", broken.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("schema version 2"), "{}", stderr(&output));
}

#[test]
fn runs_are_kept_in_the_data_folder_of_the_user_unless_another_is_given() {
    let listed = |arguments: &[&str], data_dir: Option<&str>| {
        let mut command = plimsoll();
        command
            .args(["runs", "list"])
            .args(arguments)
            .env("XDG_DATA_HOME", "/nowhere/at/all")
            .envs(data_dir.map(|folder| ("PLIMSOLL_DATA_DIR", folder)));
        stdout(&command.output().unwrap()).trim().to_owned()
    };
    assert_eq!(listed(&[], None), "no runs in `/nowhere/at/all/plimsoll/runs`");
    assert_eq!(listed(&[], Some("/nowhere/else")), "no runs in `/nowhere/else/runs`");
    assert_eq!(listed(&["--data-dir", "/nowhere/given"], Some("/nowhere/else")), "no runs in `/nowhere/given/runs`");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut printing = plimsoll().args(["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(printing.stdout.take());
    let mut said = String::new();
    printing.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((printing.wait().unwrap().code(), said.as_str()), (Some(0), ""));
}

#[test]
fn a_full_standard_output_is_said() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = plimsoll().args(["completions", "bash"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{}", stderr(&output));
    assert!(stderr(&output).contains("standard output"), "{}", stderr(&output));
}

#[test]
fn completions_and_manual_pages_know_every_verb() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(stdout(&run(["completions", shell])).contains("runs"), "{shell}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pages = folder.path().join("man1");
    assert!(run(["man", pages.to_str().unwrap()]).status.success());
    for page in ["plimsoll.1", "plimsoll-node.1", "plimsoll-runs.1", "plimsoll-runs-show.1"] {
        let text = fs::read_to_string(pages.join(page)).unwrap_or_else(|error| panic!("{page}: {error}"));
        assert!(text.contains(".SH NAME"), "{page}");
    }
    assert!(stdout(&run(["man"])).contains(".TH plimsoll 1"));
}

#[test]
fn each_kind_of_failure_ends_the_process_with_its_own_code() {
    use std::io;

    use plimsoll::campaign::interrupt::Signal;
    use plimsoll::campaign::measure::{Halt, TargetHangs};
    use plimsoll::capacity::throughput::NoCapacity;
    use plimsoll::cli::exit::Exit;
    use plimsoll::device::error::DeviceError;
    use plimsoll::store::atomic::WriteError;
    use plimsoll::store::lock::LockError;
    use plimsoll::store::request_log::writer::OpenLogError;
    use plimsoll::store::runs::StoreError;
    use plimsoll::workload::spec::WorkloadError;

    let text = || "x".to_owned();
    let held = LockError::Held { path: "x".into(), holder: text() };
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    let failures: [(anyhow::Error, u8); 14] = [
        (WriteError::Create { path: "x".into(), cause: full() }.into(), 74),
        (LockError::Refused { path: "x".into(), cause: io::Error::other("no locks") }.into(), 73),
        (StoreError::from(OpenLogError::Damaged { path: "x".into(), length: 1, expected: 2 }).into(), 65),
        (TargetHangs { held: 3 }.into(), 69),
        (StoreError::NotFinite { path: "x".into(), field: text() }.into(), 1),
        (anyhow::anyhow!("nobody foresaw it"), 1),
        (StoreError::Ambiguous { what: "runs", name: text(), fits: vec![] }.into(), 2),
        (NoCapacity::SloUnmet { run: text(), why: text(), remedy: "x" }.into(), 3),
        (NoCapacity::Invalid { run: text(), why: text(), remedy: "x" }.into(), 4),
        (NoCapacity::Undecided { run: text(), why: text(), remedy: "x" }.into(), 5),
        (WorkloadError::Unknown { name: text(), known: text() }.into(), 65),
        (DeviceError::OutOfMemory { what: text(), needed: 2, free: 1, remedy: text() }.into(), 69),
        (StoreError::Lock(held).into(), 75),
        (Halt::Signal(Signal::Terminate).into(), 143),
    ];
    for (failure, code) in failures {
        let failure = failure.context("cannot do what was asked");
        assert_eq!(Exit::of(&failure).code(), code, "{failure:#}");
    }
}
