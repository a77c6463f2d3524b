"""A user's limit for the day holds for all processes, and no call is lost from the sum."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import Sum

from django_quota.ai.factory import openai_client
from django_quota.exceptions import SpendingLimitReached
from django_quota.wallet import limits
from tests.helpers.priced import STREAM, PricedAnswers
from tests.storms.crew import Crew, make_users
from tests.tiny_server import TinyServer
from tests.upstream import Upstream, chunk

pytestmark = [pytest.mark.storm, pytest.mark.django_db(transaction=True)]

CHAT = "/v1/chat/completions"
PRICE = 40
#: The calls that the limit allows.
ALLOWED = 100


@pytest.fixture
def server(settings: Any, tmp_path: Path) -> Iterator[TinyServer]:
    with TinyServer() as server:
        server.on(CHAT, PricedAnswers(PRICE))
        settings.QUOTA_BASE_URL = server.origin
        settings.QUOTA_SPENDING_LIMITS = {"user_day": ALLOWED * PRICE}
        # All processes share it, as they share Redis in production.
        backend = "django.core.cache.backends.filebased.FileBasedCache"
        settings.CACHES = {"default": {"BACKEND": backend, "LOCATION": str(tmp_path)}}
        yield server


def crew_of(count: int, settings: Any) -> Crew:
    names = ("QUOTA_BASE_URL", "QUOTA_SPENDING_LIMITS", "CACHES")
    return Crew(count, **{name: getattr(settings, name) for name in names})


def test_calls_of_many_processes_stop_at_the_limit(server: TinyServer, settings: Any) -> None:
    """Eight of eight threads; on SQLite, four of four. The overshoot is what was under way when the
    limit was reached: at most one call of each of the others."""
    processes = threads = 4 if connection.vendor == "sqlite" else 8
    (user,) = make_users(1, expire_in=3600)

    with crew_of(processes, settings) as crew:
        ended = crew.order("spend", user=user.pk, threads=threads)

    sent = len(server.seen(CHAT))
    assert {error for _, error in ended} == {"SpendingLimitReached"}
    assert sum(made for made, _ in ended) == sent
    assert ALLOWED <= sent < ALLOWED + processes * threads
    assert user.quota_usage.count() == sent
    assert user.quota_usage.aggregate(sum=Sum("credits_used"))["sum"] == sent * PRICE


def test_calls_of_another_process_cut_a_running_stream(
    server: TinyServer, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "LOOK_EVERY", 0)
    (user,) = make_users(1, expire_in=3600)
    live = Upstream()
    server.on(CHAT, live, PricedAnswers(PRICE))
    live.say(chunk("Hel"))
    stream = openai_client(user).chat.completions.create(**STREAM)
    next(stream)

    with crew_of(1, settings) as crew:
        assert crew.order("spend", user=user.pk, threads=1) == [[ALLOWED, "SpendingLimitReached"]]

    live.say(chunk("lo"))
    with pytest.raises(SpendingLimitReached) as caught:
        next(stream)
    assert caught.value.spent == ALLOWED * PRICE
    assert live.hung_up.wait(20)
