"""Programs of tests/programs, each run in a process of its own: a worker, a command, a server."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.db import connection

ROOT = Path(__file__).parent.parent.parent
#: Seconds after which a program that hangs is ended.
GIVE_UP_AFTER = 120


def start(program: str, *args: str, **ours: Any) -> subprocess.Popen[str]:
    """Start tests/programs/`program`.py with `args`.

    Once it has called `set_up` it uses the test's database, with `ours` as settings.
    """
    config = json.dumps({"database": database(), "settings": ours}, default=str)
    return subprocess.Popen(
        [sys.executable, "-m", f"tests.programs.{program}", config, *args],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def run(program: str, *args: str, **ours: Any) -> str:
    """Return what the program wrote to its stdout; fail if it did."""
    with start(program, *args, **ours) as process:
        try:
            said, complained = process.communicate(timeout=GIVE_UP_AFTER)
        finally:
            process.kill()
    assert process.returncode == 0, complained
    return said


def database() -> dict[str, Any]:
    """Return what another process needs to use the same database."""
    names = ("NAME", "HOST", "PORT", "USER", "PASSWORD", "OPTIONS", "CONN_MAX_AGE")
    return {name: connection.settings_dict[name] for name in names}


def free_port() -> int:
    """Return a port that nothing listens on yet.

    It is none of those that the system gives to other tests' connections and servers.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def set_up() -> list[str]:
    """In a program: set Django up as `start` was told; return the program's arguments."""
    config = json.loads(sys.argv[1])
    settings.DATABASES["default"].update(config["database"])
    for name, value in config["settings"].items():
        setattr(settings, name, value)
    django.setup()
    return sys.argv[2:]
