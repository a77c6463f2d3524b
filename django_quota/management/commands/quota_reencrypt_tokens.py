"""`manage.py quota_reencrypt_tokens`: bring all that is stored under the newest key."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...exceptions import QuotaError
from ...reencryption import Census, reencrypt


class Command(BaseCommand):
    """Prints under which keys the stored tokens are, and whether the older keys may go."""

    help = (
        "Encrypts all stored tokens anew with the first key of FIELD_ENCRYPTION_KEY, and says when "
        "the older keys may go. It runs beside live traffic; killed, it is simply run again. "
        "Exit code: 0 if the older keys may go, 1 if not."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="change nothing, only count; same exit code"
        )

    def handle(self, **options: Any) -> None:
        try:
            census = reencrypt(dry_run=options["dry_run"], progress=options["verbosity"] > 0)
        except QuotaError as error:
            raise CommandError(str(error)) from None
        for name in census.named:
            self.stderr.write(f"cannot be decrypted: {name}")
        if options["verbosity"]:
            self.stdout.write(
                f"{census.newest} values under the newest key, {census.older} under an older one, "
                f"{census.unreadable} unreadable"
            )
        if not census.older_keys_may_go:
            raise CommandError(_what_to_do(census))
        if options["verbosity"]:
            self.stdout.write("The older keys may go, as far as django_quota's tables need them.")


def _what_to_do(census: Census) -> str:
    if census.unreadable:
        return (
            "Keep all keys. Put the key that the unreadable values were encrypted with back into "
            "FIELD_ENCRYPTION_KEY and run this again, or let these users sign in again."
        )
    return "Keep the older keys, and run this again (without --dry-run)."
