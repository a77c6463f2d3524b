"""`manage.py quota_prune`: revoke dropped tokens at Quota, and delete old events. For cron."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from django_quota.management.exit_codes import NEEDS_YOU, TRY_AGAIN
from django_quota.tokens.locking import REFUSALS
from django_quota.tokens.revocation import prune


class Command(BaseCommand):
    """Revokes the tokens in the revocation queue."""

    help = (
        "Revokes at Quota the tokens that were dropped here, and deletes those that could not be "
        "revoked for 30 days; deletes handled webhook events after 30 days. "
        "Run it every few minutes. Exit code: 0 if all tokens that can be decrypted were revoked; "
        "75 if Quota or the database was away, or Quota did not revoke some: the next run tries "
        "again; 1 if a setting is wrong."
    )

    def handle(self, **options: Any) -> None:
        try:
            done = prune()
        except REFUSALS as error:
            raise CommandError(
                f"The database failed ({type(error).__name__}). The next run tries again.",
                returncode=TRY_AGAIN,
            ) from error
        if options["verbosity"]:
            self.stdout.write(
                f"{done.revoked} tokens revoked, {done.wiped} wiped unrevoked, {done.left} left; "
                f"{done.events} webhook events deleted"
            )
        if done.misconfigured:
            raise CommandError(done.stopped, returncode=NEEDS_YOU)
        if done.stopped and not done.failed and options["verbosity"]:
            self.stdout.write(done.stopped)
        if done.failed:
            why = done.stopped or "Quota did not revoke them all: the log (django_quota) says why."
            raise CommandError(f"{why} The next run tries again.", returncode=TRY_AGAIN)
