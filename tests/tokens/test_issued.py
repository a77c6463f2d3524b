"""Tokens that Quota has issued and that are not kept: dead at Quota once `quota_prune` has run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.core.management import call_command
from django.db import DatabaseError, OperationalError

from django_quota import accounts, backends
from django_quota.exceptions import (
    ProviderUnavailable,
    ReauthenticationRequired,
    RequestRefused,
    SignInFailed,
)
from django_quota.models import PendingRevocation, QuotaToken
from django_quota.oidc import endpoints, id_token, wallet_api
from django_quota.tokens import durable, locking, storing
from tests.helpers.concurrency import wait_until
from tests.helpers.databases import every_query
from tests.sandbox_client import Person, Sandbox

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> list[endpoints.TokenReply]:
    """What the token endpoint answers to codes."""
    replies: list[endpoints.TokenReply] = []
    exchange = endpoints.exchange_code

    def kept(**options: Any) -> endpoints.TokenReply:
        replies.append(exchange(**options))
        return replies[-1]

    monkeypatch.setattr(endpoints, "exchange_code", kept)
    return replies


def is_dead(reply: endpoints.TokenReply) -> bool:
    with pytest.raises(RequestRefused) as caught:
        wallet_api.fetch_balance(reply.access_token)
    assert reply.refresh_token is not None
    with pytest.raises(ReauthenticationRequired):
        endpoints.refresh(reply.refresh_token)
    return caught.value.status == 401


def raising(error: Exception) -> Any:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    return fail


@contextmanager
def failing_database(
    monkeypatch: pytest.MonkeyPatch,
    replies: list[endpoints.TokenReply],
    first: int,
    for_good: bool,
) -> Iterator[list[str]]:
    """After the next exchange of a code, the statement with this number fails, or all from it on.
    Gives the statements."""
    exchanged, statements = len(replies), list[str]()

    def fail(execute: Any, sql: str, *args: Any) -> Any:
        if len(replies) > exchanged:
            statements.append(sql)
            number = len(statements) - 1
            if number == first or (for_good and number > first):
                raise OperationalError("server closed the connection unexpectedly")
        return execute(sql, *args)

    with every_query(fail):
        yield statements


def is_kept(reply: endpoints.TokenReply) -> bool:
    return any(
        row.refresh_token.reveal() == reply.refresh_token for row in QuotaToken.objects.all()
    )


def is_dead_after_prune(reply: endpoints.TokenReply) -> bool:
    call_command("quota_prune", verbosity=0)
    return is_dead(reply)


REFUSALS: dict[str, Callable[[Any, Any], None]] = {
    "sign-up closed": lambda patch, settings: setattr(settings, "QUOTA_CREATE_USER", False),
    "claims refused": lambda patch, settings: patch.setattr(
        backends.QuotaBackend, "verify_claims", lambda self, claims: False
    ),
    "user inactive": lambda patch, settings: patch.setattr(
        backends.QuotaBackend, "user_can_authenticate", lambda self, user: False
    ),
    "no backend": lambda patch, settings: setattr(
        settings, "AUTHENTICATION_BACKENDS", ["django.contrib.auth.backends.ModelBackend"]
    ),
    "database refuses": lambda patch, settings: patch.setattr(
        accounts, "record_sign_in", raising(DatabaseError("no"))
    ),
    "backend is broken": lambda patch, settings: patch.setattr(
        backends.QuotaBackend, "update_user", raising(ValueError("bug"))
    ),
    "id_token refused": lambda patch, settings: patch.setattr(
        id_token, "validate", raising(SignInFailed("id_token_invalid", "no"))
    ),
    "save refused": lambda patch, settings: patch.setattr(
        storing, "fill", raising(DatabaseError("no"))
    ),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_tokens_of_a_refused_sign_in_are_revoked(
    person: Person,
    replies: list[endpoints.TokenReply],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    refusal: str,
) -> None:
    url = person.at_quota(person.start())
    with monkeypatch.context() as patch:
        REFUSALS[refusal](patch, settings)
        try:
            person.come_back(url)
        except ValueError:
            assert refusal == "backend is broken"
    (reply,) = replies
    assert [row.token.reveal() for row in PendingRevocation.objects.all()] == [reply.refresh_token]

    call_command("quota_prune", verbosity=0)

    assert is_dead(reply)
    assert not PendingRevocation.objects.exists()


def test_tokens_of_a_refused_connect_are_revoked(
    person: Person, sandbox: Sandbox, replies: list[endpoints.TokenReply]
) -> None:
    """The wallet is another user's already."""
    person.sign_in()
    other = sandbox.person()
    other.sign_in()
    page = person.client.post("/auth/quota/connect", {"next": "/"})
    replies.clear()
    other.client.cookies = person.client.cookies
    person_at_other = other.at_quota(page["Location"])

    answer = other.come_back(person_at_other)

    assert "account_in_use" in answer["Location"]
    call_command("quota_prune", verbosity=0)
    assert is_dead(replies[0])
    assert QuotaToken.objects.count() == 2


