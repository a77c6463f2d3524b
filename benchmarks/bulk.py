"""What bulk work costs: `python -m benchmarks.bulk CASE`, as benchmarks.refresh does it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

from django.conf import settings

from benchmarks.course import run, say, workers
from tests.light_provider import LightProvider
from tests.storms.crew import Crew, make_users

LATENCY = 0.1
ID_TOKEN = "eyJ" + "x" * 800
ROWS = 5_000
ROUNDS = 5
#: For each process, in a round.
TOKENS = 40


def refresh(quota: LightProvider) -> None:
    """quota_refresh_tokens: one process and four, in turn, at a Quota that takes 100 ms."""
    ratios = []
    with workers(quota, 1) as one, workers(quota, 4) as four:
        for _ in range(ROUNDS):
            rates = [rate(quota, crew, TOKENS * count) for count, crew in ((1, one), (4, four))]
            ratios.append(rates[1] / rates[0])
    say("quota_refresh_tokens: rate of 4 processes to one", f"{median(ratios):.2f} x", "3.6 x")
    say("... lowest and highest", f"{min(ratios):.2f} x, {max(ratios):.2f} x", "for comparison")


def memory(quota: LightProvider) -> None:
    """quota_refresh_tokens: its memory for 10,000 tokens and for 1,000."""
    most = []
    for count, rows in ((1, 1_000), (4, 10_000)):
        with workers(quota, count) as crew:
            rate(quota, crew, rows)
            most.append(max(megabytes for _n, _f, megabytes in crew.order("renew_all")))
    say("... most memory, more than with 1,000 tokens", f"{most[1] - most[0]} MB", "50 at most")


def rate(quota: LightProvider, crew: Crew, rows: int) -> float:
    """Let `crew` renew new tokens of so many users; how many it renewed in a second."""
    from django.contrib.auth import get_user_model

    from django_quota.models import QuotaToken

    QuotaToken.objects.all().delete()
    get_user_model().objects.all().delete()
    quota.reset()
    quota.set(latency=LATENCY)
    make_users(rows)
    began = time.monotonic()
    answers = crew.order("renew_all")
    took = time.monotonic() - began
    renewed = sum(answer[0] for answer in answers)
    twice = sum(times > 1 for times in quota.counts.sent.values())
    if (renewed, twice) != (rows, 0):
        raise RuntimeError(f"{renewed} of {rows} renewed, {twice} of them twice")
    return rows / took


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
    for _ in range(ROUNDS):
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
    work.__name__: work for work in (refresh, memory, reencrypt)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--ds", default="tests.settings_postgresql")
    options = parser.parse_args()
    run(CASES[options.case], options.ds)


if __name__ == "__main__":
    main()
