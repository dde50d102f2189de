"""From the start of a client to the first byte of its first request, best and worst of ten.

    python3 benchmarks/peers/start.py [--plimsoll target/release/plimsoll] [--also "COMMAND with URL in it"]...

Listens on loopback, starts the client, and takes the time from before `exec` to the first bytes that arrive. The client is then
ended: nothing is answered.
"""

import argparse
import os
import shlex
import signal
import socket
import statistics
import subprocess
import tempfile
import time


def once(command, listener):
    with tempfile.TemporaryDirectory() as folder:
        environment = dict(os.environ, PLIMSOLL_DATA_DIR=folder, PLIMSOLL_LOCK_DIR=folder)
        began = time.perf_counter()
        client = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            listener.settimeout(120)
            connection, _ = listener.accept()
            connection.settimeout(120)
            while not connection.recv(65536):
                connection, _ = listener.accept()
            return time.perf_counter() - began
        finally:
            os.killpg(client.pid, signal.SIGKILL)
            client.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plimsoll", default="target/release/plimsoll")
    parser.add_argument("--also", action="append", default=[], help="another client's command, URL for the address")
    parser.add_argument("--rounds", type=int, default=10)
    arguments = parser.parse_args()
    commands = [f"{arguments.plimsoll} bench --quick --target URL", *arguments.also]
    for command in commands:
        times = []
        for _ in range(arguments.rounds):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                times.append(once(shlex.split(command.replace("URL", url)), listener) * 1e3)
        print(f"{command}: best {min(times):.1f} ms, median {statistics.median(times):.1f} ms, worst {max(times):.1f} ms")


if __name__ == "__main__":
    main()
