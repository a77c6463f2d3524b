"""The row that was read for the check before a view is used for the first call of the view."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, sync_to_async
from django.contrib.auth import get_user_model
from django.db import connection
from django.http import HttpRequest
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

from django_quota.connecting import disconnect
from django_quota.exceptions import (
    ConfigurationError,
    ImpersonationRefused,
    NotConnected,
    ReauthenticationRequired,
)
from django_quota.models import ProviderAccount, QuotaToken
from django_quota.tokens import first_look
from django_quota.tokens.access import (
    acheck_wallet,
    aget_access_token,
    check_wallet,
    get_access_token,
)
from django_quota.tokens.endings import require_sign_in
from django_quota.tokens.payer import aget_payer, during
from tests.helpers.concurrency import run_async
from tests.helpers.rows import expire, store_tokens, token_reply, user_with_wallet

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def ada() -> Any:
    return user_with_wallet()


@pytest.fixture
def request_(ada: Any) -> HttpRequest:
    request = RequestFactory().get("/")
    request.user = ada
    request.session = {}  # type: ignore[assignment]
    return request


def looks(work: Callable[[], object]) -> int:
    """How many queries `work` makes."""
    with CaptureQueriesContext(connection) as queries:
        work()
    return len(queries)


def test_first_call_makes_no_query_and_the_second_does(ada: Any, request_: HttpRequest) -> None:
    with during(request_):
        assert looks(lambda: check_wallet(ada)) == 1
        assert looks(lambda: get_access_token(ada)) == 0
        assert looks(lambda: get_access_token(ada)) == 1


def test_call_without_a_request_makes_a_query(ada: Any) -> None:
    check_wallet(ada)
    assert looks(lambda: get_access_token(ada)) == 1


def test_equal_user_makes_a_query(ada: Any, request_: HttpRequest) -> None:
    """In another database or schema, the same primary key is another person's."""
    with during(request_):
        check_wallet(ada)
        equal = get_user_model().objects.get(pk=ada.pk)
        assert looks(lambda: get_access_token(equal)) == 1


def test_user_whose_key_has_changed_makes_a_query(ada: Any, request_: HttpRequest) -> None:
    with during(request_):
        check_wallet(ada)
        ada.pk += 1
        with pytest.raises(NotConnected):
            get_access_token(ada)


def test_next_request_makes_a_query(ada: Any, request_: HttpRequest) -> None:
    with during(request_):
        check_wallet(ada)
    with during(RequestFactory().get("/")):
        assert looks(lambda: get_access_token(ada)) == 1


def test_token_that_quota_has_refused_is_read_again(ada: Any, request_: HttpRequest) -> None:
    with during(request_):
        check_wallet(ada)
        QuotaToken.objects.update(access_token="newer")
        assert get_access_token(ada, rejected="token") == "newer"


def test_row_is_read_again_after_a_second(
    ada: Any, request_: HttpRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_look, "MAX_AGE", 0)
    with during(request_):
        check_wallet(ada)
        assert looks(lambda: get_access_token(ada)) == 1


def test_token_that_has_expired_meanwhile_is_read_again(
    ada: Any, request_: HttpRequest, settings: Any
) -> None:
    with during(request_):
        check_wallet(ada)
        QuotaToken.objects.update(access_token="newer")
        settings.QUOTA_REFRESH_LEEWAY = 7200
        expire(9000)
        assert run_async(aget_access_token(ada)) == "newer"


def test_view_that_disconnects_the_wallet_gets_no_token(ada: Any, request_: HttpRequest) -> None:
    with during(request_):
        check_wallet(ada)
        disconnect(ada)
        with pytest.raises(NotConnected):
            get_access_token(ada)


def test_view_that_ends_the_connection_gets_no_token(ada: Any, request_: HttpRequest) -> None:
    with during(request_):
        check_wallet(ada)
        require_sign_in(QuotaToken.objects.with_identity("default").get(), "ended")
        with pytest.raises(ReauthenticationRequired):
            get_access_token(ada)


