//! House rules as a test: floors, wings, doors, purity, `unsafe`, sizes, names, words, documents.
//!
//! A check reads text, not syntax trees: simple enough to trust, and it prints file, line and rule. Every check is
//! itself checked against a planted violation.

#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/rules.rs"]
mod rules;
#[path = "tidy/text.rs"]
mod text;

use rules::Violation;
use text::{Source, files, root};

type Rule = fn(&Source) -> Vec<Violation>;

fn check(sources: &[Source], rule: Rule) {
    report(sources.iter().flat_map(rule).collect());
}

fn report(violations: Vec<Violation>) {
    let lines = violations.iter().map(|broken| format!("{}:{}: {}\n", broken.path, broken.line, broken.rule)).collect::<String>();
    assert!(violations.is_empty(), "{} house rules are broken:\n{lines}", violations.len());
}

fn product() -> Vec<Source> {
    files(&[".rs"]).into_iter().filter(|source| source.path.starts_with("src/")).collect()
}

#[test]
fn a_room_uses_lower_floors_only_and_the_wings_do_not_name_each_other() {
    check(&product(), rules::floors);
}

#[test]
fn time_randomness_files_environment_and_output_come_through_one_door_each() {
    check(&product(), rules::doors);
}

#[test]
fn pure_rooms_open_no_file_and_know_no_clock() {
    check(&product(), rules::purity);
}

#[test]
fn unsafe_and_conditional_compilation_stand_where_they_are_expected() {
    check(&product(), rules::unsafe_and_cfg);
}

#[test]
fn lints_are_expected_with_a_reason_and_never_allowed() {
    check(&files(&[".rs"]), rules::no_allow);
}

#[test]
fn nothing_is_exported_under_a_second_path() {
    check(&product(), rules::no_second_path);
}

#[test]
fn names_say_what_a_thing_is() {
    check(&product(), rules::names);
}

#[test]
fn no_file_must_be_scrolled_for_long() {
    check(&product(), rules::size);
}

#[test]
fn every_file_says_what_it_is_for() {
    check(&files(&[".rs"]), rules::opening);
}

#[test]
fn the_project_speaks_of_itself_only() {
    check(&files(&[".rs", ".md", ".toml", ".json", ".cu", ".cuh", ".txt", "run"]), rules::words);
}

#[test]
fn names_in_documents_exist() {
    let product = product();
    report(files(&[".md"]).iter().flat_map(|document| docs::names_exist(document, &product)).collect());
}

#[test]
fn every_test_that_holds_a_part_of_the_capacity_model_exists() {
    let sources = files(&[".rs"]);
    let model = files(&[".md"]).into_iter().find(|document| document.path == "docs/capacity-model.md").expect("it is written down");
    report(docs::tests_exist(&model, &sources));
}

#[test]
fn the_document_of_metrics_is_made_from_the_catalogue() {
    let path = root().join("docs/metrics.md");
    if std::env::var_os("PLIMSOLL_GOLDEN").is_some_and(|value| value == "write") {
        plimsoll::store::atomic::write(&path, docs::metrics().as_bytes()).expect("the document can be written");
    }
    let current = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        current == docs::metrics(),
        "docs/metrics.md:1: is not what the catalogue says. Run `PLIMSOLL_GOLDEN=write cargo test --test tidy`"
    );
}

/// Lines at which a rule finds something in a planted file.
#[track_caller]
fn planted(rule: Rule, path: &str, text: &str, lines: &[usize]) {
    let found = rule(&Source::new(path, text)).into_iter().map(|broken| broken.line).collect::<Vec<_>>();
    assert_eq!(found, lines, "{path}:\n{text}");
}

#[test]
fn the_check_of_floors_catches_each_way_of_naming_a_room() {
    planted(rules::floors, "src/stats/mod.rs", "use crate::curve::slo;\n", &[1]);
    planted(rules::floors, "src/stats/mod.rs", "fn f() {\n    crate::cli::run()\n}\n", &[2]);
    planted(rules::floors, "src/report/mod.rs", "use crate::{\n    stats::quantile,\n    store::{runs, atomic},\n};\n", &[3]);
    planted(rules::floors, "src/load/mod.rs", "use crate::capacity::formula;\n", &[1]);
    planted(rules::floors, "src/report/mod.rs", "use crate::engine::Engine;\n", &[1]);
    planted(rules::floors, "src/report/mod.rs", "use crate::device::Ops;\n", &[1]);
    planted(rules::floors, "src/stats/quantile.rs", "use super::super::curve::slo;\n", &[1]);
    planted(rules::floors, "src/rng.rs", "use super::curve::slo;\n", &[1]);
    planted(rules::floors, "src/attic/mod.rs", "\n", &[1]);
}

