"""However many deliveries race, and whoever is killed: each event is handled, and once."""

from __future__ import annotations

from collections import Counter

import pytest
from django.utils import timezone
from pytest_django.fixtures import Settings

from django_quota.models import WebhookEvent
from django_quota.signals import webhook_received
from tests.shown import listening
from tests.storms.crew import Crew, make_event, make_users, post_event

pytestmark = [pytest.mark.storm, pytest.mark.django_db(transaction=True)]

#: More steps than a delivery has; see `crew.deadly`.
STEPS = 60


def test_processes(crew: Crew) -> None:
    """All of them deliver the same events at the same time."""
    make_users(100)
    bodies = [make_event(number) for number in range(50)]

    answers = crew.order("deliver", bodies=bodies)

    heard = Counter(event_id for answer in answers for event_id in answer["heard"])
    assert heard == {f"evt_{number}": 1 for number in range(50)}
    assert {status for answer in answers for status in answer["statuses"]} <= {"200", "503"}
    assert WebhookEvent.objects.exclude(handled_at=None).count() == 50


def test_killed_at_every_step(crew: Crew, settings: Settings) -> None:
    """The next delivery handles what the dead one has not said that it has handled."""
    settings.QUOTA_WEBHOOK_SECRET = "whsec_storm"
    make_users(1)
    heard_again = []
    for step in range(STEPS):
        body = make_event(100 * step)
        (died,) = crew.order("die_delivering", crew=1, body=body, step=step)
        left = WebhookEvent.objects.filter(event_id=f"evt_{100 * step}")
        handled = left.exclude(handled_at=None).exists()
        if not died:
            assert handled
            break
        left.update(claimed_until=timezone.now())  # it ends by itself in a minute

        with listening(webhook_received) as heard:
            assert post_event(body) == 200
        assert len(heard) == (0 if handled else 1)
        assert left.get().handled_at is not None
        heard_again.append(len(heard))
    else:
        raise AssertionError("a delivery has more steps than that")
    assert set(heard_again) == {0, 1}
