"""What the scripts of this folder share: an environment of its own, a server on loopback, a run of `plimsoll bench`, promises."""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = ROOT / "tests/fixtures/models"


def options(about, venv):
    parse = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--plimsoll", default=str(ROOT / "target/debug/plimsoll"), help="the program to check")
    parse.add_argument("--venv", default=venv, help="folder of the server's environment; made where it is not there, and kept")
    parse.add_argument("--budget", default="60s", help="time for each run of bench; these servers are slow, and no speed is judged here")
    parse.add_argument("--timeout", type=int, default=420, help="seconds that a run of bench may take")
    parse.add_argument("--keep", help="folder that runs are kept in; a temporary one otherwise")
    args = parse.parse_args()
    if not os.access(args.plimsoll, os.X_OK):
        sys.exit(f"{args.plimsoll} is no program: build it with `cargo build`, or name another with --plimsoll")
    return args


def environment(folder, *packages):
    """The interpreter of an environment that has these packages at these versions."""
    python = pathlib.Path(folder) / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return str(python)


class Server:
    """A server on a free port of loopback, from its start to its end."""

    def __init__(self, command, folder, ready, env=None):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{port}"
        self.log = pathlib.Path(folder) / "server.log"
        command = [port if part == "PORT" else part for part in command]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(env or {})}, cwd=MODELS)
        until = time.monotonic() + 180
        while not self.answers(ready):
            if self.process.poll() is not None or time.monotonic() > until:
                self.process.kill()
                sys.exit(f"the server did not start; its last words:\n{self.log.read_text()[-2000:]}")
            time.sleep(0.5)

    def answers(self, path):
        try:
            return urllib.request.urlopen(self.url + path, timeout=10).status == 200
        except (urllib.error.URLError, OSError):
            return False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


class Run:
    """One run of `bench --quick` against a server, with its record and levels."""

    def __init__(self, args, server, folder, *more):
        data = pathlib.Path(folder)
        command = [args.plimsoll, "bench", "--target", server.url, "--quick", "--budget", args.budget, "--workload", "fixed:24:8", "--seed", "5", "--data-dir", str(data), *more]
        began = time.monotonic()
        try:
            ran = subprocess.run(command, capture_output=True, text=True, timeout=args.timeout, env={**os.environ, "PLIMSOLL_LOCK_DIR": str(data)})
        except subprocess.TimeoutExpired as late:
            sys.exit(f"bench was not over after {args.timeout} s; its last words:\n{(late.stderr or b'').decode()[-2000:]}")
        self.seconds, self.status = time.monotonic() - began, ran.returncode
        self.out, self.err = ran.stdout, ran.stderr
        found = sorted(data.glob("runs/*/run.json"))
        self.record = json.loads(found[-1].read_text()) if found else {}
        levels = sorted(found[-1].parent.glob("levels/*.json")) if found else []
        self.levels = [json.loads(level.read_text()) for level in levels]

    def __getitem__(self, what):
        return (self.record.get("server") or {}).get(what)

    def sum(self, group, what, loop=None):
        """Over all levels, or those of the closed or open loop."""
        levels = [level for level in self.levels if loop in (None, level["offered"]["loop"])]
        return sum((level.get(group) or {}).get(what) or 0 for level in levels)

    def failures(self, loop=None):
        """Classes of failure with how many there were, over all levels, or those of the closed or open loop."""
        classes = {}
        for level in (level for level in self.levels if loop in (None, level["offered"]["loop"])):
            for kind, count in level["counts"]["failed"].items():
                classes[kind] = classes.get(kind, 0) + count
        return classes

    def command(self):
        """What the process behind the address was started with."""
        return " ".join((self["process"] or {}).get("command") or [])


class Promises:
    """What must hold, each with what was found."""

    def __init__(self):
        self.rows = []

    def hold(self, what, found, holds):
        self.rows.append((what, str(found), bool(holds)))

    def complete(self, name, run, may_be_empty=0.0):
        """Every answer is whole, but for a share that the model may end with its first token. In the open loop one may be late: the search
        offers more than the server sustains."""
        empty = run.failures("closed").get("empty", 0)
        cohort, completed = run.sum("counts", "cohort", "closed"), run.sum("counts", "completed", "closed")
        self.hold(f"{name}: answers complete, closed loop", f"{completed} of {cohort}", cohort and completed + empty == cohort)
        empty = run.failures("open").get("empty", 0)
        cohort, completed, late = (run.sum("counts", what, "open") for what in ("cohort", "completed", "timed_out"))
        self.hold(f"{name}: answers complete or late, open loop", f"{completed} and {late} of {cohort}", completed + late + empty == cohort)
        failures, all_of_them = run.failures(), run.sum("counts", "cohort")
        rare = set(failures) <= {"empty"} and failures.get("empty", 0) <= may_be_empty * all_of_them
        self.hold(f"{name}: failures", f"{failures or 'none'} of {all_of_them}", rare)

    def told(self):
        """A table of all of them; the exit status."""
        widths = [max(len(row[place]) for row in self.rows) for place in (0, 1)]
        for what, found, holds in self.rows:
            print(f"| {what:<{widths[0]}} | {found:<{widths[1]}} | {'holds' if holds else 'BROKEN'} |")
        return 0 if all(row[2] for row in self.rows) else 1


def kept(args):
    """The folder for runs and logs."""
    if args.keep:
        pathlib.Path(args.keep).mkdir(parents=True, exist_ok=True)
        return args.keep
    return tempfile.mkdtemp(prefix="plimsoll-servers-")