#[test]
fn the_check_of_floors_lets_pass_what_is_right() {
    planted(rules::floors, "src/stats/mod.rs", "// use crate::curve::slo;\nconst TEXT: &str = \"crate::curve\";\n", &[]);
    planted(rules::floors, "src/curve/mod.rs", "use crate::record::level::LevelRecord;\nuse crate::curve::slo;\n", &[]);
    planted(rules::floors, "src/rng.rs", "#[cfg(test)]\nmod tests {\n    use super::*;\n}\n", &[]);
    planted(rules::floors, "src/cli/exit.rs", "use super::terminal::StdoutClosed;\n", &[]);
}

#[test]
fn the_other_checks_catch_what_they_are_for() {
    planted(rules::doors, "src/load/mod.rs", "fn f() {\n    println!(\"x\");\n}\n", &[2]);
    planted(rules::doors, "src/model/mod.rs", "let home = std::env::var(\"HOME\");\n", &[1]);
    planted(rules::doors, "src/model/mod.rs", "std::fs::write(path, bytes)?;\n", &[1]);
    planted(rules::doors, "src/table/scan/mod.rs", "let file = tempfile::tempfile_in(folder)?;\n", &[1]);
    planted(rules::doors, "src/clock.rs", "let now = Instant::now();\n", &[]);
    planted(rules::doors, "src/model/mod.rs", "let one = std::env::args();\nFile::options();\nstd::fs::rename(from, to)?;\n", &[1, 2, 3]);
    planted(rules::no_second_path, "src/cli/mod.rs", "use crate::cli::exit;\npub use crate::cli::exit::Exit;\n", &[2]);
    planted(rules::purity, "src/capacity/mod.rs", "use std::fs;\nuse crate::clock::Clock;\nuse crate::clock::Nanos;\n", &[1, 2]);
    planted(rules::purity, "src/store/mod.rs", "use std::fs;\n", &[]);
    planted(rules::unsafe_and_cfg, "src/engine/mod.rs", "unsafe { f() }\n#[cfg(feature = \"x\")]\n#[cfg(test)]\n", &[1, 2]);
    planted(rules::unsafe_and_cfg, "src/engine/mod.rs", "#![forbid(unsafe_code)]\n", &[]);
    planted(rules::no_allow, "src/engine/mod.rs", "#[allow(dead_code)]\nfn f() {}\n", &[1]);
    planted(rules::names, "src/engine/mod.rs", "struct BlockManager;\nfn handle_it() {}\nmod utils;\n", &[1, 3]);
    planted(rules::names, "src/engine/helpers.rs", "\n", &[1]);
    planted(rules::size, "src/engine/mod.rs", &"\n".repeat(421), &[421]);
    planted(rules::opening, "src/engine/mod.rs", "// a note\n", &[1]);
    planted(rules::words, "README.md", &format!("fine\nsee {}x\n", ["/wo", "rk/"].concat()), &[2]);
}

#[test]
fn the_check_of_documents_catches_a_name_that_is_gone() {
    let product = [Source::new("src/clock.rs", "pub struct Nanos(pub u64);\n")];
    let document = Source::new(
        "docs/x.md",
        "`clock::Nanos` is fine, `std::fs` too,\n`clock::Ticks` and `src/nowhere.rs` are gone\n`clock.rs` is there, `clock/ticks.rs` and `ticks.rs` are not\n",
    );
    let lines = docs::names_exist(&document, &product).into_iter().map(|broken| broken.line).collect::<Vec<_>>();
    assert_eq!(lines, [2, 2, 3, 3]);
    let tests = [Source::new("tests/suite/x.rs", "fn what_is_promised_holds_for_ever() {}\n")];
    let document =
        Source::new("docs/x.md", "`what_is_promised_holds_for_ever`,\n`what_was_promised_is_gone_for_good`, `throughput_per_gpu`\n");
    let lines = docs::tests_exist(&document, &tests).into_iter().map(|broken| broken.line).collect::<Vec<_>>();
    assert_eq!(lines, [2]);
}

#[test]
fn comments_and_literals_are_not_code() {
    let text = "let a = 'x'; // crate::a\nlet b = \"crate::b\\\"\"; /* crate::c /* */ */ let c: &'static str = r#\"crate::\"d\"#;";
    let code = Source::new("src/x.rs", text).code();
    assert!(!code.contains("crate::"), "{code}");
    assert!(code.contains("'static str") && code.len() == text.len());
}
