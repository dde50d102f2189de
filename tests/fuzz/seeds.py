"""Inputs to begin with that are small enough to be changed a million times: results of other tools without their repetitions.

    python3 tests/fuzz/seeds.py FROM TO DICTIONARY

Of every list the first element stays, of lines of JSON the first two. The names of all fields become words of the dictionary.
"""

import json
import pathlib
import sys


READ = {
    "request_totals", "requests_per_second", "output_tokens_per_second", "time_to_first_token_ms", "inter_token_latency_ms",
    "request_scheduled_latency", "request_latency", "prompt_token_count", "output_token_count"}


def pruned(value, names):
    if isinstance(value, dict):
        names.update(value)
        return {name: pruned(part, names) for name, part in value.items()}
    if isinstance(value, list):
        return [pruned(part, names) for part in value[:1]]
    return value


def needed(report):
    """GuideLLM's report without what no reader looks at: it would be most of the bytes."""
    for benchmark in report.get("benchmarks", []):
        benchmark.pop("requests", None)
        metrics = {name: metric for name, metric in benchmark["metrics"].items() if name in READ}
        benchmark["metrics"] = {name: metric if name == "request_totals" or not metric else {"successful": metric["successful"]} for name, metric in metrics.items()}
    return report


def main():
    source, target, dictionary = map(pathlib.Path, sys.argv[1:])
    target.mkdir(parents=True, exist_ok=True)
    names = set()
    for file in sorted(source.glob("*.json*")):
        text = file.read_text()
        documents = [json.loads(line) for line in text.splitlines()[:2]] if file.suffix == ".jsonl" else [json.loads(text)]
        lines = [json.dumps(pruned(needed(document), names), separators=(",", ":")) for document in documents]
        (target / file.name).write_text("\n".join(lines))
    words = sorted(f'"\\"{name}\\""' for name in names if name.isascii() and '"' not in name and "\\" not in name)
    dictionary.write_text("\n".join(words) + "\n")


if __name__ == "__main__":
    main()
