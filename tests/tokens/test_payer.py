"""Who pays for a request: its user, in sync and async code, and nobody while somebody acts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import signing
from django.test import AsyncClient, Client, RequestFactory

from django_quota.checks import check_impersonation
from django_quota.exceptions import ConfigurationError, ImpersonationRefused
from django_quota.models import ProviderAccount, QuotaToken, UsageRecord
from django_quota.tokens import payer
from django_quota.tokens.access import get_access_token
from django_quota.tokens.impersonation import who_acts
from django_quota.tokens.payer import during, get_payer
from django_quota.wallet import purchases
from django_quota.wallet.usage import record_usage
from tests.helpers.concurrency import run_async
from tests.helpers.replies import reply
from tests.sandbox_client import Person, Sandbox, wanted_at

MIDDLEWARE = "django_quota.middleware.QuotaMiddleware"
PAGE = {"accept": "text/html"}
pytestmark = pytest.mark.django_db(transaction=True)

IMPERSONATES = "tests.urls_payer.impersonates"
PACKAGES = ["hijack", "su", "loginas", "impersonate"]
#: Paths that answer with the beginning of a token, and all that bill.
TOKENS = ["token", "atoken", "client", "aclient", "threads", "tasks"]
BILLING = [*TOKENS, "marked", "amarked", "buys"]
#: Django wants an iterator of the server's own kind.
LATE = {"wsgi": "late", "asgi": "alate"}
REFUSED = "impersonation_refused"

Act = Callable[..., Client]


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls_payer"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, IMPERSONATES, MIDDLEWARE]


@pytest.fixture
def staff() -> Any:
    return get_user_model().objects.create_superuser("boss")


@pytest.fixture
def act(user: Any, staff: Any, settings: Any) -> Act:
    """A browser of staff who act as Ada with one of the packages."""

    def acting(package: str) -> Client:
        browser = Client(SERVER_NAME="localhost")
        logged_in = staff if package == "impersonate" else user
        browser.force_login(logged_in, "django.contrib.auth.backends.ModelBackend")
        mark(browser, **MARKS[package](staff.pk))
        return browser

    return acting


#: What each package leaves in the session.
MARKS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "hijack": lambda pk: {"hijack_history": [str(pk)]},
    "su": lambda pk: {"exit_users_pk": [[str(pk), "a.Backend"]]},
    "loginas": lambda pk: {"loginas_from_user": signing.TimestampSigner().sign(str(pk))},
    "impersonate": lambda pk: {"_impersonate": pk},
}


def mark(browser: Client, **marks: Any) -> None:
    session = browser.session
    session.update(marks)
    session.save()


def ask(browser: Client, path: str, server: str, method: str = "get", **options: Any) -> Any:
    """The answer under WSGI or ASGI, read to its end."""
    if server == "wsgi":
        answer = getattr(browser, method)(path, **options)
        return answer.getvalue() if answer.streaming else answer.content

    async def asked() -> Any:
        client = AsyncClient(SERVER_NAME="localhost")
        client.cookies = browser.cookies
        answer = await getattr(client, method)(path, **options)
        if not answer.streaming:
            return answer.content
        return b"".join([part async for part in answer])

    return run_async(asked())


def code(content: bytes) -> str:
    return json.loads(content)["error"]["code"] if content.startswith(b"{") else content.decode()


class TestPayer:
    @pytest.mark.parametrize("server", ["wsgi", "asgi"])
    @pytest.mark.parametrize("path", ["/marked", "/amarked"])
    def test_user_of_a_request_without_an_actor(
        self, user: Any, person: Person, path: str, server: str
    ) -> None:
        assert json.loads(ask(person.client, path, server)) == {"payer": user.pk}

    @pytest.mark.parametrize("server", ["wsgi", "asgi"])
    @pytest.mark.parametrize("package", PACKAGES)
    def test_sync_and_async_views_have_the_same_payer(
        self, user: Any, act: Act, settings: Any, package: str, server: str
    ) -> None:
        settings.QUOTA_ALLOW_IMPERSONATED_BILLING = True
        browser = act(package)
        paid = [json.loads(ask(browser, path, server)) for path in ("/marked", "/amarked")]
        assert paid == [{"payer": user.pk}] * 2

    def test_lazy_user_of_another_middleware_is_loaded_in_a_thread(
        self, user: Any, person: Person, settings: Any
    ) -> None:
        """django-hijack wraps `request.user`, and to read that on the event loop is an error."""
        lazy = "tests.urls_payer.wraps_the_user"
        settings.MIDDLEWARE = [*settings.MIDDLEWARE[:-1], lazy, MIDDLEWARE]
        assert json.loads(ask(person.client, "/apayer", "asgi")) == {"payer": user.pk}

    def test_backend_without_async_methods(self, user: Any, settings: Any) -> None:
        """That of django-su has no `aget_user`, so that `request.auser()` fails."""
        backend = "tests.urls_payer.SyncBackend"
        settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, backend]
        browser = Client(SERVER_NAME="localhost")
        browser.force_login(user, backend)
        assert json.loads(ask(browser, "/amarked", "asgi")) == {"payer": user.pk}

    def test_on_the_event_loop_says_what_to_await(self, user: Any, person: Person) -> None:
        request = RequestFactory().get("/")
        request.session = person.client.session.__class__(person.client.session.session_key)

        async def asks(work: Callable[[], Any]) -> Any:
            with pytest.raises(ConfigurationError, match="await aget_payer"):
                work()

        def billed() -> Any:
            with during(request):
                return get_access_token(user)

        run_async(asks(billed))


class TestWhileStaffAct:
    @pytest.mark.parametrize("server", ["wsgi", "asgi"])
    @pytest.mark.parametrize("package", PACKAGES)
    def test_no_view_bills(self, act: Act, sandbox: Sandbox, package: str, server: str) -> None:
        browser = act(package)
        paths = [*BILLING, LATE[server]]
        answers = {path: code(ask(browser, f"/{path}", server)) for path in paths}
        assert answers == dict.fromkeys(paths, REFUSED)
        assert sandbox.requests() == []

    @pytest.mark.parametrize("server", ["wsgi", "asgi"])
    def test_every_view_bills_when_nobody_acts(
        self, user: Any, person: Person, server: str
    ) -> None:
        """So that the test above shows something."""
        for path in [*TOKENS, LATE[server]]:
            assert ask(person.client, f"/{path}", server) == b"quota_token_"
        assert ask(person.client, "/buys", server).startswith(b"http")

    @pytest.mark.parametrize("package", PACKAGES)
    @pytest.mark.parametrize("view", ["checkout", "connect", "disconnect"])
    def test_wallet_is_not_changed(
        self, user: Any, act: Act, sandbox: Sandbox, package: str, view: str
    ) -> None:
        browser = act(package)
        answer = browser.post(f"/auth/quota/{view}", {"package_id": "starter"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, REFUSED)
        assert sandbox.requests() == []
        assert QuotaToken.objects.for_user(user).exists()
        page = browser.post(f"/auth/quota/{view}", headers=PAGE)
        where, query = wanted_at(page)
        assert (where, query["quota_error"]) == ("/auth/quota/error", REFUSED)
        assert "Stop acting as them" in browser.get(page["Location"]).content.decode()

    def test_checkout_refuses_without_the_middleware(self, act: Act, settings: Any) -> None:
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != MIDDLEWARE]
        answer = act("hijack").post("/auth/quota/checkout", {"package_id": "starter"})
        assert answer.json()["error"]["code"] == REFUSED

    def test_payment_page_of_the_users_own_click_is_not_given(
        self, user: Any, person: Person
    ) -> None:
        """The session keeps it for some seconds, so that a double click makes one purchase."""
        form = {"package_id": "starter"}
        assert person.client.post("/auth/quota/checkout", form).status_code == 200
        mark(person.client, hijack_history=["1"])
        answer = person.client.post("/auth/quota/checkout", form)
        assert answer.json()["error"]["code"] == REFUSED

    def test_connect_page_asks_nothing(self, act: Act) -> None:
        where, query = wanted_at(act("hijack").get("/auth/quota/connect", headers=PAGE))
        assert (where, query["quota_error"]) == ("/auth/quota/error", REFUSED)

    def test_connect_is_refused_at_the_end_if_acting_began_after_its_start(
        self, user: Any, act: Act, person: Person, sandbox: Sandbox
    ) -> None:
        at_quota = person.at_quota(person.client.post("/auth/quota/connect")["Location"])
        mark(person.client, hijack_history=["1"])
        sandbox.forget_requests()
        answer = person.come_back(at_quota, headers=PAGE)
        assert wanted_at(answer)[1]["quota_error"] == REFUSED
        assert sandbox.requests() == [], "the code was spent, and its tokens would be lost"

    def test_sign_in_ends_the_acting(self, act: Act, person: Person) -> None:
        """Whose identity it is, Quota says; Django empties the session of another user."""
        browser = act("hijack")
        other = person.sandbox.person(browser, name="Boss")
        other.sign_in()
        assert "hijack_history" not in browser.session
        assert ask(browser, "/token", "wsgi") == b"quota_token_"

    def test_id_token_of_the_user_does_not_go_to_the_browser_of_staff(self, act: Act) -> None:
        assert act("hijack").post("/auth/quota/logout").json() == {"logout_url": "/"}

    def test_balance_is_shown(self, user: Any, act: Act, sandbox: Sandbox) -> None:
        browser = act("hijack")
        assert browser.get("/auth/quota/balance").json()["display"] == "$1.00"
        assert sandbox.requests() == ["GET /v1/balance"]
        assert "$1.00" in browser.get("/auth/quota/packages", headers=PAGE).content.decode()

    def test_other_wallets_are_not_billed_either(self, user: Any, act: Act, staff: Any) -> None:
        """The view of `atoken` may have loaded anybody: what happens is what staff do."""
        browser = act("impersonate")
        ProviderAccount.objects.filter(user=user).update(user=staff)
        assert code(browser.get("/atoken").content) == REFUSED

    def test_released_user_pays_again(self, act: Act) -> None:
        browser = act("hijack")
        mark(browser, hijack_history=[])
        assert browser.get("/token").content == b"quota_token_"

    def test_nothing_is_left_behind_in_the_thread(self, user: Any, act: Act) -> None:
        browser = act("hijack")
        for path in ("/token", "/late"):
            ask(browser, path, "wsgi")
            assert payer.current_request() is None
        assert get_access_token(user)

    def test_request_within_a_request_ends_with_it(self, user: Any, act: Act) -> None:
        outer = RequestFactory().get("/")
        with during(outer):
            act("hijack").get("/token")
            assert payer.current_request() is outer


class TestWhoActs:
    @pytest.mark.parametrize("package", PACKAGES[:3])
    def test_is_named(self, act: Act, package: str) -> None:
        assert who_acts(asked_by(act(package))) == "boss"

    def test_impersonate_is_named_by_its_middleware(self, staff: Any) -> None:
        request = asked_by(Client())
        request.impersonator = staff
        assert who_acts(request) == "boss"

    def test_mark_of_impersonate_alone_changes_nobody(self, staff: Any) -> None:
        """It counts where its middleware has replaced the user, which it does not for all URLs."""
        browser = Client()
        mark(browser, _impersonate=1)
        assert who_acts(asked_by(browser)) is None

    @pytest.mark.parametrize(
        "marks",
        [
            lambda one, two: {"hijack_history": [str(one), str(two)]},
            lambda one, two: {"exit_users_pk": [[str(one), "a.B"], [str(two), "a.B"]]},
        ],
    )
    def test_of_several_who_act_it_is_the_first(self, staff: Any, marks: Any) -> None:
        second = get_user_model().objects.create_user("second")
        browser = Client()
        mark(browser, **marks(staff.pk, second.pk))
        assert who_acts(asked_by(browser)) == "boss"

    @pytest.mark.parametrize(
        ("marks", "name"),
        [
            ({"hijack_history": ["4711"]}, "4711"),
            ({"hijack_history": "odd"}, "unknown"),
            ({"hijack_history": ["no key"]}, "unknown"),
            ({"exit_users_pk": [[]]}, "unknown"),
            ({"exit_users_pk": {"a": 1}}, "unknown"),
            ({"loginas_from_user": "1:forged:signature"}, "unknown"),
            ({"loginas_from_user": "1"}, "unknown"),
            ({"loginas_from_user": None}, "unknown"),
        ],
    )
    def test_mark_that_names_nobody_counts_all_the_same(
        self, staff: Any, marks: dict[str, Any], name: str
    ) -> None:
        """But it makes nobody the one who acted: a forged one least of all."""
        browser = Client()
        mark(browser, **marks)
        assert who_acts(asked_by(browser)) == name

    def test_old_signature_of_loginas_counts(
        self, staff: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That package itself takes it for two days to return; the session is the user's still."""
        browser = Client()
        with monkeypatch.context() as patch:
            patch.setattr(signing.time, "time", lambda: 0)
            mark(browser, **MARKS["loginas"](staff.pk))
        assert who_acts(asked_by(browser)) == "boss"

    def test_mark_of_loginas_by_another_name(self, staff: Any, settings: Any) -> None:
        settings.LOGINAS_FROM_USER_SESSION_FLAG = "from"
        browser = Client()
        mark(browser, **{"from": signing.TimestampSigner().sign(str(staff.pk))})
        assert who_acts(asked_by(browser)) == "boss"

    @pytest.mark.parametrize("marks", [{}, {"hijack_history": []}, {"exit_users_pk": []}])
    def test_nobody(self, marks: dict[str, Any]) -> None:
        browser = Client()
        mark(browser, **marks)
        assert who_acts(asked_by(browser)) is None

    def test_nobody_without_sessions(self) -> None:
        assert who_acts(RequestFactory().get("/")) is None


