"""The list of changes that must turn cases red fits the source as it is."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import django_quota
from tests.hostile.evidence import Mutation, mutations

pytestmark = pytest.mark.source("the suite itself")

PACKAGE = Path(django_quota.__file__).parent


@pytest.mark.parametrize("mutation", mutations(), ids=lambda mutation: mutation.check)
def test_can_be_made(mutation: Mutation) -> None:
    honest = (PACKAGE / mutation.file).read_text()
    changed = mutation.applied_to(honest)

    assert ast.dump(ast.parse(changed)) != ast.dump(ast.parse(honest))
    for named in mutation.cases:
        assert (Path(__file__).parent / named.partition("::")[0]).is_file()


def test_are_all_different() -> None:
    assert len({mutation.check for mutation in mutations()}) == len(mutations())
