"""The tokens of a sign-in are stored over the row that was read with its account."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.conf import settings as django_settings
from django.db import connection
from django.db.models.signals import pre_delete
from django.utils import timezone
from pytest_django.fixtures import Settings

from django_quota import accounts, connecting
from django_quota.exceptions import NotConnected, ProviderUnavailable
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.oidc.id_token import Identity
from django_quota.tokens import endings, locking, storing
from django_quota.tokens.reencryption import reencrypt
from tests.helpers.concurrency import closes_connections, locked_elsewhere
from tests.helpers.databases import (
    failing_commit,
    losing_the_confirmation,
    needs_second_connection,
    statements,
)
from tests.helpers.rows import (
    HUSH,
    make_account,
    make_token,
    make_user,
    pair,
    store_tokens,
    token_reply,
)

pytestmark = pytest.mark.django_db(transaction=True)

OLD = HUSH["refresh_token"]
AGAIN = ("quota_token_again.0", "quota_refresh_again.0")


def account_read(external_id: str = "ada") -> ProviderAccount:
    """The account as a sign-in reads it: together with its token row."""
    account = accounts.find(external_id, with_token=True)
    assert account is not None
    return account


def new_account() -> ProviderAccount:
    """The account of a first sign-in."""
    identity = Identity(issuer="https://api.usequota.ai", subject="ada")
    return accounts.create(identity, lambda claims: make_user())


def queued() -> list[str]:
    return sorted(pending.token.reveal() for pending in PendingRevocation.objects.all())


def of_tokens(seen: list[str]) -> list[str]:
    return [sql for sql in seen if "quotatoken" in sql.split("WHERE")[0]]


def test_row_read_with_the_account_is_written_in_one_statement() -> None:
    make_token()
    account = account_read()
    with statements() as seen:
        store_tokens(account, token_reply("again"), asked="openid")
    (written,) = of_tokens(seen)
    assert written.startswith("UPDATE")
    assert (pair(), queued()) == (AGAIN, [OLD])
    assert QuotaToken.objects.get().scope == "openid"


def test_new_account_gets_its_row_in_one_statement() -> None:
    account = new_account()
    with statements() as seen:
        store_tokens(account, token_reply("again"))
    (written,) = of_tokens(seen)
    assert written.startswith("INSERT")
    assert (pair(), queued()) == (AGAIN, [])


def test_account_shows_the_stored_tokens_afterwards() -> None:
    make_token()
    account = account_read()
    store_tokens(account, token_reply("again"))
    assert account.token.access_token.reveal() == AGAIN[0]


def test_renewal_since_the_row_was_read_is_superseded_and_its_token_revoked() -> None:
    make_token()
    account = account_read()
    with locking.locked(QuotaToken.objects.with_identity().get()) as row:
        assert row is not None
        storing.write(row, token_reply("renewed"), 0)

    store_tokens(account, token_reply("again"))

    assert (pair(), queued()) == (AGAIN, ["quota_refresh_renewed.0"])
    assert QuotaToken.objects.get().version == 2


def test_mark_to_sign_in_since_the_row_was_read_ends() -> None:
    seen = make_token()
    account = account_read()
    endings.require_sign_in(QuotaToken.objects.with_identity().get(pk=seen.pk), "admin")
    store_tokens(account, token_reply("again"))
    assert not QuotaToken.objects.get().needs_sign_in
    assert pair() == AGAIN


def test_status_is_written_also_where_it_looked_right() -> None:
    make_token()
    account = account_read()
    QuotaToken.objects.update(status=QuotaToken.Status.REAUTHENTICATION_REQUIRED, last_failure="x")
    store_tokens(account, token_reply("again"))
    row = QuotaToken.objects.get()
    assert (row.needs_sign_in, row.last_failure) == (False, "")


def test_row_deleted_since_it_was_read_is_created_again() -> None:
    """The sign-in is later than the disconnect."""
    make_token()
    account = account_read()
    QuotaToken.objects.get().delete()
    store_tokens(account, token_reply("again"))
    assert (pair(), queued()) == (AGAIN, [OLD])


def test_account_deleted_since_it_was_read_is_not_connected() -> None:
    make_token()
    account = account_read()
    ProviderAccount.objects.all().delete()
    with pytest.raises(NotConnected):
        store_tokens(account, token_reply("again"))
    assert not QuotaToken.objects.exists()
    assert set(queued()) == {OLD, AGAIN[1]}


def test_new_account_deleted_at_once_is_not_connected() -> None:
    account = new_account()
    ProviderAccount.objects.all().delete()
    with pytest.raises(NotConnected):
        store_tokens(account, token_reply("again"))
    assert queued() == [AGAIN[1]]


def test_account_of_another_user_since_it_was_read_is_not_connected() -> None:
    make_token()
    account = account_read()
    ProviderAccount.objects.update(user=make_user("eve"))
    with pytest.raises(NotConnected):
        store_tokens(account, token_reply("again"))
    assert pair()[1] == OLD
    assert queued() == [AGAIN[1]]


def test_new_account_given_to_another_user_at_once_is_not_connected() -> None:
    account = new_account()
    ProviderAccount.objects.update(user=make_user("eve"))
    with pytest.raises(NotConnected):
        store_tokens(account, token_reply("again"))
    assert not QuotaToken.objects.exists()
    assert queued() == [AGAIN[1]]


def test_row_that_another_sign_in_has_created_meanwhile_is_superseded() -> None:
    account = new_account()
    store_tokens(ProviderAccount.objects.get(), token_reply("other"))
    store_tokens(account, token_reply("again"))
    assert (pair(), queued()) == (AGAIN, ["quota_refresh_other.0"])


def test_lost_confirmation_of_the_first_row_is_no_second_one() -> None:
    account = new_account()
    with losing_the_confirmation():
        store_tokens(account, token_reply("again"))
    assert (pair(), queued()) == (AGAIN, [])
    assert QuotaToken.objects.get().version == 1


def test_lost_confirmation_of_the_first_row_does_not_undo_a_disconnect() -> None:
    account = new_account()
    with (
        pytest.raises(NotConnected),
        losing_the_confirmation(lambda: connecting.disconnect(account.user)),
    ):
        store_tokens(account, token_reply("again"))
    assert not QuotaToken.objects.exists()
    assert set(queued()) == {AGAIN[1]}


def test_reencryption_since_the_row_was_read_is_kept(settings: Settings) -> None:
    """What the reply leaves out is not written."""
    make_token()
    account = account_read()
    key = Fernet.generate_key().decode()
    settings.FIELD_ENCRYPTION_KEY = [key, django_settings.FIELD_ENCRYPTION_KEY]
    reencrypt()
    settings.FIELD_ENCRYPTION_KEY = [key]

    store_tokens(account, replace(token_reply("again"), refresh_token=None))

    assert pair() == (AGAIN[0], OLD)
    assert QuotaToken.objects.get().id_token.reveal() == HUSH["id_token"]


def test_first_row_whose_commit_failed_is_created_again() -> None:
    """As by a serialization failure: nothing was stored, and nobody has disconnected."""
    account = new_account()
    with failing_commit():
        store_tokens(account, token_reply("again"))
    assert (pair(), queued()) == (AGAIN, [])


def test_token_reencrypted_since_the_row_was_read_is_queued_with_the_new_key(
    settings: Settings,
) -> None:
    """Nothing needs the old key any more, so it may be taken out."""
    make_token()
    account = account_read()
    key = Fernet.generate_key().decode()
    settings.FIELD_ENCRYPTION_KEY = [key, django_settings.FIELD_ENCRYPTION_KEY]
    reencrypt()

    store_tokens(account, token_reply("again"))

    settings.FIELD_ENCRYPTION_KEY = [key]
    assert (pair(), queued()) == (AGAIN, [OLD])


def test_lease_of_a_renewal_stays_without_a_refresh_token() -> None:
    make_token()
    account = account_read()
    until = timezone.now() + timedelta(seconds=20)
    QuotaToken.objects.update(lease_owner="other", lease_until=until)
    store_tokens(account, replace(token_reply("again"), refresh_token=None))
    assert QuotaToken.objects.get().lease_owner == "other"
    store_tokens(account_read(), token_reply("again"))
    assert QuotaToken.objects.get().lease_owner == ""


@needs_second_connection
def test_disconnect_beside_the_first_tokens_of_a_sign_in_can_be_repeated() -> None:
    """The row is created after the disconnect has looked for rows, and refers to the account."""
    account = make_account()
    user = account.user

    def sign_in(**kwargs: Any) -> None:
        pre_delete.disconnect(sign_in, sender=ProviderAccount)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(closes_connections(store_tokens), account, token_reply("again")).result(30)

    user.set_password("so that the link is deleted, too")
    pre_delete.connect(sign_in, sender=ProviderAccount)
    try:
        with pytest.raises(ProviderUnavailable):
            connecting.disconnect(user)
    finally:
        pre_delete.disconnect(sign_in, sender=ProviderAccount)
    assert (pair(), queued()) == (AGAIN, [])

    connecting.disconnect(user)
    assert not ProviderAccount.objects.exists()
    assert queued() == [AGAIN[1]]


@needs_second_connection
def test_row_that_stays_locked_is_waited_for_in_the_database_and_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen = make_token()
    account = account_read()
    monkeypatch.setattr(locking, "LOCK_WAIT", 0.1)
    with locked_elsewhere(seen.pk), pytest.raises(ProviderUnavailable, match="stayed locked"):
        store_tokens(account, token_reply("again"))
    assert pair()[1] == OLD
    assert queued() == [AGAIN[1]]


@pytest.mark.skipif("connection.vendor != 'postgresql'")
def test_limit_of_the_wait_ends_with_the_transaction() -> None:
    make_token()

    def limit() -> Any:
        with connection.cursor() as cursor:
            cursor.execute("SHOW lock_timeout")
            return cursor.fetchone()

    before = limit()
    store_tokens(account_read(), token_reply("again"))
    assert limit() == before


def test_account_read_without_its_row_is_stored_under_the_lock() -> None:
    account = make_account()
    store_tokens(account, token_reply("again"))
    assert pair() == AGAIN
