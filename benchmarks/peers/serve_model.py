"""`plimsoll serve-model` measured by two clients that are not ours, beside what the server says of itself.

    python3 -m venv peers && peers/bin/pip install openai aiperf==0.13.0
    cargo build --release
    peers/bin/python benchmarks/peers/serve_model.py

A fresh server for each client. The `openai` package streams with as many threads as there shall be requests in flight and stamps with
`perf_counter`; aiperf is run as a user would, with the tokenizer of a test checkpoint. The server's side is its `/metrics`, read
20 times a second: tokens/s from the first token to the last, tokens, steps, and so how many tokens a step computed.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
CHECKPOINT = ROOT / "tests/fixtures/models/llama-untied"


class Serving:
    """A server of its own, on any free port."""

    def __init__(self, args):
        command = [args.plimsoll, "serve-model", "--model", args.model, "--device", "cpu", "--threads", "1", "--port", "0"]
        self.process = subprocess.Popen(command + ["--no-prefix-cache"], stderr=subprocess.PIPE, text=True)
        said = next(line for line in self.process.stderr if "http://" in line)
        self.url = "http://" + said.split("http://")[1].strip().removesuffix("/v1")
        self.seen, self.is_over = [], threading.Event()
        self.watching = threading.Thread(target=self.watch)
        self.watching.start()

    def watch(self):
        """When so many tokens were generated, until it is over."""
        while not self.is_over.wait(0.05):
            self.seen.append((time.perf_counter(), self.metrics()["generation_tokens_total"]))

    def tokens_per_second(self):
        moves = [late for early, late in zip(self.seen, self.seen[1:]) if late[1] > early[1]]
        return (moves[-1][1] - moves[0][1]) / (moves[-1][0] - moves[0][0])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.is_over.set()
        self.watching.join()
        self.process.terminate()
        self.process.wait()

    def metrics(self):
        text = urllib.request.urlopen(self.url + "/metrics").read().decode()
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("plimsoll:")]
        return {name.split("{")[0].removeprefix("plimsoll:"): float(value) for name, value in rows}


def share(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]


def by_openai(args, concurrency):
    import openai

    with Serving(args) as serving:
        client = openai.OpenAI(base_url=serving.url + "/v1", api_key="none", max_retries=0)
        ttfts, tokens, lock, left = [], [], threading.Lock(), [args.requests]

        def stream():
            while True:
                with lock:
                    left[0] -= 1
                    number = left[0]
                if number < 0:
                    return
                prompt = [(number * 131 + place * 7) % 1000 + 1 for place in range(args.prompt)]
                began, first, count = time.perf_counter(), None, 0
                answer = client.completions.create(
                    model=pathlib.Path(args.model).name, prompt=prompt, max_tokens=args.tokens, temperature=0, stream=True,
                    stream_options={"include_usage": True}, extra_body={"ignore_eos": True})
                for event in answer:
                    if event.choices and first is None:
                        first = time.perf_counter() - began
                    if event.usage:
                        count = event.usage.completion_tokens
                with lock:
                    ttfts.append(first * 1e3)
                    tokens.append(count)

        before, began = serving.metrics(), time.perf_counter()
        threads = [threading.Thread(target=stream) for _ in range(concurrency)]
        [thread.start() for thread in threads]
        [thread.join() for thread in threads]
        wall, after = time.perf_counter() - began, serving.metrics()
        assert all(count == args.tokens for count in tokens), "every answer has the tokens asked for"
        told = {"requests/s": len(ttfts) / wall, "tokens/s": sum(tokens) / wall, "TTFT p50 ms": statistics.median(ttfts), "TTFT p99 ms": share(ttfts, 0.99)}
        return told, beside(serving, before, after)


def by_aiperf(args, concurrency):
    with Serving(args) as serving, tempfile.TemporaryDirectory() as folder:
        before = serving.metrics()
        command = [
            str(pathlib.Path(sys.executable).parent / "aiperf"), "profile", "--model", pathlib.Path(args.model).name, "--url", serving.url,
            "--endpoint-type", "completions", "--streaming", "--concurrency", str(concurrency), "--request-count", str(args.requests),
            "--synthetic-input-tokens-mean", str(args.prompt), "--synthetic-input-tokens-stddev", "0", "--output-tokens-mean", str(args.tokens),
            "--extra-inputs", "ignore_eos:true", "--extra-inputs", "temperature:0", "--use-server-token-count",
            "--tokenizer", str(CHECKPOINT), "--artifact-dir", folder, "--ui", "none"]
        ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "AIPERF_DEV_MODE": "0"})
        found = list(pathlib.Path(folder).rglob("profile_export_aiperf.json"))
        if not found:
            sys.exit(f"aiperf wrote no report ({ran.returncode}):\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}")
        report = json.loads(found[0].read_text())
        after = serving.metrics()
        told = {
            "requests/s": report["request_throughput"]["avg"], "tokens/s": report["output_token_throughput"]["avg"],
            "TTFT p50 ms": report["time_to_first_token"]["p50"], "TTFT p99 ms": report["time_to_first_token"]["p99"]}
        return told, beside(serving, before, after)


def beside(serving, before, after):
    moved = {name: after[name] - before[name] for name in after}
    tokens, steps = moved["generation_tokens_total"], moved["engine_steps_total"]
    return {"tokens/s": serving.tokens_per_second(), "prompt tokens": moved["prompt_tokens_total"], "tokens": tokens, "steps": steps, "tokens/step": tokens / max(steps, 1)}


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--plimsoll", default=str(ROOT / "target/release/plimsoll"))
    parse.add_argument("--model", default=str(CHECKPOINT))
    parse.add_argument("--requests", type=int, default=200)
    parse.add_argument("--prompt", type=int, default=32)
    parse.add_argument("--tokens", type=int, default=64)
    parse.add_argument("--concurrency", type=int, nargs="+", default=[1, 8])
    args = parse.parse_args()
    print(subprocess.run([args.plimsoll, "--version"], capture_output=True, text=True).stdout.strip())
    for package in ("openai", "aiperf"):
        from importlib.metadata import version

        print(package, version(package))
    for concurrency in args.concurrency:
        for name, client in (("openai", by_openai), ("aiperf", by_aiperf)):
            told, server = client(args, concurrency)
            show = lambda figures: ", ".join(f"{what} {value:.5g}" for what, value in figures.items())
            print(f"{concurrency} in flight, {name}: {show(told)} | server: {show(server)}", flush=True)


if __name__ == "__main__":
    main()
