"""What bulk work costs: `python -m benchmarks.bulk CASE`, as benchmarks.refresh does it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

from django.conf import settings

from benchmarks.refresh import run, say, workers
from tests.light_provider import LightProvider
from tests.storms.crew import make_users

LATENCY = 0.02
ID_TOKEN = "eyJ" + "x" * 800
ROWS = 5_000


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
    """quota_reencrypt_tokens: 5,000 rows of 3 values, five times, in turn with bare Fernet."""
    from cryptography.fernet import Fernet

    from benchmarks.rows import copy_rows
    from django_quota.models import QuotaToken
    from django_quota.tokens.reencryption import reencrypt

    keys = [Fernet.generate_key().decode() for _ in range(2)]
    settings.FIELD_ENCRYPTION_KEY = keys[0]
    make_users(1)
    secrets = {"access_token": "q" * 60, "refresh_token": "q" * 60, "id_token": ID_TOKEN}
    row = QuotaToken.objects.get()
    for name, value in secrets.items():
        setattr(row, name, value)
    row.save()
    copy_rows(ROWS - 1)
    first, second = map(Fernet, keys)
    values = [first.encrypt(value.encode()) for value in secrets.values()]

    def bare() -> None:
        """As many values, without any database."""
        for _ in range(ROWS):
            for value in values:
                second.encrypt(first.decrypt(value))

    wall, cpu = [], []
    for _ in range(5):
        settings.FIELD_ENCRYPTION_KEY = keys = keys[::-1]
        floor, ours = seconds(bare), seconds(reencrypt)
        wall.append(floor[0] / ours[0])
        cpu.append(floor[1] / ours[1])
    say("quota_reencrypt_tokens: rate to that of bare Fernet", f"{median(cpu):.2f} x", "0.5 x")
    say("... by wall time, with the database's own", f"{median(wall):.2f} x", "for comparison")


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """The seconds that `work` takes, and the CPU seconds of this process."""
    began, cpu = time.monotonic(), time.process_time()
    work()
    return time.monotonic() - began, time.process_time() - cpu


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
