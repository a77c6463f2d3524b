"""Tokens live in the encrypted columns and nowhere else. Everything else is searched for them."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.core.management import call_command
from django.db import connection, connections
from django.test import Client, RequestFactory
from django.utils import timezone
from django.views.debug import ExceptionReporter

from django_quota import accounts, ai, provider, tokens, wallet
from django_quota.exceptions import QuotaError
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.usage import record_usage
from tests.sandbox_client import Person, Sandbox
from tests.shown import SECRET

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """Everything that anybody logs, down to DEBUG."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield stream
    root.removeHandler(handler)
    root.setLevel(level)


def secrets_of(row: QuotaToken) -> list[str]:
    return [row.access_token, row.refresh_token, row.id_token]


def assert_none(text: str, where: str, known: list[str]) -> None:
    for secret in [*known, *SECRET.findall(text)]:
        assert secret not in text, f"{secret[:14]}... in {where}"


def report_of(error: QuotaError) -> str:
    """What Django shows of it, and mails: from below the test on."""
    assert error.__traceback__ is not None
    below_the_test = error.__traceback__.tb_next
    report = ExceptionReporter(RequestFactory().get("/"), type(error), error, below_the_test)
    text: str = report.get_traceback_text()
    return text + report.get_traceback_html()


def test_a_whole_visit_leaves_no_trace(
    person: Person, sandbox: Sandbox, log: io.StringIO, settings: Any
) -> None:
    """Signing in, reading, spending, renewing, failing, signing out: then look everywhere."""
    pages = []
    person.sign_in()
    known = secrets_of(QuotaToken.objects.get())
    user = get_user_model().objects.get()
    pages.append(person.client.get("/").content)
    for path in ("me", "status", "balance", "packages"):
        pages.append(person.client.get(f"/auth/quota/{path}").content)
    messages: Any = [{"role": "user", "content": "Hello"}]
    client = ai.openai_client(user)
    record_usage(user, client.chat.completions.create(model="gpt-4o-mini", messages=messages))
    QuotaToken.objects.update(expires_at=timezone.now())
    tokens.get_access_token(user)
    row = QuotaToken.objects.get()
    known += secrets_of(row)
    failed = []
    for knobs in (
        {"fail": {"path": "/oauth/token", "status": 503, "times": 1}},
        {"id_token_overrides": {"nonce": "x"}},
        {"omit_id_token": True},
    ):
        sandbox.reset()
        sandbox.set(**knobs)
        answer = person.come_back(person.at_quota(person.start()))
        failed.append(answer["Location"])
        pages.append(person.client.get(answer["Location"]).content)
    sandbox.reset()

    sessions = "".join(json.dumps(s.get_decoded()) for s in Session.objects.all())
    assert_none(sessions, "the session", known)
    assert_none(log.getvalue(), "the log", known)
    assert_none(b"".join(pages).decode(), "a page", known)
    assert_none(" ".join(failed), "a URL", known)
    assert_none(str(person.client.cookies), "a cookie", known)
    assert_none(str(getattr(cache, "_cache", "")), "the cache", known)
    account = ProviderAccount.objects.get()
    things = [row, account, PendingRevocation(token=known[1]), wallet.get_balance(user)]
    assert_none(" ".join(f"{thing!r} {thing}" for thing in things), "a repr", known)

    answer = person.client.post("/auth/quota/logout", headers={"accept": "text/html"})
    assert "quota_" not in answer["Location"].replace(
        "/auth/quota/", ""
    )  # its hint is the id_token


def test_the_columns_are_encrypted(person: Person) -> None:
    person.sign_in()
    accounts.disconnect(get_user_model().objects.get())
    person.sign_in()
    with connection.cursor() as cursor:
        cursor.execute("SELECT access_token, refresh_token, id_token FROM django_quota_quotatoken")
        cells = list(cursor.fetchone())
        cursor.execute("SELECT token FROM django_quota_pendingrevocation")
        cells += list(cursor.fetchone())
    assert [cell[:5] for cell in cells] == ["gAAAA"] * 4
    assert_none(" ".join(cells), "the database", [])


