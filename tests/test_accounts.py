"""Who is who: the identity rules, and mozilla-django-oidc's extension points."""

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import authenticate, get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.contenttypes.models import ContentType
from django.db import connection
from django.test import RequestFactory
from django.test.utils import CaptureQueriesContext

from django_quota import accounts, connecting
from django_quota.backends import QuotaBackend
from django_quota.exceptions import SignInFailed
from django_quota.models import ProviderAccount
from django_quota.oidc.id_token import Identity
from django_quota.signals import account_linked
from tests.helpers.concurrency import begin_together
from tests.shown import listening

pytestmark = pytest.mark.django_db(transaction=True)

User = get_user_model()


def identity(sub: str = "sub-1", **claims: Any) -> Identity:
    return Identity.from_claims({"iss": "https://api.usequota.ai", "sub": sub, **claims})


def verified(email: str) -> dict[str, Any]:
    return {"email": email, "email_verified": True}


def sign_in(who: Identity, backend: type[QuotaBackend] = QuotaBackend) -> Any:
    return backend().authenticate(None, quota_identity=who)


def refused(who: Identity, backend: type[QuotaBackend] = QuotaBackend) -> str:
    with pytest.raises(SignInFailed) as caught:
        sign_in(who, backend)
    return caught.value.code


class TestIdentity:
    def test_is_the_sub_and_not_the_email(self) -> None:
        ada = sign_in(identity("sub-1", email="ada@example.com"))
        other = sign_in(identity("sub-2", email="ada@example.com"))
        assert ada != other

    def test_an_email_that_changed_at_quota_is_noted_on_the_account_only(self) -> None:
        user = sign_in(identity(**verified("old@example.com")))
        assert sign_in(identity(**verified("new@example.com"))) == user
        user.refresh_from_db()
        assert (user.email, user.quota_accounts.get().email) == (
            "old@example.com",
            "new@example.com",
        )

    def test_an_unverified_email_is_not_the_users(self) -> None:
        """Else a stranger could take the address of somebody else here."""
        user = sign_in(identity(email="boss@example.com", email_verified=False))
        assert user.email == ""
        assert user.quota_accounts.get().email == "boss@example.com"

    def test_a_username_that_somebody_chose_for_themselves(self) -> None:
        squatter = User.objects.create_user("quota-sub-1")
        user = sign_in(identity("sub-1"))
        assert user != squatter
        assert user.username.startswith("quota-sub-1-")

    def test_who_replaced_their_wallet_can_sign_in_with_the_old_one_again(self) -> None:
        first = sign_in(identity("sub-1"))
        connecting.connect(
            first, external_id="sub-2", issuer="https://api.usequota.ai", replaces="sub-1"
        )
        assert sign_in(identity("sub-1")) != first
        assert sign_in(identity("sub-2")) == first

    def test_the_case_of_a_sub_matters(self) -> None:
        first = sign_in(identity("Sub"))
        assert sign_in(identity("sub")) != first

    def test_a_superusers_email_opens_nothing(self, settings: Any) -> None:
        settings.QUOTA_ALLOW_DUPLICATE_EMAIL = True
        root = User.objects.create_superuser("root", "root@example.com", "x")
        for claim in (False, True):
            for link in (False, True):
                settings.QUOTA_LINK_BY_EMAIL = link
                who = identity(
                    f"sub-{claim}-{link}", email="root@example.com", email_verified=claim
                )
                user = sign_in(who)
                assert user != root
                assert not user.is_staff and not user.is_superuser

    def test_a_password_set_after_connecting_ends_the_way_in(self) -> None:
        """A second factor may come with it, and the wallet would go round it."""
        user = User.objects.create_user("ada")
        connecting.connect(user, external_id="sub-1", issuer="https://api.usequota.ai")
        assert sign_in(identity("sub-1")) == user
        user.set_password("correct horse")
        user.save()
        assert refused(identity("sub-1")) == "wallet_only"

    def test_a_setting_taken_back_ends_the_way_in(self, settings: Any) -> None:
        settings.QUOTA_CONNECT_SIGNS_IN = True
        user = User.objects.create_user("ada", password="x")
        connecting.connect(user, external_id="sub-1", issuer="https://api.usequota.ai")
        assert sign_in(identity("sub-1")) == user
        settings.QUOTA_CONNECT_SIGNS_IN = False
        assert refused(identity("sub-1")) == "wallet_only"

    def test_a_replaced_wallet_is_the_way_in_that_the_old_one_was(self) -> None:
        user = sign_in(identity("sub-1"))
        user.set_password("x")
        user.save()
        connecting.connect(
            user, external_id="sub-2", issuer="https://api.usequota.ai", replaces="sub-1"
        )
        assert sign_in(identity("sub-2")) == user

    def test_known_email_makes_no_second_user(self) -> None:
        User.objects.create_user("ada", "Ada@example.com", "x")
        who = identity(email="ada@example.com", email_verified=True)
        assert refused(who) == "email_known"
        assert User.objects.count() == 1

    def test_known_email_is_named_where_sign_up_is_closed(self, settings: Any) -> None:
        """They have an account: that there are no new ones would leave them nowhere."""
        settings.QUOTA_CREATE_USER = False
        User.objects.create_user("ada", "ada@example.com", "x")
        assert refused(identity(**verified("ada@example.com"))) == "email_known"
        assert refused(identity(email="ada@example.com")) == "sign_up_closed"

    def test_known_email_of_the_person_who_signs_in_twice_at_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The other sign-in has made the user between our looks."""
        who = identity(email="ada@example.com", email_verified=True)
        real = accounts.is_email_known

        def meanwhile(identity: Identity) -> bool:
            monkeypatch.setattr(accounts, "is_email_known", real)
            sign_in(who)
            return real(identity)

        monkeypatch.setattr(accounts, "is_email_known", meanwhile)
        assert sign_in(who) == User.objects.get()

    def test_two_first_sign_ins_at_once_make_one_user(self) -> None:
        def run() -> Any:
            return sign_in(identity(email="ada@example.com")).pk

        users = set(begin_together([run] * 8))
        assert len(users) == 1
        assert User.objects.count() == ProviderAccount.objects.count() == 1

    def test_an_inactive_user_stays_out(self) -> None:
        user = sign_in(identity())
        User.objects.update(is_active=False)
        assert refused(identity()) == "account_inactive"
        assert QuotaBackend().get_user(user.pk) is None

    def test_closed_to_new_people(self, settings: Any) -> None:
        user = sign_in(identity())
        settings.QUOTA_CREATE_USER = False
        assert sign_in(identity()) == user
        assert refused(identity("sub-2")) == "sign_up_closed"
        assert User.objects.count() == 1

    def test_disconnected_people_find_their_account_again(self) -> None:
        user = sign_in(identity())
        connecting.disconnect(user)
        assert sign_in(identity()) == user

    def test_disconnecting_takes_back_what_connect_wallet_gave(self) -> None:
        """The wallet may have been somebody else's, who could sign in as this user from then on."""
        user = User.objects.create_user("ada", "ada@example.com", "password")
        connecting.connect(user, external_id="sub-of-somebody", issuer="https://api.usequota.ai")
        connecting.disconnect(user)
        assert sign_in(identity("sub-of-somebody")) != user


