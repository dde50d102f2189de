"""`python -m llama_cpp.server` measured by `plimsoll bench`, and the record held to what is known of that server.

    cargo build
    python3 benchmarks/servers/llama_cpp_python.py --venv /tmp/llama-cpp-python

Makes the environment (a source package: ten minutes of compiling) and serves the test checkpoint `llama-untied.gguf` on loopback. The
server never counts tokens, takes no prompts as ids and ignores `ignore_eos`; the local tokenizer counts, and one answer in a thousand has no
token, because the model ends it at once. It answers one
request at a time, and another one that comes ends the stream that runs. So it is measured twice: with never more than one
request in flight, where every answer must be complete; and with more, where answers must fail by a class that says so, and
the run must end by itself.
"""

import pathlib
import sys

from checked import MODELS, Promises, Run, Server, environment, kept, options

PACKAGES = ("llama-cpp-python[server]==0.3.36",)
# How a stream that another request ended may be told: no token, no reason to finish, no proper end of its body.
BROKEN_OFF = {"empty", "truncated", "connection_lost", "malformed", "target_error"}
# What the end of a level in which nothing went well left in flight: bench's own doing.
OWN = {"cancelled"}


def main():
    args = options(__doc__, "llama-cpp-python-venv")
    python = environment(args.venv, *PACKAGES)
    folder = kept(args)
    command = [python, "-m", "llama_cpp.server", "--model", "llama-untied.gguf", "--host", "127.0.0.1", "--port", "PORT", "--n_ctx", "512"]
    # What it does not force, the model may end early.
    tokenizer = ["--tokenizer", str(MODELS / "llama-untied"), "--natural-length"]
    promises = Promises()
    with Server(command, folder, "/v1/models") as server:
        alone = Run(args, server, pathlib.Path(folder) / "alone", *tokenizer, "--max-concurrency", "1", "--in-flight-cap", "1", "--confirmations", "1")
        promises.hold("alone: the run came to a verdict", alone.status, alone.status in (0, 4, 5))
        promises.hold("alone: prompts", alone["prompts"], (alone["prompts"] or "").startswith("words"))
        promises.hold("alone: token source", alone["token_source"], alone["token_source"] == "tokenizer")
        promises.complete("alone", alone, may_be_empty=0.01)
        promises.hold("alone: what listens there", alone.command()[-90:], "llama_cpp.server" in alone.command())
        together = Run(args, server, pathlib.Path(folder) / "together", *tokenizer, "--max-concurrency", "4", "--confirmations", "1")
        failures = together.failures()
        promises.hold("together: the run ended by itself", f"status {together.status}", together.status in (0, 4, 5, 69) and "panicked" not in together.err)
        promises.hold("together: streams that were ended are failures", failures or "none", set(failures) & BROKEN_OFF)
        promises.hold("together: by a class that says so", ", ".join(failures), set(failures) <= BROKEN_OFF | OWN)
        for name, run in (("alone", alone), ("together", together)):
            print(f"{name}: bench took {run.seconds:.0f} s, exit status {run.status}, {len(run.levels)} levels; runs and the server's log in {folder}")
            if run.status not in (0, 4, 5):
                print(run.err[-2000:], file=sys.stderr)
    sys.exit(promises.told())


if __name__ == "__main__":
    main()
