"""Makes a long request log out of a short one: the rows again and again, with shifted times and ids.

    python3 benchmarks/demand/make_log.py synthetic_request_log.csv.gz big.csv --rows 10000000
    python3 benchmarks/demand/make_log.py synthetic_request_log.csv.gz big.jsonl --rows 10000000

Each repetition begins a whole number of days after the one before, so the shape over the day stays; where two repetitions meet, a few rows are
out of order, as in logs of several servers. The form follows the ending: `.csv` or `.jsonl`, with `.gz` behind it packed.
"""

import argparse
import datetime
import gzip
import json
import math

COLUMNS = "call_id,created_at,visible_request_id,kind,step,attempt,input_tokens,output_tokens,status,latency_ms,concurrent_sessions"
TEXT = ("created_at", "kind", "status")


def opened(path, mode):
    return gzip.open(path, mode + "t", encoding="ascii") if path.endswith(".gz") else open(path, mode, encoding="ascii")


def read(path):
    """(day of the row from the first, its time of day, id, the rest), the days spanned, ids used."""
    with opened(path, "r") as lines:
        if next(lines).rstrip("\n") != COLUMNS:
            raise SystemExit(f"{path} has other columns than {COLUMNS}")
        cells = [line.rstrip("\n").split(",", 3) for line in lines]
    days = [datetime.date.fromisoformat(row[1][:10]) for row in cells]
    first = min(days)
    rows = [((day - first).days, row[1][10:], int(row[2]), row[3]) for day, row in zip(days, cells)]
    # The few rows of calls that began before the last midnight do not make another day.
    span = math.ceil(sum(row[0] for row in rows) / len(rows) * 2)
    return rows, first, max(span, 1), max(row[2] for row in rows) + 1


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("source")
    arguments.add_argument("out")
    arguments.add_argument("--rows", type=int, default=10_000_000)
    args = arguments.parse_args()
    rows, first, span, ids = read(args.source)
    as_json = args.out.removesuffix(".gz").endswith(".jsonl")
    names = COLUMNS.split(",")
    made = 0
    with opened(args.out, "w") as out:
        if not as_json:
            out.write(COLUMNS + "\n")
        repetition = 0
        while made < args.rows:
            part = rows[: args.rows - made]
            dates = [(first + datetime.timedelta(days=repetition * span + day)).isoformat() for day in range(part[-1][0] + 2)]
            lines = [f"{made + at},{dates[day]}{time},{repetition * ids + visible},{rest}" for at, (day, time, visible, rest) in enumerate(part)]
            if as_json:
                lines = [json.dumps({n: v if n in TEXT else json.loads(v) for n, v in zip(names, line.split(","))}) for line in lines]
            out.write("\n".join(lines) + "\n")
            made += len(part)
            repetition += 1


main()