class TestLinksThatStay:
    """The link of a disconnected wallet stays only where it is the user's one way in."""

    def test_of_a_user_whom_a_sign_in_made(self) -> None:
        user = sign_in(identity())
        assert connecting.disconnect(user) is True
        assert sign_in(identity()) == user

    def test_not_once_that_user_has_a_password(self) -> None:
        user = sign_in(identity())
        user.set_password("password")
        user.save()
        assert connecting.disconnect(user) is False
        assert not ProviderAccount.objects.exists()

    def test_not_of_a_user_of_another_login(self) -> None:
        """RemoteUser, LDAP, SAML, a social login: they have no password either."""
        user = User.objects.create_user("ada")
        connecting.connect(user, external_id="sub-of-somebody", issuer="https://api.usequota.ai")
        assert connecting.disconnect(user) is False
        assert sign_in(identity("sub-of-somebody")) != user

    def test_not_of_a_user_who_was_linked(self, settings: Any) -> None:
        settings.QUOTA_LINK_BY_EMAIL = True
        user = User.objects.create_user("ada", "ada@example.com")
        assert sign_in(identity(**verified("ada@example.com"))) == user
        assert connecting.disconnect(user) is False

    def test_of_another_wallet_that_replaces_the_first(self) -> None:
        user = sign_in(identity("sub-1"))
        issuer = "https://api.usequota.ai"
        connecting.connect(user, external_id="sub-2", issuer=issuer, replaces="sub-1")
        assert connecting.disconnect(user) is True
        assert sign_in(identity("sub-2")) == user


