"""Fixtures: one sandbox process for all tests, an app, a person, their tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from .client import App, Sandbox, SandboxProcess, Visitor, start_sandbox, stop_sandbox


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of this folder ask a sandbox in a process of its own."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker("process")


@pytest.fixture(scope="session")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxProcess]:
    """One sandbox for all tests. It must end quietly: a traceback fails the run."""
    sandbox = start_sandbox(tmp_path_factory.mktemp("sandbox") / "quota.sqlite3")
    yield sandbox
    status, out, err = stop_sandbox(sandbox)
    told = [line for line in err.splitlines() if not line.startswith("webhook not delivered to ")]
    assert (status, out, told) == (0, "", [])


@pytest.fixture
def sandbox(sandbox_process: SandboxProcess) -> Iterator[Sandbox]:
    """A client of the sandbox, its knobs at their defaults before and after."""
    with requests.Session() as http:
        client = Sandbox(sandbox_process.url, http)
        client.post("/sandbox/settings/reset")
        client.http.delete(f"{client.url}/sandbox/requests")
        yield client
        client.post("/sandbox/settings/reset")


@pytest.fixture
def app(sandbox: Sandbox) -> App:
    """An app with the recipe's scopes."""
    return sandbox.register_app()


@pytest.fixture
def user(sandbox: Sandbox) -> dict[str, Any]:
    """A person with 1,000,000 credits."""
    return sandbox.add_user()


@pytest.fixture
def tokens(sandbox: Sandbox, app: App, user: dict[str, Any]) -> dict[str, Any]:
    """The token reply of that person for that app."""
    return sandbox.sign_in(app, user["email"])


@pytest.fixture
def browser(sandbox: Sandbox) -> Iterator[Visitor]:
    """A fresh browser."""
    with Visitor(sandbox.url) as browser:
        yield browser
