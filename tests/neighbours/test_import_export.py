"""django-import-export writes the text of each field into a file."""

import pytest

from tests.neighbours import run
from tests.sandbox_client import Sandbox
from tests.shown import SECRET

pytest.importorskip("import_export")
pytestmark = pytest.mark.neighbour


def test_an_export_holds_no_secret(sandbox: Sandbox) -> None:
    seen = run("import_export", sandbox=sandbox)

    assert "access_token" in seen["csv"]
    for text in (seen["csv"], seen["json"]):
        assert not SECRET.search(text)
        assert "gAAAA" not in text