class TestLinkByEmail:
    @pytest.fixture(autouse=True)
    def switched_on(self, settings: Any) -> None:
        settings.QUOTA_LINK_BY_EMAIL = True
        settings.QUOTA_ALLOW_DUPLICATE_EMAIL = True

    def test_links_a_verified_email(self) -> None:
        user = User.objects.create_user("ada", "Ada@Example.com", "x")
        assert sign_in(identity(email="ada@example.com", email_verified=True)) == user

    def test_verified_email_links_nobody_without_the_setting(self, settings: Any) -> None:
        settings.QUOTA_LINK_BY_EMAIL = False
        user = User.objects.create_user("ada", "ada@example.com", "x")
        assert sign_in(identity(**verified("ada@example.com"))) != user

    def test_sends_a_signal_of_its_own(self) -> None:
        user = User.objects.create_user("ada", "ada@example.com", "x")
        with listening(account_linked) as heard:
            sign_in(identity(**verified("ada@example.com")))
            sign_in(identity(**verified("ada@example.com")))
            sign_in(identity("sub-2"))
        assert [(said["user"], said["account"].external_id) for said in heard] == [(user, "sub-1")]

    def test_a_receiver_that_raises_undoes_the_link(self) -> None:
        def receiver(**said: Any) -> None:
            raise RuntimeError("the API keys could not be ended")

        User.objects.create_user("ada", "ada@example.com", "x")
        account_linked.connect(receiver)
        try:
            with pytest.raises(RuntimeError):
                sign_in(identity(**verified("ada@example.com")))
        finally:
            account_linked.disconnect(receiver)
        assert not ProviderAccount.objects.exists()
        assert User.objects.get().has_usable_password()

    def test_the_password_of_whoever_made_that_user_opens_nothing(self) -> None:
        """Nobody has shown that they own the address, and now there is a wallet behind it."""
        user = User.objects.create_user("mallory", "ada@example.com", "mallory's")
        sign_in(identity(**verified("ada@example.com")))
        user.refresh_from_db()
        assert not user.has_usable_password()

    @pytest.mark.parametrize("claim", [False, None, "true", 1])
    def test_an_unverified_one_is_not_enough(self, claim: Any) -> None:
        user = User.objects.create_user("ada", "ada@example.com", "x")
        assert sign_in(identity(email="ada@example.com", email_verified=claim)) != user

    @pytest.mark.parametrize("rights", ["groups", "user_permissions"])
    def test_one_with_rights_of_another_kind_is_not_linked(self, rights: str) -> None:
        user = User.objects.create_user("ada", "ada@example.com", "x")
        kind = ContentType.objects.get_for_model(User)
        given = {
            "groups": Group.objects.create(name="editors"),
            "user_permissions": Permission.objects.create(codename="edit", content_type=kind),
        }
        getattr(user, rights).add(given[rights])
        assert sign_in(identity(**verified("ada@example.com"))) != user

    @pytest.mark.parametrize("right", ["is_staff", "is_superuser"])
    def test_never_links_a_user_with_rights(self, right: str) -> None:
        user = User.objects.create_user("ada", "ada@example.com", "x", **{right: True})
        assert sign_in(identity(email="ada@example.com", email_verified=True)) != user

    def test_nor_one_of_two(self) -> None:
        for name in ("one", "two"):
            User.objects.create_user(name, "ada@example.com", "x")
        user = sign_in(identity(email="ada@example.com", email_verified=True))
        assert user.username.startswith("quota-")

    def test_nor_one_who_has_a_wallet(self) -> None:
        first = sign_in(identity("sub-1", email="ada@example.com", email_verified=True))
        assert sign_in(identity("sub-2", email="ada@example.com", email_verified=True)) != first

    def test_nor_one_who_is_switched_off(self) -> None:
        User.objects.create_user("ada", "ada@example.com", "x", is_active=False)
        user = sign_in(identity(email="ada@example.com", email_verified=True))
        assert user.is_active


