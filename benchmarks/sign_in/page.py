"""The page of the results, in reStructuredText."""

from __future__ import annotations

import re
from typing import Any

from benchmarks.sign_in.plots import svg
from benchmarks.sign_in.run import NEW, RETURNING, START, TOKEN

HEADINGS = {
    RETURNING: "A returning user's sign-in",
    NEW: "A new user's sign-in",
    START: "The start view alone",
    TOKEN: "A fresh access token for one call",
}
COLUMNS = ("contestant", "wall, ms", "to floor", "CPU, ms", "to floor")
COUNTS = ("statements", "requests", "connections")

INTRODUCTION = """
Each contestant is a Django project as its package's documentation describes it, in a process and
with a database of its own; all take turns in one run, with the same provider. *floor* is written
by hand (``benchmarks/sign_in/floor``): it keeps its connection and its keys, makes the one token
request, validates with PyJWT, and writes user, link and encrypted tokens. Authlib stores nothing
itself; it gets the floor's rows.

A sign-in is the start view and the callback, each from the WSGI environ to the end of the
response, without the time at the provider's pages. Times are medians and, in brackets, quartiles.
*To floor* is the median of the ratios to the floor's time in the same round. CPU is of the
contestant's own process. Statements are those of the callback, without BEGIN and COMMIT; requests
and new connections are those of a whole sign-in, at the provider. The latency is before each
answer of the provider; to connect takes no longer for it, although it would on a real network. The
provider's certificate is trusted beside all of certifi's, by ``REQUESTS_CA_BUNDLE``.
"""

STORM = """
One user's access token has expired, and many callers, each in a thread, ask for it at the same
moment. The provider takes 50 ms and rotates refresh tokens strictly: one that is spent twice ends
its family, and all access tokens of the family with it. *Valid* are callers whose token is good
when all have their answer; *failed* are the others, with an error or with a token that was
*revoked* by then. *Connected* are the rounds after which the refresh token in the site's database
can still be spent. Of several rounds, the least and the most. The time is that to the last answer.
The floor looks, asks the provider and saves under ``select_for_update``. Each round begins with
new tokens, and each process has renewed a token before. A time says little where callers failed,
as an error needs no waiting. *Cannot renew*: the package has no code that spends a refresh token.
"""


def page(results: dict[str, Any]) -> str:
    parts = [*title("A sign-in, beside its peers", "="), INTRODUCTION, *about(results)]
    for situation in results["situations"]:
        parts += ["", *title(name_of(situation), "="), ""]
        parts += [f".. image:: {plot_of(situation)}", ""]
        for visit, heading in HEADINGS.items():
            parts += [*title(heading, "-"), "", *table(situation["contestants"], visit), ""]
        for few in results["situations"]:
            if situation["users"] and is_same_but_for_users(situation, few):
                heading = "A returning user's sign-in among so many users, to that among few"
                parts += [*title(heading, "-"), "", *growth(situation, few), ""]
        if situation is results["situations"][-1]:
            parts += [*title("What a sign-in has written", "="), "", *written(situation)]
    parts += ["", *title("A storm of expired tokens", "="), STORM]
    for storm in results["storms"]:
        heading = (
            f"{storm['database']}, {storm['processes']} processes of {storm['threads']} threads, "
            f"{storm['rounds']} rounds"
        )
        parts += [*title(heading, "-"), "", *storm_table(storm, results["without_renewal"]), ""]
    return "\n".join(parts) + "\n"


def about(results: dict[str, Any]) -> list[str]:
    return [
        f"* Command: ``{results['command']}`` ({results['rounds']} rounds, {results['date']}, "
        f"commit {results['commit']}); ``tox run -e bench`` installs the newest peers first",
        *surroundings(results),
    ]


def surroundings(results: dict[str, Any]) -> list[str]:
    """Of `results.surroundings`: the machine and the versions."""
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    busy = " **The machine was busy with other work.**" if is_busy(machine) else ""
    return [
        f"* Machine: {machine['processor']}, {machine['cores']} cores, {machine['system']}; load "
        f"average at the start {machine['load']}.{busy}",
        f"* Versions: {versions}",
    ]


