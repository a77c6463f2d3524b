"""The sandbox as a process: options, start, stop and data file."""

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


def run_sandbox(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the sandbox with options that are invalid, so that it stops immediately."""
    return subprocess.run(
        [sys.executable, "-m", "django_quota.sandbox", *options],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stops_on_a_signal_without_output_and_keeps_its_data(
    tmp_path: Path, number: signal.Signals
) -> None:
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


def test_address_that_other_machines_can_reach_is_rejected(tmp_path: Path) -> None:
    result = run_sandbox("--host", "0.0.0.0", "--data", str(tmp_path / "quota.sqlite3"))
    assert result.returncode == 1
    assert "--allow-remote" in result.stderr
    assert result.stdout == ""


def test_error_names_the_option_if_the_port_is_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = run_sandbox("--port", port, "--data", str(tmp_path / "quota.sqlite3"))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "--port" in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("port", ["-1", "65536"])
def test_invalid_port_is_rejected(tmp_path: Path, port: str) -> None:
    result = run_sandbox(f"--port={port}", "--data", str(tmp_path / "quota.sqlite3"))
    assert result.returncode == 1
    assert "--port" in result.stderr


def test_data_file_that_is_no_database_is_rejected_and_kept(tmp_path: Path) -> None:
    data = tmp_path / "letter.txt"
    data.write_text("This text is not a database.\n" * 100)
    result = run_sandbox("--port", "0", "--data", str(data))
    assert result.returncode == 1
    assert "--data" in result.stderr
    assert "not a database" in result.stderr
    assert data.read_text().startswith("This text")


def test_data_file_in_a_missing_folder_is_rejected(tmp_path: Path) -> None:
    result = run_sandbox("--port", "0", "--data", str(tmp_path / "missing" / "quota.sqlite3"))
    assert result.returncode == 1
    assert "No such file or directory" in result.stderr


def test_settings_module_of_the_environment_is_ignored(tmp_path: Path) -> None:
    result = run_sandbox("--port=-1", DJANGO_SETTINGS_MODULE="does_not.exist")
    assert "--port" in result.stderr


def test_database_uses_write_ahead_logging(sandbox_process: SandboxProcess) -> None:
    with sqlite3.connect(sandbox_process.data) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def test_connection_is_kept_alive(sandbox_process: SandboxProcess) -> None:
    connection = HTTPConnection(urlsplit(sandbox_process.url).netloc, timeout=10)
    connection.connect()
    socket_before = connection.sock
    for _ in range(3):
        connection.request("GET", "/v1/packages")
        assert connection.getresponse().read()
        assert connection.sock is socket_before
    connection.close()


def test_sandbox_imports_nothing_of_the_package() -> None:
    for module in (ROOT / "django_quota" / "sandbox").rglob("*.py"):
        source = module.read_text()
        assert "from django_quota" not in source.replace("from django_quota.sandbox", "")
        assert "from .." not in source


def test_management_command_passes_its_options_on(tmp_path: Path) -> None:
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
