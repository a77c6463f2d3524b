"""How the tests themselves are built; README.rst beside this file says why."""

from __future__ import annotations

import ast
import configparser
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.helpers.sources import parsed

pytestmark = pytest.mark.tool

TESTS = Path(__file__).parent


def imported(tree: ast.AST) -> Iterator[str]:
    """The names of all modules that are imported anywhere in it, and of what comes from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module or ''}.{alias.name}" for alias in node.names)


def importing_tests(tree: ast.AST) -> list[str]:
    return [name for name in imported(tree) if any(p.startswith("test_") for p in name.split("."))]


def sleeps_in(tree: ast.AST) -> list[str]:
    """Where `sleep` of `time` or `asyncio` is called or imported."""
    return [
        ast.unparse(node)
        for node in ast.walk(tree)
        if (
            isinstance(node, ast.Call) and ast.unparse(node.func) in ("time.sleep", "asyncio.sleep")
        )
        or (isinstance(node, ast.ImportFrom) and "sleep" in [alias.name for alias in node.names])
    ]


@cache
def modules() -> dict[str, ast.Module]:
    """All test modules: path -> tree."""
    return {str(path.relative_to(TESTS)): parsed(path) for path in TESTS.rglob("test_*.py")}


def test_test_modules_are_found() -> None:
    assert len(modules()) > 100


def test_no_test_module_imports_another() -> None:
    found = {path: importing_tests(tree) for path, tree in modules().items()}
    assert {path: names for path, names in found.items() if names} == {}


def test_no_test_module_sleeps() -> None:
    """`wait_until` of tests/helpers/concurrency.py is the one loop that does."""
    found = {path: sleeps_in(tree) for path, tree in modules().items()}
    assert {path: calls for path, calls in found.items() if calls} == {}


def test_ci_runs_on_postgresql_what_sqlite_leaves_out() -> None:
    """CI runs only the files of this list there."""
    tox = configparser.ConfigParser(interpolation=None)
    tox.read(TESTS.parent / "tox.ini")
    listed = tox["testenv"]["database_tests"].replace("\\", "").split()
    left_out = [
        path
        for path in modules()
        if path != "test_structure.py"
        and re.search(r"needs_second_connection|connection\.vendor", (TESTS / path).read_text())
        and not any(f"tests/{path}".startswith(name) for name in listed)
    ]
    assert left_out == []


@pytest.mark.parametrize(
    "source",
    [
        "from tests.test_models import spoil",
        "from tests import test_models",
        "from .test_models import spoil",
        "import tests.storms.test_crashes",
        "def f():\n    from tests.test_models import spoil",
    ],
)
def test_import_of_a_test_module_is_found(source: str) -> None:
    assert len(importing_tests(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "time.sleep(1)",
        "async def f():\n    await asyncio.sleep(0)",
        "from time import sleep",
    ],
)
def test_sleep_is_found(source: str) -> None:
    assert len(sleeps_in(ast.parse(source))) == 1