def is_busy(machine: dict[str, Any]) -> bool:
    return bool(machine["load"] > 0.5 * machine["cores"])


def name_of(situation: dict[str, Any]) -> str:
    name = f"{situation['database']}, {situation['scheme']}, {situation['latency']:g} ms"
    return f"{name}, among {situation['users']:,} users" if situation["users"] else name


def plot_of(situation: dict[str, Any]) -> str:
    """The name of its plot's file."""
    kind = situation["database"].split()[0].lower()
    users = f"-{situation['users']}users" if situation["users"] else ""
    return f"{kind}-{situation['scheme']}-{situation['latency']:g}ms{users}.svg"


def plot(situation: dict[str, Any]) -> str:
    panels = {
        heading: {
            name: of["visits"][visit]
            for name, of in situation["contestants"].items()
            if visit in of["visits"]
        }
        for visit, heading in HEADINGS.items()
    }
    return svg(name_of(situation), panels)


def title(text: str, line: str) -> list[str]:
    return [text, line * len(text)]


def table(contestants: dict[str, Any], visit: str) -> list[str]:
    found = {name: of["visits"][visit] for name, of in contestants.items() if visit in of["visits"]}
    counts = [count for count in COUNTS if any(count in each for each in found.values())]
    rows = [(*COLUMNS, *counts)]
    for name, each in found.items():
        times = [cell for clock in ("wall", "cpu") for cell in cells(each[clock])]
        rows.append((name, *times, *(str(amount(each[count])) for count in counts)))
    return simple_table(rows)


def cells(spread: dict[str, float]) -> tuple[str, str]:
    times = f"{spread['median']:.2f} ({spread['low']:.2f} to {spread['high']:.2f})"
    return times, f"{spread['ratio']:.2f}"


def is_same_but_for_users(many: dict[str, Any], few: dict[str, Any]) -> bool:
    names = ("database", "scheme", "latency")
    return few["users"] == 0 and all(many[name] == few[name] for name in names)


def growth(many: dict[str, Any], few: dict[str, Any]) -> list[str]:
    """The ratios of the medians; they were not measured in the same minutes."""
    rows: list[tuple[str, ...]] = [("contestant", "wall", "CPU")]
    for name, of in many["contestants"].items():
        if RETURNING in of["visits"]:
            before = few["contestants"][name]["visits"][RETURNING]
            after = of["visits"][RETURNING]
            ratios = (after[clock]["median"] / before[clock]["median"] for clock in ("wall", "cpu"))
            rows.append((name, *(f"{ratio:.2f}" for ratio in ratios)))
    return simple_table(rows)


def amount(count: int | list[str]) -> int:
    return len(count) if isinstance(count, list) else count


def written(situation: dict[str, Any]) -> list[str]:
    """What was found after the last sign-in, and what was asked in one."""
    rows: list[tuple[str, ...]] = [("contestant", "found in its database", "asked of the provider")]
    for name, of in situation["contestants"].items():
        if of["checks"]:
            asked = [re.sub(r"\S+ .*/", "", each) for each in of["visits"][RETURNING]["requests"]]
            rows.append((name, ", ".join(of["checks"]), ", ".join(asked)))
    return simple_table(rows)


def storm_table(storm: dict[str, Any], without_renewal: list[str]) -> list[str]:
    counts = ("calls", "valid", "failed", "revoked")
    rows: list[tuple[str, ...]] = [
        ("contestant", *counts, "connected", "last answer, ms", "to floor")
    ]
    for name, of in storm["contestants"].items():
        ranges = (" to ".join(map(str, dict.fromkeys(of[count]))) for count in counts)
        rows.append((name, *ranges, f"{of['connected']} of {storm['rounds']}", *cells(of["time"])))
    rows += [(name, "cannot renew", *[""] * 6) for name in without_renewal]
    return simple_table(rows)


def simple_table(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = " ".join("=" * width for width in widths)
    shown = [
        " ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return [line, shown[0], line, *shown[1:], line]
