"""django-easy-audit reads the old and the new values of each saved row."""

import pytest

from tests.neighbours import run
from tests.sandbox_client import Sandbox

pytest.importorskip("easyaudit")
pytestmark = pytest.mark.neighbour

#: The encrypted columns, and no table of the neighbour's.
OURS = ["django_quota_pendingrevocation", "django_quota_quotatoken"]


def test_its_tables_hold_no_secret(sandbox: Sandbox) -> None:
    seen = run("easyaudit", sandbox=sandbox)

    assert seen["entries"] > 0
    assert seen["clear"] == []
    assert seen["sealed"] == OURS
