"""``manage.py quota_sandbox``: run a whole local Quota beside the project."""

from __future__ import annotations

import os
import sys
from typing import Any

from django.core.management.base import BaseCommand


class Command(BaseCommand):
    """Hands over to ``python -m django_quota.sandbox``, which has settings of its own."""

    help = "Run a whole local Quota. Options: see --help."
    requires_system_checks = []

    def run_from_argv(self, argv: list[str]) -> None:
        """Pass every option on as it is."""
        self._hand_over(argv[2:])

    def handle(self, *args: Any, **options: Any) -> None:
        """Run with the defaults, when called from code."""
        self._hand_over([])

    def _hand_over(self, options: list[str]) -> None:
        # A new program in this process: signals, exit status and terminal need no forwarding,
        # and nothing of the project is left in memory. It gets the project's search path, so
        # that it runs the same django_quota, but not its settings.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        command = [sys.executable, "-m", "django_quota.sandbox", *options]
        os.execve(sys.executable, command, environment)  # noqa: S606  # a list, no shell wanted
