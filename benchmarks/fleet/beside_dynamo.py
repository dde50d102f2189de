#!/usr/bin/env python3
"""Asks plimsoll's fleet simulator and Dynamo's offline replay the same: how few replicas hold an SLO, and how long each call takes.

    cargo build --release --example fleet
    benchmarks/fleet/beside_dynamo.py [--fleet target/release/examples/fleet] [--python target/planners/d142/bin/python]

The first time it makes an environment with ai-dynamo 1.4.2 from PyPI, 1 GB. Ends with 1 where the smallest fleets of a case differ by more
than one replica, or where call by call the two stray further apart than the ways in which they differ explain (see README.md).
"""

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

FIRST = ["numpy", "scipy", "pandas", "prometheus_client", "pydantic", "kubernetes<33", "aiohttp", "pyyaml", "scikit-learn", "msgspec", "pyzmq",
         "transformers"]
WITHOUT_DEPENDENCIES = ["ai-dynamo==1.4.2", "ai-dynamo-runtime==1.4.2"]
# Tokens of a block of replay's cache. Whole blocks are what a sequence has and what a pass is charged for, so a coarse one makes its cache
# smaller and its batch larger than the law says; 2 is the finest that it takes, and slow.
USUAL_BLOCK, FINEST_BLOCK = 16, 2
SMALL = {"step_s": 0.008, "per_sequence_s": 1e-4, "per_prefill_token_s": 3e-5, "per_kv_token_s": 1e-8, "max_batch": 256, "chunk_tokens": 2048,
         "kv_tokens": 400_000}
LARGE = {"step_s": 0.02, "per_sequence_s": 4e-4, "per_prefill_token_s": 8e-5, "per_kv_token_s": 5e-8, "max_batch": 128, "chunk_tokens": 8192,
         "kv_tokens": 400_000}
WHOLE = {**SMALL, "chunk_tokens": 8192}
TIGHT = {**SMALL, "kv_tokens": 40_000}
# Law, prompt and answer tokens, calls/s, p95 limits of TTFT and TPOT in milliseconds.
CASES = [
    ("short", SMALL, 128, 32, 150, 100, 15),
    ("long answers", SMALL, 128, 512, 40, 200, 20),
    ("chat", SMALL, 512, 128, 100, 200, 20),
    ("short answers", SMALL, 1024, 64, 100, 200, 25),
    ("prompts of a step", SMALL, 2048, 128, 60, 500, 30),
    ("two steps a prompt", SMALL, 4096, 32, 40, 600, 100),
    ("long both", WHOLE, 4096, 512, 40, 1000, 40),
    ("strict TPOT", SMALL, 256, 256, 110, 200, 12),
    ("strict TTFT", WHOLE, 2048, 128, 30, 150, 100),
    ("large model", LARGE, 512, 128, 30, 300, 60),
    ("small cache", TIGHT, 1024, 256, 30, 2000, 100),
]
# Quantiles of the same calls may differ by this share. Which calls wait for a full cache is decided by single tokens: their tail moves more.
APART, APART_FULL_CACHE = 0.03, 0.15
failed = []


def made(interpreter):
    """The interpreter of the environment, which is made where it is not there."""
    if not interpreter.exists():
        folder = interpreter.parent.parent
        print(f"makes {folder}", flush=True)
        venv.create(folder, with_pip=True)
        subprocess.run([interpreter, "-m", "pip", "install", "-q", *FIRST], check=True)
        subprocess.run([interpreter, "-m", "pip", "install", "-q", "--no-deps", *WITHOUT_DEPENDENCIES], check=True)
    return str(interpreter)


def promise(what, holds):
    if not holds:
        failed.append(what)
        print(f"FAILED  {what}", flush=True)


def said(command, stdin=""):
    """What a program printed, and the CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(word) for word in command], input=stdin, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-3000:]}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Ours:
    """plimsoll's simulator."""

    def __init__(self, program):
        self.program = program

    def ask(self, case, **more):
        _, law, prompt, answer, rate, ttft, tpot = case
        slo = f"ttft:p95<{ttft}ms,tpot:p95<{tpot}ms"
        question = {"law": law, "prompt": prompt, "answer": answer, "rate": rate, "slo": slo, "routing": "round_robin", **more}
        out, cpu = said([self.program], json.dumps(question) + "\n")
        return json.loads(out), cpu


