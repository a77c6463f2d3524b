"""The wallet, against the live sandbox: balances and purchases."""

import re
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest.mock import AsyncMock

import pytest
from bs4 import BeautifulSoup
from django.contrib.auth import get_user_model
from django.contrib.messages import get_messages
from django.core.cache import cache
from django.db import connections
from django.template import Context, Template
from django.test import Client, RequestFactory, override_settings
from django.utils import timezone

from django_quota.exceptions import (
    NotConnected,
    ProviderUnavailable,
    ReauthenticationRequired,
    RequestRefused,
)
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.oidc import discovery
from django_quota.tokens.single_flight import renewals
from django_quota.tokens.wallet_name import wallet_of
from django_quota.wallet import caching, purchases
from django_quota.wallet.balances import NOT_CONNECTED, UNAVAILABLE, forget_balance
from django_quota.web import checkout
from django_quota.web.current import CurrentQuota
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import begin_together, run_async, wait_until
from tests.sandbox_client import Person, Sandbox, query_of, wanted_at
from tests.tiny_server import TinyServer, json_answer

pytestmark = pytest.mark.django_db(transaction=True)

BALANCE = ["GET /v1/balance"]
PAGE = {"accept": "text/html"}


class TestBalance:
    def test_is_exact_and_readable(self, user: Any) -> None:
        balance = purchases.get_balance(user)
        assert (balance.credits, balance.dollars, balance.display) == (
            1_000_000,
            Decimal("1.000000"),
            "$1.00",
        )

    def test_is_asked_for_once_in_a_while(
        self, user: Any, sandbox: Sandbox, django_assert_num_queries: Any
    ) -> None:
        purchases.get_balance(user)
        with django_assert_num_queries(0):
            purchases.get_balance(user)
        assert sandbox.requests() == BALANCE

    def test_is_each_users_own(self, user: Any, sandbox: Sandbox) -> None:
        rich = sandbox.person(balance=25_000_000)
        rich.sign_in()
        other = get_user_model().objects.exclude(pk=user.pk).get()
        assert purchases.get_balance(user).display == "$1.00"
        assert purchases.get_balance(other).display == "$25.00"

    def test_may_be_negative(self, user: Any) -> None:
        cache_balance(user, -50_000)
        assert purchases.get_balance(user).display == "-$0.05"

    def test_a_token_that_quota_refuses_is_renewed_once(self, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail={"path": "/v1/balance", "status": 401, "times": 1})
        assert purchases.get_balance(user).credits == 1_000_000
        assert sandbox.requests() == [*BALANCE, "POST /oauth/token", *BALANCE]

    def test_a_token_that_is_refused_again_needs_a_sign_in(
        self, user: Any, sandbox: Sandbox
    ) -> None:
        sandbox.set(fail={"path": "/v1/balance", "status": 401, "times": 9})
        with pytest.raises(ReauthenticationRequired):
            purchases.get_balance(user)
        assert sandbox.requests() == [*BALANCE, "POST /oauth/token", *BALANCE]

    def test_without_a_wallet(self) -> None:
        with pytest.raises(NotConnected):
            purchases.get_balance(get_user_model().objects.create(username="x"))


