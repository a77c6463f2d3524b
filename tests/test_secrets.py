"""Tokens live in the encrypted columns and nowhere else. Everything else is searched for them."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.cache import cache
from django.core.management import call_command
from django.db import DatabaseError, connection
from django.test import Client, RequestFactory
from django.utils import timezone
from django.views.debug import ExceptionReporter

from django_quota import connecting
from django_quota.ai import factory
from django_quota.conf import get_settings
from django_quota.exceptions import ConfigurationError, ProviderUnavailable, QuotaError
from django_quota.models import CreditGrant, PendingRevocation, ProviderAccount, QuotaToken
from django_quota.oidc import endpoints
from django_quota.tokens import access, revocation
from django_quota.wallet import grant_credits, purchases
from django_quota.wallet.usage import record_usage
from tests.helpers.concurrency import run_async
from tests.helpers.rows import store_tokens
from tests.sandbox_client import Person, Sandbox
from tests.shown import SECRET, shown

pytestmark = pytest.mark.django_db(transaction=True)

#: Up here, as a report quotes the lines around those that were run.
NEW_REPLY = endpoints.TokenReply(
    access_token="quota_token_new",
    refresh_token="quota_refresh_new",
    id_token=None,
    expires_in=3600,
    scope=None,
)


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
    return [row.access_token.reveal(), row.refresh_token.reveal(), row.id_token.reveal()]


def assert_none(text: str, where: str, known: list[str]) -> None:
    for secret in [*known, *SECRET.findall(text)]:
        assert secret not in text, f"{secret[:14]}... in {where}"


def report_of(error: Exception) -> str:
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
    client = factory.openai_client(user)
    record_usage(user, client.chat.completions.create(model="gpt-4o-mini", messages=messages))
    QuotaToken.objects.update(expires_at=timezone.now())
    access.get_access_token(user)
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
    things = [row, account, PendingRevocation(token=known[1]), purchases.get_balance(user)]
    assert_none(" ".join(f"{thing!r} {thing}" for thing in things), "a repr", known)

    answer = person.client.post("/auth/quota/logout", headers={"accept": "text/html"})
    # Its hint is the id_token, and the client id is no secret.
    assert "quota_" not in answer["Location"].replace("/auth/quota/", "").replace(
        "quota_client_", ""
    )


def test_the_columns_are_encrypted(person: Person) -> None:
    person.sign_in()
    connecting.disconnect(get_user_model().objects.get())
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
    reply = endpoints.TokenReply(
        access_token="quota_token_x",
        refresh_token="quota_refresh_x",
        id_token="eyJx",
        expires_in=1,
        scope=None,
    )
    assert_none(repr(reply), "a repr", [])


def test_the_settings_hide_the_client_secret() -> None:
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
        purchases.get_balance(user)
        purchases.create_checkout(user, "x", success_url="http://x/", cancel_url="http://x/")
    except QuotaError as error:
        assert_none(report_of(error), "a report", known)
    else:
        pytest.fail("Quota was not down")


@pytest.mark.parametrize("status", [None, 401, 402, 404, 504])
def test_a_grant_does_not_show_the_api_key(
    person: Person, sandbox: Sandbox, log: io.StringIO, status: int | None, settings: Any
) -> None:
    """Neither if Quota accepts it nor if it fails: in the log, a row, a result, an error page."""
    person.sign_in()
    user = get_user_model().objects.get()
    _email, session = sandbox.new_developer()
    key = settings.QUOTA_API_KEY = sandbox.api_key(session)
    settings.DEBUG = True
    path = "/v1/funding/oauth_user"
    if status:
        sandbox.set(fail={"path": path, "status": status})
    try:
        text = repr(grant_credits(user, 5, idempotency_key="trial-1"))
    except QuotaError as error:
        text = report_of(error) + shown(error)
    row = CreditGrant.objects.get()
    assert_none(text, "a result or a report", [key])
    assert_none(repr(vars(row)) + repr(get_settings()), "a row or the settings", [key])
    assert_none(log.getvalue(), "the log", [key])


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
        factory.openai_client(user).chat.completions.create(
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
        await factory.async_openai_client(user).chat.completions.create(**ask)

    with pytest.raises(QuotaError) as caught:
        if is_async:
            run_async(call())
        else:
            factory.openai_client(user).chat.completions.create(**ask)
    assert_none(report_of(caught.value), "a report", known)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/oauth/token", "/v1/balance", "/oauth/revoke"])
def test_an_error_page_after_no_answer_hides_them(
    person: Person, sandbox: Sandbox, path: str, settings: Any
) -> None:
    """The request is under way, with the client's secret and a token in it."""
    person.sign_in()
    user = get_user_model().objects.get()
    row = QuotaToken.objects.get()
    known = [*secrets_of(row), settings.QUOTA_CLIENT_SECRET]
    sandbox.set(latency={path: 60})
    settings.QUOTA_TIMEOUT = (2, 0.2)
    acts: dict[str, Any] = {
        "/oauth/token": lambda: access.renew(row.account),
        "/v1/balance": lambda: purchases.get_balance(user),
        "/oauth/revoke": lambda: endpoints.revoke(row.refresh_token.reveal(), "refresh_token"),
    }
    with pytest.raises(ProviderUnavailable) as caught:
        acts[path]()
    assert_none(report_of(caught.value), "a report", known)


def test_an_error_page_about_a_malformed_key_hides_it(person: Person, settings: Any) -> None:
    """Two good keys in one text, say."""
    person.sign_in()
    user = get_user_model().objects.get()
    settings.FIELD_ENCRYPTION_KEY = "hush-one,hush-two"
    with pytest.raises(ConfigurationError) as caught:
        access.get_access_token(user)
    assert_none(report_of(caught.value), "a report", ["hush-one", "hush-two"])


@contextmanager
def refusing_revocations() -> Iterator[None]:
    """The table of the revocation queue is away, so the database refuses what is put into it."""
    name = PendingRevocation._meta.db_table
    with connection.schema_editor() as editor:
        editor.alter_db_table(PendingRevocation, name, f"{name}_away")
    try:
        yield
    finally:
        with connection.schema_editor() as editor:
            editor.alter_db_table(PendingRevocation, f"{name}_away", name)


@pytest.mark.slow
@pytest.mark.parametrize("act", ["delete", "disconnect", "sign in", "prune"])
def test_an_error_page_after_the_revocation_queue_failed_hides_them(
    person: Person, act: str
) -> None:
    """The refresh token that is to be queued is still valid."""
    person.sign_in()
    user = get_user_model().objects.get()
    account = ProviderAccount.objects.get()
    known = secrets_of(QuotaToken.objects.get())
    acts: dict[str, Any] = {
        "delete": user.delete,
        "disconnect": lambda: connecting.disconnect(user),
        "sign in": lambda: store_tokens(account, NEW_REPLY),
        "prune": revocation.prune,
    }
    with refusing_revocations(), pytest.raises((QuotaError, DatabaseError)) as caught:
        acts[act]()
    assert_none(report_of(caught.value), "a report", known)


def test_a_wrong_key_is_not_named(person: Person, settings: Any, client: Client) -> None:
    from django_quota.fields import crypter

    settings.FIELD_ENCRYPTION_KEY = "this-is-my-secret"
    with pytest.raises(ConfigurationError) as caught:
        crypter()
    assert "this-is-my-secret" not in str(caught.value)
