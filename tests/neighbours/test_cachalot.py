"""django-cachalot keeps the results of queries."""

import pytest

from tests.neighbours import run

pytest.importorskip("cachalot")
pytestmark = pytest.mark.neighbour


def test_who_waits_for_a_renewal_sees_the_row_of_this_moment() -> None:
    seen = run("cachalot")

    assert seen["waited"] == 0
    assert seen["kept"] > 0
    assert not seen["clear"]