class Replay:
    """Dynamo's simulator. A pass of it costs the prefill table at its new tokens, and the decode table at the tokens in the cache and the
    mean context of those that get a token. From that it cannot know how many there are: they are tokens / context, so the table has
    a + b * tokens / context + d * tokens, exact at every whole context."""

    def __init__(self, interpreter, folder):
        self.interpreter, self.folder = interpreter, folder

    def profile(self, law, prompt, answer):
        path = self.folder / f"perf_data-{law['step_s']}-{prompt}-{answer}.npz"
        if not path.exists():
            ms = {name: law[name] * 1e3 for name in ["step_s", "per_sequence_s", "per_prefill_token_s", "per_kv_token_s"]}
            program = (
                "import json, sys, numpy as np\n"
                "path, ms, low, high, most = json.loads(sys.argv[1])\n"
                "isl, kv, context = np.array([0.0, 16384.0]), np.array([0.0, float(most)]), np.arange(float(low), float(high) + 1.0)\n"
                "itl = ms['step_s'] + ms['per_sequence_s'] * kv[:, None] / context[None, :] + ms['per_kv_token_s'] * kv[:, None]\n"
                "np.savez(path, prefill_isl=isl, prefill_ttft_ms=ms['per_prefill_token_s'] * isl, decode_active_kv_tokens=kv,\n"
                "         decode_context_length=context, decode_itl=itl)\n"
            )
            said([self.interpreter, "-c", program, json.dumps([str(path), ms, prompt, prompt + answer + 1, law["kv_tokens"]])])
        return path

    def command(self, case, replicas, block):
        _, law, prompt, answer, *_ = case
        engine = {
            "engine_type": "vllm",
            "num_gpu_blocks": law["kv_tokens"] // block,
            "block_size": block,
            "max_num_seqs": law["max_batch"],
            "max_num_batched_tokens": law["chunk_tokens"],
            "enable_prefix_caching": False,
            "planner_profile_data": str(self.profile(law, prompt, answer)),
        }
        start = [self.interpreter, "-m", "dynamo.replay", "--replay-mode", "offline", "--router-mode", "round_robin"]
        return [*start, "--num-workers", replicas, "--extra-engine-args", json.dumps(engine), "--report-json", self.folder / "report.json"]

    def run(self, case, replicas, requests, seed):
        _, _, prompt, answer, rate, *_ = case
        traffic = ["--input-tokens", prompt, "--output-tokens", answer, "--request-count", requests, "--request-rate", rate]
        block = FINEST_BLOCK if case[1] is TIGHT else USUAL_BLOCK
        _, cpu = said([*self.command(case, replicas, block), *traffic, "--arrival-seed", seed])
        report = json.loads((self.folder / "report.json").read_text())
        assert report["completed_requests"] == requests, report
        return report, cpu

    def each(self, case, replicas, arrivals_s):
        """Latencies of each call of a trace, milliseconds, in order of arrival."""
        _, _, prompt, answer, *_ = case
        trace, calls = self.folder / "trace.jsonl", self.folder / "calls.jsonl"
        rows = ({"timestamp": at * 1e3, "input_length": prompt, "output_length": answer, "hash_ids": [k]} for k, at in enumerate(arrivals_s))
        trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
        # One id stands for a whole prompt.
        said([*self.command(case, replicas, FINEST_BLOCK), "--trace-block-size", max(prompt, 512), "--report-jsonl", calls, trace])
        rows = sorted((json.loads(line) for line in calls.read_text().splitlines()), key=lambda row: row["arrival_time_ms"])
        tpot = [(row["e2e_latency_ms"] - row["ttft_ms"]) / (answer - 1) for row in rows]
        return [row["ttft_ms"] for row in rows], tpot


def smallest(replay, case, guess, requests, seed):
    """The smallest fleet of which p95 TTFT and p95 TPOT are under their limits in replay, and its report."""
    *_, ttft, tpot = case

    def holds(replicas):
        report, _ = replay.run(case, replicas, requests, seed)
        return report if report["p95_ttft_ms"] < ttft and report["p95_tpot_ms"] < tpot else None

    report, replicas = holds(guess), guess
    while report is None:
        replicas += 1
        report = holds(replicas)
    while replicas > 1 and replicas <= guess:
        fewer = holds(replicas - 1)
        if fewer is None:
            break
        replicas, report = replicas - 1, fewer
    return replicas, report


def sizes(ours, replay, requests, seeds):
    print(f"\nThe smallest fleet, {requests} calls, round robin, and p95 of TTFT and TPOT at Dynamo's, milliseconds")
    print(f"{'case':<19} {'prompt':>6} {'answer':>6} {'calls/s':>7} {'TTFT<':>6} {'TPOT<':>6} {'seed':>4} | {'ours':>4} {'Dynamo':>6} | "
          f"{'TTFT ours':>9} {'Dynamo':>8} {'TPOT ours':>9} {'Dynamo':>8}")
    found = {}
    for number, case in enumerate(CASES):
        name, _, prompt, answer, rate, ttft, tpot = case
        # Arrivals of one seed are the same at every rate but for their scale: each case has seeds of its own.
        for seed in (100 * number + seed for seed in seeds):
            few = ours.ask(case, requests=requests, seed=seed, smallest=True)[0]["smallest"]
            theirs, report = smallest(replay, case, few, requests, seed)
            there = ours.ask(case, requests=requests, seed=seed, replicas=theirs)[0]
            print(f"{name:<19} {prompt:>6} {answer:>6} {rate:>7} {ttft:>6} {tpot:>6} {seed:>4} | {few:>4} {theirs:>6} | "
                  f"{there['ttft_ms']['p95']:>9.2f} {report['p95_ttft_ms']:>8.2f} {there['tpot_ms']['p95']:>9.3f} {report['p95_tpot_ms']:>8.3f}", flush=True)
            promise(f"{name}, seed {seed}: {few} and {theirs} replicas", abs(few - theirs) <= 1)
            found.setdefault(name, []).append((few, theirs))
    pairs = [pair for of_case in found.values() for pair in of_case]
    print(f"equal in {sum(a == b for a, b in pairs)} of {len(pairs)}, within one in {sum(abs(a - b) <= 1 for a, b in pairs)}; "
          f"{min(b for _, b in pairs)} to {max(b for _, b in pairs)} replicas")
    return {name: of_case[0][1] for name, of_case in found.items()}


