"""`manage.py quota_reencrypt_tokens`: encrypt all stored tokens with the newest key."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_quota.exceptions import QuotaError
from django_quota.management.progress import progress_on
from django_quota.tokens.reencryption import KeyReport, reencrypt


class Command(BaseCommand):
    """Prints how many tokens each kind of key encrypts, and whether older keys may be removed."""

    help = (
        "Encrypts all stored tokens again with the first key of FIELD_ENCRYPTION_KEY, and says "
        "when the older keys may be removed. It is safe during live traffic, and after an "
        "interruption it can be run again. Exit code: 0 if the older keys may be removed, 1 if not."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="only count, and change nothing (same exit codes)",
        )

    def handle(self, **options: Any) -> None:
        try:
            with progress_on(self.stderr, "rows") as progress:
                report = reencrypt(
                    dry_run=options["dry_run"],
                    progress=progress if options["verbosity"] else None,
                )
        except QuotaError as error:
            raise CommandError(str(error)) from None
        for name in report.examples:
            self.stderr.write(f"cannot be decrypted: {name}")
        if options["verbosity"]:
            self.stdout.write(
                f"{report.newest} values under the newest key, {report.older} under an older one, "
                f"{report.unreadable} unreadable"
            )
        if not report.older_keys_may_go:
            raise CommandError(_what_to_do(report))
        if options["verbosity"]:
            self.stdout.write("django_quota's tables no longer need the older keys.")


def _what_to_do(report: KeyReport) -> str:
    if report.unreadable:
        return (
            "Keep all keys. Put the key that the unreadable values were encrypted with back into "
            "FIELD_ENCRYPTION_KEY and run this again, or let these users sign in again."
        )
    return "Keep the older keys, and run this again (without --dry-run)."
