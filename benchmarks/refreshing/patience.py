"""How long callers wait for a provider that takes its time, or never answers."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from django.test.utils import override_settings

from benchmarks.course import say
from tests.helpers.concurrency import begin_together, outcome
from tests.light_provider import LightProvider
from tests.storms.crew import make_users


def timed(work: Callable[[], str]) -> tuple[str, float]:
    began = time.monotonic()
    said = outcome(work)
    return said, time.monotonic() - began


def leeway(quota: LightProvider) -> None:
    """Inside the leeway, while Quota takes 2 seconds."""
    from django_quota.tokens.access import get_access_token

    (user,) = make_users(1, expire_in=20)
    quota.set(latency=2)
    got = begin_together([lambda: timed(lambda: get_access_token(user))] * 64)
    times = sorted(seconds for _, seconds in got)
    say("inside the leeway, 64 callers: calls", quota.counts.sent.total(), "1")
    say("... callers that did not wait", sum(seconds < 2 for seconds in times), "63")
    say("... slowest of those to Quota's latency", f"{times[-2] / 2:.2f} x", "below 1 x")


def hang(quota: LightProvider) -> None:
    """Quota never answers; the read time-out is 1 second."""
    from django_quota.tokens.access import get_access_token

    (user,) = make_users(1)
    quota.set(hang=True)
    with override_settings(QUOTA_TIMEOUT=(1, 1)):
        got = begin_together([lambda: timed(lambda: get_access_token(user))] * 64)
    answers = Counter(said.partition(":")[0] for said, _ in got)
    say("Quota hangs, 64 callers: answers", dict(answers), "ProviderUnavailable")
    say("... slowest answer, in s", f"{max(s for _, s in got):.2f}", "2 at most")
    say("... calls", quota.counts.sent.total(), "2 at most")