def test_wallet_that_another_object_has_deleted_gives_no_token(
    ada: Any, request_: HttpRequest
) -> None:
    with during(request_):
        check_wallet(ada)
        get_user_model().objects.filter(pk=ada.pk).delete()
        with pytest.raises(NotConnected):
            get_access_token(ada)


def test_view_that_stores_other_tokens_gets_those(ada: Any, request_: HttpRequest) -> None:
    with during(request_):
        check_wallet(ada)
        account = ProviderAccount.objects.select_related("token").get()
        store_tokens(account, token_reply("newer"))
        assert get_access_token(ada) == "quota_token_newer.0"


def test_site_with_database_routers_reads_the_row_again(
    ada: Any, request_: HttpRequest, settings: Any
) -> None:
    """Within a view, it may bill the wallet that the same user has in another tenant."""
    settings.DATABASE_ROUTERS = [f"{__name__}.StrictRouter"]
    with during(request_):
        check_wallet(ada)
        assert looks(lambda: get_access_token(ada)) == 1


def test_check_on_the_event_loop_says_what_to_await(ada: Any) -> None:
    async def view() -> None:
        with pytest.raises(ConfigurationError, match="await aget_access_token"):
            check_wallet(ada)

    run_async(view())


class TestSecrecy:
    """What error reporters and caches do with a request."""

    @pytest.fixture(autouse=True)
    def checked(self, ada: Any, request_: HttpRequest) -> None:
        QuotaToken.objects.update(access_token="hush-token")
        with during(request_):
            check_wallet(ada)

    def test_no_text_of_the_request_has_the_token(self, request_: HttpRequest) -> None:
        assert "first_look" in repr(vars(request_))
        assert "hush" not in repr(vars(request_)) + json.dumps(vars(request_), default=repr)

    def test_pickled_request_has_no_token(self, request_: HttpRequest) -> None:
        kept = {name: value for name, value in vars(request_).items() if "first_look" in name}
        assert b"hush" not in pickle.dumps(kept)
        assert list(pickle.loads(pickle.dumps(kept)).values()) == [None]


@pytest.mark.parametrize("path", ["/class", "/spends"], ids=["no call", "missing scope"])
def test_nothing_is_kept_after_the_view(ada: Any, settings: Any, path: str) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]
    settings.ROOT_URLCONF = "tests.urls_required"
    QuotaToken.objects.update(scope="openid")
    client = Client(SERVER_NAME="localhost")
    client.force_login(ada, "django.contrib.auth.backends.ModelBackend")
    response = client.get(path, headers={"Accept": "*/*"})
    assert response.status_code == (403 if path == "/spends" else 200)
    assert "first_look" not in repr(vars(response.wsgi_request))


