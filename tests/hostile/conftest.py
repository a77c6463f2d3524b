"""What the cases share: the provider, a browser, and what a refusal must look like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth import SESSION_KEY, get_user_model
from django.test import Client
from pytest_django.fixtures import Settings

from django_quota.models import ProviderAccount, QuotaToken
from django_quota.signals import sign_in_failed
from django_quota.testing import renewals_in_this_transaction
from django_quota.web.error_texts import SIGN_IN_ERRORS
from tests import signing
from tests.helpers.browser import Browser
from tests.hostile.provider import CLIENT_ID, CLIENT_SECRET, HostileProvider
from tests.sandbox_client import wanted_at
from tests.shown import SECRET
from tests.tiny_server import TinyServer

#: `refused(answer, code, reason)`
Refused = Callable[[Any, str, str], None]


@pytest.fixture(autouse=True)
def source(request: pytest.FixtureRequest) -> None:
    """Each case says who asks for it; the report of the run has it beside the result."""
    marker = request.node.get_closest_marker("source")
    assert marker is not None, "say with @pytest.mark.source(...) who asks for this"
    request.node.user_properties.append(("source", "; ".join(marker.args)))


@pytest.fixture(autouse=True)
def given_back_in_this_transaction(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a refused sign-in gives back is queued in the test's transaction, and gone with it: on
    a connection of its own it would stay for the next test."""
    marker = request.node.get_closest_marker("django_db")
    if marker is None or marker.kwargs.get("transaction"):
        yield
        return
    with renewals_in_this_transaction():
        yield


@pytest.fixture
def server() -> Iterator[TinyServer]:
    with TinyServer() as running:
        yield running


@pytest.fixture
def provider(server: TinyServer, settings: Settings) -> HostileProvider:
    """A provider to misuse, and this project configured for it."""
    settings.QUOTA_BASE_URL = server.origin
    settings.QUOTA_CLIENT_ID = CLIENT_ID
    settings.QUOTA_CLIENT_SECRET = CLIENT_SECRET
    settings.QUOTA_TIMEOUT = (2, 2)
    settings.QUOTA_DEADLINE = 4
    for name in ("quota", "attacker"):
        signing.rsa_key(name)  # made here, as it may take longer than an answer has
    return HostileProvider(server)


@pytest.fixture
def browser(provider: HostileProvider) -> Browser:
    return Browser(Client(SERVER_NAME="localhost"))


@pytest.fixture
def told() -> Iterator[list[dict[str, Any]]]:
    """What the project's receiver of `sign_in_failed` was told."""
    heard: list[dict[str, Any]] = []

    def receiver(**kwargs: Any) -> None:
        heard.append(kwargs)

    sign_in_failed.connect(receiver)
    yield heard
    sign_in_failed.disconnect(receiver)


@pytest.fixture
def refused(
    browser: Browser, caplog: pytest.LogCaptureFixture, told: list[dict[str, Any]]
) -> Refused:
    """Checks that a sign-in ended as it must: nobody is signed in, nothing was kept; the person
    sees `code` in words and a reference; one line of the log has that reference and the reason,
    and so has the project's signal; no secret anywhere."""

    def check(answer: Any, code: str, reason: str) -> None:
        assert answer.status_code == 302
        path, query = wanted_at(answer)
        assert (path, query["quota_error"]) == ("/auth/quota/error", code)
        assert answer["Cache-Control"] == "no-store, private"
        assert answer["Referrer-Policy"] == "same-origin"

        assert SESSION_KEY not in browser.client.session
        assert not QuotaToken.objects.exists()
        assert not ProviderAccount.objects.exists()
        assert not get_user_model().objects.exists()

        (line,) = [r for r in caplog.records if r.name == "django_quota.sign_in"]
        assert reason in line.getMessage()
        assert query["quota_ref"] in line.getMessage()
        (heard,) = told
        assert (heard["code"], heard["reference"]) == (code, query["quota_ref"])
        assert reason in heard["reason"]

        page = browser.client.get(answer["Location"])
        words = SIGN_IN_ERRORS[code]
        for text in (words.title, words.message, words.action, query["quota_ref"]):
            assert str(text) in page.content.decode()
        assert 'href="/auth/quota/start' in page.content.decode()
        assert not SECRET.search(caplog.text + answer["Location"] + page.content.decode())

    return check
