"""Renewals by more and more processes."""

from __future__ import annotations

import time
from contextlib import ExitStack

from benchmarks.growth.figures import NAMES, Case, Measures, Size, take_all_turns
from benchmarks.growth.fleet import Fleet, fleet
from benchmarks.sign_in.databases import Database
from benchmarks.sign_in.project import CLIENT_SECRET
from tests.light_provider import LightProvider

#: Seconds that the provider takes for each.
LATENCY = 0.05
TEXT = """
The processes begin together, and each asks for the tokens of people of its own, which have all
expired, one after the other, {turn} in a turn. The provider takes 50 ms for each, and counts: a
turn with more or fewer calls than tokens would end the run. *floor* is
``benchmarks/sign_in/floor/rows.py``: a look, then ``select_for_update``, the call, and the save, in
one transaction.
"""


def measure(database: Database, size: Size) -> Measures:
    with ExitStack() as stack:
        quota = stack.enter_context(LightProvider())
        quota.set(latency=LATENCY, client_secret=CLIENT_SECRET)
        fleets = {}
        for name in NAMES:
            made = fleet(
                "benchmarks.growth.holder", name, database, quota.origin, count=max(size.at)
            )
            fleets[name] = stack.enter_context(made)
            whose = [people_of(name, number, size) for number in range(max(size.at))]
            fleets[name].workers[0].ask(
                "make_people", names=[who for each in whose for who in each]
            )

        def turn(at: int, name: str) -> dict[str, float]:
            whose = [people_of(name, number, size) for number in range(at)]
            return {"renewals a second": renew(quota, fleets[name], whose)}

        return take_all_turns(size, turn)


def people_of(name: str, number: int, size: Size) -> list[str]:
    """Those of process `number`. The provider knows them by these names, so they belong to one
    contestant."""
    return [f"{name}-{number}-{person}" for person in range(int(size.turn))]


def renew(quota: LightProvider, fleet: Fleet, whose: list[list[str]]) -> float:
    """All these people's tokens, by a process for each list; renewals a second."""
    fleet.workers[0].ask("expire")
    quota.counts.sent.clear()
    workers = fleet.workers[: len(whose)]
    began = time.perf_counter()
    for worker, names in zip(workers, whose, strict=True):
        worker.tell("renew", names=names)
    tokens = {token for worker in workers for token in worker.answer()}
    took = time.perf_counter() - began
    sent, people = quota.counts.sent, sum(map(len, whose))
    if not len(tokens) == len(sent) == sent.total() == people:
        raise RuntimeError(f"{people} people got {len(tokens)} tokens by {sent.total()} calls")
    return people / took


CASE = Case(
    name="renewals",
    title="Renewals, by processes",
    across="processes",
    text=TEXT,
    full=Size(at=(1, 4, 16), rounds=15, turn=20),
    quick=Size(at=(1, 4, 16), rounds=3, turn=5),
    measure=measure,
)
