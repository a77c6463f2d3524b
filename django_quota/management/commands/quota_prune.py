"""`manage.py quota_prune`: tell Quota of the tokens that were dropped here. For cron."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from ...revocation import prune


class Command(BaseCommand):
    """Works the revocation queue off."""

    help = (
        "Revokes at Quota the tokens that were dropped here, and wipes those that could not be "
        "revoked for 30 days; deletes handled webhook events after 30 days. "
        "Run it every few minutes. Exit code: 0 if Quota was told of all that "
        "can be decrypted, 1 if it failed; then the next run tries again."
    )

    def handle(self, **options: Any) -> None:
        done = prune()
        if options["verbosity"]:
            self.stdout.write(
                f"{done.revoked} tokens revoked, {done.wiped} wiped unrevoked, {done.left} left; "
                f"{done.events} webhook events deleted"
            )
        if done.stopped:
            raise CommandError(done.stopped)
