"""The cases of hostile/custom_users with one user model, in a process that a fork server forks.

The fork server imports this module once for all models, and with it what needs no settings.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

# Only imported, so that no fork has to do it.
import bs4
import django.contrib.admin.options
import django.test
import jwt
import pytest
import pytest_django.plugin
import requests

__all__ = ["bs4", "django", "jwt", "requests", "run_cases"]

CASES = "tests/hostile/custom_users/cases.py"
SETTINGS = "tests.hostile.custom_users.settings"


def run_cases(model: str, output: Path) -> None:
    """Run them with the user model of that name, and exit with pytest's exit code."""
    os.environ |= {"CUSTOM_USER": model, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    with output.open("w") as file:
        for stdout_or_stderr in (1, 2):
            os.dup2(file.fileno(), stdout_or_stderr)
    options = ["-q", "--nomigrations", "-p", "no:cacheprovider", "--ds", SETTINGS, CASES]
    sys.exit(pytest.main(options, plugins=[pytest_django.plugin]))
