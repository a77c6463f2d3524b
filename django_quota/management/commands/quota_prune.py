"""`manage.py quota_prune`: tell Quota of the tokens that were dropped here. For cron."""

from typing import Any

from django.core.management.base import BaseCommand

from ...revocation import revoke_pending


class Command(BaseCommand):
    """Works the revocation queue off."""

    help = "Revokes at Quota the tokens that were dropped here. Run it every few minutes."

    def handle(self, **options: Any) -> None:
        self.stdout.write(f"{revoke_pending()} tokens revoked")
