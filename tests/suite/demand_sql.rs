//! The queries for warehouses, really run by three databases: what they return says the same as the built-in pass.
//!
//! `.ci/databases` brings PostgreSQL, DuckDB and ClickHouse. Where one is not there the test says so, and fails in CI.
//! `benchmarks/demand/check_dialects.py` runs the other dialects.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plimsoll::capacity::request_log::sql::dialect::Dialect;
use plimsoll::record::demand::{Demand, Lengths, WindowRates};
use serde_json::Value;

use crate::support::{document, run, stderr, stdout};

/// Columns that are called by words of the language.
const WORDS: [&str; 14] = [
    "--column",
    "time=timestamp",
    "--column",
    "request=group",
    "--column",
    "input_tokens=order",
    "--column",
    "output_tokens=select",
    "--column",
    "status=case",
    "--column",
    "latency=end",
    "--column",
    "concurrent=At Once",
];

/// Five hours of calls with silences, retries, failures and bursts.
fn log(path: &Path, told: &[&str]) {
    let usual = ["created_at", "visible_request_id", "input_tokens", "output_tokens", "status", "latency_ms", "concurrent_sessions"];
    let named: Vec<&str> = told.iter().filter_map(|word| Some(word.split_once('=')?.1)).collect();
    let mut text = format!("call_id,{}\n", if named.is_empty() { usual.to_vec() } else { named }.join(","));
    let (mut state, mut at_ms, mut request) = (7_u64, 13_500_000_u64, 0_u64);
    for call in 0..6000 {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let drawn = state >> 40;
        // Some minutes have many calls, some none.
        at_ms += if drawn % 97 == 0 {
            180_000
        } else if (call / 500) % 2 == 0 {
            drawn % 700
        } else {
            drawn % 4000
        };
        let goes_on = call > 0 && drawn % 5 == 0;
        request += u64::from(!goes_on);
        let failed = drawn % 11 == 0;
        let (hour, minute, second, ms) = (at_ms / 3_600_000, at_ms / 60_000 % 60, at_ms / 1000 % 60, at_ms % 1000);
        let output = if failed { 0 } else { 1 + drawn % 300 };
        let status = if failed { "error" } else { "ok" };
        let (day, hour) = (2 + hour / 24, hour % 24);
        text += &format!(
            "{call},2026-03-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z,{request},{},{output},{status},{}.5,{}\n",
            20 + drawn % 900,
            50 + drawn % 9000,
            drawn % 700
        );
    }
    fs::write(path, text).unwrap();
}

fn queries(dialect: &str, told: &[&str]) -> Vec<(String, String)> {
    let output = run([&["demand", "sql", "--dialect", dialect, "--format", "json"], told].concat());
    let Value::Object(queries) = document(&output) else { panic!("an object of queries: {}", stderr(&output)) };
    queries.into_iter().map(|(name, text)| (name, text.as_str().unwrap().to_owned())).collect()
}

fn skipped(what: &str) {
    assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{what} is absent, and CI must not skip: run .ci/databases");
    #[expect(clippy::print_stdout, reason = "a check that is not made is said aloud")]
    {
        println!("skipped: {what} is absent (.ci/databases brings it)");
    }
}

