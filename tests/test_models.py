"""django_quota.models: the rows, what guards them, and what reading them may decrypt."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.db import IntegrityError, transaction
from django.test import Client, override_settings
from django.utils import timezone

from django_quota.exceptions import TokenUnreadable
from django_quota.fields import Sealed
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from tests.helpers.rows import SECRETS, make_account, make_token, make_user, spoil

# Always the same: they are part of test names, which all test processes must agree on.
KEYS = [base64.urlsafe_b64encode(bytes([n + 65]) * 32).decode() for n in range(2)]

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def key() -> Iterator[None]:
    with override_settings(FIELD_ENCRYPTION_KEY=KEYS[0]):
        yield


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
        token = QuotaToken.objects.get(pk=make_token().pk)

        assert "hush" not in str(token) + repr(token) + f"{token!r:>5}"
        assert str(token) == f"Quota token {token.pk}"

    def test_one_account_has_one(self) -> None:
        account = make_token().account
        with pytest.raises(IntegrityError):
            QuotaToken.objects.create(account=account)

    def test_is_new_without_anything_in_it(self) -> None:
        token = QuotaToken.objects.create(account=make_account())

        assert (token.version, token.status, token.lease_owner) == (0, "active", "")
        assert not token.needs_sign_in
        assert token.expires_at <= timezone.now()

    def test_needs_sign_in_once_quota_has_ended_it(self) -> None:
        assert make_token(status=QuotaToken.Status.REAUTHENTICATION_REQUIRED).needs_sign_in


class TestReadingSecrets:
    @pytest.mark.parametrize(
        "rows",
        [
            lambda: QuotaToken.objects.all(),
            lambda: QuotaToken.objects.select_related("account__user"),
            lambda: QuotaToken._base_manager.all(),
            lambda: [ProviderAccount.objects.get().token],
            lambda: [ProviderAccount.objects.select_related("token").get().token],
            lambda: [ProviderAccount.objects.prefetch_related("token").get().token],
        ],
    )
    def test_no_way_to_a_row_decrypts(self, rows: Any) -> None:
        make_token()
        spoil(*SECRETS)

        assert [token.access_token for token in rows()] == [Sealed("spoilt")]

    def test_refresh_from_db_reads_secrets_anew(self) -> None:
        token = make_token()
        QuotaToken.objects.update(access_token="newer", version=9)
        token.refresh_from_db()

        assert (token.access_token.reveal(), token.version) == ("newer", 9)

    def test_refresh_from_db_of_a_secret_by_name(self) -> None:
        token = make_token()
        QuotaToken.objects.update(access_token="newer", version=9)
        token.refresh_from_db(fields=["access_token"])

        assert (token.access_token.reveal(), token.version) == ("newer", 0)

    def test_deferred_secret_is_read_when_it_is_used(self) -> None:
        make_token()
        token = QuotaToken.objects.defer("access_token").get()

        assert token.access_token.reveal() == "hush-access_token"

    def test_saving_a_row_writes_its_ciphertexts_back_as_they_were(self) -> None:
        make_token()
        before = list(QuotaToken.objects.values(*SECRETS))
        token = QuotaToken.objects.get()
        token.scope = "openid"
        token.save()

        assert list(QuotaToken.objects.values(*SECRETS)) == before

    def test_for_user_finds_the_row(self) -> None:
        user = make_token("ada").account.user
        make_token("eve")
        token = QuotaToken.objects.for_user(user).get()
        assert token.account.user == user

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
        with override_settings(DATABASE_ROUTERS=["tests.helpers.databases.ReadFromReplica"]):
            assert QuotaToken.objects.all().db == "default"
            assert QuotaToken.objects.for_user(make_user()).db == "default"
            assert QuotaToken._base_manager.all().db == "default"
            assert PendingRevocation.objects.all().db == "default"
            assert ProviderAccount.objects.all().db == "replica"


class TestDeletion:
    def queued(self) -> list[str]:
        return [pending.token.reveal() for pending in PendingRevocation.objects.order_by("pk")]

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

    def test_while_the_key_is_missing_queues_it_for_when_it_is_back(self) -> None:
        user = make_token().account.user
        with override_settings(FIELD_ENCRYPTION_KEY=KEYS[1]):
            user.delete()
            assert not QuotaToken.objects.exists()
        assert self.queued() == ["hush-refresh_token"]

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
            PendingRevocation.objects.get().token.reveal()

    def test_has_thirty_days(self) -> None:
        before = timezone.now()
        end = PendingRevocation.objects.create(token="hush").expires_at
        assert before <= end - timedelta(days=30) <= timezone.now()

    def test_outlives_the_user(self) -> None:
        make_token().account.user.delete()
        assert PendingRevocation.objects.count() == 1
