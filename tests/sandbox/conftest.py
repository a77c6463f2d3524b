"""Fixtures: a sandbox process for all tests, an app, a user and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from .client import App, Sandbox, SandboxProcess, Visitor, start_sandbox, stop_sandbox


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder, which all use a sandbox in another process."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("process")


@pytest.fixture(scope="session")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """A sandbox for all tests. The run fails if it wrote a traceback."""
    sandbox = start_sandbox(tmp_path_factory.mktemp("sandbox") / "quota.sqlite3")
    yield sandbox
    status, out, err = stop_sandbox(sandbox)
    errors = [line for line in err.splitlines() if not line.startswith("webhook not delivered to ")]
    assert (status, out, errors) == (0, "", [])


@pytest.fixture
def sandbox(sandbox_process: SandboxProcess) -> Iterator[Sandbox]:
    """A client of the sandbox, whose knobs have their defaults before and after the test."""
    with requests.Session() as http:
        client = Sandbox(sandbox_process.url, http)
        client.post("/sandbox/settings/reset")
        client.http.delete(f"{client.url}/sandbox/requests")
        yield client
        client.post("/sandbox/settings/reset")


@pytest.fixture
def app(sandbox: Sandbox) -> App:
    """An app with ``SCOPES``."""
    return sandbox.register_app()


@pytest.fixture
def user(sandbox: Sandbox) -> dict[str, Any]:
    """A user with 1,000,000 credits."""
    return sandbox.add_user()


@pytest.fixture
def tokens(sandbox: Sandbox, app: App, user: dict[str, Any]) -> dict[str, Any]:
    """The reply of the token endpoint for ``user`` and ``app``."""
    return sandbox.sign_in(app, user["email"])


@pytest.fixture
def browser(sandbox: Sandbox) -> Iterator[Visitor]:
    """A browser without cookies."""
    with Visitor(sandbox.url) as browser:
        yield browser
