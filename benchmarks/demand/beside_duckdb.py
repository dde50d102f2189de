"""`plimsoll demand` and DuckDB on the same log, in turns: wall time, CPU time and peak memory of whole processes.

    pip install duckdb==2.0.1
    python3 benchmarks/demand/make_log.py synthetic_request_log.csv.gz big.csv --rows 10000000
    python3 benchmarks/demand/beside_duckdb.py big.csv [--plimsoll target/release/plimsoll] [--rounds 5]

DuckDB answers the capacity model's two queries (requests by hour with p95 and peak of requests per minute; latency p95 by load) as `plimsoll
demand sql --dialect duckdb` prints them, and then those and the recompute multiplier. plimsoll answers these and everything else in its one pass.
"""

import argparse
import json
import os
import subprocess
import sys
import time

DUCKDB = """
import duckdb, json, sys
connection = duckdb.connect()
connection.execute("SET threads = " + sys.argv[2])
for text in json.loads(sys.argv[3]):
    connection.execute(text.replace("request_logs", "read_csv('" + sys.argv[1] + "')")).fetchall()
"""


def once(command):
    began = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status != 0:
        sys.exit(f"{command[0]} ended with {status}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log")
    parser.add_argument("--plimsoll", default="target/release/plimsoll")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", default=str(os.cpu_count()))
    arguments = parser.parse_args()
    printed = subprocess.run(
        [arguments.plimsoll, "demand", "sql", "--dialect", "duckdb", "--format", "json"], check=True, capture_output=True
    )
    queries = json.loads(printed.stdout)
    python = [sys.executable, "-c", DUCKDB, arguments.log, arguments.threads]
    commands = {
        "plimsoll demand": [arguments.plimsoll, "--quiet", "demand", arguments.log, "--threads", arguments.threads, "--format", "json"],
        "DuckDB, two queries": [*python, json.dumps([queries[name] for name in ("hours", "load")])],
        "DuckDB, three": [*python, json.dumps([queries[name] for name in ("hours", "load", "recompute")])],
    }
    seen = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            seen[name].append(once(command))
    for name, runs in seen.items():
        wall = sorted(run[0] for run in runs)
        cpu, peak = min(run[1] for run in runs), max(run[2] for run in runs)
        print(f"{name}: wall best {wall[0]:.2f} s, worst {wall[-1]:.2f} s; CPU {cpu:.2f} s; peak {peak:.0f} MB")


if __name__ == "__main__":
    main()
