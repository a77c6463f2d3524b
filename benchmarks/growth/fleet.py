"""The processes of one contestant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from benchmarks.sign_in.databases import Database
from benchmarks.sign_in.workers import Worker


@dataclass
class Fleet:
    #: What another process needs in order to be one of them.
    environment: dict[str, str]
    workers: list[Worker] = field(default_factory=list)


@contextmanager
def fleet(
    module: str, name: str, database: Database, origin: str, *, owner: str = "", count: int = 1
) -> Iterator[Fleet]:
    """`count` processes of the contestant `name`, with the provider at `origin`, on one new
    database, which is named after `owner`."""
    with ExitStack() as stack:
        settings = stack.enter_context(database.new(owner or name))
        said = json.dumps({"name": name, "database": settings, "origin": origin})
        made = Fleet({"BENCHMARK_CONTESTANT": said})
        for number in range(count):
            worker = stack.enter_context(Worker(module, **made.environment))
            made.workers.append(worker)
            if number == 0:
                worker.ask("ready")  # it has made the tables
        for worker in made.workers[1:]:
            worker.tell("ready")
        for worker in made.workers[1:]:
            worker.answer()
        yield made
