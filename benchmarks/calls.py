"""What a billed call costs: `python -m benchmarks.calls`, as benchmarks.refresh does it.

The same call by a bare client that all share, by ours, and by one that is built for each request,
in turns, so that whatever else the machine does happens to all of them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.course import run, say
from tests.light_provider import LightProvider
from tests.storms.crew import make_users
from tests.tiny_server import TinyServer, json_answer

TIMES = 400
ASK: Any = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}
ANSWER: Any = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-mini",
    "choices": [],
}


def call(quota: LightProvider) -> None:
    """What openai_client(user) adds to a bare client, in reads of the token row."""
    from django.test.utils import CaptureQueriesContext, override_settings
    from openai import OpenAI

    from django_quota.ai.factory import openai_client
    from django_quota.models import QuotaToken

    (user,) = make_users(1, expire_in=3600)
    pk = QuotaToken.objects.get().pk
    with apart() as origin, override_settings(QUOTA_BASE_URL=origin):
        base: Any = {"base_url": f"{origin}/v1", "api_key": "x"}
        shared = OpenAI(**base)

        def per_request() -> None:
            with OpenAI(**base) as client:
                client.chat.completions.create(**ASK)

        def read() -> None:
            assert QuotaToken.objects.get(pk=pk).access_token.reveal()

        ways: dict[str, Callable[[], object]] = {
            "bare": lambda: shared.chat.completions.create(**ASK),
            "ours": lambda: openai_client(user).chat.completions.create(**ASK),
            "read": read,
            "per request": per_request,
        }
        times = in_turns(ways)
        with CaptureQueriesContext(connection_of(QuotaToken)) as queries:
            openai_client(user).chat.completions.create(**ASK)
    added = times["ours"] - times["bare"]
    say("a billed call: queries, the token's and after the answer", len(queries), "2")
    say("... adds to a bare client, both", f"{added / times['read']:.2f} reads", "for comparison")
    built = times["per request"] - times["bare"]
    say("... a client built per request adds", f"{built / added:.0f} x of that", "40 at least")
    with serving() as upstream, override_settings(QUOTA_BASE_URL=upstream.origin):
        for _ in range(50):
            openai_client(user).chat.completions.create(**ASK)
    say("... connections opened by 50 calls", upstream.connections, "1")


@contextmanager
def serving() -> Iterator[TinyServer]:
    with TinyServer() as upstream:
        upstream.on("/v1/chat/completions", json_answer(ANSWER))
        yield upstream


def serve(origin: Any, end: Any) -> None:
    with serving() as upstream:
        origin.send(upstream.origin)
        end.wait()


@contextmanager
def apart() -> Iterator[str]:
    """An upstream in a process of its own: in ours it would take its turns from what is timed."""
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    end = spawn.Event()
    process = spawn.Process(target=serve, args=(there, end))
    process.start()
    yield here.recv()
    end.set()
    process.join()


def connection_of(model: Any) -> Any:
    from django.db import connections, router

    return connections[router.db_for_write(model)]


def in_turns(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """The median seconds of each; in another order each time, as none of them leaves the
    processor's caches as it found them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(TIMES):
        for name, work in random.sample(list(ways.items()), len(ways)):
            began = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(taken) for name, taken in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ds", default="tests.settings_postgresql")
    run(call, parser.parse_args().ds)


if __name__ == "__main__":
    main()
