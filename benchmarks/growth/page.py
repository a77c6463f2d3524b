"""The page of the results, in reStructuredText."""

from __future__ import annotations

from typing import Any

from benchmarks.growth.figures import OURS
from benchmarks.growth.lines import Lines, amount
from benchmarks.sign_in.page import simple_table, surroundings, title
from benchmarks.sign_in.results import FLOOR

INTRODUCTION = """
*floor* is written by hand (``benchmarks/sign_in/floor``), as a good engineer would write it for one
project; for the streams it is a bare proxy. Both run at the same time, with databases of their own
on one server, and take turns in an order that is drawn again for each round. Figures are medians
and, in brackets, quartiles. *To floor* is the median of the ratios to the floor's figure in the
same round.
"""


def page(results: dict[str, Any]) -> str:
    parts = [*title("How it grows", "="), INTRODUCTION, *about(results)]
    for case in results["cases"]:
        parts += ["", *title(case["title"], "="), case["text"]]
        parts += [f".. image:: {plot_of(case)}", "", *table(case), ""]
        parts.append(f"{case['rounds']} rounds.")
    return "\n".join(parts) + "\n"


def about(results: dict[str, Any]) -> list[str]:
    return [
        f"* Command: ``{results['command']}`` ({results['date']}, commit {results['commit']}), on "
        f"{results['database']}",
        *surroundings(results),
    ]


def plot_of(case: dict[str, Any]) -> str:
    """The name of its plot's file."""
    return f"growth-{case['name'].replace('_', '-')}.svg"


def table(case: dict[str, Any]) -> list[str]:
    """A line for each place."""
    heads, columns = [case["across"]], [[f"{at:,}" for at in case["at"]]]
    for what, lines in case["measures"].items():
        heads += [f"{what}: {FLOOR}", OURS, "to floor"]
        columns += cells(lines)
    return simple_table([tuple(heads), *zip(*columns, strict=True)])


def cells(lines: Lines) -> list[list[str]]:
    """The columns of one measure."""
    said = [[said_of(point) for point in lines[name]] for name in (FLOOR, OURS)]
    return [*said, [f"{point['ratio']:.2f}" for point in lines[OURS]]]


def said_of(point: dict[str, float]) -> str:
    median, low, high = (amount(point[each]) for each in ("median", "low", "high"))
    return f"{median} ({low} to {high})"
