"""What all tests share: a live sandbox, a person with a browser, and a clean memory."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import SyncToAsync
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.core.cache import cache
from django.core.management.commands import flush
from django.db import connection, connections, transaction
from django.db.backends.signals import connection_created
from django.db.models import Model
from django.dispatch import receiver
from pytest_django import DjangoDbBlocker
from pytest_django.fixtures import Settings

from django_quota.models import ProviderAccount
from django_quota.oidc import discovery
from django_quota.tokens import durable
from tests.browser import CHROMIUM, Chromium
from tests.sandbox_client import Person, Sandbox
from tests.tiny_server import TinyServer
from tests.upstream import Upstream

#: The directories in which every test has a mark that a plain run leaves out.
LEFT_OUT = {"frameworks", "hostile", "neighbours", "sandbox", "storms"}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A plain run does not import what it leaves out."""
    is_plain = config.option.markexpr == config.getini("addopts")[-1]
    return True if is_plain and collection_path.name in LEFT_OUT else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs the sandbox, a process of its own."""
    for item in items:
        if "sandbox_process" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.process)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Collect the tests with the garbage collector off, which saves a quarter of the time. What is
    collected lives to the end, so later collections of garbage leave it out."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the quick tests on every core, and all tests of a file that is named in this process."""
    if config.args_source is pytest.Config.ArgsSource.ARGS:
        if not any(word.startswith("-m") for word in config.invocation_params.args):
            config.option.markexpr = ""
        return
    if "PYTEST_XDIST_WORKER" in os.environ or config.option.collectonly:
        return  # a worker would start workers of its own
    if config.getoption("numprocesses", 0) is None:
        config.option.numprocesses = "logical"
        config.option.dist = "worksteal"


@pytest.fixture(autouse=True)
def clean_memory() -> Iterator[None]:
    """Each test starts as a new process would: no discovery, no keys, no balance kept."""
    discovery.forget()
    cache.clear()
    yield
    durable.outbox._forget()
    if queried_elsewhere.is_set():
        queried_elsewhere.clear()
        SyncToAsync.single_thread_executor.submit(connections.close_all).result()


#: Set once another thread than the main one has opened a database connection. Where async code runs
#: without a server, that is a thread which stays, and nobody ends its requests.
queried_elsewhere = threading.Event()


@receiver(connection_created)
def note_thread(**sent: Any) -> None:
    if threading.current_thread() is not threading.main_thread():
        queried_elsewhere.set()


#: What Django fills after a flush.
REFILLED: list[type[Model]] = [ContentType, Permission]


def insert_into(model: type[Model]) -> str:
    quote = connection.ops.quote_name
    columns = [quote(str(field.column)) for field in model._meta.concrete_fields]
    values = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {quote(model._meta.db_table)} ({', '.join(columns)}) VALUES ({values})"


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings: None) -> None:
    if connection.vendor == "postgresql":
        from tests.postgres import do_without_syncing

        do_without_syncing(connection.settings_dict)


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """The test database. After a flush, Django finds out anew which permissions there are, which
    takes longer than most tests; here the rows of before come back, as plain SQL."""
    with django_db_blocker.unblock():
        kept = [(insert_into(model), list(model.objects.values_list())) for model in REFILLED]

    def restore(verbosity: int, interactive: bool, db: str) -> None:
        with transaction.atomic(using=db), connections[db].cursor() as cursor:
            for insert, rows in kept:
                cursor.executemany(insert, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flush, "emit_post_migrate_signal", restore)
        yield


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
    origin = ready.split("ready at ")[1].strip()
    Sandbox(origin).make_quick()
    yield origin
    process.terminate()
    process.wait(20)
    process.stdout.close()


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """The browser of this machine. Prepare the database before you open a page in it: while the
    page is open, Django forbids queries because of Playwright's event loop."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    browser = Chromium(CHROMIUM)
    yield browser
    browser.stop()


@pytest.fixture(scope="session")
def sandbox_app(sandbox_process: str) -> dict[str, str]:
    """Our app, registered there as the recipe says."""
    return Sandbox(sandbox_process).register_app()


@pytest.fixture(scope="session")
def regular(sandbox_process: str) -> Iterator[Person]:
    """Somebody whose browser at Quota keeps its cookies from test to test."""
    regular = Sandbox(sandbox_process).person()
    yield regular
    regular.quota.close()


@pytest.fixture
def sandbox(
    sandbox_process: str,
    sandbox_app: dict[str, str],
    settings: Settings,
    request: pytest.FixtureRequest,
) -> Iterator[Sandbox]:
    """The local Quota with its default behaviour, and this project configured for it."""
    settings.QUOTA_BASE_URL = sandbox_process
    settings.QUOTA_CLIENT_ID = sandbox_app["client_id"]
    settings.QUOTA_CLIENT_SECRET = sandbox_app["client_secret"]
    live = Sandbox(sandbox_process, sandbox_app)
    if "user" not in request.fixturenames:  # `user` forgets them once more
        live.forget_requests()
    yield live
    live.reset()


@pytest.fixture
def person(sandbox: Sandbox, request: pytest.FixtureRequest) -> Person:
    """Ada, with one dollar in her wallet, at a browser that knows the site and Quota.

    Where she is to be signed in already, Quota need not ask for her password and consent again.
    """
    if "user" in request.fixturenames:
        return sandbox.again(request.getfixturevalue("regular"))
    return sandbox.person()


@pytest.fixture
def user(person: Person, sandbox: Sandbox) -> Any:
    """Ada's user, signed in a moment ago; what Quota was asked for that is forgotten."""
    person.sign_in()
    sandbox.forget_requests()
    return ProviderAccount.objects.get().user


@pytest.fixture
def upstream(user: Any, settings: Any) -> Iterator[Upstream]:
    """An AI that says to `user` what the test tells it to, chunk by chunk."""
    answer = Upstream()
    with TinyServer() as server:
        server.on("/v1/chat/completions", answer)
        settings.QUOTA_BASE_URL = server.origin
        yield answer
