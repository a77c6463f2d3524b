"""The row that a billed call asks for: as the ORM would find it, and compiled once."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models.sql.compiler import SQLCompiler
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

from django_quota.exceptions import TokenUnreadable
from django_quota.models import ProviderAccount, QuotaToken
from django_quota.tokens.locking import locked
from django_quota.tokens.lookup import (
    COLUMNS,
    token_row,
    token_row_again,
    token_row_of_account,
)
from tests.helpers.rows import make_token, make_user, spoil

pytestmark = pytest.mark.django_db


def test_everybodys_own_row() -> None:
    for name in ("ada", "eve"):
        made = make_token(name, access_token=f"hush-{name}")
        with CaptureQueriesContext(connection) as queries:
            row = token_row(made.account.user)
            assert row == made
            for column in COLUMNS:  # dates and secrets, too, as the ORM gives them
                assert getattr(row, column) == getattr(made, column)
        assert len(queries) == 1
        assert row._state.db == made._state.db and not row._state.adding
        assert row.account == made.account  # what is deferred is loaded when it is asked for


def test_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_token().account.user
    token_row(user)

    def compiles(*args: Any) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(SQLCompiler, "as_sql", compiles)
    assert token_row(user) is not None


def test_nobodys_is_none() -> None:
    make_token()
    with CaptureQueriesContext(connection) as queries:
        assert token_row(AnonymousUser()) is None
    assert len(queries) == 0
    assert token_row(make_user("bob")) is None


def test_is_only_about_quota() -> None:
    user = make_token().account.user
    ProviderAccount.objects.update(provider="github")
    assert token_row(user) is None


def test_nothing_is_decrypted() -> None:
    user = make_token().account.user
    spoil("access_token")
    row = token_row(user)
    assert row is not None
    with pytest.raises(TokenUnreadable):
        row.access_token.reveal()


def test_row_by_its_key_and_by_its_account() -> None:
    made, other = make_token("ada"), make_token("eve")
    found = token_row(made.account.user)
    assert found is not None
    for row in (token_row_again(found), token_row_of_account(made.account)):
        assert row is not None
        assert row == made
        assert row.get_deferred_fields() == set()
        assert row.refresh_token == made.refresh_token
    gone = token_row(other.account.user)
    assert gone is not None
    other.delete()
    assert token_row_again(gone) is None
    assert token_row_of_account(other.account) is None


@pytest.mark.parametrize("column", ["user_id", "external_id"])
def test_row_of_another_identity_under_the_same_keys_is_not_found(column: str) -> None:
    """As in another tenant's schema: the primary keys are the same, the person is not."""
    made = make_token("ada")
    seen = token_row(made.account.user)
    assert seen is not None
    theirs = {"user_id": make_user("eve").pk, "external_id": "user_of_eve"}[column]
    ProviderAccount.objects.update(**{column: theirs})

    assert token_row_again(seen) is None
    assert token_row_of_account(made.account) is None
    with locked(seen) as row:
        assert row is None


@pytest.mark.parametrize("stranger", [None, 1, "1", object()])
def test_of_what_is_no_user(stranger: Any) -> None:
    """Another row with the same key would pay."""
    with pytest.raises(TypeError, match="is not a user"):
        token_row(stranger)


def test_the_time_zone_setting_of_the_moment() -> None:
    user = make_token().account.user
    token_row(user)
    with override_settings(USE_TZ=False):
        row = token_row(user)
        assert row is not None
        assert row.expires_at == QuotaToken.objects.get().expires_at


def test_the_write_database_is_asked() -> None:
    """A lagging replica would serve a spent token."""
    user = make_token().account.user
    with override_settings(DATABASE_ROUTERS=["tests.helpers.databases.ReadFromReplica"]):
        assert token_row(user) is not None