def test_the_views_are_in_no_transaction(
    user: Any, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In which SQLite could renew no token."""
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    QuotaToken.objects.update(expires_at=timezone.now())
    reply = person.client.get("/auth/quota/balance")
    assert (reply.status_code, reply.json()["balance"]) == (200, 1_000_000)


@pytest.fixture
def several(user: Any, sandbox: Sandbox) -> list[Any]:
    """Enough users for an outage, and one more."""
    for _ in range(purchases.OUTAGE_USERS):
        sandbox.person().sign_in()
    return list(get_user_model().objects.order_by("pk"))


def trouble_of(user: Any) -> str:
    return f"django_quota.trouble.{wallet_of(user)}"


class TestOnAPage:
    def test_shows_unavailable_while_quota_is_down_and_asks_once(
        self, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        sandbox.set(fail={"path": "/v1/balance", "status": 503, "times": 99})
        for _ in range(3):
            page = person.client.get("/")
            assert page.status_code == 200
            assert "navailable" in page.content.decode()
        assert sandbox.requests() == BALANCE

    @pytest.mark.slow
    def test_a_hanging_quota_is_not_waited_for(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(purchases, "PAGE_WAIT", 2)
        sandbox.set(latency={"/v1/balance": 60})
        assert purchases.balance_for_page(user) == UNAVAILABLE

    @pytest.mark.slow
    def test_a_renewal_goes_on_when_the_page_has_gone(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The page stops waiting; the rotated pair is saved all the same."""
        monkeypatch.setattr(purchases, "PAGE_WAIT", 2)
        sandbox.set(latency={"/oauth/token": 60})
        before = QuotaToken.objects.get().version
        QuotaToken.objects.update(expires_at=timezone.now())

        assert purchases.balance_for_page(user) == UNAVAILABLE
        sandbox.set(latency={})
        wait_until(lambda: not renewals.is_running())

        assert QuotaToken.objects.get().version == before + 1
        assert QuotaToken.objects.get().expires_at > timezone.now() + timedelta(seconds=3000)

    @pytest.mark.slow
    def test_nor_does_it_wait_for_a_renewal_after_a_refusal(
        self, user: Any, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(purchases, "PAGE_WAIT", 2)
        sandbox.set(
            fail={"path": "/v1/balance", "status": 401, "times": 1}, latency={"/oauth/token": 60}
        )
        before = QuotaToken.objects.get().version

        assert purchases.balance_for_page(user) == UNAVAILABLE
        assert QuotaToken.objects.get().version == before
        sandbox.set(latency={})
        wait_until(lambda: not renewals.is_running())
        assert QuotaToken.objects.get().version == before + 1

    def test_a_page_without_a_request_in_its_context(self) -> None:
        """As Django's own page for a 500, which a project may extend its layout for."""
        tags = "{% load quota %}{% quota_balance %}{% quota_error %}{% quota_connect %}"
        assert "Connect" in Template(tags).render(Context())

    def test_an_expired_token_is_renewed_for_it(self, user: Any, person: Person) -> None:
        QuotaToken.objects.update(expires_at=timezone.now())
        assert "$1.00" in person.client.get("/").content.decode()

    def test_a_low_balance_says_so(self, user: Any, person: Person) -> None:
        cache_balance(user, 99_999)
        page = person.client.get("/").content.decode()
        assert 'data-state="low"' in page
        assert ">low</span>" in page
        assert person.client.get("/auth/quota/balance").json()["state"] == "low"

    def test_costs_nothing_when_kept(
        self, user: Any, person: Person, sandbox: Sandbox, django_assert_num_queries: Any
    ) -> None:
        purchases.get_balance(user)
        sandbox.forget_requests()
        tag = Template("{% load quota %}{% quota_balance %}")
        request = RequestFactory().get("/")
        request.user = user
        with django_assert_num_queries(0):
            assert "$1.00" in tag.render(Context({"request": request}))
        assert sandbox.requests() == []

    @pytest.mark.slow
    def test_while_quota_hangs_one_page_in_a_while_waits(
        self, several: list[Any], settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """For all users: the first few have found out for everybody."""
        monkeypatch.setattr(purchases, "PAGE_WAIT", 2)
        with TinyServer() as quota:
            quota.on("/v1/balance", json_answer({}, delay=5))
            settings.QUOTA_BASE_URL = quota.origin
            for user in several * 3:
                assert purchases.balance_for_page(user) == UNAVAILABLE
            # On a busy machine a page gives up before the server has read its request.
            wait_until(lambda: len(quota.requests) >= purchases.OUTAGE_USERS)
            assert len(quota.requests) == purchases.OUTAGE_USERS

    @pytest.mark.slow
    def test_a_slow_answer_to_one_user_hides_nobody_elses(
        self,
        several: list[Any],
        sandbox: Sandbox,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """However often: a token that is being renewed, say, or a wallet that is locked."""
        slow, *others = several
        with TinyServer() as quota, monkeypatch.context() as patch:
            patch.setattr(purchases, "PAGE_WAIT", 2)
            quota.on("/v1/balance", json_answer({}, delay=5))
            settings.QUOTA_BASE_URL = quota.origin
            for _ in range(purchases.OUTAGE_USERS):
                assert purchases.balance_for_page(slow) == UNAVAILABLE
                caching.forget(trouble_of(slow))
        settings.QUOTA_BASE_URL = sandbox.origin
        assert [purchases.balance_for_page(user).state for user in others] == ["available"] * len(
            others
        )

    def test_who_has_no_wallet_is_shown_nothing_in_an_outage_and_does_not_prolong_it(
        self, several: list[Any], sandbox: Sandbox
    ) -> None:
        """Their pages ask Quota nothing, so they cannot find out that it is over."""
        *slow, user = several
        other = get_user_model().objects.create_user("without a wallet")
        for each in slow:
            purchases._note_slow(wallet_of(each))
        assert purchases.balance_for_page(user) == UNAVAILABLE
        assert purchases.balance_for_page(other) == NOT_CONNECTED
        caching.forget(purchases._TRIED)  # the cool-down is over
        assert purchases.balance_for_page(other) == NOT_CONNECTED
        assert purchases.balance_for_page(user).state == "available"

    def test_a_page_that_fails_at_once_in_an_outage_leaves_its_turn_to_the_next(
        self, several: list[Any], sandbox: Sandbox
    ) -> None:
        """Its connection has ended, say: then it has not found out whether Quota is slow."""
        *slow, user = several
        for each in slow:
            purchases._note_slow(wallet_of(each))
        QuotaToken.objects.for_user(slow[0]).update(
            status=QuotaToken.Status.REAUTHENTICATION_REQUIRED
        )
        caching.forget(purchases._TRIED)  # the cool-down is over
        assert purchases.balance_for_page(slow[0]) == UNAVAILABLE
        assert purchases.balance_for_page(user).state == "available"

    def test_slow_answers_with_a_quick_one_in_between_are_no_outage(
        self, several: list[Any], sandbox: Sandbox
    ) -> None:
        *slow, quick, last = several
        for user in slow:
            purchases._note_slow(wallet_of(user))
        assert purchases.balance_for_page(quick).state == "available"
        purchases._note_slow(wallet_of(last))
        forget_balance(quick)
        assert purchases.balance_for_page(quick).state == "available"

    @pytest.mark.slow
    def test_a_slow_answer_is_not_waited_for_again_at_once(
        self, user: Any, sandbox: Sandbox, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(purchases, "PAGE_WAIT", 2)
        with TinyServer() as quota:
            quota.on("/v1/balance", json_answer({}, delay=5))
            settings.QUOTA_BASE_URL = quota.origin
            for _ in range(3):
                assert purchases.balance_for_page(user) == UNAVAILABLE
            wait_until(lambda: quota.requests)
            assert len(quota.requests) == 1

    @pytest.mark.slow
    def test_of_many_pages_at_once_one_finds_out_whether_it_is_over(
        self,
        several: list[Any],
        sandbox: Sandbox,
        settings: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(purchases, "PAGE_WAIT", 2)
        user, *others = several
        with TinyServer() as quota:
            quota.on("/v1/balance", json_answer({}, delay=5))
            settings.QUOTA_BASE_URL = quota.origin
            for other in others:
                purchases.balance_for_page(other)
            caching.forget(purchases._TRIED)  # the cool-down is over
            found = begin_together([lambda: purchases.balance_for_page(user)] * 8)
            assert found == [UNAVAILABLE] * 8
            wait_until(lambda: len(quota.requests) > purchases.OUTAGE_USERS)
            assert len(quota.requests) == purchases.OUTAGE_USERS + 1
        settings.QUOTA_BASE_URL = sandbox.origin
        caching.forget(purchases._TRIED)
        caching.forget(trouble_of(user))
        assert purchases.balance_for_page(user).state == "available"
        forget_balance(user)
        assert purchases.balance_for_page(user).state == "available"  # it is over, for everybody

    @pytest.mark.parametrize("status", [400, 429, 500])
    def test_what_fails_at_once_for_one_user_is_nobody_elses(
        self, user: Any, sandbox: Sandbox, status: int
    ) -> None:
        """A limit of the rate, or what Quota makes of this one's token."""
        sandbox.person().sign_in()
        other = get_user_model().objects.exclude(pk=user.pk).get()
        sandbox.set(fail={"path": "/v1/balance", "status": status, "times": 1})
        for _ in range(2):
            assert purchases.balance_for_page(user) == UNAVAILABLE
        assert purchases.balance_for_page(other).state == "available"

    def test_is_known_already_where_an_async_view_has_asked(
        self, user: Any, django_assert_num_queries: Any
    ) -> None:
        request = RequestFactory().get("/")
        request.user = user
        request.auser = AsyncMock(return_value=user)
        request.quota = CurrentQuota(request)
        tag = Template("{% load quota %}{% quota_balance %}")

        async def view() -> str:
            await request.quota.abalance()
            return tag.render(Context({"request": request}))

        assert "$1.00" in run_async(view())

    def test_nothing_for_who_is_not_connected(self, client: Client) -> None:
        client.force_login(get_user_model().objects.create_user("x"))
        page = client.get("/").content.decode()
        assert "$" not in page
        assert "data-quota-balance" not in page


class TestPackages:
    def test_are_asked_for_once(self, user: Any, sandbox: Sandbox) -> None:
        for _ in range(2):
            prices = [package.price_cents for package in purchases.get_packages()]
        assert prices == [500, 1000, 2500, 5000]
        assert sandbox.requests() == ["GET /v1/packages"]

    def test_the_page_offers_each(self, person: Person, user: Any) -> None:
        page = person.client.get("/auth/quota/packages?next=/chat", headers={"accept": "text/html"})
        text = page.content.decode()
        for price in ("$5.00", "$10.00", "$25.00", "$50.00"):
            assert price in text
        assert text.count('name="package_id"') == 4
        assert 'value="/chat"' in text

    def test_as_json(self, person: Person, user: Any) -> None:
        offers = person.client.get("/auth/quota/packages").json()["packages"]
        assert [offer["price"] for offer in offers] == ["$5.00", "$10.00", "$25.00", "$50.00"]

    def test_the_page_stands_while_quota_is_down(
        self, person: Person, user: Any, sandbox: Sandbox
    ) -> None:
        sandbox.set(fail={"path": "/v1/packages", "status": 503, "times": 9})
        page = person.client.get("/auth/quota/packages", headers={"accept": "text/html"})
        assert page.status_code == 200
        assert person.client.get("/auth/quota/packages").status_code == 503


#: Where the payment page leads to after a purchase of `TestCheckout.buy`.
BACK = "http://localhost/auth/quota/checkout?next=%2F%3Fpaid%3D1"


@pytest.fixture
def payment_pages(user: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """A Quota that numbers its payment pages; what it was asked for."""
    asked: list[dict[str, str]] = []

    def create(*args: Any, **given: str) -> str:
        asked.append(given)
        return f"https://pay.example/{len(asked)}"

    monkeypatch.setattr(purchases.wallet_api, "create_checkout", create)
    return asked


def buy_package(person: Person, package_id: str) -> str:
    """Click on it. Return where the browser is sent to."""
    form = {"package_id": package_id, "next": "/"}
    return str(person.client.post("/auth/quota/checkout", form, headers=PAGE)["Location"])


class TestCheckout:
    def buy(self, person: Person, **options: Any) -> Any:
        package = purchases.get_packages()[0].id
        return person.client.post(
            "/auth/quota/checkout", {"package_id": package, "next": "/?paid=1"}, **options
        )

    def test_pay_and_come_back_to_the_new_balance(self, person: Person, user: Any) -> None:
        assert "$1.00" in person.client.get("/").content.decode()
        payment = self.buy(person, headers={"accept": "text/html"})["Location"]
        page = person.quota.get(payment, timeout=20)
        back = person.answer(page, allow=True).headers["Location"]
        assert back == "http://localhost/auth/quota/checkout?next=%2F%3Fpaid%3D1"

        home = person.come_back(back)

        assert home["Location"] == "/?paid=1"
        assert "$6.00" in person.client.get("/?paid=1").content.decode()

    def test_a_payment_that_is_late_is_waited_for(self, person: Person, user: Any) -> None:
        """Back from the payment page, while the money is still on its way to Quota."""
        payment = self.buy(person, headers=PAGE)["Location"]
        page = person.quota.get(payment, timeout=20)

        waiting = person.come_back(BACK)
        assert waiting.status_code == 200
        assert "on its way" in waiting.content.decode()
        seconds, _, again = waiting["Refresh"].partition(";url=")
        assert (seconds, again) == ("2", "/auth/quota/checkout?next=%2F%3Fpaid%3D1")

        person.answer(page, allow=True)
        assert person.come_back(again)["Location"] == "/?paid=1"
        assert "$6.00" in person.client.get("/?paid=1").content.decode()

    def test_a_first_purchase_is_waited_for_too(
        self, person: Person, user: Any, sandbox: Sandbox
    ) -> None:
        """Before it there was no wallet whose balance could rise."""
        cache_balance(user, None)
        self.buy(person)
        with TinyServer() as quota:
            quota.on("/v1/balance", json_answer({"wallet": "oauth_user", "balance": None}))
            with override_settings(QUOTA_BASE_URL=quota.origin):
                assert person.come_back(BACK).status_code == 200
        assert person.come_back(BACK)["Location"] == "/?paid=1"

    def test_the_way_back_is_of_the_sites_own_name(
        self, person: Person, user: Any, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings.ALLOWED_HOSTS = ["*"]
        settings.QUOTA_REDIRECT_URI = "https://app.example/auth/quota/callback"
        urls: list[str] = []

        def create(*args: Any, success_url: str, cancel_url: str, **kwargs: Any) -> str:
            urls.extend([success_url, cancel_url])
            return "https://checkout.example/"

        monkeypatch.setattr(purchases, "create_checkout", create)
        self.buy(person, headers={"host": "evil.example"})
        assert all(url.startswith("https://app.example/auth/quota/") for url in urls) and urls

    def test_nobody_waits_for_ever(self, person: Person, user: Any) -> None:
        self.buy(person)
        for _ in range(checkout.MAX_POLLS):
            assert person.come_back(BACK).status_code == 200
        assert person.come_back(BACK)["Location"] == "/?paid=1"

    def test_nor_for_a_purchase_that_this_browser_has_not_started(
        self, person: Person, user: Any
    ) -> None:
        """A link to this page makes nobody wait."""
        assert person.come_back(BACK)["Location"] == "/?paid=1"

    def test_nor_for_a_purchase_for_another_wallet(self, person: Person, user: Any) -> None:
        self.buy(person)
        ProviderAccount.objects.update(external_id="another")
        assert person.come_back(BACK)["Location"] == "/?paid=1"

    def test_nor_without_the_balance_before(
        self, person: Person, user: Any, sandbox: Sandbox
    ) -> None:
        sandbox.set(fail={"path": "/v1/balance", "status": 503, "times": 1})
        self.buy(person)
        caching.forget(trouble_of(user))
        assert person.come_back(BACK)["Location"] == "/?paid=1"

    def test_nor_while_the_balance_cannot_be_read(
        self, person: Person, user: Any, sandbox: Sandbox
    ) -> None:
        self.buy(person)
        sandbox.set(fail={"path": "/v1/balance", "status": 503, "times": 9})
        assert person.come_back(BACK)["Location"] == "/?paid=1"

    def test_a_second_click_leads_to_the_same_payment_page(
        self, person: Person, user: Any, sandbox: Sandbox
    ) -> None:
        """Without JavaScript, which disables the button."""
        first = self.buy(person, headers=PAGE)["Location"]
        assert self.buy(person, headers=PAGE)["Location"] == first
        assert sandbox.requests().count("POST /api/payments/checkout") == 1

    def test_clicks_before_the_first_answer_charge_nothing(
        self, person: Person, user: Any, sandbox: Sandbox
    ) -> None:
        """The browser shows the payment page of the last one; nobody sees the others."""
        package = purchases.get_packages()[0].id
        sandbox.set(latency={"/api/payments/checkout": 0.3})

        def click() -> str:
            browser = Client(SERVER_NAME="localhost", headers={"accept": "text/html"})
            browser.cookies = person.client.cookies
            return str(browser.post("/auth/quota/checkout", {"package_id": package})["Location"])

        pages = begin_together([click] * 4)
        assert all(page.startswith(f"{sandbox.origin}/checkout/") for page in pages)
        person.answer(person.quota.get(pages[-1], timeout=20), allow=True)
        forget_balance(user)
        assert purchases.get_balance(user).credits == 6_000_000

    def test_a_click_on_another_package_leads_to_its_own_page(
        self, person: Person, payment_pages: list[dict[str, str]]
    ) -> None:
        assert buy_package(person, "starter") == "https://pay.example/1"
        assert buy_package(person, "basic") == "https://pay.example/2"

    def test_a_click_much_later_leads_to_a_new_page(
        self, person: Person, payment_pages: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        buy_package(person, "starter")
        monkeypatch.setattr(checkout, "REPEAT_SECONDS", 0)
        assert buy_package(person, "starter") == "https://pay.example/2"

    def test_a_click_for_another_wallet_leads_to_a_new_page(
        self, person: Person, payment_pages: list[dict[str, str]]
    ) -> None:
        """Somebody acts as another user in the same session, say."""
        buy_package(person, "starter")
        ProviderAccount.objects.update(external_id="another")
        assert buy_package(person, "starter") == "https://pay.example/2"

    @pytest.mark.parametrize("asked", ["create_checkout", "fetch_balance"])
    def test_what_another_request_saves_in_the_session_meanwhile_stays(
        self, person: Person, user: Any, monkeypatch: pytest.MonkeyPatch, asked: str
    ) -> None:
        """Quota is asked meanwhile, which may take seconds: here, something goes into a cart."""
        ask = getattr(purchases.wallet_api, asked)

        def ask_while_another_tab_is_used(*args: Any, **given: str) -> Any:
            session = person.client.session
            session["cart"] = [*session.get("cart", []), asked]
            session.save()
            return ask(*args, **given)

        monkeypatch.setattr(purchases.wallet_api, asked, ask_while_another_tab_is_used)
        self.buy(person)
        assert person.client.session["cart"] == [asked]
        forget_balance(user)
        assert person.come_back(BACK).status_code == 200
        assert len(person.client.session["cart"]) == 1 + (asked == "fetch_balance")
        person.client.get("/auth/quota/packages", headers=PAGE)
        assert checkout.SESSION_KEY not in person.client.session
        assert len(person.client.session["cart"]) == 1 + (asked == "fetch_balance")

    def test_who_signs_out_meanwhile_in_another_tab_stays_signed_out(
        self, person: Person, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The answer sets no cookie, which would replace that of another sign-in."""

        def sign_out(*args: Any, **given: str) -> str:
            person.client.session.flush()
            return "https://pay.example/"

        monkeypatch.setattr(purchases.wallet_api, "create_checkout", sign_out)
        answer = person.client.post("/auth/quota/checkout", {"package_id": "x"}, headers=PAGE)
        assert (answer["Location"], list(answer.cookies)) == ("https://pay.example/", [])

    def test_a_long_address_of_a_payment_page_does_not_fill_the_session(
        self, person: Person, user: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        long = "https://pay.example/" + "x" * 4000
        monkeypatch.setattr(purchases.wallet_api, "create_checkout", lambda *args, **given: long)
        assert buy_package(person, "starter") == long
        assert long not in str(dict(person.client.session))
        assert buy_package(person, "starter") == long

    @pytest.mark.parametrize("path", ["packages", "checkout"])
    def test_a_way_back_that_is_fetched_ahead_forgets_no_purchase(
        self, person: Person, payment_pages: list[dict[str, str]], path: str
    ) -> None:
        buy_package(person, "starter")
        headers = {**PAGE, "Sec-Purpose": "prefetch"}
        answer = person.client.get(f"/auth/quota/{path}", headers=headers)
        assert (answer.status_code, answer.content) == (204, b"")
        assert buy_package(person, "starter") == "https://pay.example/1"

    @pytest.mark.parametrize("status", [403, 404, 405])
    def test_an_app_without_checkout_links_to_quotas_own_page(
        self, person: Person, user: Any, settings: Any, status: int
    ) -> None:
        settings.QUOTA_TOPUP_URL = "https://quota.example/topup"
        refusal = json_answer({"error": {"code": "insufficient_scope"}}, status=status)
        with TinyServer() as quota:
            settings.QUOTA_BASE_URL = quota.origin
            quota.on("/v1/packages", json_answer({"packages": []}))
            quota.on("/v1/balance", json_answer({"balance": 5}))
            quota.on("/api/payments/checkout", refusal)
            form = {"package_id": "starter", "next": "/chat"}
            answer = person.client.post("/auth/quota/checkout", form)
            assert answer.json()["topup_url"] == "https://quota.example/topup"
            page = person.client.post("/auth/quota/checkout", form, headers=PAGE)["Location"]
            assert page == "/auth/quota/packages?reason=no_checkout&next=%2Fchat"
            text = person.client.get(page, headers=PAGE).content.decode()
        assert "cannot be bought from here" in text
        assert 'href="https://quota.example/topup"' in text

    def test_out_of_credits_is_said_on_the_page(self, person: Person, user: Any) -> None:
        url = "/auth/quota/packages?reason={}"
        said = "do not cover what you have just asked for"
        page = person.client.get(url.format("insufficient_credits"), headers=PAGE)
        assert said in page.content.decode()
        page = person.client.get(url.format("<b>"), headers=PAGE)
        assert "<b>" not in page.content.decode()
        assert said not in page.content.decode()

    @pytest.mark.parametrize("way_back", ["success_url", "cancel_url"])
    def test_who_has_come_back_begins_another(
        self, person: Person, payment_pages: list[dict[str, str]], way_back: str
    ) -> None:
        """The payment page of the one before is over; a double click is not what this is."""
        assert [buy_package(person, "starter") for _ in range(2)] == ["https://pay.example/1"] * 2
        person.client.get(payment_pages[0][way_back], headers=PAGE)
        assert buy_package(person, "starter") == "https://pay.example/2"

    def test_cancelled(self, person: Person, user: Any) -> None:
        payment = self.buy(person, headers={"accept": "text/html"})["Location"]
        back = person.answer(person.quota.get(payment, timeout=20), allow=False)
        assert re.match(
            r"http://localhost/auth/quota/packages\?next=", str(back.headers["Location"])
        )
        assert purchases.get_balance(user).credits == 1_000_000

    def test_fetch_gets_the_url(self, person: Person, user: Any) -> None:
        url = self.buy(person).json()["checkout_url"]
        assert url.startswith(person.sandbox.origin)

    def test_an_unknown_package(self, person: Person, user: Any) -> None:
        with pytest.raises(RequestRefused):
            purchases.create_checkout(
                user, "no such", success_url="http://localhost/", cancel_url="http://localhost/"
            )
        answer = person.client.post("/auth/quota/checkout", {"package_id": "no such"})
        assert answer.status_code == 502
        answer = person.client.post(
            "/auth/quota/checkout", {"package_id": "no such"}, headers={"accept": "text/html"}
        )
        assert answer["Location"] == "/auth/quota/packages"

    def test_quota_down_is_said_in_words(self, person: Person, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail={"path": "/api/payments/checkout", "status": 503, "times": 1})
        answer = self.buy(person, headers={"accept": "text/html"})
        path, query = wanted_at(answer)
        assert (path, query["quota_error"]) == ("/auth/quota/error", "provider_unavailable")

    def test_who_has_no_account_at_quota_connects_one(self, client: Client) -> None:
        """Signing in with Quota would end the session they have."""
        client.force_login(get_user_model().objects.create_user("x"))
        page = client.get("/auth/quota/packages", headers={"accept": "text/html"})
        assert page.status_code == 200
        answer = client.post(
            "/auth/quota/checkout", {"package_id": "x"}, headers={"accept": "text/html"}
        )
        assert answer["Location"] == "/auth/quota/connect"
        assert client.get("/auth/quota/balance").json()["login_url"] == "/auth/quota/connect"

    def test_comes_back_to_this_site_only(self, person: Person, user: Any) -> None:
        answer = person.client.get("/auth/quota/checkout?next=//evil.example")
        assert answer["Location"] == "/"

    def test_needs_the_csrf_token(self, person: Person, user: Any) -> None:
        strict = Client(enforce_csrf_checks=True, SERVER_NAME="localhost")
        strict.cookies = person.client.cookies
        assert strict.post("/auth/quota/checkout", {"package_id": "x"}).status_code == 403


class TestViews:
    def test_balance(self, person: Person, user: Any) -> None:
        answer = person.client.get("/auth/quota/balance")
        assert answer.json() == {
            "connected": True,
            "balance": 1_000_000,
            "display": "$1.00",
            "state": "available",
        }
        assert answer["Cache-Control"] == "no-store, private"

    def test_me_and_status(self, person: Person, user: Any) -> None:
        me = person.client.get("/auth/quota/me").json()["user"]
        assert (me["email"], me["name"]) == (person.email, "Ada Lovelace")
        status = person.client.get("/auth/quota/status").json()
        assert status["connected"] is True
        assert "credits.spend" in status["scopes"]

    def test_visitors(self, client: Client) -> None:
        assert client.get("/auth/quota/me").json() == {"user": None}
        assert client.get("/auth/quota/status").json()["connected"] is False
        answer = client.get("/auth/quota/balance")
        assert (answer.status_code, answer.json()["login_url"]) == (401, "/auth/quota/start")
        page = client.get("/auth/quota/packages", headers={"accept": "text/html"})
        assert query_of(page["Location"])["next"] == "/auth/quota/packages"

    def test_a_missing_scope_is_a_page_with_words(self, person: Person, settings: Any) -> None:
        settings.QUOTA_SCOPES = "openid email profile credits.spend"
        person.sign_in()
        page = person.client.get("/auth/quota/balance", headers={"accept": "text/html"})
        assert wanted_at(page) == (
            "/auth/quota/error",
            {"quota_error": "insufficient_scope", "next": "/auth/quota/balance"},
        )

    def test_quota_down(self, person: Person, user: Any, sandbox: Sandbox) -> None:
        sandbox.set(fail={"path": "/v1/balance", "status": 429, "times": 9, "retry_after": 7})
        answer = person.client.get("/auth/quota/balance")
        assert (answer.status_code, answer["Retry-After"]) == (429, "7")

    def test_disconnect(self, person: Person, user: Any, sandbox: Sandbox) -> None:
        answer = person.client.post("/auth/quota/disconnect").json()
        assert answer.pop("logout_url").startswith(f"{sandbox.origin}/oauth/end_session?")
        assert answer == {"connected": False, "linked": True}
        assert not QuotaToken.objects.exists()
        assert sandbox.requests() == ["POST /oauth/revoke"]
        assert not PendingRevocation.objects.exists()
        assert "data-quota-balance" not in person.client.get("/").content.decode()
        assert person.sign_in()["Location"] == "/"
        assert get_user_model().objects.get() == user

    @pytest.mark.parametrize(
        ("made_by_quota", "words"),
        [(True, "You can still sign in with Quota"), (False, "does not sign you in here")],
    )
    def test_disconnect_says_on_the_next_page_whether_the_link_stays(
        self, person: Person, user: Any, made_by_quota: bool, words: str
    ) -> None:
        user.quota_accounts.update(created_user=made_by_quota)
        page = person.client.post("/auth/quota/disconnect", headers={"accept": "text/html"})
        (message,) = get_messages(page.wsgi_request)
        assert words in str(message)
        assert user.quota_accounts.exists() is made_by_quota

    def test_disconnect_offers_to_sign_out_of_quota(self, person: Person, user: Any) -> None:
        """Else who signs in next at this browser is the person who has disconnected."""
        page = person.client.post("/auth/quota/disconnect", headers=PAGE)
        (message,) = get_messages(page.wsgi_request)
        assert "This browser may still be signed in at Quota." in str(message)
        link = BeautifulSoup(str(message), "html.parser").a
        assert link is not None and link.text == "Sign out of Quota"
        assert person.at_quota(str(link["href"])) == "http://localhost/"
        assert "password" in person.quota.get(person.start(), timeout=20).text

    def test_disconnect_offers_nothing_that_does_not_work(
        self, person: Person, user: Any, settings: Any
    ) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        discovery.forget()
        assert person.client.post("/auth/quota/disconnect").json()["logout_url"] is None
        person.client.force_login(user, "django.contrib.auth.backends.ModelBackend")
        page = person.client.post("/auth/quota/disconnect", headers=PAGE)
        assert "<a" not in str(list(get_messages(page.wsgi_request)))

    def test_disconnect_in_a_browser_that_was_not_at_quota(self, client: Client) -> None:
        user = get_user_model().objects.create_user("member")
        client.force_login(user, "django.contrib.auth.backends.ModelBackend")
        assert client.post("/auth/quota/disconnect").json()["logout_url"] is None

    @pytest.mark.parametrize("path", ["disconnect", "checkout", "balance", "packages"])
    def test_wrong_method(self, person: Person, user: Any, path: str) -> None:
        assert person.client.put(f"/auth/quota/{path}").status_code == 405


@pytest.mark.parametrize("kept", [["credits"], {}, {"credits": "1"}, {"credits": True}, 7])
def test_a_cache_that_holds_nonsense_is_asked_again(user: Any, kept: Any) -> None:
    cache.set(f"django_quota.balance.{user.pk}", kept)
    assert purchases.get_balance(user).credits == 1_000_000


@pytest.mark.parametrize("kept", [[{"name": "of another version"}], ["text"], 7, "unavailable"])
def test_a_cache_that_holds_other_packages_is_asked_again(user: Any, kept: Any) -> None:
    cache.set("django_quota.packages", kept)
    assert [package.name for package in purchases.get_packages()] != []


class TestPoorCaches:
    @pytest.fixture
    def without_pickle(self, settings: Any) -> None:
        settings.CACHES = {"default": {"BACKEND": "tests.caches.PlainValuesOnly"}}

    @pytest.fixture
    def down(self, settings: Any) -> None:
        settings.CACHES = {"default": {"BACKEND": "tests.caches.Down"}}

    def test_that_takes_plain_values_only(
        self, without_pickle: None, user: Any, person: Person, sandbox: Sandbox
    ) -> None:
        for _ in range(2):
            assert "$1.00" in person.client.get("/").content.decode()
            assert len(person.client.get("/auth/quota/packages").json()["packages"]) == 4
        assert sandbox.requests().count("GET /v1/balance") == 1

    def test_that_is_down(self, down: None, user: Any, person: Person) -> None:
        assert "$1.00" in person.client.get("/").content.decode()
        cache_balance(user, 1)
        assert len(purchases.get_packages()) == 4


def test_provider_unavailable_is_typed(user: Any, sandbox: Sandbox) -> None:
    sandbox.set(fail={"path": "/v1/balance", "status": 500, "times": 1})
    with pytest.raises(ProviderUnavailable, match="try again later"):
        purchases.get_balance(user)
