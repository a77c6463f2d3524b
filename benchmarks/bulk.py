"""What bulk work costs: `python -m benchmarks.bulk CASE`, as benchmarks.refresh does it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from django.conf import settings

from benchmarks.refresh import copy_rows, run, say, workers
from tests.light_provider import LightProvider
from tests.storms.crew import make_users

LATENCY = 0.02
ID_TOKEN = "eyJ" + "x" * 800


def refresh(quota: LightProvider) -> None:
    """quota_refresh_tokens: 4 processes for 10,000 tokens against one for 1,000."""
    from django.contrib.auth import get_user_model

    from django_quota.models import QuotaToken

    quota.set(latency=LATENCY)
    rates, memory = [], []
    for count, rows in ((1, 1_000), (4, 10_000)):
        QuotaToken.objects.all().delete()
        get_user_model().objects.all().delete()
        quota.reset()
        quota.set(latency=LATENCY)
        make_users(rows)
        with workers(quota, count) as crew:
            began = time.monotonic()
            answers = crew.order("renew_all")
            rates.append(rows / (time.monotonic() - began))
        memory.append(max(megabytes for _renewed, _failed, megabytes in answers))
        say(f"{rows} tokens, {count} processes: renewed", sum(a[0] for a in answers), str(rows))
        say("... renewed twice", sum(n > 1 for n in quota.counts.sent.values()), "0")
    say("... rate of 4 to that of one", f"{rates[1] / rates[0]:.2f} x", "3 x at least")
    say("... most memory, more than with 1,000 tokens", f"{memory[1] - memory[0]} MB", "50 at most")


def reencrypt(quota: LightProvider) -> None:
    """quota_reencrypt_tokens: 100,000 rows of 3 values against bare Fernet."""
    from cryptography.fernet import Fernet

    from django_quota.models import QuotaToken
    from django_quota.tokens.reencryption import reencrypt

    keys = [Fernet.generate_key().decode() for _ in range(2)]
    settings.FIELD_ENCRYPTION_KEY = keys[1]
    make_users(1)
    secrets = {"access_token": "q" * 60, "refresh_token": "q" * 60, "id_token": ID_TOKEN}
    row = QuotaToken.objects.get()
    for name, value in secrets.items():
        setattr(row, name, value)
    row.save()
    copy_rows(99_999)
    settings.FIELD_ENCRYPTION_KEY = keys

    new, old = map(Fernet, keys)
    values = [old.encrypt(value.encode()) for value in secrets.values()]

    def bare() -> float:
        """Rows a second, without any database."""
        began = time.monotonic()
        for _ in range(10_000):
            for value in values:
                new.encrypt(old.decrypt(value))
        return 10_000 / (time.monotonic() - began)

    before = bare()
    began = time.monotonic()
    census = reencrypt()
    rate = 100_000 / (time.monotonic() - began)
    say("values under the newest key", census.newest, "300000")
    say("... rate to that of bare Fernet", f"{rate / ((before + bare()) / 2):.2f} x", "0.25 x")


CASES: dict[str, Callable[[LightProvider], None]] = {
    work.__name__: work for work in (refresh, reencrypt)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--ds", default="tests.settings_postgresql")
    options = parser.parse_args()
    run(CASES[options.case], options.ds)


if __name__ == "__main__":
    main()