def quantile(values, share):
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def call_by_call(ours, replay, fleets, requests):
    print(f"\nThe same {requests} arrivals on the same replicas, call by call: ours less Dynamo's")
    print(f"{'case':<19} {'replicas':>8} | {'TTFT p50':>8} {'off':>7} {'p95':>8} {'off':>7} | {'TPOT p50':>8} {'off':>7} {'p95':>8} {'off':>7} | "
          f"{'calls: TTFT off, ms, p50':>24} {'p95':>7}  {'TPOT off, p95':>13}")
    for case in CASES:
        name, *_, rate, _, _ = case
        drawn, at, arrivals_s = random.Random(7), 0.0, []
        for _ in range(requests):
            arrivals_s.append(round(at, 9))
            at += drawn.expovariate(rate)
        replicas = fleets[name]
        said_ours, _ = ours.ask(case, arrivals_s=arrivals_s, replicas=replicas)
        pairs = list(zip([said_ours["ttft_ms_each"], said_ours["tpot_ms_each"]], replay.each(case, replicas, arrivals_s)))
        cells = []
        for mine, theirs in pairs:
            assert len(mine) == len(theirs) == requests
            row = []
            for share in [0.5, 0.95]:
                a, b = quantile(mine, share), quantile(theirs, share)
                row.append(f"{b:>8.2f} {100 * (a / b - 1):>6.2f}%")
                apart = APART_FULL_CACHE if case[1] is TIGHT else APART
                promise(f"{name}: quantile {share}: {a} and {b} ms", abs(a / b - 1) < apart)
            cells.append(" ".join(row))
        ttft_off = [abs(a - b) for a, b in zip(*pairs[0])]
        tpot_off = [abs(a / b - 1) for a, b in zip(*pairs[1])]
        print(f"{name:<19} {replicas:>8} | {cells[0]} | {cells[1]} | {quantile(ttft_off, 0.5):>24.3f} {quantile(ttft_off, 0.95):>7.2f}  "
              f"{100 * quantile(tpot_off, 0.95):>12.2f}%", flush=True)


def speeds(ours, replay, rounds):
    case = next(case for case in CASES if case[0] == "chat")
    replicas, few, many = 6, 5_000, 50_000
    print(f"\nSpeed, case chat, {replicas} replicas, in turns: calls per CPU second of the whole process, its start taken off by the slope from few calls to many")
    rates = {"ours": [], "Dynamo": []}
    for _ in range(rounds):
        cpu = [ours.ask(case, requests=requests, replicas=replicas, seed=1)[1] for requests in [few, 100 * few]]
        rates["ours"].append(99 * few / (cpu[1] - cpu[0]))
        cpu = [replay.run(case, replicas, requests, 1)[1] for requests in [few, many]]
        rates["Dynamo"].append((many - few) / (cpu[1] - cpu[0]))
    for who, of_rounds in rates.items():
        print(f"  {who:<7} best {max(of_rounds):>12,.0f}   worst {min(of_rounds):>12,.0f}")
    print(f"  ratio, ours over Dynamo: {statistics.median(rates['ours']) / statistics.median(rates['Dynamo']):.1f}, by medians")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--fleet", type=Path, default=Path("target/release/examples/fleet"))
    arguments.add_argument("--python", type=Path, default=Path("target/planners/d142/bin/python"))
    arguments.add_argument("--requests", type=int, default=5000)
    arguments.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--case", action="append", help="only this one; may be repeated")
    given = arguments.parse_args()
    if given.case:
        CASES[:] = [case for case in CASES if case[0] in given.case]
    with tempfile.TemporaryDirectory() as folder:
        ours, replay = Ours(given.fleet), Replay(made(given.python), Path(folder))
        fleets = sizes(ours, replay, given.requests, given.seeds)
        call_by_call(ours, replay, fleets, given.requests)
        if not given.case:
            speeds(ours, replay, given.rounds)
    print(f"\n{len(failed)} promises broken" if failed else "\nevery promise held")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
