"""Token reads among few rows and among many."""

from __future__ import annotations

from contextlib import ExitStack

from benchmarks.growth.figures import NAMES, Case, Measures, Size, take_all_turns
from benchmarks.growth.fleet import Fleet, fleet
from benchmarks.sign_in.databases import Database

#: It is never asked: all tokens are fresh.
NO_PROVIDER = "http://127.0.0.1:9"
#: So many people's tokens are read, in a random order.
SAMPLE = 1000
TEXT = """
One process asks for the fresh access token of a person whose user is loaded already: of 1,000
people from everywhere in the table, in a random order, {turn} reads in a turn. Each contestant has
a database of each size.
"""


def measure(database: Database, size: Size) -> Measures:
    with ExitStack() as stack:
        fleets: dict[tuple[int, str], Fleet] = {}
        for rows in size.at:
            for name in NAMES:
                made = fleet(
                    "benchmarks.growth.holder",
                    name,
                    database,
                    NO_PROVIDER,
                    owner=f"{name}-{rows}",
                )
                fleets[rows, name] = stack.enter_context(made)
                fill(fleets[rows, name], rows)

        def turn(at: int, name: str) -> dict[str, float]:
            (worker,) = fleets[at, name].workers
            took = worker.ask("read", times=int(size.turn))
            return {"reads a second": took["rate"], "median read, ms": took["median"]}

        return take_all_turns(size, turn)


def fill(holder: Fleet, rows: int) -> None:
    (worker,) = holder.workers
    worker.ask("make_people", names=["ada"])
    tokens = worker.ask("copy", count=rows - 1, sample=min(SAMPLE, rows))
    if tokens != rows:
        raise RuntimeError(f"there are {tokens} tokens, and not {rows}")


CASE = Case(
    name="token_reads",
    title="Token reads, by rows",
    across="rows",
    text=TEXT,
    full=Size(at=(1_000, 1_000_000), rounds=40, turn=1000),
    quick=Size(at=(1_000, 20_000), rounds=3, turn=300),
    measure=measure,
)
