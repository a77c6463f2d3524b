"""Many callers at once, at a provider that answers."""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import sync_to_async
from django.db import connections

from benchmarks.course import failures, say, sqlite, workers
from tests.helpers.concurrency import begin_together, outcome
from tests.light_provider import LightProvider
from tests.storms.crew import Crew, make_users, work_for


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
