"""The webhook: whose word is taken, and that each event is handled once and none is lost."""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.handlers.asgi import ASGIRequest
from django.db import connection
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_quota import accounts, connecting, signals
from django_quota.exceptions import ReauthenticationRequired
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken, WebhookEvent
from django_quota.oidc import endpoints
from django_quota.tokens import revocation
from django_quota.tokens.revocation import prune
from django_quota.wallet import purchases
from django_quota.wallet.balances import Balance, begin_request, keep_balance, kept_balance
from django_quota.web import webhook_delivery, webhook_rows, webhooks
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import begin_together, closes_connections
from tests.helpers.databases import read_only_database
from tests.helpers.error_answers import mailed
from tests.helpers.rows import store_tokens, token_reply
from tests.sandbox_client import Person
from tests.shown import listening

pytestmark = pytest.mark.django_db(transaction=True)

SECRET = "whsec_hush"
URL = "/auth/quota/webhook"


@pytest.fixture(autouse=True)
def secret(settings: Any) -> None:
    settings.QUOTA_WEBHOOK_SECRET = SECRET


@pytest.fixture
def ada() -> Any:
    """Known here, with a token that was last written a minute ago."""
    user = get_user_model().objects.create(username="ada")
    account = ProviderAccount.objects.create(user=user, external_id="sub-ada")
    minute_ago = timezone.now() - timedelta(minutes=1)
    QuotaToken.objects.create(
        account=account,
        access_token="quota_token_a",
        refresh_token="quota_refresh_a",
        updated_at=minute_ago,
    )
    return user


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Quota has ended the grant; the refresh tokens that it was asked to renew."""
    asked: list[str] = []

    def refresh(refresh_token: str) -> endpoints.TokenReply:
        asked.append(refresh_token)
        raise ReauthenticationRequired("ended", provider_code="invalid_grant")

    monkeypatch.setattr(endpoints, "refresh", refresh)
    return asked


def event(kind: str = "balance.updated", **changes: Any) -> bytes:
    said = {
        "id": "evt_1",
        "type": kind,
        "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "data": {"user_id": "sub-ada", "new_balance": 998_800},
    }
    return json.dumps(said | changes).encode()


def sign(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def deliver(body: bytes, signature: str | None = None, **headers: str) -> Any:
    given = {"X-Quota-Signature": sign(body) if signature is None else signature} | headers
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    return client.post(URL, body, content_type="application/json", headers=given)


@contextmanager
def receiver(work: Any) -> Iterator[None]:
    signals.webhook_received.connect(work)
    try:
        yield
    finally:
        signals.webhook_received.disconnect(work)


class TestWhoseWordIsTaken:
    @pytest.mark.parametrize(
        "signature",
        [
            "",
            "0" * 64,
            sign(b"another body"),
            sign(event(), "whsec_other"),
            f"sha256={sign(event())}",
            "é" * 64,
            "x" * 5000,
            "null",
        ],
        ids=range(8),
    )
    def test_nobodys_without_the_secret(
        self, signature: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        answer = deliver(event(), signature)
        assert (answer.status_code, answer.json()) == (403, {"received": False})
        assert not WebhookEvent.objects.exists()
        assert "signature" in caplog.text and SECRET not in caplog.text

    def test_one_bit_of_the_body_counts(self) -> None:
        assert deliver(event() + b" ", sign(event())).status_code == 403

    def test_any_of_a_list_of_secrets_while_it_is_rotated(self, settings: Any) -> None:
        settings.QUOTA_WEBHOOK_SECRET = ["whsec_new", SECRET]
        one, two = event(id="evt_1"), event(id="evt_2")
        assert deliver(one, sign(one, "whsec_new")).status_code == 200
        assert deliver(two, sign(two, SECRET)).status_code == 200

    def test_hex_digits_may_be_large(self) -> None:
        body = event()
        assert deliver(body, sign(body).upper()).status_code == 200

    def test_without_a_secret_there_is_no_webhook(self, settings: Any) -> None:
        settings.QUOTA_WEBHOOK_SECRET = None
        body = event()
        assert deliver(body, sign(body, "")).status_code == 404
        assert not WebhookEvent.objects.exists()

    @pytest.mark.parametrize("method", ["get", "put", "patch", "delete", "head"])
    def test_post_only(self, method: str, client: Client) -> None:
        assert getattr(client, method)(URL).status_code == 405

    def test_with_login_required_everywhere(self, settings: Any) -> None:
        settings.MIDDLEWARE = [
            *settings.MIDDLEWARE,
            "django.contrib.auth.middleware.LoginRequiredMiddleware",
        ]
        assert deliver(event()).status_code == 200

    def test_verify_for_your_own_use(self) -> None:
        assert webhook_delivery.verify(b"x", sign(b"x"), [SECRET])
        assert not webhook_delivery.verify(b"x", sign(b"x"), [])
        assert not webhook_delivery.verify(b"x", "", [""])


class TestWhatIsAnEvent:
    @pytest.mark.parametrize(
        ("body", "reason"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"\xff\xfe", "not JSON"),
            (b"[" * 50_000, "not JSON"),
            (b"[]", "not an event"),
            (b"null", "not an event"),
            (b'"text"', "not an event"),
            (event(data=None), "not an event"),
            (event(data=[]), "not an event"),
            (event(id=None), "usable id"),
            (event(id=7), "usable id"),
            (event(id=""), "usable id"),
            (event(id="evt 1"), "usable id"),
            (event(id="evt_\x00"), "usable id"),
            (event(id="evt_\ud800"), "usable id"),
            (event(id="e" * 256), "usable id"),
            (event(type=None), "usable type"),
            (event(type="t" * 101), "usable type"),
            (event(created_at=None), "usable created_at"),
            (event(created_at=1_700_000_000), "usable created_at"),
            (event(created_at="yesterday"), "usable created_at"),
            (event(created_at="0001-01-01T00:00:00+23:59"), "usable created_at"),
            (event(created_at="9999-12-31T23:59:59-23:59"), "usable created_at"),
            (event(created_at="2020-01-01T00:00:00Z"), "older than"),
            (event(created_at="9999-12-31T00:00:00"), "in the future"),
        ],
        ids=range(25),
    )
    def test_anything_else_is_refused(
        self, body: bytes, reason: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert deliver(body).status_code == 400
        (line,) = [r.getMessage() for r in caplog.records if r.name == "django_quota.webhooks"]
        assert reason in line
        assert not WebhookEvent.objects.exists()

    @pytest.mark.parametrize(
        ("age", "status"),
        [(-6, 400), (-4, 200), (0, 200), (3 * 24 * 60 - 1, 200), (3 * 24 * 60 + 1, 400)],
    )
    def test_how_old_it_may_be(self, age: int, status: int) -> None:
        created = datetime.now(UTC) - timedelta(minutes=age)
        assert deliver(event(created_at=created.isoformat())).status_code == status

    @pytest.mark.parametrize("size", [webhook_delivery.MAX_BYTES + 1, 5_000_000])
    def test_a_large_body_is_not_read(self, size: int) -> None:
        body = event(data={"x": "x" * size})
        assert deliver(body).status_code == 413

    @pytest.mark.parametrize("length", ["-1", "many", "64001", "9" * 5000, "²"])
    def test_nothing_is_read_of_what_announces_too_much(self, length: str) -> None:
        request = RequestFactory().post(URL, b"x", content_type="application/json")
        request.META["CONTENT_LENGTH"] = length
        assert webhooks.webhook(request).status_code == 413
        assert request.read() == b"x"

    @pytest.mark.parametrize(("size", "status"), [(64_000, 403), (64_001, 413)])
    def test_what_announces_no_length_is_measured(self, size: int, status: int) -> None:
        """As ASGI servers hand on a chunked body."""
        scope = {"type": "http", "method": "POST", "path": URL, "headers": []}
        request = ASGIRequest(scope, io.BytesIO(b"x" * size))
        assert webhooks.webhook(request).status_code == status

    def test_a_body_that_breaks_off(self, caplog: pytest.LogCaptureFixture) -> None:
        class Broken(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                raise OSError

        scope = {"type": "http", "method": "POST", "path": URL, "headers": []}
        assert webhooks.webhook(ASGIRequest(scope, Broken())).status_code == 400
        assert "did not arrive" in caplog.text

    @pytest.mark.parametrize(
        ("size", "status"), [(None, 200), (5, 400), (webhook_delivery.MAX_BYTES + 1, 413)]
    )
    @pytest.mark.parametrize("announced", [True, False])
    @pytest.mark.parametrize("before", [True, False])
    def test_a_middleware_may_read_the_body_around_it(
        self, size: int | None, status: int, announced: bool, before: bool
    ) -> None:
        """As those that log requests do: else an event that was handled comes again for ever."""
        body = event() if size is None else b"x" * size
        request = RequestFactory().post(
            URL, body, content_type="application/json", headers={"X-Quota-Signature": sign(body)}
        )
        if not announced:  # as ASGI servers hand on a chunked body
            scope = {"type": "http", "method": "POST", "path": URL, "headers": []}
            asgi = ASGIRequest(scope, io.BytesIO(body))
            asgi.META["HTTP_X_QUOTA_SIGNATURE"] = sign(body)
            request = asgi  # type: ignore[assignment]
        if before:
            assert request.body == body
        assert webhooks.webhook(request).status_code == status
        assert request.body == body

    def test_any_text_that_json_can_hold_is_stored(self) -> None:
        body = event(data={"user_id": "\x00\ud800", "note": "\x00 \ud800 é \U0001f600"})
        assert deliver(body).status_code == 200
        assert WebhookEvent.objects.get().data["note"] == "\x00 \ud800 é \U0001f600"


@pytest.mark.django_db(transaction=True)
def test_in_a_project_without_time_zones(ada: Any, ended: list[str], settings: Any) -> None:
    settings.USE_TZ = False
    QuotaToken.objects.update(updated_at=timezone.now() - timedelta(minutes=1))
    body = event("user.disconnected")
    assert [deliver(body).status_code for _ in range(2)] == [200, 200]
    assert not QuotaToken.objects.exists()
    assert WebhookEvent.objects.get().handled_at is not None


class TestOnce:
    def test_a_second_delivery_is_not_handled_again(self) -> None:
        body = event()
        with listening(signals.webhook_received) as heard:
            assert [deliver(body).status_code for _ in range(3)] == [200] * 3
        assert len(heard) == WebhookEvent.objects.count() == 1
        assert WebhookEvent.objects.get().attempts == 1

    def test_the_same_id_with_other_bytes_is_refused(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        assert deliver(event()).status_code == 200
        other = event(data={"user_id": "sub-ada", "new_balance": 99_000_000})
        assert deliver(other).status_code == 409
        assert "another event of this id" in caplog.text

    def test_what_fails_is_delivered_again(self, caplog: pytest.LogCaptureFixture) -> None:
        body, fail = event(), [True]

        def fragile(**said: Any) -> None:
            if fail:
                raise RuntimeError("quota_token_hush")

        with receiver(fragile):
            answer = deliver(body)
            assert (answer.status_code, answer.json()) == (500, {"received": False})
            row = WebhookEvent.objects.get()
            assert (row.handled_at, row.last_failure, row.attempts) == (None, "RuntimeError", 1)
            assert re.search(r"webhook evt_1 \(balance.updated\) failed \[\w{8}\]", caplog.text)
            fail.clear()
            assert deliver(body).status_code == 200
        row.refresh_from_db()
        assert row.handled_at is not None
        assert (row.last_failure, row.attempts) == ("", 2)

    def test_of_deliveries_that_race_one_is_handled(self) -> None:
        """Whoever comes while it is being handled is told to come again: nothing is lost if the
        first one dies."""
        body, heard = event(), []
        begun, go_on = threading.Event(), threading.Event()

        def slow(**said: Any) -> None:
            heard.append(said)
            begun.set()
            assert go_on.wait(20)

        @closes_connections
        def first() -> int:
            return int(deliver(body).status_code)

        with receiver(slow), ThreadPoolExecutor(1) as pool:
            running = pool.submit(first)
            assert begun.wait(20)
            second = deliver(body)
            assert (second.status_code, second["Retry-After"]) == (503, "5")
            go_on.set()
            assert running.result() == 200
            assert deliver(body).status_code == 200
        assert len(heard) == 1

    def test_event_that_another_delivery_stores_meanwhile_is_left_to_it(
        self, ada: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body, real = event(), webhook_rows.look_up
        first: list[int] = []

        def late(delivery: Any) -> Any:
            known = real(delivery)
            if not first:
                first.append(0)
                first[0] = deliver(body).status_code
            return known

        monkeypatch.setattr(webhook_rows, "look_up", late)
        with listening(signals.webhook_received) as heard:
            second = deliver(body).status_code
            third = deliver(body).status_code
        assert (first, second, third) == ([200], 503, 200)
        assert len(heard) == 1

    def test_user_who_is_deleted_meanwhile_is_an_error_and_the_next_delivery_is_handled(
        self, ada: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        body, real = event(), webhook_rows.look_up

        def late(delivery: Any) -> Any:
            known = real(delivery)
            get_user_model().objects.all().delete()
            return known

        monkeypatch.setattr(webhook_rows, "look_up", late)
        assert deliver(body).status_code == 500
        monkeypatch.setattr(webhook_rows, "look_up", real)
        with listening(signals.webhook_received) as heard:
            assert deliver(body).status_code == 200
        assert [said["user"] for said in heard] == [None]

    def test_of_sixteen_at_once(self) -> None:
        body = event()
        with listening(signals.webhook_received) as heard:
            statuses = set(begin_together([lambda: int(deliver(body).status_code)] * 16))
        assert len(heard) == WebhookEvent.objects.count() == 1
        assert 200 in statuses and statuses <= {200, 503}

    def test_what_a_killed_worker_leaves_is_handled_by_the_next(self) -> None:
        body = event()
        assert deliver(body).status_code == 200
        now = timezone.now()
        WebhookEvent.objects.update(handled_at=None, claimed_until=now + timedelta(seconds=30))
        assert deliver(body).status_code == 503
        WebhookEvent.objects.update(claimed_until=now - timedelta(seconds=1))
        with listening(signals.webhook_received) as heard:
            assert deliver(body).status_code == 200
        assert len(heard) == 1

    def test_who_fails_too_late_does_not_end_the_lease_of_the_next(self) -> None:
        taken = timezone.now() + timedelta(seconds=30)

        def slow(**said: Any) -> None:
            WebhookEvent.objects.update(claimed_until=taken)  # by who took it for dead
            raise RuntimeError

        with receiver(slow):
            assert deliver(event()).status_code == 500
        row = WebhookEvent.objects.get()
        assert (row.claimed_until, row.last_failure) == (taken, "")

    def test_ids_that_differ_in_case_are_never_taken_for_each_other(self) -> None:
        with listening(signals.webhook_received) as heard:
            statuses = [deliver(event(id=name)).status_code for name in ("evt_a", "EVT_A")]
        assert statuses == [200, 200]
        assert [said["event"].event_id for said in heard] == ["evt_a", "EVT_A"]

    @pytest.mark.parametrize("ahead", [0.001, 50])
    def test_a_lease_of_who_looked_at_the_clock_later_is_one(self, ahead: float) -> None:
        body = event()
        assert deliver(body).status_code == 200
        until = timezone.now() + timedelta(seconds=webhook_rows.LEASE_SECONDS + ahead)
        WebhookEvent.objects.update(handled_at=None, claimed_until=until)
        with listening(signals.webhook_received) as heard:
            assert deliver(body).status_code == 503
        assert heard == []

    def test_a_clock_that_was_set_back_locks_nobody_out(self) -> None:
        body = event()
        assert deliver(body).status_code == 200
        later = timezone.now() + timedelta(hours=1)
        WebhookEvent.objects.update(handled_at=None, claimed_until=later)
        assert deliver(body).status_code == 200

    def test_receivers_hear_of_it_after_the_commit(self, ada: Any) -> None:
        seen = []

        def look(event: WebhookEvent, **said: Any) -> None:
            @closes_connections
            def from_outside() -> bool:
                return WebhookEvent.objects.filter(pk=event.pk).exists()

            with ThreadPoolExecutor(1) as pool:
                seen.append((connection.in_atomic_block, pool.submit(from_outside).result()))

        connection.settings_dict["ATOMIC_REQUESTS"] = True
        try:
            with receiver(look):
                assert deliver(event()).status_code == 200
        finally:
            connection.settings_dict["ATOMIC_REQUESTS"] = False
        assert seen == [(False, True)]


class TestStatements:
    """Each is a round trip to the database, and Quota waits for them."""

    @pytest.mark.parametrize("kind", ["balance.updated", "usage.completed"])
    def test_new_event_takes_three(self, ada: Any, kind: str) -> None:
        """A look at user, event and clock; the row with its lease; and the end of the lease."""
        with CaptureQueriesContext(connection) as queries:
            assert deliver(event(kind)).status_code == 200
        assert [query["sql"].split()[0] for query in queries] == [
            "SELECT",
            "INSERT",
            "UPDATE",
        ]

    def test_event_that_was_handled_before_takes_one(self, ada: Any) -> None:
        body = event()
        deliver(body)
        with CaptureQueriesContext(connection) as queries:
            assert deliver(body).status_code == 200
        assert [query["sql"].split()[0] for query in queries] == ["SELECT"]


class TestWhatItDoes:
    def test_balance_that_has_changed_is_asked_for_again(self, ada: Any) -> None:
        """Also if the event is an old one, about a balance that has changed since."""
        cache_balance(ada, 1)
        older = (datetime.now(UTC) - timedelta(seconds=9)).isoformat()
        assert deliver(event(created_at=older)).status_code == 200
        assert kept_balance(ada) is None

    def test_balance_that_was_requested_before_the_event_is_not_shown(self, ada: Any) -> None:
        version = begin_request(ada)
        deliver(event())
        keep_balance(version, Balance(credits=1))
        assert kept_balance(ada) is None

    def test_a_low_balance_is_told(self, ada: Any) -> None:
        data = {"user_id": "sub-ada", "current_balance": 400, "threshold": 500}
        with listening(signals.balance_low) as heard:
            assert deliver(event("balance.low", data=data)).status_code == 200
        (low,) = heard
        assert (low["user"], low["balance"].credits, low["threshold"]) == (ada, 400, 500)

    def test_a_wallet_that_was_disconnected_at_quota_is_wiped_here(
        self, ada: Any, ended: list[str]
    ) -> None:
        with listening(signals.wallet_disconnected) as heard:
            assert deliver(event("user.disconnected")).status_code == 200
        assert not QuotaToken.objects.exists()
        assert [h["user"] for h in heard] == [ada]
        assert accounts.account_of(ada) is not None
        assert PendingRevocation.objects.count() == 1
        assert ended == ["quota_refresh_a"]

    def test_but_not_because_of_a_grant_that_we_have_revoked_ourselves(
        self, person: Person, user: Any
    ) -> None:
        """That of a sign-in before the last one: Quota tells of that, too, and does not say which
        grant has ended."""
        person.sign_in()
        assert revocation.revoke_pending() == 1
        data = {"user_id": ProviderAccount.objects.get().external_id}
        # By Quota's clock, which may be ahead of ours.
        soon = (datetime.now(UTC) + timedelta(seconds=30)).isoformat()
        body = event("user.disconnected", data=data, created_at=soon)
        assert deliver(body).status_code == 200
        assert QuotaToken.objects.exists()
        assert purchases.get_balance(user).credits == 1_000_000

        live = QuotaToken.objects.get().refresh_token.reveal()
        endpoints.revoke(live, "refresh_token")
        body = event("user.disconnected", id="evt_2", data=data, created_at=soon)
        assert deliver(body).status_code == 200
        assert not QuotaToken.objects.exists()

    def test_is_asked_about_again_where_quota_cannot_be_reached(
        self, ada: Any, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Nobody knows yet whether the wallet is connected; and nobody is to be mailed."""
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        answer = deliver(event("user.disconnected"))
        assert (answer.status_code, answer["Retry-After"]) == (503, "5")
        assert "webhook evt_1 (user.disconnected) postponed" in caplog.text
        assert not [record for record in caplog.records if record.levelname == "ERROR"]
        assert QuotaToken.objects.exists()
        assert WebhookEvent.objects.get().last_failure == "ProviderUnavailable"

    def test_nor_is_its_balance_shown_any_more(self, ada: Any, ended: list[str]) -> None:
        cache_balance(ada, 1)
        deliver(event("user.disconnected", id="evt_2"))
        assert kept_balance(ada) is None

    def test_but_not_a_connection_that_is_newer(self, ada: Any, ended: list[str]) -> None:
        """The event was delivered late: the person has come back since."""
        QuotaToken.objects.update(updated_at=timezone.now() + timedelta(seconds=1))
        with listening(signals.wallet_disconnected) as heard:
            assert deliver(event("user.disconnected")).status_code == 200
        assert QuotaToken.objects.exists()
        assert (heard, ended) == ([], [])

    def test_a_sign_in_between_the_refusal_and_the_wipe_is_kept(
        self, ada: Any, ended: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = connecting.wipe_tokens

        def late(user: Any, *, grant: int) -> None:
            store_tokens(ProviderAccount.objects.get(), token_reply("ada2"))
            real(user, grant=grant)

        monkeypatch.setattr(connecting, "wipe_tokens", late)
        assert deliver(event("user.disconnected")).status_code == 200
        assert QuotaToken.objects.exists()

    @pytest.mark.parametrize("kind", ["user.connected", "usage.completed", "something.new"])
    def test_every_event_is_told_to_the_project(self, ada: Any, kind: str) -> None:
        with listening(signals.webhook_received) as heard:
            assert deliver(event(kind)).status_code == 200
        assert [(h["event"].type, h["user"]) for h in heard] == [(kind, ada)]
        assert WebhookEvent.objects.get().user == ada

    @pytest.mark.parametrize("user_id", ["nobody", "", None, 7, [], "x" * 300, "\x00", "SUB-ADA"])
    def test_of_a_user_who_is_not_known_here_too(self, ada: Any, user_id: Any) -> None:
        cache_balance(ada, 1)
        data = {"user_id": user_id, "new_balance": 5}
        for number, kind in enumerate(("balance.updated", "balance.low", "user.disconnected")):
            with listening(signals.webhook_received) as heard:
                assert deliver(event(kind, id=f"evt_{number}", data=data)).status_code == 200
            assert [h["user"] for h in heard] == [None]
        assert kept_balance(ada) == Balance(credits=1)
        assert QuotaToken.objects.exists()

    @pytest.mark.parametrize("number", [None, "5", 1.5, True, 1 << 80, [], {}])
    def test_odd_numbers_are_passed_over(self, ada: Any, number: Any) -> None:
        data = {"user_id": "sub-ada", "new_balance": number, "current_balance": number}
        for count, kind in enumerate(("balance.updated", "balance.low")):
            assert deliver(event(kind, id=f"evt_{count}", data=data)).status_code == 200
        assert kept_balance(ada) is None


class TestPrune:
    def test_handled_events_go_after_thirty_days(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(revocation, "BATCH", 2)
        old = timezone.now() - timedelta(days=31)
        for number in range(7):
            deliver(event(id=f"evt_{number}"))
        WebhookEvent.objects.exclude(event_id="evt_0").update(received_at=old)
        WebhookEvent.objects.filter(event_id="evt_1").update(handled_at=None)
        assert prune().events == 5
        assert sorted(WebhookEvent.objects.values_list("event_id", flat=True)) == ["evt_0", "evt_1"]

    def test_none_that_could_still_be_replayed(self) -> None:
        assert revocation.EVENT_PERIOD > webhook_delivery.MAX_AGE + webhook_delivery.MAX_AHEAD


def test_nothing_secret_is_logged(caplog: pytest.LogCaptureFixture, ada: Any) -> None:
    caplog.set_level(0)
    for body in (event(), event("user.disconnected", id="evt_2"), b"quota_token_hush"):
        deliver(body)
        deliver(body, "0" * 64)
    assert not [word for word in ("hush", "quota_refresh", SECRET) if word in caplog.text]


def test_event_is_delivered_again_after_a_read_only_database(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with read_only_database():
        answer = deliver(event())
    assert (answer.status_code, answer["Retry-After"]) == (503, "5")
    assert not mailed(caplog)