class TestExtensionPoints:
    def test_verify_claims(self) -> None:
        class OneDomain(QuotaBackend):
            def verify_claims(self, claims: Any) -> bool:
                return str(claims.get("email", "")).endswith("@example.com")

        assert sign_in(identity(email="ada@example.com"), OneDomain)
        assert refused(identity("sub-2", email="ada@evil.example"), OneDomain) == "sign_in_refused"

    def test_create_user_get_username_and_update_user(self) -> None:
        class Named(QuotaBackend):
            def get_username(self, claims: Any) -> str:
                return str(claims["name"]).lower()

            def update_user(self, user: Any, claims: Any) -> Any:
                user.first_name = claims["name"]
                user.save()
                return user

        user = sign_in(identity(name="Ada"), Named)
        assert (user.username, user.first_name) == ("ada", "Ada")

    def test_filter_users_by_claims(self) -> None:
        user = User.objects.create_user("legacy-7")

        class ByEmployee(QuotaBackend):
            def filter_users_by_claims(self, claims: Any) -> Any:
                return User.objects.filter(username=f"legacy-{claims['employee']}")

        assert sign_in(identity(employee=7), ByEmployee) == user

    @pytest.mark.parametrize("sub", ["x" * 255, "auth0|user one", "ünïcode"])
    def test_any_sub_makes_a_valid_username(self, sub: str) -> None:
        user = sign_in(identity(sub))
        user.full_clean(exclude=["password"])
        assert sign_in(identity(sub)) == user


class TestBackend:
    def test_takes_no_other_credentials(self) -> None:
        """Not a password's, and not those of another OpenID Connect backend."""
        request = RequestFactory().get("/callback?code=x&state=y")
        assert authenticate(request, username="ada", password="x") is None
        assert authenticate(request, nonce="x", code_verifier="y") is None

    def test_costs_nothing_to_build(self, django_assert_num_queries: Any, settings: Any) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        del settings.QUOTA_CLIENT_ID
        with django_assert_num_queries(0):
            QuotaBackend()


@pytest.mark.skipif("connection.vendor != 'postgresql'", reason="the page is about PostgreSQL")
def test_index_of_the_documentation_serves_the_search_for_the_address() -> None:
    """docs/production.rst: without it, a first sign-in reads all users."""
    page = (Path(__file__).parent.parent / "docs" / "production.rst").read_text()
    (statement,) = re.findall(r"CREATE INDEX .*;", page)
    name = statement.split()[2]
    with connection.cursor() as cursor:
        cursor.execute(statement)
        try:
            with CaptureQueriesContext(connection) as queries:
                assert not accounts.is_email_known(identity(**verified("ada@example.com")))
            cursor.execute("SET enable_seqscan = off")  # the table is too small for an index
            cursor.execute("EXPLAIN " + queries[0]["sql"])
            assert name in str(cursor.fetchall())
        finally:
            cursor.execute(f"RESET enable_seqscan; DROP INDEX {name}")
