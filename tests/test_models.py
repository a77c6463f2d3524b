"""django_quota.models: the rows, what guards them, and what reading them may decrypt."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import IntegrityError, connection, transaction
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_quota.exceptions import TokenUnreadable
from django_quota.models import SECRETS, PendingRevocation, ProviderAccount, QuotaToken

# Always the same: they are part of test names, which all test processes must agree on.
KEYS = [base64.urlsafe_b64encode(bytes([n + 65]) * 32).decode() for n in range(2)]
HUSH = {name: f"hush-{name}" for name in SECRETS}

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def key() -> Iterator[None]:
    with override_settings(FIELD_ENCRYPTION_KEY=KEYS[0]):
        yield


def make_user(name: str = "ada") -> Any:
    return get_user_model().objects.create(username=name)


def make_account(who: str = "ada", **changes: Any) -> ProviderAccount:
    values = {"user": changes.pop("user", None) or make_user(who), "external_id": who}
    return ProviderAccount.objects.create(**(values | changes))


def make_token(who: str = "ada", **changes: Any) -> QuotaToken:
    return QuotaToken.objects.create(account=make_account(who), **(HUSH | changes))


def spoil(*columns: str) -> None:
    """These columns can no longer be decrypted, in any row."""
    with connection.cursor() as cursor:
        for column in columns:
            cursor.execute(f"UPDATE django_quota_quotatoken SET {column} = 'spoilt'")


class TestProviderAccount:
    def test_is_of_quota_unless_said_otherwise(self) -> None:
        assert make_account().provider == "quota"

    def test_one_identity_belongs_to_one_user(self) -> None:
        make_account("ada")
        with pytest.raises(IntegrityError):
            make_account("eve", external_id="ada")

    def test_one_user_has_one_wallet(self) -> None:
        user = make_account("ada").user
        with pytest.raises(IntegrityError):
            make_account("ada2", user=user)

    def test_the_same_id_at_another_provider_is_somebody_else(self) -> None:
        make_account("ada")
        make_account("eve", external_id="ada", provider="github")

        assert ProviderAccount.objects.count() == 2

    def test_the_issuer_is_no_part_of_the_identity(self) -> None:
        """A moved issuer must not turn every customer into a new one."""
        make_account("ada", issuer="https://api.usequota.ai")
        with pytest.raises(IntegrityError):
            make_account("eve", external_id="ada", issuer="https://usequota.ai")

    def test_holds_what_an_identity_may_hold(self) -> None:
        longest = make_account(
            external_id="s" * 255,
            email=f"{'a' * 64}@{'b' * 63}.{'c' * 63}.{'d' * 57}.com",
            name="n" * 255,
            picture="https://q.example/".ljust(1000, "p"),
        )
        longest.full_clean()
        longest.refresh_from_db()

        assert (len(longest.email), len(longest.name), len(longest.picture)) == (254, 255, 1000)

    @pytest.mark.parametrize(
        ("email", "shown"), [("ada@example.com", "ada@example.com"), ("", "ada")]
    )
    def test_is_called_by_its_email_or_else_its_id(self, email: str, shown: str) -> None:
        assert str(make_account(email=email)) == shown

    def test_goes_with_its_user(self) -> None:
        make_account().user.delete()
        assert not ProviderAccount.objects.exists()


class TestQuotaToken:
    def test_names_show_no_secret(self) -> None:
        token = QuotaToken.objects.with_secrets(*SECRETS).get(pk=make_token().pk)

        assert "hush" not in str(token) + repr(token) + f"{token!r:>5}"
        assert str(token) == f"Quota token {token.pk}"

    def test_one_account_has_one(self) -> None:
        account = make_token().account
        with pytest.raises(IntegrityError):
            QuotaToken.objects.create(account=account)

    def test_is_new_without_anything_in_it(self) -> None:
        token = QuotaToken.objects.create(account=make_account())

        assert (token.version, token.status, token.lease_owner) == (0, "active", "")
        assert (token.needs_sign_in, token.lasts(0)) == (False, False)

    def test_needs_sign_in_once_quota_has_ended_it(self) -> None:
        assert make_token(status=QuotaToken.Status.REAUTHENTICATION_REQUIRED).needs_sign_in

    @pytest.mark.parametrize(("seconds", "lasts"), [(-1, True), (30, True), (120, False)])
    def test_lasts_for_longer_than(self, seconds: float, lasts: bool) -> None:
        token = QuotaToken(expires_at=timezone.now() + timedelta(seconds=60))
        assert token.lasts(seconds) is lasts

    def test_expired_does_not_last(self) -> None:
        assert not QuotaToken(expires_at=timezone.now()).lasts(0)


class TestReadingSecrets:
    def deferred(self, token: QuotaToken) -> set[str]:
        return token.get_deferred_fields() & set(SECRETS)

    def test_lists_decrypt_nothing(self) -> None:
        make_token("ada")
        make_token("eve")
        spoil(*SECRETS)

        assert [str(token) for token in QuotaToken.objects.all()]
        assert [self.deferred(token) for token in QuotaToken.objects.all()] == [set(SECRETS)] * 2

    @pytest.mark.parametrize(
        "rows",
        [
            lambda: QuotaToken.objects.filter(status="active"),
            lambda: QuotaToken.objects.select_related("account__user"),
            lambda: QuotaToken.objects.order_by("-expires_at").exclude(version=7),
            lambda: QuotaToken._base_manager.all(),
            lambda: QuotaToken._default_manager.all(),
            lambda: [ProviderAccount.objects.get().token],
            lambda: [ProviderAccount.objects.prefetch_related("token").get().token],
        ],
    )
    def test_no_way_to_a_row_decrypts(self, rows: Any) -> None:
        make_token()
        spoil(*SECRETS)

        assert [self.deferred(token) for token in rows()] == [set(SECRETS)]

    @pytest.mark.parametrize("name", SECRETS)
    def test_with_secrets_loads_the_named_in_the_one_query(self, name: str) -> None:
        make_token()
        spoil(*(other for other in SECRETS if other != name))

        with CaptureQueriesContext(
            connection,
        ) as queries:
            token = QuotaToken.objects.with_secrets(name).get()
            assert getattr(token, name) == f"hush-{name}"
        assert len(queries) == 1
        assert self.deferred(token) == set(SECRETS) - {name}

    def test_with_secrets_replaces_an_earlier_choice(self) -> None:
        make_token()
        rows = QuotaToken.objects.with_secrets("access_token").with_secrets("id_token")

        assert self.deferred(rows.get()) == {"access_token", "refresh_token"}

    @pytest.mark.parametrize("name", SECRETS)
    def test_reading_one_secret_decrypts_no_other(self, name: str) -> None:
        make_token()
        spoil(*(other for other in SECRETS if other != name))
        token = QuotaToken.objects.get()

        assert getattr(token, name) == f"hush-{name}"
        assert self.deferred(token) == set(SECRETS) - {name}

    def test_reading_a_secret_leaves_unsaved_changes_alone(self) -> None:
        make_token()
        token = QuotaToken.objects.with_secrets("access_token").get()
        token.access_token = "new"
        token.scope = "openid"
        assert token.refresh_token == "hush-refresh_token"

        assert (token.access_token, token.scope) == ("new", "openid")

    def test_refresh_from_db_renews_a_loaded_secret(self) -> None:
        make_token()
        token = QuotaToken.objects.with_secrets("access_token").get()
        QuotaToken.objects.update(access_token="newer", version=9)
        token.refresh_from_db()

        assert (token.access_token, token.version) == ("newer", 9)
        assert self.deferred(token) == {"refresh_token", "id_token"}

    def test_refresh_from_db_of_a_secret_by_name(self) -> None:
        token = make_token()
        QuotaToken.objects.update(access_token="newer", version=9)
        token.refresh_from_db(fields=["access_token"])

        assert (token.access_token, token.version) == ("newer", 0)

    def test_saving_a_row_leaves_secrets_that_were_not_loaded(self) -> None:
        make_token()
        token = QuotaToken.objects.get()
        token.scope = "openid"
        with CaptureQueriesContext(connection) as queries:
            token.save()

        assert not any(name in query["sql"] for query in queries for name in SECRETS)
        assert QuotaToken.objects.with_secrets(*SECRETS).get().id_token == "hush-id_token"

    def test_for_user_finds_the_row_without_its_secrets(self) -> None:
        user = make_token("ada").account.user
        make_token("eve")
        token = QuotaToken.objects.for_user(user).get()
        assert token.account.user == user
        assert self.deferred(token) == set(SECRETS)

    def test_a_row_that_an_older_version_writes(self) -> None:
        """During a deployment; it knows nothing of the newest column."""
        fields = QuotaToken._meta.concrete_fields
        known = ", ".join(str(f.column) for f in fields if f.name not in ("id", "grant"))
        made, account = make_token(), make_account("eve")
        with connection.cursor() as cursor:
            cursor.execute(
                f"INSERT INTO django_quota_quotatoken ({known})"
                f" SELECT {known.replace('account_id', str(account.pk))}"
                f" FROM django_quota_quotatoken WHERE id = {made.pk}"
            )
        assert QuotaToken.objects.get(account=account).grant == 0

    def test_for_user_is_only_about_quota(self) -> None:
        user = make_token().account.user
        ProviderAccount.objects.update(provider="github")

        assert not QuotaToken.objects.for_user(user).exists()

    def test_for_nobody_is_nothing(self) -> None:
        make_token()
        assert not QuotaToken.objects.for_user(AnonymousUser()).exists()

    def test_the_admins_list_of_accounts_decrypts_nothing(self, admin_client: Client) -> None:
        make_token("eve")
        spoil(*SECRETS)

        assert admin_client.get("/admin/django_quota/provideraccount/").status_code == 200

    def test_the_admins_list_of_tokens_decrypts_nothing(self, admin_client: Client) -> None:
        make_token("eve")
        spoil(*SECRETS)

        assert admin_client.get("/admin/django_quota/quotatoken/").status_code == 200

    @pytest.mark.parametrize("page", ["provideraccount", "quotatoken"])
    def test_the_admins_pages_decrypt_nothing(self, page: str, admin_client: Client) -> None:
        token = make_token("eve")
        spoil(*SECRETS)
        pk = token.account.pk if page == "provideraccount" else token.pk

        answer = admin_client.get(f"/admin/django_quota/{page}/{pk}/change/")
        assert answer.status_code == 200

    def test_the_write_database_is_asked(self) -> None:
        """A lagging replica would serve a spent token."""
        with override_settings(DATABASE_ROUTERS=["tests.test_models.Router"]):
            assert QuotaToken.objects.all().db == "default"
            assert QuotaToken.objects.for_user(make_user()).db == "default"
            assert QuotaToken._base_manager.all().db == "default"
            assert ProviderAccount.objects.all().db == "replica"


class Router:
    """Reads go to a replica."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


