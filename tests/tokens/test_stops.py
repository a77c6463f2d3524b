"""A process that is stopped while it renews a token for a page that has gone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from django_quota.tokens import stops
from django_quota.tokens.single_flight import SingleFlight
from tests.helpers import programs
from tests.helpers.concurrency import wait_until
from tests.helpers.rows import pair
from tests.light_provider import LightProvider
from tests.storms.crew import make_users


@pytest.fixture
def sigterm() -> Iterator[None]:
    """What SIGTERM does is put back."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_process_that_ends_by_the_signal_saves_first(settings: Any) -> None:
    with LightProvider() as quota:
        settings.QUOTA_BASE_URL = quota.origin
        make_users(1)
        quota.set(hang=True)
        with programs.start("end_during_renewal", "wait", QUOTA_BASE_URL=quota.origin) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ends\n"
            wait_until(lambda: quota.counts.sent)
            process.terminate()
            quota.set(hang=False)
            assert process.wait(programs.GIVE_UP_AFTER) == -signal.SIGTERM
    assert pair() == ("quota_token_u0.1", "quota_refresh_u0.1")


@pytest.mark.usefixtures("sigterm")
class TestHandler:
    def test_handler_of_another_server_is_left_alone(self) -> None:
        """It ends normally, and that waits for the threads."""

        def theirs(signum: int, frame: object) -> None:
            raise AssertionError

        signal.signal(signal.SIGTERM, theirs)
        stops._chain(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is theirs

    def test_uvicorn_is_told_when_the_renewal_has_ended(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its handler runs on the event loop, which must go on meanwhile."""
        flights, over, told = SingleFlight(), threading.Event(), threading.Event()
        monkeypatch.setattr(stops, "renewals", flights)

        def handle_exit(signum: int, frame: object) -> None:
            assert not flights.is_running()
            told.set()

        handle_exit.__module__ = "uvicorn.server"
        signal.signal(signal.SIGTERM, handle_exit)
        stops._chain(signal.SIGTERM)
        future = flights.start("key", lambda: over.wait(60))
        signal.raise_signal(signal.SIGTERM)
        assert not told.is_set()
        over.set()
        assert told.wait(60)
        assert future.done()
        flights._pool.shutdown()

    def test_second_signal_does_not_end_the_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """systemd tells every process, and uvicorn's main process tells the others again."""
        flights, over, told = SingleFlight(), threading.Event(), threading.Event()
        monkeypatch.setattr(stops, "renewals", flights)

        def before(signum: int, frame: object) -> None:
            assert not flights.is_running()
            told.set()

        handler = stops._Waiting(before)
        flights.start("key", lambda: over.wait(60))
        handler(signal.SIGTERM, None)
        handler(signal.SIGTERM, None)
        assert not told.is_set()
        over.set()
        assert told.wait(60)
        flights._pool.shutdown()

    def test_second_signal_does_not_end_the_process_before_the_save(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[object] = []

        def look(*_args: object) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))

        monkeypatch.setattr(stops, "wait_for_renewals", look)
        monkeypatch.setattr(stops.os, "kill", look)
        stops._wait_and_end(signal.SIGTERM, None)
        assert seen == [signal.SIG_IGN, signal.SIG_DFL]

    def test_without_a_renewal_it_is_told_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(stops, "renewals", SingleFlight())
        told: list[int] = []
        stops._Waiting(lambda signum, frame: told.append(signum))(signal.SIGTERM, None)
        assert told == [signal.SIGTERM]
