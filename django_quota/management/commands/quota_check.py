"""`manage.py quota_check`: check that everything is ready for a sign-in."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_quota.doctor import find_problems


class Command(BaseCommand):
    """Prints a line for each finding of `django_quota.doctor`."""

    help = "Contacts Quota with this project's settings, and says what is wrong and how to fix it."
    # This command reports the problems that system checks would stop at.
    requires_system_checks: list[str] = []

    def handle(self, **options: Any) -> None:
        failed = False
        for finding in find_problems():
            failed |= not finding.ok
            mark = self.style.SUCCESS("ok  ") if finding.ok else self.style.ERROR("FAIL")
            self.stdout.write(f"{mark}  {finding.what}: {finding.detail}")
        if failed:
            raise CommandError("Some checks failed: see the lines that say FAIL.")
