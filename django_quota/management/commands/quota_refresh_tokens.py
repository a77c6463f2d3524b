"""`manage.py quota_refresh_tokens`: renew the tokens that are about to expire. For cron."""

import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_quota.management.exit_codes import NEEDS_YOU, TRY_AGAIN
from django_quota.management.progress import progress_on
from django_quota.tokens.bulk import refresh_expiring


class Command(BaseCommand):
    """Prints how many tokens were renewed, and how many were not."""

    help = (
        "Renews the access tokens that expire soon, so that no page has to wait for Quota. Any "
        "number of processes may run at the same time: they share the work. Exit code: 0 if all "
        "went well, even if users must sign in again; 75 if a token failed, or Quota or the "
        "database was away: the next run tries again; 1 if you must act, because a setting is "
        "wrong or a token cannot be decrypted."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--within",
            type=_above_zero,
            default=10.0,
            metavar="MINUTES",
            help="renew the tokens that expire within this many minutes (default: %(default)g). "
            "Choose more than the time between two runs, and less than the lifetime of a token",
        )
        parser.add_argument(
            "--rate",
            type=_above_zero,
            metavar="PER_SECOND",
            help="the most renewals a second in this process (default: unlimited)",
        )

    def handle(self, **options: Any) -> None:
        with progress_on(self.stderr, "tokens") as progress:
            done = refresh_expiring(
                timedelta(minutes=options["within"]),
                rate=options["rate"],
                progress=progress if options["verbosity"] else None,
            )
        if options["verbosity"]:
            self.stdout.write(
                f"{done.renewed} tokens renewed, {done.needs_sign_in} need a new sign-in, "
                f"{done.failed} failed, {done.unreadable} unreadable"
            )
        if done.ok:
            return
        why = (
            f"The run ended early: {done.stopped}"
            if done.stopped
            else "Some tokens could not be renewed: the log (django_quota) and the admin's column "
            '"last failure" give the reasons.'
        )
        raise CommandError(why, returncode=TRY_AGAIN if done.passes else NEEDS_YOU)


def _above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1_000_000:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return number
