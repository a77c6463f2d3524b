"""The same rules for projects with another user model: see custom_users/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.process
@pytest.mark.source("Django: AUTH_USER_MODEL")
@pytest.mark.parametrize(
    "model",
    [
        "EmailUser",
        "UUIDUser",
        "BareUser",
        "DocsUser",
        "UniqueEmailUser",
        "MaybeEmailUser",
        "OddEmailUser",
        "NumberedUser",
        "IntegerUser",
        "TwoEmailsUser",
    ],
)
def test_another_user_model(model: str) -> None:
    """In a process of its own, as the user model cannot be changed after Django has started."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "--nomigrations", "-p", "no:cacheprovider"),
            *("--ds", "tests.hostile.custom_users.settings", "tests/hostile/custom_users/cases.py"),
        ],
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root), "CUSTOM_USER": model},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
