"""The CPU device beside llama.cpp, one thread each, the same model shape, in turns in one run.

    python3 -m venv peers && peers/bin/pip install xllamacpp gguf numpy
    cargo build --release --benches
    peers/bin/python benchmarks/peers/llama_cpp.py --rounds 5

Both sides hold the 124.7 M-parameter Llama shape with random weights (llama.cpp reads them from a GGUF file that this
script writes to a temporary folder). Each round runs ours, then theirs, for f32 and bf16; a figure is the best of all
rounds with the median beside it, and the ratio is best to best. llama.cpp's figures are its own `timings`: the prompt of
512 tokens, and 32 tokens after 16. It keeps its defaults otherwise (f16 cache, flash attention where it chooses so).
"""

import argparse
import glob
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import gguf
import numpy as np

HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE, VOCAB = 768, 12, 12, 4, 64, 2048, 32_000
KINDS = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16}

SERVER = """
import sys, time, xllamacpp as x
p = x.CommonParams()
p.model.path = sys.argv[1]
p.port = 0
p.n_ctx = 1024
p.n_parallel = 1
p.n_batch = p.n_ubatch = 512
p.cpuparams.n_threads = p.cpuparams_batch.n_threads = 1
p.warmup = True
server = x.Server(p)
print("system", x.get_system_info().replace(chr(10), " "), flush=True)
print("address", server.listening_address, flush=True)
time.sleep(3600)
"""


def write_model(path, kind):
    random = np.random.default_rng(7)
    out = gguf.GGUFWriter(path, "llama")
    out.add_context_length(2048)
    out.add_embedding_length(HIDDEN)
    out.add_block_count(LAYERS)
    out.add_feed_forward_length(INTERMEDIATE)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV_HEADS)
    out.add_key_length(HEAD_DIM)
    out.add_value_length(HEAD_DIM)
    out.add_rope_dimension_count(HEAD_DIM)
    out.add_layer_norm_rms_eps(1e-5)
    out.add_rope_freq_base(10_000.0)
    out.add_vocab_size(VOCAB)
    # A vocabulary has to be there; prompts are ids and the text is never looked at.
    out.add_tokenizer_model("llama")
    out.add_token_list([f"<{number}>".encode() for number in range(VOCAB)])
    out.add_token_scores([0.0] * VOCAB)
    out.add_token_types([gguf.TokenType.CONTROL if number < 3 else gguf.TokenType.NORMAL for number in range(VOCAB)])
    out.add_bos_token_id(1)
    out.add_eos_token_id(2)

    def matrix(name, rows, width):
        values = random.normal(0.0, 0.02, (rows, width)).astype(np.float32)
        out.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name):
        out.add_tensor(name, random.normal(1.0, 0.1, HIDDEN).astype(np.float32))

    matrix("token_embd.weight", VOCAB, HIDDEN)
    norm("output_norm.weight")
    matrix("output.weight", VOCAB, HIDDEN)
    for layer in range(LAYERS):
        at = f"blk.{layer}."
        norm(at + "attn_norm.weight")
        matrix(at + "attn_q.weight", HEADS * HEAD_DIM, HIDDEN)
        matrix(at + "attn_k.weight", KV_HEADS * HEAD_DIM, HIDDEN)
        matrix(at + "attn_v.weight", KV_HEADS * HEAD_DIM, HIDDEN)
        matrix(at + "attn_output.weight", HIDDEN, HEADS * HEAD_DIM)
        norm(at + "ffn_norm.weight")
        matrix(at + "ffn_gate.weight", INTERMEDIATE, HIDDEN)
        matrix(at + "ffn_up.weight", INTERMEDIATE, HIDDEN)
        matrix(at + "ffn_down.weight", HIDDEN, INTERMEDIATE)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


class LlamaCpp:
    """A llama.cpp server with one model."""

    def __init__(self, path):
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, path], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.system = self.process.stdout.readline().removeprefix("system").strip()
        self.address = self.process.stdout.readline().removeprefix("address").strip()
        if not self.address:
            sys.exit("llama.cpp did not start: try the SERVER script of this file by hand")

    def timings(self, prompt, tokens):
        body = {"prompt": prompt, "n_predict": tokens, "ignore_eos": True, "temperature": 0, "cache_prompt": False}
        request = urllib.request.Request(
            self.address + "/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        answer = json.load(urllib.request.urlopen(request, timeout=600))["timings"]
        assert answer["prompt_n"] == len(prompt) and answer["predicted_n"] == tokens, answer
        return answer

    def prefill(self):
        start = int(time.monotonic() * 1e6) % 20_000
        return self.timings([10 + (start + n) % 30_000 for n in range(512)], 1)["prompt_per_second"]

    def decode(self):
        return self.timings(list(range(10, 26)), 33)["predicted_per_second"]


def ours(binary, element, only):
    """Tokens per second by arithmetic."""
    text = subprocess.run(
        [binary, "--bench", "threads=1", f"element={element}", f"only={only}"], capture_output=True, text=True, check=True
    ).stdout
    print(text, end="", flush=True)
    return {m[1]: float(m[2]) for m in re.finditer(r"^\w+ +\w+ (\w+) +threads \d+ \| +([\d.]+) tok/s", text, re.M)}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--binary", help="the built bench `device`; found under target/release/deps by default")
    options = options.parse_args()
    built = [p for p in glob.glob("target/release/deps/device-*") if os.access(p, os.X_OK) and not p.endswith(".d")]
    binary = options.binary or max(built, key=os.path.getmtime, default=None)
    if binary is None:
        sys.exit("build the bench first: cargo build --release --benches")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        servers = {}
        for name, kind in KINDS.items():
            path = os.path.join(folder, name + ".gguf")
            write_model(path, kind)
            servers[name] = LlamaCpp(path)
        print(servers["f32"].system)
        try:
            for number in range(options.rounds):
                print(f"round {number + 1} of {options.rounds}", flush=True)
                for name, server in servers.items():
                    for only, theirs in (("decode", server.decode), ("prefill", server.prefill)):
                        for arithmetic, rate in ours(binary, name, only).items():
                            figures.setdefault((only, name, arithmetic), []).append(rate)
                        figures.setdefault((only, name, "llama.cpp"), []).extend(theirs() for _ in range(3))
        finally:
            for server in servers.values():
                server.process.kill()
    print("\ntokens/s, best (median) | ratio to llama.cpp, best to best")
    for (only, name, who), rates in figures.items():
        peer = max(figures[(only, name, "llama.cpp")])
        print(f"{only:<8} {name:<5} {who:<10} {max(rates):8.1f} ({statistics.median(rates):8.1f}) | {max(rates) / peer:.2f}")


if __name__ == "__main__":
    main()
