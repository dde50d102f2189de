"""Load generators side by side, one core each, against the same server on the other core, which keeps the truth.

    python3 -m venv peers && peers/bin/pip install aiperf==0.13.0 guidellm==0.8.1      # inference-perf needs Python 3.12
    cargo build --release --example paced_server && cargo bench --bench http --no-run
    peers/bin/python benchmarks/peers/generators.py --aiperf peers/bin/aiperf --guidellm peers/bin/guidellm

The client runs on core 0, the server on core 1. Rates are the server's own: requests (or chunks) that ended between the 5th and the 95th percentile
of ends, over that time. Rounds are interleaved: each round runs every client once. CPU is of the client's whole process tree, start included.
"""

import argparse
import json
import os
import pathlib
import resource
import signal
import statistics
import subprocess
import tempfile
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOKENIZER = ROOT / "tests/fixtures/models/llama-untied"


class Server:
    def __init__(self, args, pace):
        self.truth = pathlib.Path(tempfile.mkdtemp()) / "truth.jsonl"
        command = [args.server, "--port", str(args.port), "--cpu", "1", "--truth", str(self.truth), *pace]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{args.port}/health").read()
                return
            except OSError:
                time.sleep(0.05)
        raise SystemExit("the server does not start")

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        return [json.loads(line) for line in self.truth.read_text().splitlines()]


def sustained(requests, tokens):
    """Requests/s and chunks/s by the server's log, and how true the TTFT was there."""
    whole = [request for request in requests if request["ended"] == "whole" and sum(w["tokens"] for w in request["writes"]) == tokens]
    if len(whole) < 20:
        return None
    ends = sorted(request["end_at"] for request in whole)
    low, high = len(ends) * 5 // 100, len(ends) * 95 // 100 - 1
    rate = (high - low) / max((ends[high] - ends[low]) / 1e9, 1e-9)
    ttft = sorted((request["writes"][0]["at"] - request["read_at"]) / 1e6 for request in whole)
    return {"requests_per_s": rate, "chunks_per_s": rate * tokens, "true_ttft_p50_ms": ttft[len(ttft) // 2], "true_ttft_p99_ms": ttft[len(ttft) * 99 // 100], "requests": len(whole)}


def commands(args, concurrency, tokens, requests, out):
    url = f"http://127.0.0.1:{args.port}"
    yield "plimsoll", [args.plimsoll, "client", f"127.0.0.1:{args.port}", str(concurrency), str(tokens), str(requests[0])], None
    if args.aiperf:
        yield "aiperf", [args.aiperf, "profile", "--model", "fake", "--url", url, "--endpoint-type", "chat", "--streaming", "--tokenizer", str(TOKENIZER),
            "--concurrency", str(concurrency), "--request-count", str(requests[1]), "--isl", "16", "--osl", str(tokens), "--extra-inputs", "ignore_eos:true",
            "--extra-inputs", f"min_tokens:{tokens}", "--ui", "none", "--artifact-dir", str(out / "aiperf")], None
    if args.guidellm:
        yield "guidellm", [args.guidellm, "run", "--backend", f"kind=openai_http,target={url},model=fake", "--profile", f"kind=concurrent,streams={concurrency}",
            "--constraint", f"kind=max_requests,count={requests[1]}", "--data", f"kind=synthetic_text,prompt_tokens=16,output_tokens={tokens}",
            "--tokenizer", f"kind=huggingface_auto,model={TOKENIZER}", "--disable-console", "--output", f"kind=json,path={out / 'guidellm.json'}"], None
    if args.inference_perf:
        config = out / "inference-perf.yaml"
        config.write_text(f"""
api: {{type: completion, streaming: true}}
server: {{type: vllm, model_name: fake, base_url: {url}, ignore_eos: true}}
tokenizer: {{pretrained_model_name_or_path: {TOKENIZER}}}
data:
  type: random
  input_distribution: {{min: 16, max: 16, mean: 16, std_dev: 0, total_count: {requests[1]}}}
  output_distribution: {{min: {tokens}, max: {tokens}, mean: {tokens}, std_dev: 0, total_count: {requests[1]}}}
load:
  type: concurrent
  num_workers: 1
  worker_max_concurrency: {concurrency}
  stages: [{{num_requests: {requests[1]}, concurrency_level: {concurrency}}}]
storage: {{local_storage: {{path: {out / 'inference-perf'}}}}}
""")
        yield "inference-perf", [args.inference_perf, "--config_file", str(config)], None


def one(args, name, command, pace, tokens):
    server = Server(args, pace)
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.time()
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "GUIDELLM__MAX_WORKER_PROCESSES": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    try:
        done = subprocess.run(["taskset", "-c", "0", *command], capture_output=True, text=True, timeout=args.timeout, env=environment)
        code, said = done.returncode, (done.stdout + done.stderr)
    except subprocess.TimeoutExpired:
        code, said = 124, "ran past the time limit"
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall = time.time() - begin
    truth = server.end()
    figures = sustained(truth, tokens)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if figures is None:
        print(f"    {name}: exit {code}, {len(truth)} requests at the server: {said[-300:]!r}")
        return None
    return {**figures, "cpu_s_per_1000": cpu / max(len(truth), 1) * 1000, "wall_s": wall, "exit": code}


def main():
    parser = argparse.ArgumentParser()
    newest = lambda pattern: max(ROOT.glob(pattern), key=lambda path: path.stat().st_mtime, default=None)
    benches = [path for path in ROOT.glob("target/release/deps/http-*") if path.suffix == ""]
    parser.add_argument("--plimsoll", default=str(max(benches, key=lambda path: path.stat().st_mtime)) if benches else None)
    parser.add_argument("--server", default=str(newest("target/release/examples/paced_server")))
    parser.add_argument("--aiperf")
    parser.add_argument("--guidellm")
    parser.add_argument("--inference-perf")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--port", type=int, default=8127)
    parser.add_argument("--timeout", type=float, default=120)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    paced = ["--ttft-ms", "50", "--gap-ms", "20"]
    cases = [
        ("64 at once, 8 tokens, answered at once", [], 64, 8, (40_000, 1_500)),
        ("64 at once, 128 tokens, answered at once", [], 64, 128, (6_000, 400)),
        ("1024 streams, TTFT 50 ms, gap 20 ms, 64 tokens (50,027 chunks/s offered)", paced, 1024, 64, (6_144, 2_048)),
    ]
    for title, pace, concurrency, tokens, requests in cases:
        if args.only not in title:
            continue
        print(title, flush=True)
        results = {}
        for _ in range(args.rounds):
            out = pathlib.Path(tempfile.mkdtemp())
            for name, command, _ in commands(args, concurrency, tokens, requests, out):
                result = one(args, name, command, pace, tokens)
                if result:
                    results.setdefault(name, []).append(result)
        for name, rounds in results.items():
            rate, chunks = [r["requests_per_s"] for r in rounds], [r["chunks_per_s"] for r in rounds]
            cpu, wall = statistics.median(r["cpu_s_per_1000"] for r in rounds), statistics.median(r["wall_s"] for r in rounds)
            print(f"  {name:15} {statistics.median(rate):9.0f} requests/s ({min(rate):.0f} to {max(rate):.0f}), {statistics.median(chunks):9.0f} chunks/s,"
                  f" {cpu:8.2f} s CPU a 1,000 requests, {wall:.1f} s in all, exit {sorted({r['exit'] for r in rounds})}, n={len(rounds)}", flush=True)


main()
