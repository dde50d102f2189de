"""What `plimsoll export` writes, read by the peers' own readers.

    python3 -m venv peers
    peers/bin/pip install hdrhistogram pyarrow duckdb datasets transformers faker ftfy loguru msgpack culsans sanic click \
        "httpx[http2]" pydantic-settings pyyaml uvloop more-itertools websockets tabulate eval_type_backport orjson \
        aiofiles aiohttp cyclopts msgspec psutil pyzmq ruamel-yaml jinja2 jmespath nvidia-ml-py zstandard scipy pillow
    peers/bin/pip install --no-deps guidellm==0.8.1 aiperf==0.13.0
    target/debug/plimsoll bench --quick --target simulated --law mm1 --slo 'ttft:p90<400ms'
    for form in vllm aiperf guidellm inferencex hdr jsonl parquet; do target/debug/plimsoll export --as $form --out exports; done
    peers/bin/python benchmarks/peers/check_exports.py exports

GuideLLM imports torch for its data loader, which its reader does not use: names of it are stood in for by empty classes.
vLLM and InferenceX have no reader apart from their scripts: keys are compared with the lists that those write.
Exits 1 when a reader refuses a file or a figure differs.
"""

import glob
import importlib.machinery
import importlib.metadata
import json
import os
import sys
import types

# vllm/benchmarks/serve.py, `benchmark()` and `main_async()`: of a generation task, without flags that add keys.
VLLM = """date endpoint_type backend label model_id tokenizer_id num_prompts request_rate burstiness max_concurrency duration completed
failed total_input_tokens total_output_tokens request_throughput request_goodput output_throughput total_token_throughput
input_lens output_lens ttfts itls latencies start_times queue_times generated_texts errors max_output_tokens_per_s
max_concurrent_requests rtfx""".split()
VLLM += [f"{statistic}_{name}_ms" for name in ("ttft", "tpot", "itl", "e2el") for statistic in ("mean", "median", "std", "p99")]
# InferenceX, utils/process_result.py, of one node.
INFERENCEX = """hw conc image model infmax_model_prefix framework precision spec_decoding disagg isl osl is_multinode tp pp dcp_size
pcp_size ep dp_attention tput_per_gpu output_tput_per_gpu input_tput_per_gpu""".split()
INFERENCEX += [f"{statistic}_{name}" for name in ("ttft", "tpot", "itl", "e2el", "intvty") for statistic in ("mean", "median", "p99")]

failures = []


def say(peer, text):
    print(f"{peer:<12}{text}")


def same(peer, what, theirs, ours, tolerance=1e-9):
    if abs(theirs - ours) > tolerance * max(abs(ours), 1e-9):
        failures.append(peer)
        say(peer, f"DIFFERS: {what} is {theirs} there and {ours} here")


def files(folder, pattern):
    found = sorted(glob.glob(os.path.join(folder, pattern)))
    if not found:
        failures.append(pattern)
        say("", f"NO FILE {pattern}")
    return found


def keys(peer, paths, known):
    documents = [json.load(open(path)) for path in paths]
    missing = sorted({key for document in documents for key in known if key not in document})
    added = sorted({key for document in documents for key in document if key not in known})
    say(peer, f"{len(documents)} files; keys that are missing: {missing or 'none'}; keys that are added: {added}")
    if set(missing) - {"generated_texts"}:
        failures.append(peer)
    return documents


