"""`transformers serve` measured by `plimsoll bench`, and the record held to what is known of that server.

    cargo build
    python3 benchmarks/servers/transformers_serve.py --venv /tmp/transformers

Makes the environment (5.6 GB with torch), serves the test checkpoint `llama-untied` on loopback and asks it over both of its interfaces.
The server lists no model, so that the name is given; takes no prompts as ids; refuses `ignore_eos`; ends a stream without `[DONE]`;
and says at the end of each answer what it counted. It answers one request after the other: what is measured here is no speed.
"""

import pathlib
import sys

from checked import Promises, Run, Server, environment, kept, options

PACKAGES = ("transformers[serving]==5.23.0", "torch")


def main():
    args = options(__doc__, "transformers-venv")
    python = environment(args.venv, *PACKAGES)
    folder = kept(args)
    # Without this folder its list of models is an error of its own.
    home = pathlib.Path(folder) / "hub-home"
    (home / "hub").mkdir(parents=True, exist_ok=True)
    command = [str(pathlib.Path(python).parent / "transformers"), "serve", "llama-untied", "--host", "127.0.0.1", "--port", "PORT"]
    command += ["--device", "cpu", "--dtype", "float32"]
    promises = Promises()
    with Server(command, folder, "/health", {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home)}) as server:
        for api, path in (("completions", "/v1/completions"), ("chat", "/v1/chat/completions")):
            run = Run(args, server, pathlib.Path(folder) / api, "--model", "llama-untied", "--api", api, "--max-concurrency", "4", "--confirmations", "1")
            print(f"{api}: bench took {run.seconds:.0f} s, exit status {run.status}, {len(run.levels)} levels; runs and the server's log in {folder}", flush=True)
            answers = run.sum("token_counts", "answers")
            promises.hold(f"{api}: the run came to a verdict", run.status, run.status in (0, 4, 5))
            promises.hold(f"{api}: interface", run["api"], run["api"] == path)
            promises.hold(f"{api}: prompts", run["prompts"], (run["prompts"] or "").startswith("words"))
            promises.hold(f"{api}: token source", run["token_source"], run["token_source"] == "final_usage")
            promises.hold(f"{api}: every answer has usage", f"{run.sum('token_counts', 'with_usage')} of {answers}", answers and run.sum("token_counts", "with_usage") == answers)
            promises.complete(api, run)
            promises.hold(f"{api}: what listens there", run.command()[-90:], "transformers serve" in run.command())
            if run.status not in (0, 4, 5):
                print(run.err[-2000:], file=sys.stderr)
    sys.exit(promises.told())


if __name__ == "__main__":
    main()
