#!/usr/bin/env python3
"""Runs what `plimsoll demand sql` prints for each dialect, and holds what `demand import` makes of the results to the built-in pass.

    benchmarks/demand/check_dialects.py [--plimsoll target/debug/plimsoll] [DIALECT ...]

Installs nothing. Each dialect needs packages of PyPI and says which are missing; Spark needs a Java too. All in one environment of 2 GB, in three minutes:

    pip install duckdb pytz chdb pyspark zetasql fakesnow 'snowflake-connector-python<5' sqlglot

Ends with 1 where a figure differs or a query fails, and with 69 where a package is missing; `dialects.py` has what stands in for which warehouse.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections import namedtuple
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from dialects import KINDS, WITH_ZONE, WITHOUT_ZONE, ClickHouse, DuckDB, GoogleSQL, Snowflake, Spark

ROLES = ["call", "time", "request", "input_tokens", "output_tokens", "status", "latency", "concurrent"]
Shape = namedtuple("Shape", "name columns time codes")
SHAPES = [
    Shape(
        "usual columns, times with a zone, statuses in words",
        ["call_id", "created_at", "visible_request_id", "input_tokens", "output_tokens", "status", "latency_ms", "concurrent_sessions"],
        WITH_ZONE,
        False,
    ),
    Shape(
        "columns called by words of the language, times without a zone, status codes, a fractional type of load",
        ["id", "timestamp", "group", "order", "select", "case", "end", "At Once"],
        WITHOUT_ZONE,
        True,
    ),
]
# The program that runs a dialect, what it is, and what that proves.
WAYS = {
    "duckdb": [(DuckDB, {}, "run by DuckDB {duckdb}")],
    "clickhouse": [(ClickHouse, {}, "run by ClickHouse, embedded (chdb {chdb}, chdb-core {chdb-core})")],
    "spark": [(Spark, {}, "run by Spark {pyspark}")],
    "bigquery": [(GoogleSQL, {}, "run by GoogleSQL's own analyser and reference evaluator (zetasql {zetasql}), not by BigQuery")],
    "snowflake": [(Snowflake, {}, "read as Snowflake by sqlglot {sqlglot}, translated and run by DuckDB {duckdb} (fakesnow {fakesnow})")],
    "trino": [(DuckDB, {"reads": "trino"}, "read as Trino by sqlglot {sqlglot}, translated and run by DuckDB {duckdb}")],
}
# What a warehouse cannot say, and what is said of files.
NOT_ASKED = {"sources", "columns", "log_told_by", "rejected", "visible_rates", "latency_ms", "outcome_ms", "calls_of_outcomes", "at_peak_minute",
             "p95_of_rows", "findings", "demand_schema_version"}
# The pass keeps latencies to three figures, and a time is a float of seconds in a warehouse.
LOOSER = {"p95_ms": 1e-3, "gap_cv": 1e-5, "first_ns": 1e-15 * 1000, "last_ns": 1e-15 * 1000}


def write_log(path, shape):
    """Five hours of calls with silences, retries, failures and bursts; the same in every shape."""
    state, at_ms, request, lines = 7, 13_500_000, 0, [",".join(shape.columns)]
    for call in range(6000):
        state = (state * 6_364_136_223_846_793_005 + 1_442_695_040_888_963_407) % 2**64
        drawn = state >> 40
        at_ms += 180_000 if drawn % 97 == 0 else drawn % (700 if call // 500 % 2 == 0 else 4000)
        request += call == 0 or drawn % 5 != 0
        failed = drawn % 11 == 0
        clock = f"2026-03-{2 + at_ms // 86_400_000:02}T{at_ms // 3_600_000 % 24:02}:{at_ms // 60_000 % 60:02}:{at_ms // 1000 % 60:02}.{at_ms % 1000:03}"
        clock += "Z" if shape.time == WITH_ZONE else ""
        status = {False: ["ok", "error"], True: [200, 503]}[shape.codes][failed]
        output = 0 if failed else 1 + drawn % 300
        lines.append(f"{call},{clock},{request},{20 + drawn % 900},{output},{status},{50 + drawn % 9000}.5,{drawn % 700}")
    path.write_text("\n".join(lines) + "\n")


def said(plimsoll, *words):
    done = subprocess.run([plimsoll, "--quiet", "demand", *map(str, words), "--format", "json"], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"plimsoll demand {words[0]} ended with {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def differences(imported, built_in, at=""):
    """(figures compared, where they differ)."""
    if isinstance(built_in, dict):
        parts = [(imported.get(key), value, f"{at}.{key}") for key, value in built_in.items() if key not in NOT_ASKED]
    elif isinstance(built_in, list) and len(imported or []) == len(built_in):
        parts = [(one, other, f"{at}[{index}]") for index, (one, other) in enumerate(zip(imported, built_in))]
    elif isinstance(built_in, (int, float)) and isinstance(imported, (int, float)):
        slack = LOOSER.get(at.rsplit(".", 1)[-1], 1e-9) * max(1.0, abs(built_in))
        return 1, [] if abs(imported - built_in) <= slack else [f"{at[1:]}: {imported}, and {built_in} by the built-in pass"]
    else:
        return 1, [] if imported == built_in else [f"{at[1:]}: {imported}, and {built_in} by the built-in pass"]
    found = [differences(*part) for part in parts]
    return sum(count for count, _ in found), [line for _, lines in found for line in lines]


def one(plimsoll, dialect, shape, engine, how, folder):
    """Figures compared, and where they differ."""
    log = folder / "log.csv"
    write_log(log, shape)
    columns = [word for role, name in zip(ROLES, shape.columns) for word in ["--column", f"{role}={name}"]]
    queries = said(plimsoll, "sql", "--dialect", dialect, *columns)
    names = []
    with closing(engine(log, shape, **how)) as running:
        for name, text in queries.items():
            names.append(folder / f"{name}.csv")
            try:
                names[-1].write_text(running.run(text))
            except Exception as error:  # whatever an engine raises is what it says of the query
                return 0, [f"{name} fails: {str(error)[:600]}\n{text}"]
    unit = ["--latency-unit", "ms"]
    return differences(said(plimsoll, "import", *names, *unit), said(plimsoll, log, *columns, *unit))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dialects", nargs="*", metavar="DIALECT", help=f"of {', '.join(WAYS)}; all by default")
    parser.add_argument("--plimsoll", type=Path, default=Path("target/debug/plimsoll"))
    options = parser.parse_args()
    broken = missing = 0
    for dialect in options.dialects or WAYS:
        for engine, how, proof in WAYS[dialect]:
            versions = {}
            for package in [*engine.packages, *(["sqlglot"] if how else [])]:
                try:
                    versions[package] = version(package)
                except PackageNotFoundError:
                    print(f"{dialect}: not run, `{package}` is not installed (pip install {package})")
                    missing += 1
            if len(versions) < len(engine.packages) + bool(how):
                continue
            print(f"{dialect}: {proof.format(**versions)}", flush=True)
            for shape in SHAPES:
                with tempfile.TemporaryDirectory() as folder:
                    count, lines = one(options.plimsoll.resolve(), dialect, shape, engine, how, Path(folder))
                broken += bool(lines)
                print(f"  {'FAILED' if lines else 'ok    '}  {shape.name}: {count} figures" + "".join(f"\n          {line}" for line in lines), flush=True)
    sys.exit(1 if broken else 69 if missing else 0)


if __name__ == "__main__":
    main()