def vllm(folder):
    for document in keys("vLLM", files(folder, "plimsoll-level*.json"), VLLM):
        count = len(document["input_lens"])
        lengths = {len(document[name]) for name in ("output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "errors")}
        if lengths != {count} or count != document["num_prompts"]:
            failures.append("vLLM")
            say("vLLM", f"arrays of {lengths}, prompts {count}, num_prompts {document['num_prompts']}")
        # As calculate_metrics has it: successes only, numpy over seconds.
        done = [index for index, error in enumerate(document["errors"]) if not error]
        if done:
            same("vLLM", "mean TTFT", sum(document["ttfts"][index] for index in done) / len(done) * 1e3, document["mean_ttft_ms"])
            tpots = [(document["latencies"][i] - document["ttfts"][i]) / (document["output_lens"][i] - 1) for i in done if document["output_lens"][i] > 1]
            if tpots:
                same("vLLM", "mean TPOT", sum(tpots) / len(tpots) * 1e3, document["mean_tpot_ms"], 1e-6)


def inferencex(folder):
    keys("InferenceX", files(folder, "agg_*.json"), INFERENCEX)


def aiperf(folder):
    from aiperf.common.models.export_models import JsonExportData
    from aiperf.common.models.record_models import MetricRecordInfo

    summaries = files(folder, "aiperf-*/level*/profile_export_aiperf.json")
    records = 0
    for path in summaries:
        text = open(path).read()
        summary = JsonExportData.model_validate_json(text)
        lines = open(path.replace("_aiperf.json", ".jsonl")).read().splitlines()
        parsed = [MetricRecordInfo.model_validate_json(line) for line in lines]
        records += len(parsed)
        done = [record for record in parsed if record.error is None]
        same("AIPerf", "completed", len(done), summary.request_count.avg)
        if done:
            mean = sum(record.metrics["time_to_first_token"].value for record in done) / len(done)
            same("AIPerf", "mean TTFT", mean, summary.time_to_first_token.avg)
    say("AIPerf", f"{importlib.metadata.version('aiperf')}: JsonExportData read {len(summaries)} summaries, MetricRecordInfo {records} records")


def guidellm(folder):
    class Stand(types.ModuleType):
        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {"__class_getitem__": classmethod(lambda cls, item: cls)})

    # First, so that they see that there is no torch.
    import datasets  # noqa: F401
    import transformers  # noqa: F401

    for name in ("torch", "torch.utils", "torch.utils.data", "torch.utils.data.dataloader", "torch.utils.data.dataset"):
        module = Stand(name)
        module.__path__, module.__spec__ = [], importlib.machinery.ModuleSpec(name, None, is_package=True)
        sys.modules[name] = module
    from guidellm.benchmark.schemas.report import GenerativeBenchmarksReport

    for path in files(folder, "benchmarks-*.json"):
        report = GenerativeBenchmarksReport.load_file(path)
        requests = 0
        for benchmark in report.benchmarks:
            metrics = benchmark.metrics
            done = benchmark.requests.successful
            requests += len(done) + len(benchmark.requests.errored)
            # Their own definitions, from their own stamps: seconds since 1970 as floats resolve 0.2 microseconds.
            for name in ("time_to_first_token_ms", "time_per_output_token_ms", "inter_token_latency_ms"):
                values = [value for value in (getattr(request, name) for request in done) if value is not None]
                if values:
                    same("GuideLLM", name, sum(values) / len(values), getattr(metrics, name).successful.mean, 1e-3)
        say("GuideLLM", f"{importlib.metadata.version('guidellm')}: load_file read {len(report.benchmarks)} benchmarks with {requests} requests")


def hdr(folder):
    from hdrh.histogram import HdrHistogram
    from hdrh.log import HistogramLogReader

    paths, values = files(folder, "plimsoll-*.hlog"), 0
    for path in paths:
        # The reader adds up what it reads: a tag is a line.
        for line in open(path):
            if line.startswith("Tag="):
                tag, _, _, largest, encoded = line.strip().split(",")
                histogram = HdrHistogram.decode(encoded)
                values += histogram.get_total_count()
                same("HDR", f"largest {tag}", histogram.get_max_value() / 1e6, float(largest), 2e-3)
        reader = HistogramLogReader(path, HdrHistogram(1, 10**13, 3))
        whole = reader.get_next_interval_histogram()
        if whole is None:
            failures.append("HDR")
            say("HDR", f"HistogramLogReader finds nothing in {path}")
    say("HDR", f"hdrhistogram {importlib.metadata.version('hdrhistogram')}: {len(paths)} logs decoded, {values} values")


def rows(folder):
    import duckdb
    import pyarrow.parquet

    [table] = files(folder, "plimsoll-*.parquet")
    [lines] = files(folder, "plimsoll-*.jsonl")
    arrow = pyarrow.parquet.read_table(table)
    by_duck = duckdb.sql(f"select count(*), sum(output_tokens), sum(len(chunk_tokens)), max(ttft_ms) from '{table}'").fetchall()[0]
    by_line = duckdb.sql(f"select count(*), sum(output_tokens), max(ttft_ms) from read_json('{lines}')").fetchall()[0]
    same("Parquet", "rows", arrow.num_rows, by_line[0])
    for index, other in ((0, 0), (1, 1), (3, 2)):
        same("Parquet", f"column {index}", float(by_duck[index]), float(by_line[other]))
    say("Parquet", f"pyarrow {pyarrow.__version__} and duckdb {duckdb.__version__}: {arrow.num_rows} rows, {arrow.num_columns} columns, {by_duck[2]} chunks")
    say("", ", ".join(f"{field.name} {field.type}" for field in arrow.schema))


if __name__ == "__main__":
    for check in (vllm, inferencex, hdr, rows, aiperf, guidellm):
        try:
            check(sys.argv[1])
        except Exception as error:  # a reader that refuses is what this looks for
            failures.append(check.__name__)
            say(check.__name__, f"REFUSED: {type(error).__name__}: {str(error)[:1500]}")
    print(f"failed: {sorted(set(failures))}" if failures else "all read")
    sys.exit(bool(failures))
