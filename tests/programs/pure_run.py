"""Runs the test files of its arguments, and prints each process and server that they start."""

import sys
from typing import Any

import pytest

started: list[str] = []


def note(event: str, details: tuple[Any, ...]) -> None:
    # urllib3 binds a socket to ::1 when it is imported, to see whether there is IPv6.
    of_urllib3 = event == "socket.bind" and details[1][0] == "::1"
    if event in ("subprocess.Popen", "os.fork", "os.posix_spawn", "socket.bind") and not of_urllib3:
        started.append(event)


sys.addaudithook(note)
status = pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]])
print(f"status {int(status)}, started {started}")
