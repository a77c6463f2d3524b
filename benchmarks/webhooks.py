"""Deliveries by the thousand, many of them twice: `python -m benchmarks.webhooks CASE`, as
benchmarks.refresh does it.

`many`: processes take turns: what stands side by side in the plan is delivered at the same moment.
What is not taken is delivered again, as Quota would.

`cost`: CPU time and statements of one delivery, which another load of the machine changes less than
a rate. To compare two commits, run it in a checkout of each, in turn.
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.course import run, say, sqlite
from tests.light_provider import LightProvider
from tests.storms.crew import Crew, make_event, make_users, post_event

PROCESSES = 8
#: Deliveries that each process makes before it waits for the others.
STRIDE = 100


def plan(events: int, duplicates: int) -> list[str]:
    """Every event, and some of them once more: half of these at once, half some time later."""
    chance = random.Random(1)
    bodies = [make_event(number) for number in range(events)]
    places = [(float(number), number) for number in range(events)]
    for count, number in enumerate(chance.sample(range(events), duplicates)):
        later = chance.uniform(number, events) if count % 2 else number
        places.append((later, number))
    return [bodies[number] for _place, number in sorted(places)]


def orders(deliveries: list[str]) -> Iterator[list[dict[str, Any]]]:
    """What each process delivers, until all of them wait for each other."""
    step = PROCESSES * STRIDE
    for start in range(0, len(deliveries), step):
        part = deliveries[start : start + step]
        yield [{"bodies": part[number::PROCESSES]} for number in range(PROCESSES)]


def webhooks(total: int, quota: LightProvider) -> None:
    """So many deliveries, 30% of them of an event that was delivered before."""
    from django_quota.models import WebhookEvent

    make_users(100)
    duplicates = total * 3 // 10
    events = total - duplicates
    heard: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    database: dict[str, Any] = {"OPTIONS": {}} if sqlite() else {}
    began = time.monotonic()
    with Crew(PROCESSES, database=database, QUOTA_WEBHOOK_SECRET="whsec_benchmark") as crew:
        for each in orders(plan(events, duplicates)):
            for answer in crew.order("deliver", each=each):
                heard.update(answer["heard"])
                statuses.update(answer["statuses"])
    rate = total / (time.monotonic() - began)
    wrong = {status for status in statuses if status not in ("200", "503")}
    say(f"{PROCESSES} processes: deliveries taken", statuses["200"], str(total))
    say("... of them duplicates", duplicates, "30%")
    say("... told to come again, for another was at it", statuses["503"], "any number above 0")
    say("... answered otherwise", sum(statuses[status] for status in wrong), "0")
    say("... events handled", len(heard), str(events))
    say("... handled twice", sum(times > 1 for times in heard.values()), "0")
    stored = WebhookEvent.objects
    say("... lost", events - stored.exclude(handled_at=None).count(), "0")
    say("... deliveries a second", round(rate), "2.5 x 352, quiet")


def cost(total: int, quota: LightProvider) -> None:
    """What one process and its connection at PostgreSQL spend for a delivery."""
    from django.conf import settings
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    settings.QUOTA_WEBHOOK_SECRET = "whsec_benchmark"
    make_users(100)
    for number in range(100):  # what is only built once
        post_event(make_event(total + 1 + number))
    bodies = [make_event(number) for number in range(total)]
    for kind in ("a new event", "a duplicate"):
        before, server = time.process_time(), server_seconds()
        wrong = sum(post_event(body) != 200 for body in bodies)
        ours = 1000 * (time.process_time() - before) / total
        theirs = 1000 * (server_seconds() - server) / total
        with CaptureQueriesContext(connection) as queries:
            post_event(make_event(total) if kind == "a new event" else bodies[0])
        say(f"{kind}: answered otherwise", wrong, "0")
        say("... statements", len(queries), "3 and 1")
        say("... CPU, ms", f"{ours:.2f}, and {theirs:.2f} of the server's", "for comparison")


def server_seconds() -> float:
    """The CPU seconds of our connection's process at PostgreSQL; 0 for another database."""
    from django.db import connection

    if connection.vendor != "postgresql":
        return 0.0
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        (pid,) = cursor.fetchone()
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


CASES = {"many": (webhooks, 100_000), "cost": (cost, 2_000)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--deliveries", type=int)
    parser.add_argument("--ds", default="tests.settings_postgresql")
    options = parser.parse_args()
    work, deliveries = CASES[options.case]
    run(partial(work, options.deliveries or deliveries), options.ds)


if __name__ == "__main__":
    main()
