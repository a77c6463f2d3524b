"""sentry-sdk reads the local variables of every frame, and knows nothing of Django's decorators."""

import pytest

from tests.neighbours import run

pytest.importorskip("sentry_sdk")
pytestmark = pytest.mark.neighbour


def test_no_failing_journey_tells_it_a_secret() -> None:
    seen = run("sentry")

    assert seen["status"] == 0
    assert seen["errors"] >= seen["journeys"] > 10
    assert seen["variables"] >= seen["journeys"]
    assert seen["found"] == []
