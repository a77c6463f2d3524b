"""The CPU time of a sign-in's callback: `python -m benchmarks.sign_in [--ds SETTINGS]`.

It counts the seconds of this process. The provider runs in a process of its own, and so does a
PostgreSQL server. `--profile` prints where the time goes.
"""

from __future__ import annotations

import argparse
import cProfile
import multiprocessing
import pstats
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.refresh import run, say
from tests.tiny_server import TinyServer

#: Sign-ins of one round; the first rounds warm up.
TIMES, ROUNDS = 50, 3


def serve(origin: Any, end: Any) -> None:
    from tests.hostile.provider import HostileProvider

    with TinyServer() as server:
        HostileProvider(server)
        origin.send(server.origin)
        end.wait()


@contextmanager
def provider() -> Iterator[str]:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    end = spawn.Event()
    process = spawn.Process(target=serve, args=(there, end))
    process.start()
    yield here.recv()
    end.set()
    process.join()


def seconds_of(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def measure(profile: bool) -> None:
    from django.core.cache import cache
    from django.test import Client
    from django.test.utils import override_settings

    from tests.helpers.browser import Browser
    from tests.hostile.provider import CLIENT_ID, CLIENT_SECRET

    with (
        provider() as origin,
        override_settings(
            QUOTA_BASE_URL=origin, QUOTA_CLIENT_ID=CLIENT_ID, QUOTA_CLIENT_SECRET=CLIENT_SECRET
        ),
    ):
        starts: list[float] = []
        callbacks: list[float] = []
        profiler = cProfile.Profile(time.process_time)
        for number in range(TIMES * ROUNDS):
            browser = Browser(Client(SERVER_NAME="localhost"))
            urls: list[str] = []
            starts.append(seconds_of(lambda: urls.append(browser.start())))  # noqa: B023
            back = browser.at_provider(urls[0])
            if profile and number > TIMES:
                profiler.enable()
            callbacks.append(seconds_of(lambda: browser.come_back(back)))  # noqa: B023
            profiler.disable()
        cache.clear()
    say("CPU of a start, ms", f"{statistics.median(starts[TIMES:]) * 1000:.2f}", "")
    say("CPU of a returning callback, ms", f"{statistics.median(callbacks[TIMES:]) * 1000:.2f}", "")
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
        pstats.Stats(profiler).sort_stats("cumtime").print_stats(110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ds", default="tests.settings_postgresql")
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    run(lambda quota: measure(options.profile), options.ds)


if __name__ == "__main__":
    main()
