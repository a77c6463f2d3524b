"""Which database is asked for a token, and how much work it has with that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django.fixtures import Settings

from django_quota.models import QuotaToken
from django_quota.tokens import get_access_token, renew
from tests.light_provider import LightProvider
from tests.storms.crew import make_users

pytestmark = [pytest.mark.storm, pytest.mark.django_db(transaction=True)]


class ReadFromReplica:
    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


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

        plan = QuotaToken.objects.for_user(user).explain()

        assert "Seq Scan" not in plan and "SCAN" not in plan, plan
        if connection.vendor == "mysql":
            kinds = {line.split()[3] for line in plan.splitlines()}
            assert kinds <= {"const", "eq_ref"}, plan
        assert QuotaToken.objects.filter(expires_at__lt=timezone.now()).count() == 0