/// What the results in the folder say is what the built-in pass says.
fn agrees(results: &Path, log: &Path, told: &[&str]) {
    // An absent unit of the latency is a guess of milliseconds, aloud.
    let built_in = run([&["demand", "--format", "json", "--latency-unit", "ms", log.to_str().unwrap()], told].concat());
    let built_in: Demand = serde_json::from_value(document(&built_in)).unwrap();
    let pattern = results.join("*.csv");
    let output = run(["demand", "import", "--format", "json", pattern.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let imported: Demand = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!((imported.calls, imported.failed, imported.log), (built_in.calls, built_in.failed, built_in.log));
    assert!((imported.first_ns - built_in.first_ns).abs() < 1000 && (imported.last_ns - built_in.last_ns).abs() < 1000);
    assert!(is_near(imported.gap_cv, built_in.gap_cv, 1e-5), "{:?} {:?}", imported.gap_cv, built_in.gap_cv);
    let same = |(one, other): (&WindowRates, &WindowRates)| {
        let numbers =
            |rates: &WindowRates| [rates.mean_rps, rates.p50_rps, rates.p95_rps, rates.p99_rps, rates.max_rps, rates.index_of_dispersion];
        one.windows == other.windows && numbers(one).into_iter().zip(numbers(other)).all(|(one, other)| (one - other).abs() < 1e-9)
    };
    assert_eq!(imported.rates.len(), 3);
    assert!(imported.rates.iter().zip(&built_in.rates).all(same), "{:#?}\n{:#?}", imported.rates, built_in.rates);
    let lengths = |demand: &Demand| {
        let of =
            |lengths: &Option<Lengths>| lengths.clone().map(|lengths| (lengths.count, lengths.p50, lengths.p95, lengths.p99, lengths.max));
        [&demand.input_tokens, &demand.output_tokens, &demand.all_input_tokens, &demand.all_output_tokens].map(of)
    };
    assert_eq!(lengths(&imported), lengths(&built_in));
    assert_eq!(imported.recompute, built_in.recompute);
    assert_eq!(imported.hours.len(), built_in.hours.len());
    for (one, other) in imported.hours.iter().zip(&built_in.hours) {
        assert_eq!((one.start_s, one.calls, one.failed, one.rpm.peak), (other.start_s, other.calls, other.failed, other.rpm.peak));
        assert_eq!(
            (one.requests, one.calls_of_requests, one.succeeded, one.incident),
            (other.requests, other.calls_of_requests, other.succeeded, other.incident)
        );
        assert!(is_near(Some(one.rpm.p95), Some(other.rpm.p95), 1e-9), "{one:?} {other:?}");
        assert!(is_near(Some(one.rpm.p95_of_occupied), Some(other.rpm.p95_of_occupied), 1e-9), "{one:?} {other:?}");
    }
    let (one, other) = (imported.concurrency.unwrap(), built_in.concurrency.unwrap());
    assert_eq!((one.p50, one.p95, one.p99, one.max), (other.p50, other.p95, other.p99, other.max));
    for (one, other) in one.buckets.iter().zip(&other.buckets) {
        assert_eq!((one.from, one.to, one.calls), (other.from, other.to, other.calls));
        // The built-in pass keeps latencies to three figures.
        assert!(is_near(one.p95_ms, other.p95_ms, 1e-3), "{one:?} {other:?}");
    }
}

fn is_near(one: Option<f64>, other: Option<f64>, share: f64) -> bool {
    one.zip(other).is_some_and(|(one, other)| (one - other).abs() <= share * other.abs().max(1.0))
}

/// Runs the dialect's queries by a database that is a package of Python, in `target/`, and holds the results to the built-in pass.
fn counted_in_python(dialect: &str, package: &str, told: &[&str], program: &str) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(package);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.csv");
    log(&path, told);
    let results = folder.path().join("results");
    fs::create_dir(&results).unwrap();
    let mut python = Command::new("python3");
    python.args(["-c", program]).arg(&path).arg(&results).current_dir(folder.path());
    let mut python = python.env("PYTHONPATH", package).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    serde_json::to_writer(python.stdin.take().unwrap(), &queries(dialect, told)).unwrap();
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    agrees(&results, &path, told);
}

fn is_there(package: &str) -> bool {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(package).is_dir()
}

const DUCKDB: &str = "
import duckdb, json, sys
connection = duckdb.connect()
connection.execute(f\"CREATE TABLE request_logs AS SELECT * FROM read_csv('{sys.argv[1]}')\")
for name, text in json.load(sys.stdin):
    connection.execute(f\"COPY ({text}) TO '{sys.argv[2]}/{name}.csv' (HEADER)\")
";

#[test]
fn duckdb_counts_what_the_built_in_pass_counts() {
    if !is_there("duckdb/duckdb") {
        return skipped("DuckDB");
    }
    counted_in_python("duckdb", "duckdb", &[], DUCKDB);
    counted_in_python("duckdb", "duckdb", &WORDS, DUCKDB);
}

#[test]
fn clickhouse_counts_what_the_built_in_pass_counts() {
    // The engine itself: the package around it wants data frames.
    const RUN: &str = "
import _chdb, json, sys
connection = _chdb.connect(':memory:')
csv = f\"file('{sys.argv[1]}', 'CSVWithNames')\"
connection.query(f\"CREATE TABLE request_logs ENGINE = Memory AS SELECT * FROM {csv} SETTINGS session_timezone = 'UTC', schema_inference_make_columns_nullable = 0\")
for name, text in json.load(sys.stdin):
    with open(f'{sys.argv[2]}/{name}.csv', 'wb') as result:
        result.write(connection.query(text, 'CSVWithNames').bytes())
";
    if !is_there("clickhouse/chdb") {
        return skipped("ClickHouse");
    }
    counted_in_python("clickhouse", "clickhouse/chdb", &[], RUN);
    counted_in_python("clickhouse", "clickhouse/chdb", &WORDS, RUN);
}

/// A server of its own in a folder, reached through a socket there; it refuses to run as root, so root lends it to `postgres`.
struct Postgres {
    folder: tempfile::TempDir,
    bin: PathBuf,
    as_root: bool,
}

impl Postgres {
    fn start() -> Option<Self> {
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok).map(|entry| entry.path().join("bin"));
        let bin = versions.filter(|bin| bin.join("initdb").exists()).max()?;
        let as_root = rustix::process::geteuid().is_root();
        let folder = tempfile::tempdir().unwrap();
        if as_root {
            let ids = Command::new("id").args(["-u", "postgres"]).output().ok()?;
            let id: u32 = String::from_utf8(ids.stdout).ok()?.trim().parse().ok()?;
            chown(folder.path(), Some(id), Some(id)).unwrap();
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let server = Self { folder, bin, as_root };
        let data = server.folder.path().join("data");
        server.must(server.command("initdb").args(["-A", "trust", "-U", "postgres", "--no-sync", "-D"]).arg(&data));
        let options = format!("-c listen_addresses='' -c fsync=off -k {}", server.folder.path().display());
        server.must(
            server
                .command("pg_ctl")
                .args(["-w", "-o", &options, "-l"])
                .arg(server.folder.path().join("server.log"))
                .arg("-D")
                .arg(&data)
                .arg("start"),
        );
        Some(server)
    }

    fn command(&self, program: &str) -> Command {
        let program = self.bin.join(program);
        if !self.as_root {
            return Command::new(program);
        }
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]).arg(program).current_dir(self.folder.path());
        command
    }

    fn must(&self, command: &mut Command) {
        // A file and no pipe: the server that is started would hold a pipe open.
        let log = self.folder.path().join("said");
        let said = File::create(&log).unwrap();
        let status = command.stdout(said.try_clone().unwrap()).stderr(said).status().unwrap();
        assert!(status.success(), "{command:?}: {}", fs::read_to_string(&log).unwrap());
    }

    fn psql(&self, sql: &str) -> Command {
        let mut command = self.command("psql");
        command.args(["-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-h"]).arg(self.folder.path()).args(["-c", sql]);
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.folder.path().join("data");
        let _ = self
            .command("pg_ctl")
            .args(["-m", "immediate", "-D"])
            .arg(data)
            .arg("stop")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

#[test]
fn postgres_counts_what_the_built_in_pass_counts() {
    let Some(server) = Postgres::start() else { return skipped("PostgreSQL") };
    for (told, time) in [(&[] as &[&str], "timestamptz"), (&WORDS, "timestamp")] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.csv");
        log(&path, told);
        let text = fs::read_to_string(&path).unwrap();
        let names: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        let kinds = ["bigint", time, "bigint", "int", "int", "text", "double precision", "int"];
        let columns: Vec<String> = names.iter().zip(kinds).map(|(name, kind)| format!("\"{name}\" {kind}")).collect();
        server.must(&mut server.psql(&format!("DROP TABLE IF EXISTS request_logs; CREATE TABLE request_logs ({})", columns.join(", "))));
        let mut load = server.psql("COPY request_logs FROM STDIN (FORMAT csv, HEADER)");
        server.must(load.stdin(File::open(&path).unwrap()));
        let results = folder.path().join("results");
        fs::create_dir(&results).unwrap();
        for (name, text) in queries("postgres", told) {
            let output = server.psql(&format!("COPY ({text}) TO STDOUT (FORMAT csv, HEADER)")).output().unwrap();
            assert!(output.status.success(), "{name}: {}\n{text}", stderr(&output));
            fs::write(results.join(format!("{name}.csv")), output.stdout).unwrap();
        }
        agrees(&results, &path, told);
    }
}

#[test]
fn every_dialect_has_every_query_and_columns_named_otherwise_are_quoted() {
    for (dialect, _) in Dialect::ALL {
        let names: Vec<String> = queries(dialect, &[]).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["hours", "lengths", "load", "rates", "recompute", "totals"], "{dialect}");
    }
    let output =
        run(["demand", "sql", "--dialect", "bigquery", "--table", "logs.calls", "--column", "time=Created At", "--column", "request="]);
    let text = stdout(&output);
    assert!(text.contains("`Created At`") && text.contains("FROM logs.calls") && !text.contains("successful_outputs"), "{text}");
    assert!(!text.contains('{'), "no mark is left: {text}");
    assert_eq!(run(["demand", "sql", "--dialect", "cobol"]).status.code(), Some(2));
}

#[test]
fn where_dialects_mean_different_things_by_the_same_words_they_are_not_used() {
    for (dialect, _) in Dialect::ALL {
        for (name, text) in queries(dialect, &["--column", "request=`a\"b"]) {
            // Trino divides decimals to one decimal place and rounds, which moves minute 57 into the next hour.
            assert!(!text.contains("/ 60.0") && !text.contains("/ 3600.0"), "{dialect}: {name}");
            // ClickHouse knows no value before the first row but 0.
            assert!(dialect != "clickhouse" || !text.contains("LAG("), "{dialect}: {name}");
            let quoted = match dialect {
                "bigquery" | "clickhouse" => r#"`\`a"b`"#,
                "spark" => r#"```a"b`"#,
                _ => r#""`a""b""#,
            };
            assert!(name != "recompute" || text.contains(&format!("PARTITION BY {quoted} ORDER")), "{dialect}: {text}");
        }
    }
    // A name that was written without quotation marks is in capitals there.
    assert!(stdout(&run(["demand", "sql", "--dialect", "snowflake"])).contains("\"CREATED_AT\""));
}

#[test]
fn a_result_that_is_none_or_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.csv");
    fs::write(&path, "a,b\n1,2\n").unwrap();
    let output = run(["demand", "import", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("`a`, `b`"), "{}", stderr(&output));
    fs::write(&path, "window_s,calls_in_window,windows,first_window,last_window\n1,1,1,5,5\n").unwrap();
    let output = run(["demand", "import", path.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(65));
    assert!(stderr(&output).contains("`totals`"), "{}", stderr(&output));
}