class TestDeletion:
    def queued(self) -> list[str]:
        return [pending.token for pending in PendingRevocation.objects.order_by("pk")]

    @pytest.mark.parametrize(
        "delete",
        [
            lambda token: token.account.user.delete(),
            lambda token: token.account.delete(),
            lambda token: token.delete(),
            lambda token: QuotaToken.objects.all().delete(),
            lambda token: ProviderAccount.objects.all().delete(),
            lambda token: get_user_model().objects.all().delete(),
        ],
    )
    def test_queues_the_refresh_token_for_revocation(self, delete: Any) -> None:
        delete(make_token())

        assert not QuotaToken.objects.exists()
        assert self.queued() == ["hush-refresh_token"]
        assert PendingRevocation.objects.get().token_type_hint == "refresh_token"

    def test_queues_each_of_many(self) -> None:
        make_token("ada", refresh_token="a")
        make_token("eve", refresh_token="e")
        get_user_model().objects.all().delete()

        assert sorted(self.queued()) == ["a", "e"]

    def test_without_a_refresh_token_queues_nothing(self) -> None:
        make_token(refresh_token="").account.user.delete()

        assert self.queued() == []

    def test_with_an_unreadable_token_works_and_queues_nothing(self) -> None:
        user = make_token().account.user
        with override_settings(FIELD_ENCRYPTION_KEY=KEYS[1]):
            user.delete()
            assert not QuotaToken.objects.exists()
            assert not PendingRevocation.objects.exists()

    def test_with_other_secrets_unreadable_still_revokes(self) -> None:
        user = make_token().account.user
        spoil("access_token", "id_token")
        user.delete()

        assert self.queued() == ["hush-refresh_token"]

    def test_that_is_rolled_back_queues_nothing(self) -> None:
        user = make_token().account.user
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            user.delete()
            raise ZeroDivisionError

        assert QuotaToken.objects.exists()
        assert self.queued() == []


class TestPendingRevocation:
    def test_names_show_no_secret(self) -> None:
        pending = PendingRevocation.objects.create(token="hush")

        assert "hush" not in str(pending) + repr(pending)

    def test_is_encrypted(self) -> None:
        PendingRevocation.objects.create(token="hush")
        with override_settings(FIELD_ENCRYPTION_KEY=KEYS[1]), pytest.raises(TokenUnreadable):
            PendingRevocation.objects.get()

    def test_has_thirty_days(self) -> None:
        before = timezone.now()
        end = PendingRevocation.objects.create(token="hush").expires_at
        assert before <= end - timedelta(days=30) <= timezone.now()

    def test_outlives_the_user(self) -> None:
        make_token().account.user.delete()
        assert PendingRevocation.objects.count() == 1
