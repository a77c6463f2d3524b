"""Key rotation: beside live renewals, after a kill -9, and with values that no key fits."""

from __future__ import annotations

import base64
import io
import signal
from collections.abc import Callable, Iterator
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection, transaction
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_quota.exceptions import ConfigurationError, TokenUnreadable
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.tokens import access, reencryption
from django_quota.tokens.ciphertexts import Ciphertexts
from django_quota.tokens.reencryption import KeyReport, reencrypt, sample, unreadable_columns
from tests.helpers import programs
from tests.helpers.concurrency import begin_together, locked_elsewhere
from tests.helpers.rows import SECRETS, spoil, store_tokens, token_reply
from tests.shown import shown

OLD, NEW, OTHER = (base64.urlsafe_b64encode(bytes([n + 65]) * 32).decode() for n in range(3))

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reencryption, "PAUSE", 0)


@pytest.fixture(autouse=True)
def rotated() -> Iterator[None]:
    """The new key was put in front, and deployed."""
    with override_settings(FIELD_ENCRYPTION_KEY=[NEW, OLD]):
        yield


def make(count: int, *, keys: Any = OLD, first: int = 0) -> None:
    """Users u0, u1 ..., each with three tokens, and as many revocations that wait."""
    with override_settings(FIELD_ENCRYPTION_KEY=keys):
        for n in range(first, first + count):
            user = get_user_model().objects.create(username=f"u{n}")
            account = ProviderAccount.objects.create(user=user, external_id=f"u{n}")
            QuotaToken.objects.create(
                account=account, **{name: f"hush-{name}-{n}" for name in SECRETS}
            )
            PendingRevocation.objects.create(token=f"hush-pending-{n}")


