"""What waits in memory while the database, or Quota, is away."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from django.db import OperationalError

from django_quota.tokens import durable, stops
from django_quota.tokens.durable import Outbox
from tests.helpers.concurrency import wait_until


@pytest.fixture
def outbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Outbox]:
    monkeypatch.setattr(durable, "PAUSE", (0.01, 0.01))
    outbox = Outbox()
    yield outbox
    outbox.stop(10)


class Work:
    """Fails so many times, and then does not."""

    def __init__(self, failures: float) -> None:
        self.failures, self.tried, self.done = failures, 0, False

    def __call__(self) -> None:
        self.tried += 1
        if self.tried <= self.failures:
            raise OperationalError("hush")
        self.done = True


def test_work_is_tried_until_it_succeeds(outbox: Outbox) -> None:
    works = [Work(0), Work(3), Work(1)]
    for work in works:
        outbox.put(work, "a test")
    wait_until(lambda: not outbox.is_waiting())
    assert [work.tried for work in works] == [1, 4, 2]
    outbox.put(again := Work(0), "a test")  # its thread has ended
    wait_until(lambda: again.done)


def test_work_is_given_up_in_the_end_and_the_log_says_what(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(durable, "PATIENCE", 0)
    outbox.put(Work(float("inf")), "a test")
    wait_until(lambda: not outbox.is_waiting())
    wait_until(lambda: "a test: given up: OperationalError" in caplog.text)
    assert "hush" not in caplog.text


def test_no_more_waits_than_there_is_memory_for(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(durable, "MOST", 1)
    outbox.put(Work(float("inf")), "the first")
    outbox.put(Work(0), "the second")
    assert "the second: given up" in caplog.text


def test_mistake_in_the_work_keeps_no_other_from_its_turn(
    outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise ValueError("a mistake")

    outbox.put(broken, "a mistake")
    outbox.put(work := Work(0), "a test")
    wait_until(lambda: work.done)
    assert "a mistake: given up: ValueError" in caplog.text


def test_end_of_the_process_tries_all_once_more(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(durable, "PAUSE", (600, 600))
    monkeypatch.setattr(stops, "outbox", outbox)
    monkeypatch.setattr(stops.renewals, "stop", lambda seconds: True)
    outbox.put(work := Work(0), "a test")
    outbox.put(other := Work(float("inf")), "the other")
    with caplog.at_level(logging.ERROR, "django_quota"):
        stops.wait_for_renewals()
    assert (work.done, other.tried, outbox.is_waiting()) == (True, 1, False)
    assert "the other: given up" in caplog.text


def test_what_is_dropped_is_not_tried_again(
    outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does the thread that had it touch what comes later: a context is entered once."""
    outbox.put(dropped := Work(float("inf")), "a test")
    wait_until(lambda: dropped.tried)
    thread = outbox._thread
    assert thread is not None

    outbox._forget()
    thread.join(60)

    assert not thread.is_alive()
    outbox.put(work := Work(0), "a test")
    wait_until(lambda: work.done)
