"""Which database is asked for a token, and how much work it has with that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from django_quota.models import QuotaToken, WebhookEvent
from django_quota.tokens import revocation
from django_quota.tokens.access import get_access_token, renew
from tests.helpers.databases import ReadFromReplica
from tests.light_provider import LightProvider
from tests.storms.crew import make_users

pytestmark = [pytest.mark.storm, pytest.mark.django_db(transaction=True)]


class TestReplica:
    """It lags so far behind that it has not even a table: whoever reads there fails."""

    @pytest.fixture
    def replica(self, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        nothing = {**connections.settings["default"], "NAME": ":memory:", "OPTIONS": {}}
        nothing["ENGINE"] = "django.db.backends.sqlite3"
        monkeypatch.setitem(connections.settings, "replica", nothing)
        settings.DATABASE_ROUTERS = [ReadFromReplica()]
        yield
        connections["replica"].close()
        del connections["replica"]

    def test_is_not_asked_for_tokens(self, quota: LightProvider, replica: None) -> None:
        (user,) = make_users(1)
        token = get_access_token(user)
        assert token == get_access_token(user) == "quota_token_u0.1"
        assert get_access_token(user, rejected=token) == "quota_token_u0.2"

    def test_nor_when_it_is_the_admin_that_renews(
        self, quota: LightProvider, replica: None
    ) -> None:
        make_users(1)
        renew(QuotaToken.objects.select_related("account").get().account)
        assert quota.counts.outcomes == {"renewed": 1}

    def test_nor_for_what_is_to_be_revoked_or_forgotten(
        self, quota: LightProvider, replica: None
    ) -> None:
        """One that does not know yet what is done would have it done for ever."""
        revocation.queue("quota_refresh_u0.0")
        now = timezone.now()
        WebhookEvent.objects.using("default").create(
            event_id="e",
            body="{}",
            created_at=now,
            received_at=now - 2 * revocation.EVENT_PERIOD,
            handled_at=now,
        )
        done = revocation.prune()
        assert (done.revoked, done.left, done.events) == (1, 0, 1)
        assert quota.counts.revoked == {"quota_refresh_u0.0": 1}


class TestIndex:
    ANALYZE = {
        "postgresql": "ANALYZE",
        "mysql": "ANALYZE TABLE django_quota_quotatoken, django_quota_provideraccount",
        "sqlite": "ANALYZE",
    }

    def test_one_query_by_index(self, quota: LightProvider) -> None:
        """No plan of it reads a table from one end to the other."""
        user = make_users(5000, expire_in=3600)[2500]
        with connection.cursor() as cursor:
            cursor.execute(self.ANALYZE[connection.vendor])
            cursor.fetchall() if cursor.description else None
        with CaptureQueriesContext(connection) as queries:
            assert get_access_token(user) == "quota_token_u2500.0"
        assert len(queries) == 1

        explain = "EXPLAIN QUERY PLAN" if connection.vendor == "sqlite" else "EXPLAIN"
        with connection.cursor() as cursor:
            cursor.execute(f"{explain} {queries[0]['sql']}")
            plan = cursor.fetchall()
        assert plan and "Seq Scan" not in str(plan) and "SCAN" not in str(plan), plan
        if connection.vendor == "mysql":
            assert {kind for _, _, _, kind, *_ in plan} <= {"const", "eq_ref"}, plan