def asked_by(browser: Client) -> Any:
    request: Any = RequestFactory().get("/")
    request.session = browser.session
    return request


class TestProjectsOwnWay:
    @pytest.fixture(autouse=True)
    def function(self, settings: Any) -> None:
        settings.QUOTA_IMPERSONATION = "tests.urls_payer.agent"

    @pytest.mark.parametrize("server", ["wsgi", "asgi"])
    def test_refuses(self, user: Any, person: Person, server: str) -> None:
        headers = {"X-Agent": "eve"}
        for path in [*BILLING, LATE[server]]:
            assert code(ask(person.client, f"/{path}", server, headers=headers)) == REFUSED
        assert ask(person.client, "/token", server) == b"quota_token_"

    def test_packages_count_beside_it(self, act: Act) -> None:
        assert code(act("hijack").get("/token").content) == REFUSED

    def test_function_that_raises_bills_nobody(
        self, user: Any, person: Person, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tests.urls_payer.agent", lambda request: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            person.client.get("/token")

    @pytest.mark.parametrize(
        "path", ["tests.urls_payer.nothing", "no_such.module", "tests.urls_payer.aagent"]
    )
    def test_wrong_path_bills_nobody_and_is_said_by_the_check(
        self, user: Any, person: Person, settings: Any, path: str
    ) -> None:
        settings.QUOTA_IMPERSONATION = path
        with pytest.raises(ConfigurationError, match="QUOTA_IMPERSONATION"):
            person.client.get("/token")
        (message,) = check_impersonation()
        assert (message.id, path in message.msg) == ("django_quota.E006", True)

    def test_check_is_content(self, settings: Any) -> None:
        assert check_impersonation() == []
        settings.QUOTA_IMPERSONATION = None
        assert check_impersonation() == []
        settings.QUOTA_IMPERSONATION = "no path"
        assert check_impersonation() == [], "check_settings says so"


class TestAllowed:
    @pytest.fixture(autouse=True)
    def allowed(self, settings: Any) -> None:
        settings.QUOTA_ALLOW_IMPERSONATED_BILLING = True

    @pytest.mark.parametrize("server", ["wsgi", "asgi"])
    @pytest.mark.parametrize("package", PACKAGES)
    def test_user_of_the_request_pays(self, act: Act, package: str, server: str) -> None:
        browser = act(package)
        for path in [*TOKENS, LATE[server]]:
            assert ask(browser, f"/{path}", server) == b"quota_token_"

    def test_nobody_else_pays(self, user: Any, act: Act, staff: Any) -> None:
        browser = act("hijack")
        ProviderAccount.objects.filter(user=user).update(user=staff)
        assert code(browser.get("/atoken").content) == REFUSED

    def test_disconnect(self, user: Any, act: Act) -> None:
        assert act("hijack").post("/auth/quota/disconnect").json()["connected"] is False
        assert not QuotaToken.objects.for_user(user).exists()

    def test_connect_stays_refused(self, act: Act) -> None:
        """Who is signed in at Quota in this browser is not the user."""
        answer = act("hijack").post("/auth/quota/connect")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, REFUSED)

    @pytest.mark.parametrize("package", PACKAGES)
    def test_usage_record_names_who_acted(
        self, user: Any, act: Act, staff: Any, package: str
    ) -> None:
        request = asked_by(act(package))
        request.user = user
        request.impersonator = staff if package == "impersonate" else None
        with during(request):
            record_usage(user, reply("one", credits_used=1))
        record_usage(user, reply("two", credits_used=1))
        acted = dict(UsageRecord.objects.values_list("call_id", "acted_by"))
        assert acted == {"one": "boss", "two": ""}

    def test_name_is_cut_to_its_column(self, user: Any, settings: Any) -> None:
        settings.QUOTA_IMPERSONATION = "tests.urls_payer.agent"
        request = RequestFactory().get("/", headers={"X-Agent": "x" * 300})
        with during(request):
            record_usage(user, reply(credits_used=1))
        assert UsageRecord.objects.get().acted_by == "x" * 255


def test_client_made_while_staff_act_bills_nobody_later(user: Any, act: Act) -> None:
    """It remembers the request that it was made in."""
    from django_quota.ai.auth import AsyncWalletKey, WalletKey

    request = asked_by(act("hijack"))
    request.user = user
    with during(request):
        key, akey = WalletKey(user), AsyncWalletKey(user)
    with pytest.raises(ImpersonationRefused):
        key()

    async def later() -> None:
        with pytest.raises(ImpersonationRefused):
            await akey()

    run_async(later())


def test_background_work_has_no_actor(user: Any) -> None:
    assert get_access_token(user)
    assert purchases.get_balance(user).credits == 1_000_000
    assert payer.acted_by() == ""


def test_get_payer_of_a_visitor(client: Client) -> None:
    request = asked_by(client)
    request.user = None
    assert get_payer(request) is None
