"""`manage.py quota_sandbox`: run a complete local Quota beside the project."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Runs `python -m django_quota.sandbox`, which has settings of its own."""

    help = "Runs a complete local Quota. Options: see --help."
    requires_system_checks = []

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass all options on unchanged."""
        self._run_sandbox(argv[2:])

    def handle(self, *args: Any, **options: Any) -> None:
        """Run with the default options, when called from code."""
        self._run_sandbox([])

    def _run_sandbox(self, options: list[str]) -> None:
        # `execve` replaces the program of this process, so signals, exit status and terminal need
        # no forwarding. The sandbox gets the project's search path, so that it runs the same
        # django_quota, but not the project's settings.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        command = [sys.executable, "-m", "django_quota.sandbox", *options]
        os.execve(sys.executable, command, environment)  # noqa: S606 - no shell is needed
