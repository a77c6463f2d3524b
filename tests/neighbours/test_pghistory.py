"""django-pghistory copies the columns of a model by a trigger: the encrypted ones stay so."""

import pytest

from tests.neighbours import run
from tests.sandbox_client import Sandbox

pytest.importorskip("pghistory")
pytestmark = pytest.mark.neighbour


def test_its_table_holds_no_clear_secret(sandbox: Sandbox) -> None:
    seen = run("pghistory", sandbox=sandbox)

    assert seen["entries"] > 0
    assert seen["clear"] == []
    assert "'access_token': <sealed>" in seen["shown"]
