"""How an entry of mutations.toml finds its code. The entries themselves: tox run -e mutations."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.mutations import Mutation, mutations

pytestmark = pytest.mark.source("the suite itself")

SOURCE = """
LIMITS = {"size": True}

class View:
    @guard("get")
    def get(self, request):
        # A comment, and a line that is broken.
        if (
            request.user is None
        ):
            raise ValueError(f"{request} has nobody")
        return self.answer(request, status=200)

def get(request):
    return request.user is None and request.user is None
"""


def mutation(function: str = "views.View.get", *, code: str, becomes: str) -> Mutation:
    return Mutation(check="any", function=function, code=code, becomes=becomes, cases=[])


@pytest.mark.parametrize(
    ("code", "becomes", "line"),
    [
        ("request.user is None", "False", "if False:"),
        ('raise ValueError(f"{request} has nobody")', "pass", "pass"),
        ("raise ValueError(...)", "return None", "return None"),
        ("self.answer(...)", "None", "return None"),
        ("self.answer(request, status=...)", "None", "return None"),
        ("return ...", "a = 1\nreturn a", "a = 1\n        return a"),
        ('guard("get")', "lambda view: view", "@lambda view: view"),
    ],
)
def test_code_is_found_in_the_syntax_tree_and_replaced(code: str, becomes: str, line: str) -> None:
    changed = mutation(code=code, becomes=becomes).applied_to(SOURCE)

    assert f" {line}\n" in changed


def test_code_is_found_in_a_variable_of_the_module() -> None:
    changed = mutation("views.LIMITS", code="True", becomes="False").applied_to(SOURCE)

    assert "LIMITS = {'size': False}" in changed


def test_code_outside_of_the_named_function_is_left_alone() -> None:
    changed = mutation(code="request.user is None", becomes="False").applied_to(SOURCE)

    assert "return request.user is None and request.user is None" in changed


@pytest.mark.parametrize(
    ("function", "code"),
    [
        ("views.View.get", "request.user is not None"),
        ("views.View.get", "self.answer(status=...)"),
        ("views.get", "request.user is None"),
        ("views.post", "request.user is None"),
    ],
)
def test_code_that_is_not_there_exactly_once_is_an_error(function: str, code: str) -> None:
    with pytest.raises(ValueError, match="any: "):
        mutation(function, code=code, becomes="False").applied_to(SOURCE)


def test_module_is_found_wherever_it_is_in_the_package(tmp_path: Path) -> None:
    module = tmp_path / "django_quota" / "oidc" / "views.py"
    module.parent.mkdir(parents=True)
    module.touch()

    assert mutation(code="x", becomes="y").file(tmp_path) == module


def test_module_of_the_sandbox_is_never_meant(tmp_path: Path) -> None:
    for folder in ("django_quota", "django_quota/sandbox"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "views.py").touch()

    assert mutation(code="x", becomes="y").file(tmp_path).parent.name == "django_quota"


def test_two_modules_of_one_name_are_an_error(tmp_path: Path) -> None:
    for folder in ("django_quota", "django_quota/oidc"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "views.py").touch()

    with pytest.raises(ValueError, match="2 modules are called"):
        mutation(code="x", becomes="y").file(tmp_path)


def test_each_entry_has_a_name_of_its_own_and_cases() -> None:
    listed = mutations()

    assert len({entry.check for entry in listed}) == len(listed)
    assert all(entry.cases for entry in listed)