class TestInAsyncCode:
    @pytest.fixture
    def hops(self, monkeypatch: pytest.MonkeyPatch) -> list[object]:
        """What has entered a thread."""
        entered: list[object] = []
        real = SyncToAsync.__call__

        async def noted(self: Any, *args: Any, **options: Any) -> Any:
            entered.append(self.func)
            return await real(self, *args, **options)

        monkeypatch.setattr(SyncToAsync, "__call__", noted)
        return entered

    @staticmethod
    def within(request: HttpRequest, work: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        async def within() -> Any:
            with during(request):
                return await work()

        return run_async(within())

    def test_check_and_first_call_enter_a_thread_once(
        self, ada: Any, request_: HttpRequest, hops: list[object]
    ) -> None:
        async def view() -> None:
            assert await acheck_wallet(request_) is ada
            assert await aget_access_token(ada) == "token"
            assert len(hops) == 1
            assert await aget_access_token(ada) == "token"
            assert len(hops) == 2

        self.within(request_, view)

    def test_payer_is_known_after_the_check(
        self, ada: Any, request_: HttpRequest, hops: list[object]
    ) -> None:
        async def view() -> None:
            await acheck_wallet(request_)
            hops.clear()
            assert await aget_payer(request_) is ada
            assert hops == []
            request_.user = bob = get_user_model()(pk=2, username="bob")
            assert await aget_payer(request_) is bob

        self.within(request_, view)

    def test_own_auser_of_the_project_is_asked(self, ada: Any, request_: Any) -> None:
        bob = get_user_model()(pk=2, username="bob")

        async def auser() -> Any:
            return bob

        async def view() -> None:
            request_.user = SimpleLazyObject(lambda: ada)
            await acheck_wallet(request_)
            request_.auser = auser
            assert await aget_payer(request_) is bob

        self.within(request_, view)

    def test_wrapped_request_finds_its_user_in_a_thread(self, ada: Any, request_: Any) -> None:
        """As Django REST framework's, which authenticates when its `user` is read."""

        class Wrapped:
            session = request_.session

            @property
            def user(self) -> Any:
                return get_user_model().objects.get(pk=ada.pk)

            def __getattr__(self, name: str) -> Any:
                return getattr(request_, name)

        async def view() -> None:
            await acheck_wallet(request_)
            wrapped: Any = Wrapped()
            assert await aget_payer(wrapped) == ada

        self.within(request_, view)

    def test_person_who_acts_with_leave_is_found_in_a_thread(
        self, ada: Any, request_: Any, settings: Any
    ) -> None:
        settings.QUOTA_ALLOW_IMPERSONATED_BILLING = True

        async def auser() -> Any:
            return ada

        async def view() -> None:
            request_.user, request_.auser = SimpleLazyObject(lambda: ada), auser
            request_.impersonator = "boss"
            assert await acheck_wallet(request_) is ada
            assert await aget_access_token(ada) == "token"

        self.within(request_, view)

    def test_router_that_needs_the_user_is_given_the_user(
        self, ada: Any, request_: Any, settings: Any
    ) -> None:
        settings.DATABASE_ROUTERS = [f"{__name__}.StrictRouter"]

        async def view() -> None:
            request_.user = SimpleLazyObject(lambda: ada)
            assert await acheck_wallet(request_) == ada
            assert await aget_access_token(ada) == "token"

        self.within(request_, view)

    def test_function_of_the_project_is_asked_in_a_thread(
        self, ada: Any, request_: HttpRequest, hops: list[object], settings: Any
    ) -> None:
        settings.QUOTA_IMPERSONATION = f"{__name__}.somebody_acts"
        asked.clear()

        async def view() -> None:
            await acheck_wallet(request_)
            asked.append(True)
            with pytest.raises(ImpersonationRefused):
                await aget_access_token(ada)
            with pytest.raises(ImpersonationRefused):
                await aget_payer(request_)

        self.within(request_, view)

    def test_person_who_begins_to_act_in_the_view_cannot_bill(
        self, ada: Any, request_: Any
    ) -> None:
        async def view() -> None:
            await acheck_wallet(request_)
            request_.impersonator = "boss"
            with pytest.raises(ImpersonationRefused):
                await aget_access_token(ada)
            with pytest.raises(ImpersonationRefused):
                await aget_payer(request_)

        self.within(request_, view)

    def test_view_that_disconnects_the_wallet_gets_no_token(
        self, ada: Any, request_: HttpRequest
    ) -> None:
        async def view() -> None:
            await acheck_wallet(request_)
            await sync_to_async(disconnect)(ada)
            with pytest.raises(NotConnected):
                await aget_access_token(ada)

        self.within(request_, view)


class StrictRouter:
    """It knows the tenant only by the user."""

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        if model is QuotaToken and not hints:
            raise AssertionError("of which tenant?")
        return None


asked: list[bool] = []


def somebody_acts(request: HttpRequest) -> str | None:
    """It uses the database, which the event loop must not."""
    get_user_model().objects.exists()
    return "boss" if asked else None
