"""A resource starts when a test first uses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.tool

ROOT = Path(__file__).parent.parent


@pytest.mark.process
def test_a_pure_test_file_starts_no_process_and_no_server() -> None:
    done = subprocess.run(
        [sys.executable, "tests/programs/pure_run.py", "tests/oidc/test_id_token.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "status 0, started []"
