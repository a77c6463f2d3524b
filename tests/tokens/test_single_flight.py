"""The threads in which tokens are renewed: each renewal once, out of reach of its callers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections

from django_quota.exceptions import ProviderUnavailable
from django_quota.oidc import endpoints
from django_quota.oidc.time_limit import within
from django_quota.tokens import access, leases
from django_quota.tokens.single_flight import SingleFlight, renewals
from tests.helpers.concurrency import async_wait_until, begin_together, run_async, wait_until
from tests.helpers.rows import expire, pair
from tests.light_provider import LightProvider
from tests.storms.crew import make_users


@pytest.fixture
def flights() -> Iterator[SingleFlight]:
    made = SingleFlight()
    yield made
    made._pool.shutdown()


@pytest.fixture
def quota(settings: Any) -> Iterator[LightProvider]:
    with LightProvider() as live:
        settings.QUOTA_BASE_URL = live.origin
        yield live


@pytest.fixture
def user(db: None, quota: LightProvider) -> Any:
    return make_users(1)[0]


class Work:
    """Waits for `over`, and counts how often it was begun."""

    def __init__(self) -> None:
        self.begun, self.over = threading.Semaphore(0), threading.Event()

    def __call__(self) -> str:
        self.begun.release()
        assert self.over.wait(60)
        return "done"


class TestSharing:
    def test_same_key_runs_once(self, flights: SingleFlight) -> None:
        work = Work()
        first, second = flights.start("key", work), flights.start("key", work)
        other = flights.start("other", work)
        work.over.set()
        assert first is second is not other
        assert (flights.result(first), flights.result(other)) == ("done", "done")
        assert not flights.is_running()

    def test_after_its_end_it_runs_again(self, flights: SingleFlight) -> None:
        assert [flights.result(flights.start("key", partial(int, n))) for n in (1, 2)] == [1, 2]

    def test_everybody_hears_of_a_failure(self, flights: SingleFlight) -> None:
        def fail() -> None:
            raise ProviderUnavailable("down")

        for _ in range(2):
            with pytest.raises(ProviderUnavailable, match="down"):
                flights.result(flights.start("key", fail))

    def test_context_of_the_first_caller(self, flights: SingleFlight) -> None:
        """A database router may ask a context variable which tenant is served."""
        tenant = ContextVar("tenant", default="nobody's")
        tenant.set("this one's")
        assert flights.result(flights.start("key", tenant.get)) == "this one's"

    def test_thread_that_cannot_be_started(
        self, flights: SingleFlight, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def start(thread: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", start)
            with pytest.raises(ProviderUnavailable, match="no thread"):
                flights.start("key", str)
        assert flights.result(flights.start("key", str)) == ""


def strike_main_thread(flights: SingleFlight) -> None:
    """Once it waits for a result: its signal handler raises there."""
    wait_until(lambda: _waits(threading.main_thread()))
    os.kill(os.getpid(), signal.SIGUSR1)


def _waits(thread: threading.Thread) -> bool:
    assert thread.ident is not None
    frame = sys._current_frames().get(thread.ident)
    while frame is not None and frame.f_code is not SingleFlight.result.__code__:
        frame = frame.f_back
    return frame is not None


class TestWaiting:
    def test_caller_gives_up_and_the_work_goes_on(self, flights: SingleFlight) -> None:
        work = Work()
        future = flights.start("key", work)
        with pytest.raises(ProviderUnavailable, match="still being renewed"):
            flights.result(future, timeout=0)
        work.over.set()
        assert future.result(60) == "done"

    @pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="has no such signals")
    def test_time_limit_is_raised_when_the_work_has_ended(self, flights: SingleFlight) -> None:
        """A task queue throws it into the main thread, and may end the process right after it."""

        class SoftTimeLimit(BaseException):
            pass

        def strike(*args: Any) -> None:
            work.over.set()
            raise SoftTimeLimit

        work = Work()
        before = signal.signal(signal.SIGUSR1, strike)
        try:
            future = flights.start("key", work)
            work.begun.acquire()
            with ThreadPoolExecutor(1) as pool, pytest.raises(SoftTimeLimit):
                pool.submit(strike_main_thread, flights)
                flights.result(future)
            assert future.done()
        finally:
            signal.signal(signal.SIGUSR1, before)

    def test_cancelled_task_takes_nothing_from_the_others(self, flights: SingleFlight) -> None:
        work = Work()

        async def one_gives_up() -> str:
            future = flights.start("key", work)
            waiting = asyncio.Event()

            async def wait() -> str:
                waiting.set()
                return await flights.aresult(future, 60)

            second = asyncio.create_task(wait())
            first = asyncio.create_task(wait())
            await waiting.wait()
            first.cancel()
            await async_wait_until(first.done)
            work.over.set()
            assert first.cancelled()
            return await second

        assert asyncio.run(one_gives_up()) == "done"

    def test_task_does_not_wait_for_ever(self, flights: SingleFlight) -> None:
        work = Work()

        async def ask() -> None:
            with pytest.raises(ProviderUnavailable, match="still being renewed"):
                await flights.aresult(flights.start("key", work), 0)

        asyncio.run(ask())
        work.over.set()

    @pytest.mark.filterwarnings("error")
    def test_nobody_waits_for_a_failure(self, flights: SingleFlight) -> None:
        """The event loop does not complain of an exception that was never retrieved."""
        work = Work()

        def fail() -> None:
            work()
            raise ProviderUnavailable("down")

        async def ask() -> None:
            future = flights.start("key", fail)
            with pytest.raises(ProviderUnavailable, match="still being renewed"):
                await flights.aresult(future, 0)
            work.over.set()
            await async_wait_until(future.done)

        asyncio.run(ask(), debug=True)


class TestStop:
    def test_it_waits_for_what_is_running(self, flights: SingleFlight) -> None:
        work = Work()
        future = flights.start("key", work)
        with ThreadPoolExecutor(1) as pool:
            stopped = pool.submit(flights.stop, 60)
            work.over.set()
            assert stopped.result(60)
        assert future.done()

    def test_not_for_ever(self, flights: SingleFlight) -> None:
        work = Work()
        flights.start("key", work)
        assert not flights.stop(0.01)
        work.over.set()

    def test_page_waits_for_the_end_from_then_on(self, flights: SingleFlight) -> None:
        flights.stop(0)
        work = Work()
        future = flights.start("key", work)
        with ThreadPoolExecutor(1) as pool:
            page = pool.submit(flights.result, future, 0)
            work.begun.acquire()
            work.over.set()
            assert page.result(60) == "done"


# The threads are the point of this test. In Python 3.15, the fork itself raises the warning.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.process
def test_child_process_has_none_of_its_parents_renewals() -> None:
    work = Work()
    renewals.start("key", work)
    work.begun.acquire()
    connections.close_all()
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if renewals.result(renewals.start("key", str), 60) == "" else 1)
        finally:
            os._exit(2)
    work.over.set()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    wait_until(lambda: not renewals.is_running())


@pytest.mark.django_db(transaction=True)
class TestRenewals:
    def test_tasks_share_one(self, user: Any, quota: LightProvider) -> None:
        """500 waiting tasks must not hold 500 threads and connections."""

        async def ask() -> list[str]:
            return await asyncio.gather(*(access.aget_access_token(user) for _ in range(500)))

        assert set(run_async(ask())) == {"quota_token_u0.1"}
        assert quota.counts.sent.total() == 1

    def test_tasks_and_threads_share_one(self, user: Any, quota: LightProvider) -> None:
        async def ask() -> str:
            return await access.aget_access_token(user)

        def within_a_minute() -> str:
            with within(60):
                return access.get_access_token(user)

        works: list[Callable[[], str]] = [
            lambda: run_async(ask()),
            lambda: access.get_access_token(user),
            within_a_minute,
        ]
        assert set(begin_together(works)) == {"quota_token_u0.1"}
        assert quota.counts.sent.total() == 1

    def test_task_waits_as_long_as_a_renewal_may_take(
        self, user: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That of a dead owner's token is one that begins when their time is over."""
        timeouts: list[float] = []
        real = renewals.aresult

        async def aresult(future: Any, timeout: float) -> Any:
            timeouts.append(timeout)
            return await real(future, timeout)

        monkeypatch.setattr(renewals, "aresult", aresult)
        settings.QUOTA_DEADLINE = 7

        async def ask() -> None:
            await access.aget_access_token(user)

        run_async(ask())
        assert timeouts == [leases.wait_time() + 7 + leases.MARGIN]

    def test_pages_of_one_user_hold_one_thread(
        self, user: Any, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked, answer = threading.Semaphore(0), threading.Event()
        real = endpoints.refresh

        def refresh(refresh_token: str) -> endpoints.TokenReply:
            asked.release()
            assert answer.wait(60)
            return real(refresh_token)

        monkeypatch.setattr(endpoints, "refresh", refresh)
        for _ in range(3):
            with pytest.raises(ProviderUnavailable, match="still being renewed"), within(0):
                access.get_access_token(user)
        assert asked.acquire(timeout=60)
        answer.set()
        wait_until(lambda: not renewals.is_running())
        assert not asked.acquire(blocking=False)
        assert pair() == ("quota_token_u0.1", "quota_refresh_u0.1")

    def test_connection_is_outside_of_the_projects_pool(
        self, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(connection.settings_dict["OPTIONS"], "pool", {"max_size": 1})

        def inside() -> Any:
            return connections["default"].settings_dict

        own = renewals.result(renewals.start("key", inside))
        assert "pool" not in own["OPTIONS"]
        assert own["NAME"] == connection.settings_dict["NAME"]

    def test_connection_is_closed(self, user: Any) -> None:
        opened: list[Any] = []

        def inside() -> None:
            get_user_model().objects.get()
            opened.append(connections["default"])

        renewals.result(renewals.start("key", inside))
        assert opened[0].connection is None

    def test_expired_token_of_a_caller_whose_task_is_over(
        self, user: Any, quota: LightProvider
    ) -> None:
        expire()
        with pytest.raises(ProviderUnavailable, match="still being renewed"), within(0):
            access.get_access_token(user)
        wait_until(lambda: not renewals.is_running())
        assert pair() == ("quota_token_u0.1", "quota_refresh_u0.1")
