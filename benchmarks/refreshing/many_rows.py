"""One token among a million."""

from __future__ import annotations

import random
import statistics
import time
from collections import defaultdict
from typing import Any

from django.db import connection, connections
from django.test.utils import override_settings

from benchmarks.course import say
from tests.light_provider import LightProvider
from tests.storms.crew import make_users


class Chosen:
    """A router: all goes to the database that is chosen at the moment."""

    alias = "default"

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return self.alias

    db_for_write = db_for_read


def million(quota: LightProvider) -> None:
    """get_access_token among 1,000 rows and among 1,000,000 (PostgreSQL)."""
    from django.test.utils import CaptureQueriesContext

    from benchmarks.rows import copy_rows
    from django_quota.models import QuotaToken
    from django_quota.tokens.access import get_access_token

    sample = make_users(1000, expire_in=36_000)
    connection.close()  # else it cannot be copied
    many_name = connection.settings_dict["NAME"]
    few_name = f"{many_name}_few"
    with connection._nodb_cursor() as cursor:
        cursor.execute(f"DROP DATABASE IF EXISTS {few_name}")
        cursor.execute(f"CREATE DATABASE {few_name} TEMPLATE {many_name}")
    connections.settings["few"] = {**connections.settings["default"], "NAME": few_name}
    chosen = Chosen()

    def medians(count: int) -> dict[tuple[str, str], float]:
        """Of get_access_token and of the plain read, with few tokens and with many, in turn."""
        times: dict[tuple[str, str], list[float]] = defaultdict(list)
        for user in random.choices(sample, k=count):
            for chosen.alias in ("few", "default"):
                began = time.perf_counter()
                get_access_token(user)
                between = time.perf_counter()
                QuotaToken.objects.filter(account__user_id=user.pk, account__provider="quota").get()
                times["ours", chosen.alias].append(between - began)
                times["plain", chosen.alias].append(time.perf_counter() - between)
        chosen.alias = "default"
        return {what: statistics.median(took) for what, took in times.items()}

    copy_rows(999_000)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    with override_settings(DATABASE_ROUTERS=[chosen]):
        medians(500)
        took = medians(3000)
        with CaptureQueriesContext(connection) as queries:
            get_access_token(sample[0])
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN {queries[0]['sql']}")
            plan = str(cursor.fetchall())
    connections["few"].close()
    with connection._nodb_cursor() as cursor:
        cursor.execute(f"DROP DATABASE {few_name}")
    ours = took["ours", "default"] / took["ours", "few"]
    plain = took["plain", "default"] / took["plain", "few"]
    say("tokens", QuotaToken.objects.count(), "1000000")
    say("... queries of get_access_token", len(queries), "1")
    say("... reads a whole table", "Seq Scan" in plan, "False")
    say("... median to that among 1,000", f"{ours:.2f} x", "1.2 x at most")
    say("... the plain read beside it", f"{plain:.2f} x", "for comparison")
