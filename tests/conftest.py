"""What all tests share: a live sandbox, a person with a browser, and a clean memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.core.cache import cache
from django.db import connections
from pytest_django.fixtures import Settings

from django_quota import discovery
from django_quota.models import ProviderAccount
from tests.sandbox_client import Person, Sandbox


@pytest.fixture(autouse=True)
def clean_memory() -> Iterator[None]:
    """Each test starts as a new process would: no discovery, no keys, no balance kept."""
    discovery.forget()
    cache.clear()
    yield
    # Where async code ran without a server, in a thread that stays: nobody ends its requests.
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()


@pytest.fixture(scope="session")
def sandbox_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A local Quota in a process of its own; its origin."""
    data = tmp_path_factory.mktemp("quota") / "quota.sqlite3"
    ours = ("DJANGO_SETTINGS_MODULE", "PYTHONDEVMODE")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    process = subprocess.Popen(
        [sys.executable, "-m", "django_quota.sandbox", "--port", "0", "--data", str(data)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
        cwd=Path(__file__).parent.parent,
    )
    assert process.stdout is not None
    ready = process.stdout.readline()
    assert "ready at " in ready, ready
    yield ready.split("ready at ")[1].strip()
    process.terminate()
    process.wait(20)
    process.stdout.close()


@pytest.fixture(scope="session")
def sandbox_app(sandbox_process: str) -> dict[str, str]:
    """Our app, registered there as the recipe says."""
    return Sandbox(sandbox_process).register_app()


@pytest.fixture
def sandbox(
    sandbox_process: str, sandbox_app: dict[str, str], settings: Settings
) -> Iterator[Sandbox]:
    """The local Quota with its default behaviour, and this project configured for it."""
    settings.QUOTA_BASE_URL = sandbox_process
    settings.QUOTA_CLIENT_ID = sandbox_app["client_id"]
    settings.QUOTA_CLIENT_SECRET = sandbox_app["client_secret"]
    live = Sandbox(sandbox_process, sandbox_app)
    live.reset()
    yield live
    live.reset()


@pytest.fixture
def person(sandbox: Sandbox) -> Person:
    """Ada, with one dollar in her wallet, at a browser that knows the site and Quota."""
    return sandbox.person()


@pytest.fixture
def user(person: Person, sandbox: Sandbox) -> Any:
    """Ada's user, signed in a moment ago; what Quota was asked for that is forgotten."""
    person.sign_in()
    sandbox.forget_requests()
    return ProviderAccount.objects.get().user
