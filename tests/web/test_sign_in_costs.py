"""What a sign-in costs: SQL statements, requests to Quota and new connections. No times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test import Client
from pytest_django.fixtures import Settings

from django_quota.models import PendingRevocation
from tests.helpers.browser import Browser
from tests.helpers.databases import statements
from tests.hostile.provider import CLIENT_ID, CLIENT_SECRET, HostileProvider
from tests.tiny_server import TinyServer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def provider(settings: Settings) -> Iterator[HostileProvider]:
    with TinyServer() as server:
        settings.QUOTA_BASE_URL = server.origin
        settings.QUOTA_CLIENT_ID = CLIENT_ID
        settings.QUOTA_CLIENT_SECRET = CLIENT_SECRET
        yield HostileProvider(server)


def new_browser() -> Browser:
    return Browser(Client(SERVER_NAME="localhost"))


@pytest.fixture
def browser(provider: HostileProvider) -> Browser:
    """A browser of a person who has signed in before, in this process, and has signed out."""
    browser = new_browser()
    browser.sign_in()
    browser.client.logout()
    return browser


def cost_of_callback(browser: Browser) -> list[str]:
    """Sign in, and return the statements of the callback, without BEGIN and COMMIT."""
    back = browser.at_provider(browser.start())
    with statements() as seen:
        answer = browser.come_back(back)
    assert answer["Location"] == "/"
    return without_begin(seen)


def without_begin(seen: list[str]) -> list[str]:
    # On SQLite, Django sends BEGIN as a statement.
    return [sql for sql in seen if not sql.startswith("BEGIN")]


def writes(seen: list[str], table: str) -> list[str]:
    """The first words of the statements that write to `table`."""
    verbs = ("INSERT", "UPDATE", "DELETE")
    return [
        sql.split()[0] for sql in seen if sql.startswith(verbs) and table in sql.split("WHERE")[0]
    ]


def test_returning_person_costs_twelve_statements(browser: Browser) -> None:
    seen = cost_of_callback(browser)
    assert len(seen) <= 12, "\n".join(seen)
    # The pending sign-in is used up before the call; then there is one session with a new key. It
    # gets its user when the receivers of user_logged_in have run.
    assert writes(seen, "django_session") == ["UPDATE", "INSERT", "DELETE", "UPDATE"]
    assert writes(seen, "django_quota_quotatoken") == ["UPDATE"]
    assert writes(seen, "django_quota_provideraccount") == ["UPDATE"]
    assert writes(seen, "django_quota_pendingrevocation") == ["INSERT"]
    assert writes(seen, "auth_user") == ["UPDATE"]  # last_login
    assert PendingRevocation.objects.count() == 1
    assert Session.objects.count() == 1


def test_person_who_is_signed_in_costs_twelve_statements(browser: Browser) -> None:
    browser.sign_in()
    assert len(cost_of_callback(browser)) <= 12


def test_new_person_costs_fourteen_statements(browser: Browser, provider: HostileProvider) -> None:
    provider.person |= {"sub": "another", "email": "another@example.com"}
    seen = cost_of_callback(new_browser())
    assert len(seen) <= 14, "\n".join(seen)
    for table in ("auth_user", "django_quota_provideraccount", "django_quota_quotatoken"):
        assert writes(seen, table)[0] == "INSERT"
    assert get_user_model().objects.count() == 2


def test_second_sign_in_of_a_process_makes_one_request_on_an_open_connection(
    browser: Browser, provider: HostileProvider
) -> None:
    back = browser.at_provider(browser.start())
    requests, connections = len(provider.asked()), provider.server.connections

    browser.come_back(back)

    assert provider.asked()[requests:] == ["POST /oauth/token"]
    assert provider.server.connections == connections


@pytest.mark.parametrize("known", [False, True], ids=["without a session", "with a session"])
def test_start_writes_the_session_once_and_asks_quota_nothing(
    browser: Browser, provider: HostileProvider, known: bool
) -> None:
    if known:
        browser.sign_in()
    else:
        browser = new_browser()
    requests = len(provider.asked())
    with statements() as seen:
        browser.start(prompt="login")
    assert len(without_begin(seen)) <= 2, "\n".join(seen)
    assert writes(seen, "django_session") == (["UPDATE"] if known else ["INSERT"])
    assert len(provider.asked()) == requests


def test_failed_callback_writes_the_session_once(browser: Browser, provider: Any) -> None:
    """The pending sign-in is used up; nothing else has changed."""
    provider.claims["nonce"] = "another"
    back = browser.at_provider(browser.start())
    with statements() as seen:
        assert "quota_error" in browser.come_back(back)["Location"]
    assert writes(seen, "django_session").count("UPDATE") <= 2