def test_dumpdata_leaves_them_out(person: Person) -> None:
    person.sign_in()
    out = io.StringIO()
    call_command("dumpdata", "django_quota", stdout=out)
    assert "ProviderAccount".lower() in out.getvalue()
    assert_none(out.getvalue(), "dumpdata", [])
    assert "gAAAA" not in out.getvalue()


def test_values_that_cross_modules_hide_them() -> None:
    reply = provider.TokenReply(
        access_token="quota_token_x",
        refresh_token="quota_refresh_x",
        id_token="eyJx",
        expires_in=1,
        scope=None,
    )
    assert_none(repr(reply), "a repr", [])


def test_the_settings_hide_the_client_secret() -> None:
    from django_quota.conf import get_settings

    assert_none(repr(get_settings()), "a repr", [str(django_settings.QUOTA_CLIENT_SECRET)])


@pytest.mark.parametrize("path", ["/oauth/token", "/v1/balance", "/api/payments/checkout"])
def test_an_error_page_of_django_hides_them(
    person: Person, sandbox: Sandbox, path: str, settings: Any
) -> None:
    """A project that lets our errors through: what DEBUG=False mails to its admins."""
    person.sign_in()
    user = get_user_model().objects.get()
    known = secrets_of(QuotaToken.objects.get())
    QuotaToken.objects.update(expires_at=timezone.now())
    sandbox.set(fail={"path": path, "status": 503, "times": 9})
    try:
        wallet.get_balance(user)
        wallet.create_checkout(user, "x", success_url="http://x/", cancel_url="http://x/")
    except QuotaError as error:
        assert_none(report_of(error), "a report", known)
    else:
        pytest.fail("Quota was not down")


@pytest.mark.parametrize("status", [401, 402, 403, 500])
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_page_after_an_ai_call_hides_them(
    person: Person, sandbox: Sandbox, status: int, stream: bool, settings: Any
) -> None:
    """Also the page of DEBUG=True, which shows every local variable, those of the SDK included."""
    person.sign_in()
    user = get_user_model().objects.get()
    known = secrets_of(QuotaToken.objects.get())
    sandbox.set(fail={"path": "/v1/chat/completions", "status": status, "times": 2})
    messages: Any = [{"role": "user", "content": "Hello"}]
    settings.DEBUG = True
    with pytest.raises(QuotaError) as caught:
        ai.openai_client(user).chat.completions.create(
            model="gpt-4o-mini", messages=messages, stream=stream
        )
    known += secrets_of(QuotaToken.objects.get())  # a 401 has renewed it
    assert_none(report_of(caught.value), "a report", known)


@pytest.mark.parametrize("is_async", [False, True])
def test_an_error_page_after_a_renewal_that_failed_hides_them(
    person: Person, sandbox: Sandbox, is_async: bool, settings: Any
) -> None:
    """A token that Quota refuses may be good again in a minute."""
    person.sign_in()
    user = get_user_model().objects.get()
    known = secrets_of(QuotaToken.objects.get())
    sandbox.set(fail={"path": "/v1/chat/completions", "status": 401, "times": 1})
    settings.QUOTA_CLIENT_SECRET = "of-another-app"
    ask: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}

    async def call() -> None:
        try:
            await ai.async_openai_client(user).chat.completions.create(**ask)
        finally:
            await sync_to_async(connections.close_all)()

    with pytest.raises(QuotaError) as caught:
        if is_async:
            asyncio.run(call())
        else:
            ai.openai_client(user).chat.completions.create(**ask)
    assert_none(report_of(caught.value), "a report", known)


def test_a_wrong_key_is_not_named(person: Person, settings: Any, client: Client) -> None:
    from django_quota.exceptions import ConfigurationError
    from django_quota.fields import crypter

    settings.FIELD_ENCRYPTION_KEY = "this-is-my-secret"
    with pytest.raises(ConfigurationError) as caught:
        crypter()
    assert "this-is-my-secret" not in str(caught.value)
