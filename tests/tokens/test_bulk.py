"""Renewing many tokens: who shares the work, what ends it, and what one bad row does to the rest.

Calls are counted at a provider over real HTTP, which ends a family when a token is spent twice.
"""

from __future__ import annotations

import importlib
import io
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from threading import current_thread
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import OperationalError, connection, transaction
from django.db.backends.signals import connection_created
from django.utils import timezone

from django_quota import connecting
from django_quota.exceptions import RateLimited, RefreshImpossibleHere
from django_quota.models import ProviderAccount, QuotaToken
from django_quota.oidc import endpoints
from django_quota.tokens import access, bulk, leases, locking
from django_quota.tokens.bulk import Refreshed, refresh_expiring
from django_quota.tokens.clock import PRECISION, Clock
from tests.helpers import programs
from tests.helpers.concurrency import closes_connections, locked_elsewhere, wait_until
from tests.helpers.databases import every_query, statements
from tests.helpers.rows import spoil, stored
from tests.light_provider import LightProvider

pytestmark = pytest.mark.django_db(transaction=True)

WITHIN = timedelta(minutes=10)


@pytest.fixture
def quota(settings: Any) -> Iterator[LightProvider]:
    with LightProvider() as live:
        settings.QUOTA_BASE_URL = live.origin
        yield live


def make(count: int, *, first: int = 0, expire_in: float = 60) -> None:
    """Users u0, u1 ..., whose tokens expire one after the other."""
    users = get_user_model().objects.bulk_create(
        [get_user_model()(username=f"u{n}") for n in range(first, first + count)]
    )
    accounts = ProviderAccount.objects.bulk_create(
        [ProviderAccount(user=user, external_id=user.username) for user in users]
    )
    past = timezone.now() - timedelta(hours=1)
    QuotaToken.objects.bulk_create(
        QuotaToken(
            account=account,
            access_token=f"quota_token_{account.external_id}.0",
            refresh_token=f"quota_refresh_{account.external_id}.0",
            expires_at=timezone.now() + timedelta(seconds=expire_in + n),
            updated_at=past,
        )
        for n, account in enumerate(accounts)
    )


def token(name: str) -> QuotaToken:
    return QuotaToken.objects.get(account__external_id=name)


def generations(*, but: str = "") -> dict[str, int]:
    """How often the tokens of each user have been renewed, as the database has it."""
    rows = QuotaToken.objects.select_related("account")
    rows = rows.exclude(account__external_id=but)  # that cannot be read
    return {
        row.account.external_id: int(row.refresh_token.reveal().rpartition(".")[2]) for row in rows
    }


def run() -> Refreshed:
    return refresh_expiring(WITHIN)


def in_threads(count: int) -> list[Refreshed]:
    @closes_connections
    def work(_: int) -> Refreshed:
        return run()

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(work, range(count)))


def worker(quota: LightProvider) -> subprocess.Popen[str]:
    """`quota_refresh_tokens` in a process of its own."""
    return programs.start("manage", "quota_refresh_tokens", QUOTA_BASE_URL=quota.origin)


