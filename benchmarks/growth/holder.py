"""One process that holds tokens: `python -m benchmarks.growth.holder`, which takes orders."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from benchmarks.sign_in.contestant import set_up
from benchmarks.sign_in.results import FLOOR
from benchmarks.sign_in.workers import answer_orders


class Holder:
    """The orders that are about the rows of the contestant of this process."""

    def __init__(self) -> None:
        from benchmarks.sign_in.settings import PROJECT

        self.project = PROJECT
        #: The models of accounts and tokens, and the column that says whose account it is.
        self.account: Any
        self.subject: str
        self.token: Any
        self.renewed: Callable[[Any], str]
        self._find()
        self.sample: list[Any] = []

    def _find(self) -> None:
        if self.project.name == FLOOR:
            from benchmarks.sign_in.floor.models import Account, Token
            from benchmarks.sign_in.floor.rows import access_token

            self.account, self.subject, self.token = Account, "sub", Token
            self.renewed = access_token
        else:
            from django_quota.models import ProviderAccount, QuotaToken
            from django_quota.tokens import get_access_token

            self.account, self.subject, self.token = ProviderAccount, "external_id", QuotaToken
            self.renewed = get_access_token

    def make_people(self, names: list[str]) -> None:
        """People with a token of `tests.light_provider`, which is good for ten hours."""
        from django.contrib.auth import get_user_model
        from django.utils import timezone

        model = get_user_model()
        users = model.objects.bulk_create(model(username=name) for name in names)
        accounts = self.account.objects.bulk_create(
            self.account(user=user, **{self.subject: user.username}) for user in users
        )
        self.token.objects.bulk_create(
            self.token(
                account=account,
                access_token=f"quota_token_{account.user.username}.0",
                refresh_token=f"quota_refresh_{account.user.username}.0",
                id_token="quota_id_token",
                expires_at=timezone.now() + timedelta(hours=10),
            )
            for account in accounts
        )

    def copy(self, count: int, sample: int) -> int:
        """So many people more, copies of the only one; the number of tokens. `sample` of them will
        be read, from everywhere in the tables."""
        from django.contrib.auth import get_user_model
        from django.db import connection

        from benchmarks.rows import copy_people

        copy_people(count, self.account, self.subject, self.token)
        with connection.cursor() as cursor:
            cursor.execute("VACUUM")
            cursor.execute("ANALYZE")
        users = get_user_model().objects
        chosen = random.sample(list(users.values_list("pk", flat=True)), sample)
        self.sample = list(users.filter(pk__in=chosen))
        return int(self.token.objects.count())

    def read(self, times: int) -> dict[str, float]:
        """Get so many fresh tokens of people of the sample: reads a second, and the median in
        milliseconds."""
        took = []
        for user in random.choices(self.sample, k=times):
            began = time.perf_counter()
            self.project.access_token(user)
            took.append(time.perf_counter() - began)
        return {"rate": times / sum(took), "median": 1000 * statistics.median(took)}

    def expire(self) -> None:
        """All tokens."""
        from django.utils import timezone

        self.token.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    def renew(self, names: list[str]) -> list[str]:
        """Ask for the tokens of these people, one after the other; the tokens."""
        from django.contrib.auth import get_user_model

        users = get_user_model().objects.filter(username__in=names)
        return [self.renewed(user) for user in users]


def main() -> None:
    set_up()
    holder = Holder()
    names = ("make_people", "copy", "read", "expire", "renew")
    orders = {name: getattr(holder, name) for name in names}
    answer_orders({"ready": lambda: True, **orders})


if __name__ == "__main__":
    main()
