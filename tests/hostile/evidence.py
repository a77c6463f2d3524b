"""Writes docs/security/evidence.rst: every case with its source and result, what stock
mozilla-django-oidc does with it, and which cases turn red when a check is taken out.

``python -m tests.hostile.evidence`` runs everything, the checks on copies of the project: about
half an hour on two cores. ``--only WORDS`` tries the checks that have WORDS in them and writes
nothing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = "tests/hostile"
#: Seconds after which a run whose check against slowness was taken out is ended.
PATIENCE = 300


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One check taken out: in `file` of the package, `old` becomes `new`."""

    check: str
    file: str
    old: str
    new: str
    cases: list[str]

    def apply(self, root: Path) -> None:
        path = root / "django_quota" / self.file
        path.write_text(self.applied_to(path.read_text()))

    def applied_to(self, source: str) -> str:
        if source.count(self.old) != 1:
            raise ValueError(f"{self.check}: not once in {self.file}: {self.old!r}")
        return source.replace(self.old, self.new)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A case as it ran. `note` is what the run said of it beside the result."""

    file: str
    name: str
    source: str
    note: str
    passed: bool


def mutations() -> list[Mutation]:
    """What mutations.toml lists."""
    document = tomllib.loads((ROOT / HERE / "mutations.toml").read_text())
    return [Mutation(**entry) for entry in document["mutation"]]


def run_cases(root: Path, *arguments: str) -> list[Case]:
    """Run pytest in `root`; what became of each case. Empty if it did not end in time."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        try:
            subprocess.run(
                [*command, f"--junitxml={report}", *arguments],
                cwd=root,
                env=os.environ | {"PYTHONPATH": str(root)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return []
        return [_case(element) for element in ElementTree.parse(report).iter("testcase")]


def _case(element: ElementTree.Element) -> Case:
    properties = {p.attrib["name"]: p.attrib["value"] for p in element.iter("property")}
    return Case(
        file=element.attrib["classname"].removeprefix("tests.hostile.").partition(".")[0],
        name=element.attrib["name"],
        source=properties.get("source", ""),
        note=properties.get("note", ""),
        passed=element.find("failure") is None and element.find("error") is None,
    )


def try_all(listed: list[Mutation], workers: int) -> dict[str, set[str] | None]:
    """Check -> the cases that turn red without it; None where the run did not end."""
    copies: Queue[Path] = Queue()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(workers):
            copies.put(_copy(Path(folder) / str(number)))

        def attempt(mutation: Mutation) -> set[str] | None:
            copy = copies.get()
            try:
                mutation.apply(copy)
                ran = run_cases(copy, *(f"{HERE}/{name}" for name in mutation.cases))
                red = {f"{case.file}: {case.name}" for case in ran if not case.passed}
                print(f"{len(red) if ran else 'no end':>6}  {mutation.check}", flush=True)
                return red if ran else None
            finally:
                shutil.copy(
                    ROOT / "django_quota" / mutation.file, copy / "django_quota" / mutation.file
                )
                copies.put(copy)

        with ThreadPoolExecutor(workers) as pool:
            return dict(zip((m.check for m in listed), pool.map(attempt, listed), strict=True))


def _copy(to: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("django_quota", "tests"):
        shutil.copytree(ROOT / folder, to / folder, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def rst(cases: list[Case], stock: dict[str, str], red: dict[str, set[str] | None]) -> str:
    """The page."""
    numbers = {check: f"M{number}" for number, check in enumerate(red, 1)}
    turned_by = defaultdict(list)
    for check, names in red.items():
        for name in names or ():
            turned_by[name].append(numbers[check])
    passed = sum(case.passed for case in cases)
    outcomes = Counter(outcome.partition(" (")[0] for outcome in stock.values())
    lines = [
        "..",
        "   Written by `python -m tests.hostile.evidence`. Do not edit.",
        "",
        *_heading("Evidence", "="),
        f"{len(cases)} cases: {passed} passed, {len(cases) - passed} failed.",
        "",
        "*Turned red by* names the changes of the last table that turn the case red. *Stock* is",
        "what mozilla-django-oidc does by itself with the same provider, where the case can be",
        f"asked of any client, that is in {len(stock)} cases: "
        + ", ".join(f"{count} x {outcome}" for outcome, count in outcomes.most_common())
        + ".",
        "",
    ]
    for file in sorted({case.file for case in cases}):
        rows = [
            (
                case.name,
                case.source,
                "passed" if case.passed else "FAILED",
                " ".join(turned_by[f"{file}: {case.name}"]),
                stock.get(f"{file}: {case.name}", ""),
            )
            for case in cases
            if case.file == file
        ]
        lines += _heading(file.removeprefix("test_").replace("_", " ").capitalize(), "-")
        lines += _table(("Case", "Source", "Result", "Turned red by", "Stock"), sorted(rows))
    lines += _heading("The changes, made one at a time", "-")
    lines += _table(
        ("Number", "What is taken out, or done instead", "Cases that turn red"),
        (
            (numbers[check], check, "the run did not end" if found is None else str(len(found)))
            for check, found in red.items()
        ),
    )
    return "\n".join(lines)


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
    """Run it all, or some checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="WORDS", help="try the checks with these words in them")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    listed = [m for m in mutations() if options.only is None or options.only in m.check]
    red = try_all(listed, options.workers)
    if options.only is not None:
        for check, names in red.items():
            print(f"\n{check}", *sorted(names or ()), sep="\n  ")
        return
    others = (f"{HERE}/test_fuzz.py", f"{HERE}/test_mutations.py")
    ignored = (f"--ignore={other}" for other in others)
    cases = run_cases(ROOT, HERE, *ignored, "-n", str(options.workers))
    stock = {
        case.name.removeprefix("test_stock[").removesuffix("]"): case.note
        for case in run_cases(ROOT, f"{HERE}/stock.py")
    }
    (ROOT / "docs/security/evidence.rst").write_text(rst(cases, stock, red))
    known = set().union(*(names or () for names in red.values()))
    for case in cases:
        if f"{case.file}: {case.name}" not in known:
            print(f"nothing turns it red: {case.file}: {case.name}")


if __name__ == "__main__":
    main()
