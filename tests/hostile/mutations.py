"""The checks of mutations.toml, each taken out of a copy of the package to see its cases fail.

An entry names a function and a piece of code in it. Both are found in the syntax tree, so that
formatting, comments and the order of functions do not matter. ``python -m tests.hostile.mutations``
tries them all and ends with 1 if one fails no case; ``--only WORDS`` tries those with WORDS in
their name.
"""

from __future__ import annotations

import argparse
import ast
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
#: Seconds after which a run is ended: without a check against slowness it may never end.
PATIENCE = 300


@dataclass(frozen=True, kw_only=True)
class Mutation:
    """One check taken out: in `function`, a dotted name such as "sign_in.CallbackView.get", `code`
    becomes another expression or other statements. `cases` are tests that must fail then."""

    check: str
    function: str
    code: str
    becomes: str
    cases: list[str]

    def file(self, root: Path) -> Path:
        """The module of `function`, wherever it is in the package."""
        name = f"{self.function.partition('.')[0]}.py"
        package = root / "django_quota"
        found = [p for p in package.rglob(name) if package / "sandbox" not in p.parents]
        if len(found) != 1:
            raise ValueError(f"{self.check}: {len(found)} modules are called {name}")
        return found[0]

    def applied_to(self, source: str) -> str:
        """The module `source` with the change. Raises ValueError unless `code` is there once."""
        tree = ast.parse(source)
        change = _Change(self.code, self.becomes)
        change.visit(self._definition(tree))
        if change.count != 1:
            raise ValueError(
                f"{self.check}: {change.count} times in {self.function}, not once: {self.code}"
            )
        return ast.unparse(ast.fix_missing_locations(tree))

    def _definition(self, tree: ast.Module) -> ast.AST:
        found: Any = tree
        for name in self.function.split(".")[1:]:
            named = [node for node in found.body if name in _names(node)]
            if len(named) != 1:
                raise ValueError(f"{self.check}: {len(named)} definitions of {self.function}")
            found = named[0]
        return found


def _names(statement: ast.stmt) -> list[str]:
    """What a statement of a module or a class defines."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.AnnAssign):
        return [ast.unparse(statement.target)]
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    return [ast.unparse(target) for target in targets]


class _Change(ast.NodeTransformer):
    """Puts `becomes` where `code` is, and counts how often that was."""

    def __init__(self, code: str, becomes: str) -> None:
        (self._pattern,) = _parsed(code)
        self._becomes = _parsed(becomes)
        self.count = 0

    def visit(self, node: ast.AST) -> Any:
        if not _matches(self._pattern, node):
            return self.generic_visit(node)
        self.count += 1
        new = deepcopy(self._becomes)
        return new if isinstance(node, ast.stmt) else new[0]


def _parsed(code: str) -> list[ast.AST]:
    statements = ast.parse(code).body
    if len(statements) == 1 and isinstance(statements[0], ast.Expr):
        return [statements[0].value]
    return list(statements)


def _matches(pattern: Any, found: Any) -> bool:
    """Is `found` the code of `pattern`? There, `...` stands for any expression, and f(...) for any
    arguments."""
    if isinstance(pattern, ast.Constant) and pattern.value is Ellipsis:
        return isinstance(found, ast.expr)
    if type(pattern) is not type(found):
        return False
    if isinstance(pattern, list):
        return len(pattern) == len(found) and all(map(_matches, pattern, found))
    if not isinstance(pattern, ast.AST):
        return bool(pattern == found)
    fields = [name for name in pattern._fields if name != "ctx"]
    if isinstance(pattern, ast.Call) and [ast.unparse(a) for a in pattern.args] == ["..."]:
        fields = ["func"]
    return all(_matches(getattr(pattern, name), getattr(found, name)) for name in fields)


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
    document = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())
    return [Mutation(**entry) for entry in document["mutation"]]


def run_cases(root: Path, *arguments: str, patience: float | None = None) -> list[Case]:
    """Run pytest in `root`; what became of each case. Empty if it took `patience` seconds."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.xml")
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", ""]
        try:
            done = subprocess.run(
                [*command, f"--junitxml={report}", *arguments],
                cwd=root,
                env=os.environ | {"PYTHONPATH": str(root)},
                capture_output=True,
                text=True,
                timeout=patience,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return []
        if not report.exists():  # a name that is not there ends pytest before any case
            sys.exit(f"pytest did not run:\n{done.stderr}")
        return [_case(element) for element in ElementTree.parse(report).iter("testcase")]


def _case(element: ElementTree.Element) -> Case:
    properties = {p.attrib["name"]: p.attrib["value"] for p in element.iter("property")}
    module, _, _class = element.attrib["classname"].partition(".Test")
    return Case(
        file=module.replace(".", "/"),
        name=element.attrib["name"],
        source=properties.get("source", ""),
        note=properties.get("note", ""),
        passed=element.find("failure") is None and element.find("error") is None,
    )


def failing_anyway(listed: Iterable[Mutation]) -> list[str]:
    """The cases that fail with every check in place."""
    named = sorted({case for mutation in listed for case in mutation.cases})
    ran = run_cases(ROOT, *(f"tests/{case}" for case in named))
    return [f"{case.file}: {case.name}" for case in ran if not case.passed]


def try_all(listed: list[Mutation], workers: int) -> dict[str, set[str] | None]:
    """Check -> the cases that fail without it; None where the run did not end."""
    copies: Queue[Path] = Queue()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(workers):
            copies.put(_copy(Path(folder) / str(number)))

        def attempt(mutation: Mutation) -> set[str] | None:
            copy = copies.get()
            file = mutation.file(copy)
            honest = file.read_text()
            cases = [f"tests/{name}" for name in mutation.cases]
            try:
                file.write_text(mutation.applied_to(honest))
                ran = run_cases(copy, *cases, patience=PATIENCE)
            finally:
                file.write_text(honest)
                copies.put(copy)
            red = {f"{case.file}: {case.name}" for case in ran if not case.passed}
            print(f"{len(red) if ran else 'no end':>6}  {mutation.check}", flush=True)
            return red if ran else None

        with ThreadPoolExecutor(workers) as pool:
            return dict(zip((m.check for m in listed), pool.map(attempt, listed), strict=True))


def _copy(to: Path) -> Path:
    ignore = shutil.ignore_patterns("__pycache__")
    for folder in ("django_quota", "tests"):
        shutil.copytree(ROOT / folder, to / folder, ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", to)
    return to


def survivors(red: Mapping[str, set[str] | None]) -> list[str]:
    """The checks without which no case fails."""
    return [check for check, names in red.items() if names == set()]


def main() -> None:
    """Try all checks, or some."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="WORDS", default="", help="checks with these words")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    listed = [mutation for mutation in mutations() if options.only in mutation.check]
    for mutation in listed:
        mutation.applied_to(mutation.file(ROOT).read_text())
    if failing := failing_anyway(listed):
        sys.exit("These cases fail before anything is changed:\n  " + "\n  ".join(failing))
    red = try_all(listed, options.workers)
    if options.only:
        for check, names in red.items():
            print(f"\n{check}", *sorted(names or ()), sep="\n  ")
    if survived := survivors(red):
        sys.exit("No case fails without these checks:\n  " + "\n  ".join(survived))
    print(f"{len(red)} checks, each of which fails at least one case when it is taken out.")


if __name__ == "__main__":
    main()