@pytest.mark.parametrize(
    "error", [DatabaseError("away"), RuntimeError("can't start new thread")], ids=["db", "thread"]
)
def test_tokens_that_cannot_be_queued_are_revoked_at_once(
    error: Exception,
    person: Person,
    replies: list[endpoints.TokenReply],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.QUOTA_CREATE_USER = False
    monkeypatch.setattr(PendingRevocation.objects, "using", raising(error))
    with caplog.at_level(logging.WARNING, "django_quota"):
        person.sign_in()

    (reply,) = replies
    assert is_dead(reply)
    assert "revoked at Quota at once" in caplog.text
    assert str(reply.refresh_token) not in caplog.text
    assert reply.access_token not in caplog.text


def test_where_no_revocation_is_offered_the_log_says_that_tokens_live_on(
    person: Person, settings: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings.QUOTA_CREATE_USER = False
    monkeypatch.setattr(PendingRevocation.objects, "using", raising(DatabaseError("away")))
    monkeypatch.setattr(endpoints, "revoke", lambda token, hint: False)
    with caplog.at_level(logging.WARNING, "django_quota"):
        person.sign_in()

    assert "the token was not revoked: Quota offers no revocation" in caplog.text


def test_tokens_that_neither_the_database_nor_quota_takes_are_given_back_later(
    person: Person,
    replies: list[endpoints.TokenReply],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(durable, "PAUSE", (0.01, 0.1))
    settings.QUOTA_CREATE_USER = False
    with monkeypatch.context() as patch:
        patch.setattr(PendingRevocation.objects, "using", raising(DatabaseError("away")))
        patch.setattr(endpoints, "revoke", raising(ProviderUnavailable("away")))
        person.sign_in()
        assert durable.outbox.is_waiting()
    wait_until(lambda: not durable.outbox.is_waiting())

    (reply,) = replies
    assert is_dead_after_prune(reply)
    assert "revoking a token" in caplog.text
    assert str(reply.refresh_token) not in caplog.text + repr(durable.outbox.__dict__)


def test_tokens_of_a_sign_in_are_not_revoked(
    person: Person, replies: list[endpoints.TokenReply]
) -> None:
    person.sign_in()
    assert not PendingRevocation.objects.exists()
    assert wallet_api.fetch_balance(replies[0].access_token).credits == 1_000_000


class TestWhileTheDatabaseFails:
    """From one statement of the callback on, after the code was exchanged, or at that one only."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(locking, "LOCK_WAIT", 0)
        monkeypatch.setattr(locking, "PAUSE", (0, 0))

    @pytest.mark.parametrize("for_good", [True, False])
    @pytest.mark.parametrize("connect", [False, True])
    def test_the_person_sees_the_error_page_and_no_token_is_left_behind(
        self,
        person: Person,
        replies: list[endpoints.TokenReply],
        monkeypatch: pytest.MonkeyPatch,
        connect: bool,
        for_good: bool,
    ) -> None:
        person.sign_in()
        failed = 0
        while True:
            there = (
                person.client.post("/auth/quota/connect", {"next": "/"})["Location"]
                if connect
                else person.client.get("/auth/quota/start", {"prompt": "login"})["Location"]
            )
            url = person.at_quota(there)
            with failing_database(monkeypatch, replies, failed, for_good) as statements:
                answer = person.come_back(url)
            assert answer.status_code == 302
            assert is_kept(replies[-1]) or is_dead_after_prune(replies[-1])
            if len(statements) <= failed:
                break
            failed += 1
        assert "quota_error" not in answer["Location"]
        assert failed >= 9

    @pytest.mark.parametrize("error_url", ["django_quota:error", "/"])
    def test_the_error_page_needs_no_database(
        self,
        person: Person,
        replies: list[endpoints.TokenReply],
        monkeypatch: pytest.MonkeyPatch,
        settings: Any,
        error_url: str,
    ) -> None:
        settings.QUOTA_ERROR_URL = error_url
        url = person.at_quota(person.start())
        with failing_database(monkeypatch, replies, 0, for_good=True):
            answer = person.come_back(url)
        assert "quota_error=provider_unavailable" in answer["Location"]
        with every_query(raising(OperationalError("away"))):
            page = person.client.get(answer["Location"].replace("/?", "/auth/quota/error?"))
        assert page.status_code == 200
        assert is_dead(replies[-1])
        assert "quota_error" not in person.sign_in()["Location"]  # nothing stands in the way
