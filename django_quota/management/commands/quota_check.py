"""`manage.py quota_check`: is everything in place for a sign-in?"""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...doctor import diagnose


class Command(BaseCommand):
    """Prints a line for each finding of `django_quota.doctor`."""

    help = "Reaches Quota with this project's settings, and says what is wrong and what mends it."
    # What the checks would stop at is what this command is asked about.
    requires_system_checks: list[str] = []

    def handle(self, **options: Any) -> None:
        failed = False
        for finding in diagnose():
            failed |= not finding.ok
            mark = self.style.SUCCESS("ok  ") if finding.ok else self.style.ERROR("FAIL")
            self.stdout.write(f"{mark}  {finding.what}: {finding.detail}")
        if failed:
            raise CommandError("Something needs a look: see the lines that say FAIL.")