class TestWhichTokens:
    def test_those_that_expire_in_time_and_are_active(self, quota: LightProvider) -> None:
        make(3)
        make(1, first=3, expire_in=3600)
        QuotaToken.objects.filter(account__external_id="u2").update(
            status=QuotaToken.Status.REAUTHENTICATION_REQUIRED
        )

        done = run()

        assert done == Refreshed(renewed=2, needs_sign_in=0, unreadable=0, failed=0, stopped="")
        assert done.ok
        assert generations() == {"u0": 1, "u1": 1, "u2": 0, "u3": 0}
        assert token("u0").access_token.reveal() == "quota_token_u0.1"

    def test_the_one_that_expires_first_is_the_first(self, quota: LightProvider) -> None:
        make(2, expire_in=120)
        make(2, first=2, expire_in=60)

        run()

        assert [sent[-3] for sent in quota.counts.sent] == ["2", "3", "0", "1"]

    def test_all_that_expire_at_the_same_moment(self, quota: LightProvider) -> None:
        make(5)
        QuotaToken.objects.update(expires_at=timezone.now())

        assert run().renewed == 5

    def test_none_twice_though_it_is_due_again_at_once(self, quota: LightProvider) -> None:
        make(3)
        quota.set(expires_in=300)

        assert run().renewed == 3
        assert set(quota.counts.sent.values()) == {1}

    def test_not_one_that_somebody_is_renewing(self, quota: LightProvider) -> None:
        make(2)
        QuotaToken.objects.filter(account__external_id="u0").update(
            lease_owner="a page", lease_until=timezone.now() + timedelta(seconds=20)
        )

        assert run() == Refreshed(renewed=1, needs_sign_in=0, unreadable=0, failed=0, stopped="")
        assert generations() == {"u0": 0, "u1": 1}

    def test_nor_does_it_cost_the_others_anything(self, quota: LightProvider) -> None:
        """Of four processes each would lock the rows of the other three, one after the other."""
        make(40)
        QuotaToken.objects.update(
            lease_owner="a page", lease_until=timezone.now() + timedelta(seconds=20)
        )
        with statements() as seen:
            assert refresh_expiring(WITHIN).renewed == 0
        assert len(seen) == 3  # the time, and the two lists of what is due

    def test_one_that_is_locked_is_passed_by(self, quota: LightProvider) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite has no row locks")
        make(3)
        pk = token("u0").pk  # by this alone: MariaDB would lock the rows that it looks through
        with locked_elsewhere(pk):
            done = run()
        assert done == Refreshed(renewed=2, needs_sign_in=0, unreadable=0, failed=0, stopped="")
        assert generations() == {"u0": 0, "u1": 1, "u2": 1}

    def test_one_that_is_disconnected_meanwhile_is_no_failure(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(2)
        real = endpoints.refresh

        def gone(refresh_token: str) -> endpoints.TokenReply:
            reply = real(refresh_token)
            connecting.disconnect(get_user_model().objects.get(username="u0"))
            return reply

        monkeypatch.setattr(endpoints, "refresh", gone)

        assert run() == Refreshed(renewed=1, needs_sign_in=0, unreadable=0, failed=0, stopped="")


class TestSharing:
    def test_four_threads(self, quota: LightProvider) -> None:
        """The provider answers only four at a time, so that none of them can do it alone."""
        make(40)
        quota.set(together=4)

        done = in_threads(4)

        assert [each.renewed for each in done] == [10] * 4
        assert all(each.ok for each in done)
        assert set(quota.counts.sent.values()) == {1}
        assert set(generations().values()) == {1}

    @pytest.mark.process
    def test_four_processes(self, quota: LightProvider) -> None:
        make(20)
        quota.set(together=4)

        workers = [worker(quota) for _ in range(4)]
        said = [process.communicate(timeout=60)[0] for process in workers]

        assert [process.returncode for process in workers] == [0] * 4
        assert said == ["5 tokens renewed, 0 need a new sign-in, 0 failed, 0 unreadable\n"] * 4
        assert set(quota.counts.sent.values()) == {1}
        assert set(generations().values()) == {1}

    @pytest.mark.process
    @pytest.mark.parametrize(("grace_period", "renewed"), [(0, 0), (300, 1)])
    def test_what_a_killed_worker_leaves(
        self, quota: LightProvider, grace_period: int, renewed: int
    ) -> None:
        """Its token was spent at Quota, and only a grace period there can bring it back."""
        make(2)
        quota.set(hang=True, grace_period=grace_period)
        process = worker(quota)
        wait_until(lambda: quota.counts.sent)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        quota.set(hang=False)

        assert run().renewed == 1  # the other; its lease is still there
        assert token("u0").lease_owner
        QuotaToken.objects.exclude(lease_until=None).update(lease_until=timezone.now())
        assert run().renewed == 0  # the killed one might still be saving
        patience = timedelta(
            seconds=leases.SAVE_PATIENCE + 1
        )  # SQLite's clock counts in milliseconds
        QuotaToken.objects.exclude(lease_until=None).update(lease_until=timezone.now() - patience)

        done = run()

        assert (done.renewed, done.needs_sign_in) == (renewed, 1 - renewed)
        assert generations() == {"u0": renewed, "u1": 1}


class TestFailures:
    @pytest.mark.parametrize(("away", "renewed"), [(30, 2), (1000, 1)])
    def test_a_database_that_is_away_is_waited_for(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch, away: int, renewed: int
    ) -> None:
        """It goes when the first token is renewed; by a clock of our own."""
        make(2)
        now = 0.0

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds

        def query(execute: Callable[..., object], *args: object) -> object:
            if done_with == 1 and now < away:
                raise OperationalError("the database is away")
            return execute(*args)

        done_with = 0
        real = access.renew_unless_taken

        def renew(*args: Any, **options: Any) -> bool:
            nonlocal done_with
            renewed = real(*args, **options)
            done_with += 1
            return renewed

        monkeypatch.setattr(access, "renew_unless_taken", renew)
        monkeypatch.setattr(locking, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now))
        with every_query(query):
            done = run()

        assert done.renewed == renewed
        assert done.stopped == ("" if away < 60 else "The database is away; run it again.")

    def test_what_the_database_says_is_logged(
        self,
        quota: LightProvider,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """SQLite and MariaDB call a column that is missing an operational error."""

        def query(*args: object) -> object:
            raise OperationalError("no such column: lease_until")

        monkeypatch.setattr(bulk, "LONGEST_PAUSE", 0)
        connection.ensure_connection()  # which asks something itself, on MariaDB
        with connection.execute_wrapper(query):
            assert run().stopped == "The database is away; run it again."
        assert "no such column: lease_until" in caplog.text

    @pytest.mark.parametrize("readable", [True, False])
    def test_a_database_that_goes_before_anything_is_spent_is_waited_for(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch, readable: bool
    ) -> None:
        """For half a minute before the claim; or for a second before its failure is noted."""
        make(2)
        if not readable:
            spoil("refresh_token", pk=token("u0").pk)
        now = 0.0

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds

        def query(execute: Callable[..., object], sql: str, *args: object) -> object:
            column = "lease_owner" if readable else "last_failure"
            if sql.startswith("UPDATE") and column in sql and now < (30 if readable else 1):
                raise OperationalError("the database is away")
            return execute(sql, *args)

        monkeypatch.setattr(locking, "time", SimpleNamespace(sleep=sleep, monotonic=lambda: now))
        with every_query(query):
            done = run()

        assert (done.renewed, done.unreadable) == ((2, 0) if readable else (1, 1))
        assert (done.failed, done.stopped) == (0, "")
        failures = set(QuotaToken.objects.values_list("last_failure", flat=True))
        assert failures == ({""} if readable else {"", "token_unreadable"})

    def test_one_bad_row_does_not_keep_the_others(
        self, quota: LightProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        make(10)
        quota.set(fail={"u1": 500})
        spoil("refresh_token", pk=token("u3").pk)
        endpoints.revoke(token("u5").refresh_token.reveal(), "refresh_token")

        done = run()

        assert done == Refreshed(renewed=7, needs_sign_in=1, unreadable=1, failed=1, stopped="")
        assert not done.ok
        kept = {name for name, generation in generations(but="u3").items() if generation == 0}
        assert kept == {"u1", "u5"}
        assert set(quota.counts.sent.values()) == {1}
        failures = dict(QuotaToken.objects.values_list("account__external_id", "last_failure"))
        assert failures["u1"] == "provider_unavailable"
        assert failures["u3"] == "token_unreadable"
        assert failures["u5"] == "invalid_grant"
        assert "quota_refresh_" not in caplog.text and "spoilt" not in caplog.text

    def test_an_unreadable_token_is_neither_sent_nor_overwritten(
        self, quota: LightProvider
    ) -> None:
        make(1)
        pk = token("u0").pk
        spoil("refresh_token", pk=pk)
        spoilt = stored("refresh_token", pk)

        assert run().unreadable == 1
        assert run().unreadable == 1
        assert stored("refresh_token", pk) == spoilt
        assert not quota.counts.sent

    def test_an_outage_ends_the_run(self, quota: LightProvider) -> None:
        make(20)
        quota.set(fail={"*": 503})

        done = run()

        assert done.failed == bulk.OUTAGE == len(quota.counts.sent)
        assert "HTTP 503" in done.stopped

    def test_what_others_do_does_not_hide_an_outage(self, quota: LightProvider) -> None:
        """Rows that were taken by other workers say nothing about Quota."""
        make(20)
        odd = [f"u{n}" for n in range(1, 20, 2)]
        QuotaToken.objects.filter(account__external_id__in=odd).update(
            lease_owner="x", lease_until=timezone.now() + timedelta(seconds=20)
        )
        quota.set(fail={"*": 503})

        assert run().failed == bulk.OUTAGE == len(quota.counts.sent)

    def test_a_refused_client_ends_the_run_at_once(self, quota: LightProvider) -> None:
        make(5)
        quota.set(client_secret="another")

        done = run()

        assert len(quota.counts.sent) == 1
        assert "QUOTA_CLIENT_SECRET" in done.stopped
        assert not QuotaToken.objects.filter(status="reauthentication_required").exists()

    def test_rows_that_always_fail_keep_no_other_from_its_turn(self, quota: LightProvider) -> None:
        make(10)
        bad = [f"u{n}" for n in range(bulk.OUTAGE + 1)]
        quota.set(fail=dict.fromkeys(bad, 500))

        assert run().renewed == 0  # the first five look like an outage
        assert run().renewed == 4
        assert set(quota.counts.sent) >= {f"quota_refresh_{name}.0" for name in bad}

    def test_a_row_that_failed_is_not_tried_again_in_the_same_run(
        self, quota: LightProvider
    ) -> None:
        make(3)
        quota.set(fail={"u0": 500, "u1": 500})

        run()
        assert quota.counts.sent["quota_refresh_u0.0"] == 1
        run()
        assert quota.counts.sent["quota_refresh_u0.0"] == 2


class TestPace:
    @pytest.fixture
    def slept(self, monkeypatch: pytest.MonkeyPatch) -> list[float]:
        """Seconds that were slept, on a clock that stands still."""
        slept: list[float] = []
        clock = SimpleNamespace(monotonic=lambda: 100.0, sleep=slept.append)
        monkeypatch.setattr(bulk, "time", clock)
        return slept

    @pytest.fixture
    def limits(self, monkeypatch: pytest.MonkeyPatch) -> list[int | None]:
        """What Quota will say to the next requests: that it limits our rate, for so long."""
        limits: list[int | None] = []
        real = endpoints.refresh

        def limiting(refresh_token: str) -> endpoints.TokenReply:
            if limits:
                raise RateLimited("too fast", retry_after=limits.pop(0))
            return real(refresh_token)

        monkeypatch.setattr(endpoints, "refresh", limiting)
        return limits

    def test_the_rate(self, quota: LightProvider, slept: list[float]) -> None:
        make(3)
        assert refresh_expiring(WITHIN, rate=4).renewed == 3
        assert slept == [0.25] * 3

    def test_what_others_have_taken_costs_no_time(
        self, quota: LightProvider, slept: list[float]
    ) -> None:
        make(3)
        QuotaToken.objects.update(lease_until=timezone.now() + timedelta(seconds=20))
        refresh_expiring(WITHIN, rate=4)
        assert slept == []

    @pytest.mark.parametrize("rate", [0, -1, float("nan")])
    def test_no_rate_at_all(self, rate: float) -> None:
        with pytest.raises(ValueError, match="above 0"):
            refresh_expiring(WITHIN, rate=rate)

    def test_retry_after_is_honoured_and_the_row_not_lost(
        self, quota: LightProvider, slept: list[float], limits: list[int | None]
    ) -> None:
        make(2)
        limits += [7, None]

        assert run() == Refreshed(renewed=2, needs_sign_in=0, unreadable=0, failed=0, stopped="")
        assert [seconds for seconds in slept if seconds] == [7, bulk.PAUSE]

    def test_retry_after_with_a_clock_that_was_read_late(
        self,
        quota: LightProvider,
        slept: list[float],
        limits: list[int | None],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """On a busy machine, the database's answer takes time, and the clock is behind by it."""

        def of(alias: str) -> Clock:
            clock = Clock.of(alias)
            return Clock(clock.read, clock.at + PRECISION * 0.9)

        make(1)
        limits += [0]
        monkeypatch.setattr(bulk, "Clock", SimpleNamespace(of=of))

        assert run().renewed == 1

    def test_quotas_own_retry_after(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(2)
        quota.set(fail={"u0": 429}, retry_after=7)
        slept: list[float] = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            quota.set(fail={})

        clock = SimpleNamespace(monotonic=lambda: 100.0, sleep=sleep)
        monkeypatch.setattr(bulk, "time", clock)

        assert run().renewed == 2
        assert [seconds for seconds in slept if seconds] == [7]

    def test_a_long_wait_is_for_the_next_run(
        self, quota: LightProvider, slept: list[float], limits: list[int | None]
    ) -> None:
        make(2)
        limits += [61]

        done = run()

        assert (done.renewed, done.failed, done.stopped) == (0, 1, "too fast")
        assert slept == []

    def test_limited_again_and_again(
        self, quota: LightProvider, slept: list[float], limits: list[int | None]
    ) -> None:
        make(2)
        limits += [1] * 100

        assert run().stopped == "too fast"
        assert slept == [1] * (bulk.OUTAGE - 1)


class TestCost:
    def test_the_same_few_queries_for_each_row(self, quota: LightProvider) -> None:
        """None of them asks for more than one row, however many there are."""
        counts = []
        for first, count in ((0, 5), (5, 10), (15, 20)):
            make(count, first=first)
            with statements() as seen:
                assert run().renewed == count
            counts.append(len(seen))
            for sql in seen:
                if sql.startswith("SELECT") and re.search(r" FROM \Wdjango_quota", sql):
                    assert "LIMIT 1" in sql or "LIMIT 21" in sql, sql
        each = (counts[1] - counts[0]) / 5
        assert each == (counts[2] - counts[1]) / 10
        # A look, two for the place; then time and lock together, and the write, of claim and save.
        assert each <= (9 if connection.vendor == "postgresql" else 12)

    def test_run_opens_one_connection_for_all_renewals(self, quota: LightProvider) -> None:
        make(3)
        threads: list[str] = []

        def note(**said: Any) -> None:
            threads.append(current_thread().name)

        connection_created.connect(note)
        try:
            assert run().renewed == 3
        finally:
            connection_created.disconnect(note)
        assert len([name for name in threads if name.startswith("django_quota-renewal")]) == 1

    def test_progress_is_told_of_each_token(self, quota: LightProvider) -> None:
        make(3)
        told: list[tuple[int, int]] = []
        refresh_expiring(WITHIN, progress=lambda done, total: told.append((done, total)))
        assert told == [(1, 3), (2, 3), (3, 3)]

    @pytest.mark.parametrize(
        ("terminal", "verbosity", "shown"), [(True, 1, True), (False, 1, False), (True, 0, False)]
    )
    def test_command_shows_progress_on_a_terminal_only(
        self,
        quota: LightProvider,
        monkeypatch: pytest.MonkeyPatch,
        terminal: bool,
        verbosity: int,
        shown: bool,
    ) -> None:
        make(3)
        stderr = io.StringIO()
        monkeypatch.setattr(stderr, "isatty", lambda: terminal)
        call_command(
            "quota_refresh_tokens", stdout=io.StringIO(), stderr=stderr, verbosity=verbosity
        )
        assert ("\r3 of 3 tokens" in stderr.getvalue()) is shown
        assert terminal or not stderr.getvalue()

    def test_not_in_a_transaction(self, quota: LightProvider) -> None:
        """Its rollback would bring every spent token back."""
        make(1)
        with pytest.raises(RefreshImpossibleHere, match="outside"), transaction.atomic():
            run()
        assert not quota.counts.sent


def recipe(heading: str) -> str:
    """The Python of a section of the page about background work."""
    page = (Path(__file__).parent.parent.parent / "docs/background-work.rst").read_text()
    section = page.split(f"\n{heading}\n")[1].split("\n===")[0]
    block = re.findall(r"code-block:: python\n\n((?:   .*\n|\n)+)", section)[0]
    return textwrap.dedent(block)


class TestRecipes:
    """What the page shows works as it stands there."""

    @pytest.fixture
    def tasks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
        def load(heading: str) -> Any:
            (tmp_path / "recipe_tasks.py").write_text(recipe(heading))
            monkeypatch.syspath_prepend(tmp_path)
            monkeypatch.delitem(sys.modules, "recipe_tasks", raising=False)
            return importlib.import_module("recipe_tasks")

        return load

    def test_django_tasks(
        self, quota: LightProvider, tasks: Callable[[str], Any], settings: Any
    ) -> None:
        pytest.importorskip("django.tasks")
        settings.TASKS = {
            "default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}
        }
        make(2)
        result = tasks("Django Tasks").refresh_quota_tokens.enqueue()
        assert result.return_value["renewed"] == 2
        assert tasks("Django Tasks").prune_quota.enqueue().return_value["left"] == 0

    def test_celery(
        self, quota: LightProvider, tasks: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Celery itself is not installed: what its decorator is given is a plain function."""
        celery: Any = ModuleType("celery")
        celery.shared_task = lambda **options: lambda function: function
        monkeypatch.setitem(sys.modules, "celery", celery)
        make(2)
        module = tasks("Celery beat")
        module.refresh_quota_tokens()
        assert set(generations().values()) == {1}
        module.prune_quota()
        make(bulk.OUTAGE, first=2)
        quota.set(fail={"*": 503})
        with pytest.raises(RuntimeError, match="HTTP 503"):
            module.refresh_quota_tokens()
