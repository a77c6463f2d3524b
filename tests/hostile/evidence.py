"""Writes artifacts/evidence.rst: every case of this suite with its source and result, what stock
mozilla-django-oidc does with it, and which cases fail when a check is taken out.

``python -m tests.hostile.evidence`` runs everything, the checks on copies of the project: some
ten minutes on two cores. The counts go to docs/security/evidence.rst, too.
"""

from __future__ import annotations

import argparse
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from tests.hostile.mutations import ROOT, Case, mutations, run_cases, try_all

HERE = "tests/hostile"
#: Not cases of the provider or the browser, but of what Hypothesis makes up and of this program.
OTHERS = ("test_fuzz.py", "test_mutations.py")
#: The end of the summary.
MORE = """\
``python -m tests.hostile.evidence`` writes this page anew, in some ten minutes on two cores. Each
case with its source, its result and the checks without which it fails is in
``artifacts/evidence.rst`` then. ``tests/hostile/mutations.toml`` lists the checks; ``tox run -e
mutations`` tries them alone, and ``tox run -e mutmut`` the smaller changes that nobody wrote down.
"""


def subject(case: Case) -> str:
    """What a case is about: the name of its file in words."""
    return Path(case.file).name.removeprefix("test_").replace("_", " ").capitalize()


def page(cases: list[Case], stock: dict[str, str], red: dict[str, set[str] | None]) -> str:
    """Everything."""
    numbers = {check: f"M{number}" for number, check in enumerate(red, 1)}
    failed_by = defaultdict(list)
    for check, names in red.items():
        for name in names or ():
            failed_by[name].append(numbers[check])
    lines = [
        *_heading("Evidence", "="),
        *_counted(cases, stock),
        "",
        "*Without* names the checks of the last table without which the case fails. *Stock* is",
        "what mozilla-django-oidc does by itself with the same provider.",
        "",
    ]
    for title in sorted({subject(case) for case in cases}):
        rows = [
            (
                case.name,
                case.source,
                "passed" if case.passed else "FAILED",
                " ".join(failed_by[f"{case.file}: {case.name}"]),
                stock.get(f"{Path(case.file).name}: {case.name}", ""),
            )
            for case in cases
            if subject(case) == title
        ]
        lines += _heading(title, "-")
        lines += _table(("Case", "Source", "Result", "Without", "Stock"), sorted(rows))
    lines += _heading("The checks, taken out one at a time", "-")
    lines += _table(
        ("Number", "Check", "Cases that fail without it"),
        (
            (numbers[check], check, "the run did not end" if found is None else str(len(found)))
            for check, found in red.items()
        ),
    )
    return "\n".join(lines)


def summary(cases: list[Case], stock: dict[str, str], red: dict[str, set[str] | None]) -> str:
    """The counts, for docs/security/evidence.rst."""
    counts = Counter(subject(case) for case in cases)
    passed = Counter(subject(case) for case in cases if case.passed)
    asked = Counter(name.partition(":")[0] for name in stock)
    rows = [
        (title, counts[title], passed[title], asked[f"test_{title.lower().replace(' ', '_')}"])
        for title in sorted(counts)
    ]
    count = sum(found != set() for found in red.values())
    return "\n".join(
        [
            "..",
            "   Written by `python -m tests.hostile.evidence`. Do not edit.",
            "",
            *_heading("Evidence", "="),
            *_counted(cases, stock),
            "",
            f"Of {len(red)} checks, taken out one at a time, a case fails without {count}.",
            "",
            "===================== ========== ========== ==========",
            "Subject               Cases      Passed     Stock, too",
            "===================== ========== ========== ==========",
            *(f"{title:<21} {all_:<10} {good:<10} {also}" for title, all_, good, also in rows),
            "===================== ========== ========== ==========",
            "",
            MORE,
        ]
    )


def _counted(cases: list[Case], stock: dict[str, str]) -> list[str]:
    passed = sum(case.passed for case in cases)
    outcomes = Counter(outcome.partition(" (")[0] for outcome in stock.values())
    return [
        f"{len(cases)} cases of a hostile provider or browser: {passed} passed, "
        f"{len(cases) - passed} failed.",
        f"{len(stock)} of them can be asked of any client. What stock mozilla-django-oidc does:",
        ", ".join(f"{count} x {outcome}" for outcome, count in outcomes.most_common()) + ".",
    ]


def _heading(text: str, line: str) -> list[str]:
    return [text, line * len(text), ""]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *rows):
        for number, cell in enumerate(row):
            lines.append(f"   {'*' if number == 0 else ' '} - {_escaped(cell)}".rstrip())
    return [*lines, ""]


def _escaped(text: str) -> str:
    printable = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return "".join(f"\\{c}" if c in "\\`*_|<" else c for c in printable)


def main() -> None:
    """Run it all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    red = try_all(mutations(), options.workers)
    ignored = (f"--ignore={HERE}/{other}" for other in OTHERS)
    cases = run_cases(ROOT, HERE, *ignored, "-n", str(options.workers))
    stock = {
        case.name.removeprefix("test_stock[").removesuffix("]"): case.note
        for case in run_cases(ROOT, f"{HERE}/stock.py")
    }
    (ROOT / "artifacts").mkdir(exist_ok=True)
    (ROOT / "artifacts/evidence.rst").write_text(page(cases, stock, red))
    (ROOT / "docs/security/evidence.rst").write_text(summary(cases, stock, red))


if __name__ == "__main__":
    main()
