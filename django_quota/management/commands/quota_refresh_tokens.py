"""`manage.py quota_refresh_tokens`: renew the tokens that are about to expire. For cron."""

import argparse
from datetime import timedelta
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from ...bulk import refresh_expiring


class Command(BaseCommand):
    """Prints what became of the tokens that were due."""

    help = (
        "Renews the access tokens that expire soon, so that no page has to wait for Quota. Any "
        "number of processes may run at the same time: they share the work. Exit code: 0 if all "
        "went well, also where users have to sign in again; 1 if something is worth a look: a "
        "token that failed or cannot be decrypted, or a run that ended early."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--within",
            type=_above_zero,
            default=10.0,
            metavar="MINUTES",
            help="those that expire within so many minutes; %(default)g unless given. More than "
            "the time between two runs, and less than the lifetime of a token",
        )
        parser.add_argument(
            "--rate",
            type=_above_zero,
            metavar="PER_SECOND",
            help="at most so many renewals a second, in this process; unlimited unless given",
        )

    def handle(self, **options: Any) -> None:
        done = refresh_expiring(
            timedelta(minutes=options["within"]),
            rate=options["rate"],
            progress=options["verbosity"] > 0,
        )
        if options["verbosity"]:
            self.stdout.write(
                f"{done.renewed} tokens renewed, {done.needs_sign_in} need a new sign-in, "
                f"{done.failed} failed, {done.unreadable} unreadable"
            )
        if done.stopped:
            raise CommandError(f"The run ended early: {done.stopped}")
        if not done.ok:
            raise CommandError(
                "Not all could be renewed: the log (django_quota) and the admin's column "
                '"last failure" say why.'
            )


def _above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < 1_000_000:
        raise argparse.ArgumentTypeError("must be a number above 0")
    return number
