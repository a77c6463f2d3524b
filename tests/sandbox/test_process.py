"""Starting and stopping."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import stat
import subprocess
import sys
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from .client import ROOT, Sandbox, SandboxProcess, start_sandbox, stop_sandbox

pytestmark = pytest.mark.process


def run(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the sandbox with options that make it refuse to start."""
    return subprocess.run(
        [sys.executable, "-m", "django_quota.sandbox", *options],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ends_quietly_and_keeps_its_data(tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "quota.sqlite3"
    first = start_sandbox(data)
    with requests.Session() as http:
        app = Sandbox(first.url, http).register_app()
        keys = http.get(f"{first.url}/.well-known/jwks.json", timeout=10).json()
    first.process.send_signal(number)
    out, err = first.process.communicate(timeout=10)
    assert (first.process.returncode, out, err) == (0, "", "")
    assert stat.S_IMODE(data.stat().st_mode) == 0o600

    second = start_sandbox(data)
    with requests.Session() as http:
        sandbox = Sandbox(second.url, http)
        reply = sandbox.get(f"/developers/apps/{app.id}", app.session_token)
        assert reply.json()["client_id"] == app.client_id
        assert sandbox.get("/.well-known/jwks.json").json() == keys
        assert len(sandbox.get("/sandbox/users").json()["users"]) == 4
    assert stop_sandbox(second) == (0, "", "")


def test_refuses_an_address_others_can_reach(tmp_path: Path) -> None:
    result = run("--host", "0.0.0.0", "--data", str(tmp_path / "quota.sqlite3"))
    assert result.returncode == 1
    assert "--allow-remote" in result.stderr
    assert result.stdout == ""


def test_names_the_option_when_the_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run("--port", port, "--data", str(tmp_path / "quota.sqlite3"))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "--port" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_refuses_an_impossible_port(tmp_path: Path, port: str) -> None:
    result = run(f"--port={port}", "--data", str(tmp_path / "quota.sqlite3"))
    assert result.returncode == 1
    assert "--port" in result.stderr


def test_says_when_the_data_file_is_something_else(tmp_path: Path) -> None:
    data = tmp_path / "letter.txt"
    data.write_text("Dear reader, this is not a database.\n" * 100)
    result = run("--port", "0", "--data", str(data))
    assert result.returncode == 1
    assert "--data" in result.stderr
    assert "not a database" in result.stderr
    assert data.read_text().startswith("Dear reader")


def test_says_when_the_data_file_cannot_be_made(tmp_path: Path) -> None:
    result = run("--port", "0", "--data", str(tmp_path / "missing" / "quota.sqlite3"))
    assert result.returncode == 1
    assert "No such file or directory" in result.stderr


def test_ignores_the_settings_of_a_project(tmp_path: Path) -> None:
    result = run("--port=-1", DJANGO_SETTINGS_MODULE="does_not.exist")
    assert "--port" in result.stderr


def test_all_writes_of_a_database_go_through_one_journal(sandbox_process: SandboxProcess) -> None:
    with sqlite3.connect(sandbox_process.data) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_keeps_a_connection_for_many_requests(sandbox_process: SandboxProcess) -> None:
    connection = HTTPConnection(urlsplit(sandbox_process.url).netloc, timeout=10)
    connection.connect()
    socket_before = connection.sock
    for _ in range(3):
        connection.request("GET", "/v1/packages")
        assert connection.getresponse().read()
        assert connection.sock is socket_before
    connection.close()


def test_the_package_and_the_sandbox_share_no_code() -> None:
    for module in (ROOT / "django_quota" / "sandbox").rglob("*.py"):
        source = module.read_text()
        assert "from django_quota" not in source.replace("from django_quota.sandbox", "")
        assert "from .." not in source


def test_management_command_hands_over(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "tests.programs.sandbox_command"],
        cwd=tmp_path,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": "does_not.exist", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 1
    assert "--port must be from 0 to 65535" in result.stderr