def everything() -> list[tuple[Any, ...]]:
    """What is stored, as it is stored."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT id, access_token, refresh_token, id_token FROM django_quota_quotatoken "
            "ORDER BY id"
        )
        rows = list(cursor.fetchall())
        cursor.execute("SELECT id, token FROM django_quota_pendingrevocation ORDER BY id")
        return rows + list(cursor.fetchall())


def under(key: str, cell: str) -> bool:
    try:
        Fernet(key).decrypt(cell.encode())
    except Exception:
        return False
    return True


def secrets() -> list[tuple[str, ...]]:
    rows = QuotaToken.objects.order_by("pk")
    pending = PendingRevocation.objects.order_by("pk")
    return [
        *(
            (row.access_token.reveal(), row.refresh_token.reveal(), row.id_token.reveal())
            for row in rows
        ),
        *((row.token.reveal(),) for row in pending),
    ]


def before_the_swap(
    monkeypatch: pytest.MonkeyPatch, what: Callable[[], Any], *, times: int = 1
) -> None:
    """Let `what` happen after rows were read and before they are written."""
    real = Ciphertexts.swap
    left = [what] * times

    def interrupted(*of: Any) -> None:
        if left:
            left.pop()()
        real(*of)

    monkeypatch.setattr(Ciphertexts, "swap", interrupted)


class TestReencrypt:
    def test_all_comes_under_the_newest_key(self) -> None:
        make(3)
        before = secrets()

        report = reencrypt()

        assert report == KeyReport(newest=12)
        assert report.older_keys_may_go
        with override_settings(FIELD_ENCRYPTION_KEY=NEW):
            assert secrets() == before

    def test_what_is_empty_stays_empty(self) -> None:
        make(1)
        PendingRevocation.objects.all().delete()
        QuotaToken.objects.update(id_token="")

        assert reencrypt() == KeyReport(newest=2)
        assert everything()[0][3] == ""

    def test_what_is_under_it_already_is_left_alone(self) -> None:
        make(2, keys=NEW)
        before = everything()

        assert reencrypt() == KeyReport(newest=8)
        assert everything() == before

    def test_a_dry_run_changes_nothing(self) -> None:
        make(2)
        make(1, keys=NEW, first=2)
        before = everything()

        report = reencrypt(dry_run=True)

        assert report == KeyReport(newest=4, older=8)
        assert not report.older_keys_may_go
        assert everything() == before

    def test_a_key_that_is_in_the_list_twice(self) -> None:
        make(2)
        make(1, keys=NEW, first=2)
        with override_settings(FIELD_ENCRYPTION_KEY=[NEW, OLD, NEW.encode(), OLD, NEW]):
            assert reencrypt() == KeyReport(newest=12)

    def test_progress_is_told_after_each_chunk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("django_quota.tokens.reencryption.CHUNK", 2)
        make(3)
        told: list[tuple[int, int]] = []
        reencrypt(dry_run=True, progress=lambda done, total: told.append((done, total)))
        assert [done for done, _ in told] == [2, 3, 5, 6]
        assert {total for _, total in told} == {6}

    @pytest.mark.parametrize("terminal", [True, False])
    def test_command_shows_progress_on_a_terminal_only(
        self, terminal: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(3)
        stderr = io.StringIO()
        monkeypatch.setattr(stderr, "isatty", lambda: terminal)
        call_command("quota_reencrypt_tokens", stdout=io.StringIO(), stderr=stderr)
        assert ("\r6 of 6 rows" in stderr.getvalue()) is terminal
        assert terminal or not stderr.getvalue()

    def test_with_nothing_stored(self) -> None:
        assert reencrypt().older_keys_may_go

    @pytest.mark.parametrize("keys", [[NEW, "hush"], ["hush", OLD], [NEW, None], "hush", None])
    def test_a_malformed_key_is_an_error_before_anything_is_done(self, keys: Any) -> None:
        make(1)
        before = everything()
        with (
            override_settings(FIELD_ENCRYPTION_KEY=keys),
            pytest.raises(ConfigurationError, match="FIELD_ENCRYPTION_KEY") as raised,
        ):
            reencrypt()
        assert "hush" not in shown(raised.value)
        assert everything() == before

    def test_a_malformed_key_is_an_error_also_where_nothing_is_stored(self) -> None:
        with override_settings(FIELD_ENCRYPTION_KEY="x"), pytest.raises(ConfigurationError):
            reencrypt()

    def test_not_in_a_transaction(self) -> None:
        make(1)
        with pytest.raises(RuntimeError, match="durable"), transaction.atomic():
            reencrypt()

    def test_rows_are_read_and_written_in_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """However many there are, so many are in memory at once, and each chunk is one UPDATE."""
        monkeypatch.setattr(reencryption, "CHUNK", 10)
        make(25)
        with CaptureQueriesContext(connection) as queries:
            reencrypt()
        statements = [query["sql"] for query in queries.captured_queries]
        reads = [sql for sql in statements if "LIMIT 10" in sql]
        writes = [sql for sql in statements if sql.startswith("UPDATE") and "CASE" in sql]
        locks = [sql for sql in statements if "WHERE id IN" in sql and sql.startswith("SELECT")]
        # Two passes over two tables: chunks of 10, 10 and 5, and the one that finds none.
        assert len(reads) == 2 * 2 * 4
        # The first pass writes three chunks of each table.
        assert len(writes) == len(locks) == 2 * 3


class TestUnreadable:
    def test_is_counted_named_and_left_as_it_is(self) -> None:
        make(2)
        make(1, keys=OTHER, first=2)
        spoilt, _fine, foreign = QuotaToken.objects.order_by("pk")
        spoil("access_token", pk=spoilt.pk)
        before = everything()

        report = reencrypt()

        # The spoilt value; and three tokens and a revocation under a key that is not in the list.
        assert report.unreadable == 5
        assert report.newest == 7
        assert report.older == 0
        assert not report.older_keys_may_go
        assert report.examples[:2] == [
            f"QuotaToken {spoilt.pk}: access_token",
            f"QuotaToken {foreign.pk}: access_token",
        ]
        assert "gAAAA" not in repr(report)
        after = everything()
        assert after[0][1] == "spoilt"
        assert under(NEW, after[0][2])
        assert after[2] == before[2]
        assert after[5] == before[5]

    def test_can_be_read_again_with_its_key_back_in_the_list(self) -> None:
        make(1, keys=OTHER)
        assert reencrypt().unreadable == 4
        with override_settings(FIELD_ENCRYPTION_KEY=[NEW, OLD, OTHER]):
            assert reencrypt() == KeyReport(newest=4)

    def test_many_are_named_in_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reencryption, "MAX_EXAMPLES", 3)
        make(2, keys=OTHER)

        report = reencrypt()

        assert (report.unreadable, len(report.examples)) == (8, 3)


class TestBesideOthers:
    def test_a_live_renewal_is_not_overwritten(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make(3)
        account = ProviderAccount.objects.get(external_id="u1")
        before_the_swap(monkeypatch, lambda: store_tokens(account, token_reply("live")))

        report = reencrypt()

        row = QuotaToken.objects.get(account=account)
        assert row.access_token.reveal() == "quota_token_live.0"
        assert row.refresh_token.reveal() == "quota_refresh_live.0"
        assert report.older_keys_may_go  # its id_token, too, which no renewal touched

    def test_what_an_older_process_writes_meanwhile_is_met_again(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a rolling deployment some still have the old key in front."""
        make(3)
        account = ProviderAccount.objects.get(external_id="u0")

        def older() -> None:
            with override_settings(FIELD_ENCRYPTION_KEY=OLD):
                store_tokens(account, token_reply("older"))

        before_the_swap(monkeypatch, older)

        assert reencrypt().older_keys_may_go
        with override_settings(FIELD_ENCRYPTION_KEY=NEW):
            assert access.get_access_token(account.user) == "quota_token_older.0"

    def test_never_says_that_keys_may_go_which_somebody_still_writes_with(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        make(2)
        account = ProviderAccount.objects.get(external_id="u0")

        def older() -> None:
            with override_settings(FIELD_ENCRYPTION_KEY=OLD):
                store_tokens(account, token_reply("older"))

        before_the_swap(monkeypatch, older, times=100)

        assert not reencrypt().older_keys_may_go

    def test_a_row_that_is_gone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        make(2)
        PendingRevocation.objects.all().delete()
        before_the_swap(monkeypatch, lambda: QuotaToken.objects.order_by("pk")[0].delete())

        assert reencrypt().older_keys_may_go

    def test_a_locked_row_keeps_nobody_waiting(self) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite has no row locks")
        make(3)
        pk = QuotaToken.objects.order_by("pk")[1].pk
        with locked_elsewhere(pk):
            report = reencrypt()
        assert (report.newest, report.older) == (9, 3)
        assert not report.older_keys_may_go
        assert reencrypt().older_keys_may_go

    def test_a_row_that_is_unlocked_between_two_passes(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if connection.vendor == "sqlite":
            pytest.skip("SQLite has no row locks")
        make(3)
        pauses = []
        with locked_elsewhere(QuotaToken.objects.order_by("pk")[1].pk) as unlock:

            def pause(seconds: float) -> None:
                pauses.append(seconds)
                if len(pauses) == 2:
                    unlock()

            monkeypatch.setattr(reencryption, "time", SimpleNamespace(sleep=pause))
            monkeypatch.setattr(reencryption, "PAUSE", 0.5)
            assert reencrypt() == KeyReport(newest=12)

        assert pauses == [0.5] * 3

    def test_two_at_the_same_time(self) -> None:
        make(20)
        before = secrets()

        reports = begin_together([reencrypt] * 2)

        # One of them may have found rows locked by the other in each of its passes.
        assert any(report.older_keys_may_go for report in reports)
        assert reencrypt() == KeyReport(newest=80)
        assert secrets() == before


@pytest.mark.process
def test_killed_in_the_middle_and_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """`kill -9` in its third transaction: two are done, that one is not, and nothing is lost."""
    make(20)
    PendingRevocation.objects.all().delete()
    before = secrets()
    with programs.start("killed_reencrypting", FIELD_ENCRYPTION_KEY=[NEW, OLD]) as process:
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert [under(NEW, row[1]) for row in everything()] == [True] * 10 + [False] * 10
    assert secrets() == before

    report = reencrypt()

    assert report == KeyReport(newest=60)
    with override_settings(FIELD_ENCRYPTION_KEY=NEW):
        assert secrets() == before


class TestSample:
    def test_looks_at_both_ends_and_no_further(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reencryption, "SAMPLE", 2)
        make(10)
        first, middle, last = (QuotaToken.objects.order_by("pk")[n] for n in (0, 5, 9))
        assert sample().older == 4 * 3 + 4
        spoil("id_token", pk=middle.pk)
        assert sample().unreadable == 0
        spoil("id_token", pk=first.pk)
        spoil("id_token", pk=last.pk)

        report = sample()

        assert sorted(report.examples) == sorted(
            f"QuotaToken {row.pk}: id_token" for row in (first, last)
        )

    def test_counts_no_row_twice(self) -> None:
        make(3)
        assert sample().older == 12


class TestUnreadableColumns:
    def test_names_them(self) -> None:
        make(1)
        row = QuotaToken.objects.get()
        assert unreadable_columns(row) == []
        spoil("refresh_token", pk=row.pk)
        row.refresh_from_db()
        assert unreadable_columns(row) == ["refresh_token"]


@pytest.mark.parametrize(("column", "minutes"), [("access_token", 60), ("refresh_token", 0)])
def test_an_unreadable_value_is_an_error_where_it_is_used(column: str, minutes: int) -> None:
    make(1)
    QuotaToken.objects.update(expires_at=timezone.now() + timedelta(minutes=minutes))
    spoil(column, pk=QuotaToken.objects.get().pk)
    with pytest.raises(TokenUnreadable):
        access.get_access_token(get_user_model().objects.get())
    assert QuotaToken.objects.get().lease_owner == ""
