"""Whose session it is, and whose user, after a sign-in: with other sessions, other users, other
providers and another spelling of an e-mail address in the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from threading import Barrier
from typing import Any, ClassVar

import pytest
from django.contrib.auth import SESSION_KEY, get_user_model
from django.contrib.auth.models import Group, Permission
from django.contrib.sessions.backends.db import SessionStore
from django.contrib.sessions.models import Session
from django.db import connection, connections
from django.test import Client
from pytest_django.fixtures import Settings

from django_quota import accounts, connecting
from django_quota.backends import QuotaBackend
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.oidc import endpoints as provider_module
from django_quota.web import pending
from tests.helpers.browser import Browser
from tests.helpers.concurrency import begin_together
from tests.hostile.conftest import Refused
from tests.hostile.provider import CLIENT_ID, CLIENT_SECRET, HostileProvider
from tests.sandbox_client import query_of, wanted_at
from tests.tiny_server import Answer, Seen, TinyServer, json_answer

pytestmark = [pytest.mark.django_db, pytest.mark.database]

User = get_user_model()
PASSWORD_BACKEND = "django.contrib.auth.backends.ModelBackend"
EXCHANGE = "POST /oauth/token"


def signed_in(client: Client) -> str | None:
    """The primary key of who is signed in there."""
    return client.session.get(SESSION_KEY)


def another_browser(sessionid: str = "") -> Browser:
    client = Client(SERVER_NAME="localhost")
    if sessionid:
        client.cookies["sessionid"] = sessionid
    return Browser(client)


def key_of(browser: Browser) -> str:
    return str(browser.client.cookies["sessionid"].value)


@pytest.fixture
def member(browser: Browser) -> Any:
    """A user of the site who is signed in by password, with something in their session."""
    user = User.objects.create_user("member", "member@example.com", "correct horse")
    browser.client.force_login(user, PASSWORD_BACKEND)
    session = browser.client.session
    session["cart"] = "the member's"
    session.save()
    return user


#: `turned_back(answer, code, reason)`
TurnedBack = Callable[[Any, str, str], None]


@pytest.fixture
def turned_back(
    browser: Browser, caplog: pytest.LogCaptureFixture, told: list[dict[str, Any]]
) -> TurnedBack:
    """Like `refused`, where there are users: the person sees `code`, the log and the project's
    signal say `reason`. Who is signed in now is the case's own business."""

    def check(answer: Any, code: str, reason: str) -> None:
        assert answer.status_code == 302
        path, query = wanted_at(answer)
        assert (path, query["quota_error"]) == ("/auth/quota/error", code)
        (line,) = [r for r in caplog.records if r.name == "django_quota.sign_in"]
        assert reason in line.getMessage()
        assert [(heard["code"], heard["reference"]) for heard in told] == [
            (code, query["quota_ref"])
        ]

    return check


# --- the session ---


@pytest.mark.source("OWASP ASVS 5.0 section 7.2.4: session fixation")
def test_a_session_that_the_attacker_has_prepared(
    provider: HostileProvider, browser: Browser
) -> None:
    prepared = SessionStore()
    prepared["seen"] = True
    prepared.save()
    browser.client.cookies["sessionid"] = str(prepared.session_key)

    assert browser.sign_in()["Location"] == "/"

    assert signed_in(browser.client)
    assert not Session.objects.filter(pk=prepared.session_key).exists()
    assert not signed_in(another_browser(str(prepared.session_key)).client)


@pytest.mark.source("OWASP ASVS 5.0 section 7.2.4: session fixation")
def test_the_same_person_again_leaves_the_old_session(browser: Browser) -> None:
    """Whoever knew the key of the first session does not know that of the second."""
    browser.sign_in()
    before = key_of(browser)
    browser.sign_in()
    assert signed_in(browser.client)
    assert not signed_in(another_browser(before).client)


@pytest.mark.source("OWASP ASVS 5.0 section 7.2.4: session fixation")
def test_signing_in_over_another_users_session(member: Any, browser: Browser) -> None:
    before = key_of(browser)
    browser.sign_in()
    assert signed_in(browser.client) == str(ProviderAccount.objects.get().user_id)
    assert signed_in(browser.client) != str(member.pk)
    assert "cart" not in browser.client.session
    assert not signed_in(another_browser(before).client)


def error_response(provider: HostileProvider) -> None:
    provider.callback.update(error="access_denied", code=...)


def another_iss(provider: HostileProvider) -> None:
    provider.callback["iss"] = "https://evil.example"


def no_exchange(provider: HostileProvider) -> None:
    provider.server.on("/oauth/token", json_answer({"error": "invalid_grant"}, status=400))


def another_nonce(provider: HostileProvider) -> None:
    provider.claims["nonce"] = "another"


@pytest.mark.source("OIDC Core 3.1.2.6; OIDC Core 3.1.3.7")
@pytest.mark.parametrize(
    ("behaviour", "code", "reason"),
    [
        (error_response, "access_denied", "the person cancelled"),
        (another_iss, "authorization_failed", "iss is not Quota's"),
        (no_exchange, "token_exchange_failed", "HTTP 400 invalid_grant"),
        (another_nonce, "invalid_id_token", "nonce mismatch"),
    ],
)
def test_a_failure_leaves_who_is_signed_in_alone(
    behaviour: Callable[[HostileProvider], None],
    code: str,
    reason: str,
    member: Any,
    provider: HostileProvider,
    browser: Browser,
    turned_back: TurnedBack,
) -> None:
    behaviour(provider)
    before = key_of(browser)
    turned_back(browser.sign_in(), code, reason)
    assert signed_in(browser.client) == str(member.pk)
    assert browser.client.session["cart"] == "the member's"
    assert key_of(browser) == before
    assert User.objects.get() == member


REACHABLE = [
    ("GET", "start", 302, "http://127.0.0.1"),
    ("GET", "callback", 302, "/auth/quota/error?quota_error=state_mismatch"),
    ("GET", "error?quota_error=access_denied", 200, ""),
    ("POST", "logout", 200, ""),
    ("GET", "me", 200, ""),
    ("GET", "status", 200, ""),
    ("GET", "balance", 401, ""),
]


@pytest.fixture
def login_required(settings: Settings) -> None:
    settings.MIDDLEWARE = [
        *settings.MIDDLEWARE,
        "django.contrib.auth.middleware.LoginRequiredMiddleware",
    ]


@pytest.mark.source("Django: LoginRequiredMiddleware")
@pytest.mark.parametrize(("method", "path", "status", "location"), REACHABLE)
def test_what_a_visitor_must_reach(
    method: str, path: str, status: int, location: str, login_required: None, browser: Browser
) -> None:
    answer = browser.client.generic(method, f"/auth/quota/{path}")
    assert answer.status_code == status
    assert answer.get("Location", "").startswith(location)


@pytest.mark.source("Django: LoginRequiredMiddleware")
def test_a_site_that_is_closed_to_visitors(login_required: None, browser: Browser) -> None:
    assert browser.client.get("/")["Location"] == "/auth/quota/start?next=/"
    assert browser.sign_in(next="/")["Location"] == "/"
    assert browser.client.get("/").status_code == 200


# --- stock mozilla-django-oidc for another provider, in the same project ---


@pytest.fixture
def other(provider: HostileProvider, settings: Settings) -> Iterator[HostileProvider]:
    """The other provider, that stock mozilla-django-oidc signs in with at /oidc/."""
    with TinyServer() as server:
        other = HostileProvider(server)
        settings.ROOT_URLCONF = "tests.urls_with_stock"
        settings.AUTHENTICATION_BACKENDS = [
            "mozilla_django_oidc.auth.OIDCAuthenticationBackend",
            *settings.AUTHENTICATION_BACKENDS,
        ]
        document = other.document()
        settings.OIDC_OP_AUTHORIZATION_ENDPOINT = document["authorization_endpoint"]
        settings.OIDC_OP_TOKEN_ENDPOINT = document["token_endpoint"]
        settings.OIDC_OP_USER_ENDPOINT = document["userinfo_endpoint"]
        settings.OIDC_OP_JWKS_ENDPOINT = document["jwks_uri"]
        settings.OIDC_RP_CLIENT_ID = CLIENT_ID
        settings.OIDC_RP_CLIENT_SECRET = CLIENT_SECRET
        settings.OIDC_RP_SIGN_ALGO = "RS256"
        yield other


@pytest.fixture
def stock(other: HostileProvider, browser: Browser) -> Browser:
    """The same browser, at the other button."""
    return Browser(browser.client, start_path="/oidc/authenticate/")


@pytest.mark.source("RFC 9700 section 4.4")
def test_our_state_at_the_stock_callback(
    other: HostileProvider, browser: Browser, stock: Browser
) -> None:
    back = browser.at_provider(browser.start(next="/?welcome=1"))
    taken_there = back.replace("/auth/quota/callback", "/oidc/callback/")
    assert browser.come_back(taken_there)["Location"] == "/"
    stock.start()
    assert browser.come_back(taken_there).status_code == 400
    assert EXCHANGE not in other.asked()
    assert browser.come_back(back)["Location"] == "/?welcome=1"


@pytest.mark.source("RFC 9700 section 4.4")
@pytest.mark.parametrize("ours", [False, True], ids=["without ours", "with ours in the session"])
def test_the_stock_state_at_our_callback(
    ours: bool, provider: HostileProvider, browser: Browser, stock: Browser, turned_back: TurnedBack
) -> None:
    back = stock.at_provider(stock.start())
    if ours:
        browser.start()
    taken_here = back.replace("/oidc/callback/", "/auth/quota/callback")
    turned_back(browser.come_back(taken_here), "state_mismatch", "no sign-in with this state")
    assert EXCHANGE not in provider.asked()
    assert stock.come_back(back)["Location"] == "/"
    assert signed_in(stock.client)


@pytest.mark.source("RFC 9700 section 4.4")
@pytest.mark.usefixtures("duplicates")
def test_both_in_one_browser(
    provider: HostileProvider, other: HostileProvider, browser: Browser, stock: Browser
) -> None:
    """Each code goes to its own provider, although Django offers every sign-in to every backend."""
    back, there = browser.at_provider(browser.start()), stock.at_provider(stock.start())

    stock.come_back(there)
    assert browser.client.session["_auth_user_backend"].startswith("mozilla_django_oidc")
    assert provider.asked().count(EXCHANGE) == 0
    browser.come_back(back)
    assert browser.client.session["_auth_user_backend"] == "django_quota.backends.QuotaBackend"

    assert provider.asked().count(EXCHANGE) == other.asked().count(EXCHANGE) == 1
    assert signed_in(browser.client) == str(ProviderAccount.objects.get().user_id)


# --- who may sign in ---


@pytest.mark.source("OIDC Core 3.1.3.7: the identity is right, and the user is not to come in")
def test_a_user_who_was_switched_off(browser: Browser, turned_back: TurnedBack) -> None:
    browser.sign_in()
    User.objects.update(is_active=False)
    before = QuotaToken.objects.get().version
    visitor = another_browser()
    turned_back(visitor.sign_in(), "account_inactive", "is not active")
    assert not signed_in(visitor.client)
    assert QuotaToken.objects.get().version == before


@pytest.mark.source("the issue: QUOTA_CREATE_USER")
def test_nobody_may_join(browser: Browser, refused: Refused, settings: Settings) -> None:
    settings.QUOTA_CREATE_USER = False
    refused(browser.sign_in(), "sign_up_closed", "QUOTA_CREATE_USER is False")


@pytest.mark.source("the issue: QUOTA_CREATE_USER")
def test_who_is_known_may_come_in_all_the_same(browser: Browser, settings: Settings) -> None:
    browser.sign_in()
    settings.QUOTA_CREATE_USER = False
    visitor = another_browser()
    assert visitor.sign_in()["Location"] == "/"
    assert signed_in(visitor.client) == signed_in(browser.client)


# --- an e-mail address is not an identity ---


@pytest.fixture
def duplicates(settings: Settings) -> None:
    """A site that wants a second user where the address is known."""
    settings.QUOTA_ALLOW_DUPLICATE_EMAIL = True


@pytest.mark.source("OIDC Core 5.7")
@pytest.mark.parametrize("spelling", ["ada@example.com", "Ada@Example.COM"])
def test_a_verified_email_that_the_site_knows(
    spelling: str, browser: Browser, turned_back: TurnedBack
) -> None:
    """Not a second user: the first could not sign in any more where users are found by it."""
    ada = User.objects.create_user("ada", spelling, "correct horse")
    turned_back(browser.sign_in(), "email_known", "let them sign in as usual")
    assert User.objects.get() == ada
    ada.refresh_from_db()
    assert ada.check_password("correct horse")


@pytest.mark.source("OIDC Core 5.7")
def test_that_the_site_knows_an_address_is_told_only_to_who_has_it(
    provider: HostileProvider, browser: Browser
) -> None:
    User.objects.create_user("ada", "ada@example.com", "correct horse")
    provider.person["email_verified"] = False
    assert browser.sign_in()["Location"] == "/"
    assert ProviderAccount.objects.get().user.email == ""


@pytest.mark.source("OIDC Core 5.7; RFC 9700 section 4.15")
@pytest.mark.parametrize("more", ["a group", "a permission", "is not active"])
@pytest.mark.usefixtures("duplicates")
def test_the_email_of_somebody_who_may_do_more_or_nothing(
    more: str, browser: Browser, settings: Settings
) -> None:
    settings.QUOTA_LINK_BY_EMAIL = True
    editor = User.objects.create_user("editor", "ada@example.com", "correct horse")
    if more == "a group":
        editor.groups.add(Group.objects.create(name="editors"))
    elif more == "a permission":
        editor.user_permissions.add(Permission.objects.all()[0])
    else:
        User.objects.update(is_active=False)
    assert browser.sign_in()["Location"] == "/"
    assert ProviderAccount.objects.get().user != editor


@pytest.mark.source("OIDC Core 5.7; RFC 9700 section 4.15")
@pytest.mark.parametrize("verified", [False, True], ids=["unverified", "verified"])
@pytest.mark.parametrize("link", [False, True], ids=["no link", "QUOTA_LINK_BY_EMAIL"])
@pytest.mark.usefixtures("duplicates")
def test_a_superusers_email(
    verified: bool, link: bool, provider: HostileProvider, browser: Browser, settings: Settings
) -> None:
    settings.QUOTA_LINK_BY_EMAIL = link
    root = User.objects.create_superuser("root", "ada@example.com", "correct horse")
    provider.person["email_verified"] = verified
    assert browser.sign_in()["Location"] == "/"
    user = ProviderAccount.objects.get().user
    assert signed_in(browser.client) == str(user.pk) != str(root.pk)
    assert not user.is_staff and not user.is_superuser
    root.refresh_from_db()
    assert root.check_password("correct horse")


@pytest.mark.source("OIDC Core 5.7")
@pytest.mark.parametrize("link", [False, True], ids=["no link", "QUOTA_LINK_BY_EMAIL"])
def test_an_unverified_email(
    link: bool, provider: HostileProvider, browser: Browser, settings: Settings
) -> None:
    """Nor does it become the new user's: what looks users up by e-mail would find the stranger."""
    settings.QUOTA_LINK_BY_EMAIL = link
    ada = User.objects.create_user("ada", "ada@example.com", "correct horse")
    provider.person["email_verified"] = False
    browser.sign_in()
    user = ProviderAccount.objects.get().user
    assert user != ada
    assert user.email == ""


@pytest.mark.source("the issue: QUOTA_LINK_BY_EMAIL, a verified, unique e-mail")
@pytest.mark.parametrize("spelling", ["ada@example.com", "Ada@Example.COM"])
def test_a_link_by_email(spelling: str, browser: Browser, settings: Settings) -> None:
    settings.QUOTA_LINK_BY_EMAIL = True
    ada = User.objects.create_user("ada", spelling)
    browser.sign_in()
    assert ProviderAccount.objects.get().user == ada
    ada.refresh_from_db()
    assert ada.email == User.objects.normalize_email(spelling), "their spelling is theirs"


@pytest.mark.source("the issue: QUOTA_LINK_BY_EMAIL, a verified, unique e-mail")
@pytest.mark.usefixtures("duplicates")
def test_an_email_that_two_have(browser: Browser, settings: Settings) -> None:
    settings.QUOTA_LINK_BY_EMAIL = True
    for name in ("one", "two"):
        User.objects.create_user(name, "ada@example.com")
    browser.sign_in()
    assert ProviderAccount.objects.get().user.username.startswith("quota-")


@pytest.fixture
def folding(transactional_db: None) -> Iterator[None]:
    """SQLite ignores the case of ASCII letters only. Here it compares as PostgreSQL does, by
    UPPER(), and as MariaDB does, which knows no accents either."""
    if connection.vendor == "sqlite":
        connection.ensure_connection()
        connection.connection.create_function("like", 3, _like)
    yield
    connection.close()


def _like(pattern: str, value: str, _escape: str) -> bool:
    plain = str.maketrans("áİıſ\u212a", "aIisk")
    return pattern.translate(plain).upper() == value.translate(plain).upper()


@pytest.mark.source("CVE-2019-19844; Unicode TR 36 section 2.11.2")
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("m\u0131ke@example.com", "mike@example.com"),
        ("mi\u212ae@example.com", "mike@example.com"),
        ("mike@ex\u00e1mple.com", "mike@example.com"),
        ("mike@example.com", "mi\u212ae@example.com"),
    ],
    ids=["dotless i", "Kelvin", "accent in the host", "Kelvin here"],
)
def test_an_email_that_only_looks_the_same(
    theirs: str,
    ours: str,
    folding: None,
    provider: HostileProvider,
    browser: Browser,
    settings: Settings,
) -> None:
    settings.QUOTA_LINK_BY_EMAIL = True
    mike = User.objects.create(username="mike", email=ours)
    provider.person["email"] = theirs
    browser.sign_in()
    assert ProviderAccount.objects.get().user != mike


@pytest.mark.source("OIDC Core 5.7")
def test_an_email_that_changed_at_the_provider(provider: HostileProvider, browser: Browser) -> None:
    browser.sign_in()
    provider.person["email"] = "new@example.com"
    browser.sign_in()
    account = ProviderAccount.objects.get()
    assert (account.email, account.user.email) == ("new@example.com", "ada@example.com")


@pytest.mark.source("OIDC Core 5.7")
@pytest.mark.parametrize("link", [False, True], ids=["no link", "QUOTA_LINK_BY_EMAIL"])
@pytest.mark.usefixtures("duplicates")
def test_an_email_that_is_another_persons_now(
    link: bool, provider: HostileProvider, browser: Browser, settings: Settings
) -> None:
    """Addresses are given away again; the wallet and the data of the first one are not."""
    settings.QUOTA_LINK_BY_EMAIL = link
    browser.sign_in()
    provider.person["sub"] = "another-person"
    visitor = another_browser()
    assert visitor.sign_in()["Location"] == "/"
    assert signed_in(visitor.client) != signed_in(browser.client)


# --- the sub is ---


@pytest.mark.source("OIDC Core 2: sub is case sensitive")
@pytest.mark.usefixtures("duplicates")
def test_subs_that_differ_in_case(provider: HostileProvider, browser: Browser) -> None:
    browser.sign_in()
    provider.person["sub"] = provider.person["sub"].upper()
    visitor = another_browser()
    visitor.sign_in()
    assert signed_in(visitor.client) != signed_in(browser.client)


@pytest.mark.source("OIDC Core 5.7")
def test_who_disconnected_finds_their_user_again(browser: Browser) -> None:
    browser.sign_in()
    user = signed_in(browser.client)
    browser.client.post("/auth/quota/disconnect")
    assert not QuotaToken.objects.exists()
    visitor = another_browser()
    assert visitor.sign_in()["Location"] == "/"
    assert signed_in(visitor.client) == user
    assert QuotaToken.objects.exists()


@pytest.mark.source("OIDC Core 5.7")
def test_who_was_deleted_here_starts_anew(browser: Browser) -> None:
    """In the browser whose session still names them; what they left is given back."""
    browser.sign_in()
    User.objects.get().delete()
    assert PendingRevocation.objects.count() == 1
    assert browser.sign_in()["Location"] == "/"
    assert signed_in(browser.client) == str(User.objects.get().pk)


@pytest.mark.source("OIDC Core 5.7: preferred_username and the like identify nobody")
def test_a_username_that_a_squatter_has(provider: HostileProvider, browser: Browser) -> None:
    squatter = User.objects.create_user(f"quota-{provider.person['sub']}")
    assert browser.sign_in()["Location"] == "/"
    assert signed_in(browser.client) != str(squatter.pk)
    assert User.objects.count() == 2


@pytest.mark.source("OIDC Core 2: sub is locally unique")
@pytest.mark.django_db(transaction=True)
def test_two_first_sign_ins_at_once(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    both_know_nobody = Barrier(2)
    create_user = QuotaBackend.create_user

    def create_together(self: QuotaBackend, claims: Any) -> Any:
        both_know_nobody.wait(20)
        return create_user(self, claims)

    monkeypatch.setattr(QuotaBackend, "create_user", create_together)

    def run(visitor: Browser) -> str | None:
        assert visitor.sign_in()["Location"] == "/"
        return signed_in(visitor.client)

    first, second = begin_together([partial(run, browser), partial(run, another_browser())])
    assert first == second == str(User.objects.get().pk)
    assert ProviderAccount.objects.count() == 1


# --- Connect Wallet ---


def consented_connect(browser: Browser) -> str:
    """The member has agreed to connect, and said yes at the provider; the way back."""
    url = browser.client.post("/auth/quota/connect", {"replaces": ""})["Location"]
    return browser.at_provider(str(url))


def carried_into(browser: Browser, change: Callable[[Any], None]) -> None:
    """The session is another one by now, but what is under way was carried over into it."""
    under_way = browser.client.session[pending.SESSION_KEY]
    change(browser.client)
    session = browser.client.session
    session[pending.SESSION_KEY] = under_way
    session.save()


@pytest.mark.source("RFC 9700 section 4.7")
def test_a_link_connects_nothing(member: Any, provider: HostileProvider, browser: Browser) -> None:
    """The browser may be signed in at the provider as somebody else, who would own this user."""
    answer = browser.client.get("/auth/quota/connect")
    assert answer.status_code == 200
    assert pending.SESSION_KEY not in browser.client.session
    assert provider.asked() == []


@pytest.mark.source("RFC 9700 section 4.7; Django: CsrfViewMiddleware")
def test_a_foreign_form_connects_nothing(member: Any, browser: Browser) -> None:
    strict = Client(SERVER_NAME="localhost", enforce_csrf_checks=True)
    strict.cookies["sessionid"] = key_of(browser)
    assert strict.post("/auth/quota/connect").status_code == 403
    assert pending.SESSION_KEY not in browser.client.session


@pytest.mark.source("RFC 9700 section 4.7")
def test_a_wallet_of_another_user(browser: Browser, turned_back: TurnedBack, member: Any) -> None:
    owner = another_browser()
    owner.sign_in()
    before = QuotaToken.objects.get().version
    turned_back(
        browser.come_back(consented_connect(browser)), "account_in_use", "belongs to another user"
    )
    assert signed_in(browser.client) == str(member.pk)
    assert signed_in(owner.client) == str(ProviderAccount.objects.get().user_id)
    assert QuotaToken.objects.get().version == before


@pytest.mark.source("RFC 9700 section 4.7")
def test_another_user_at_the_end(
    member: Any, provider: HostileProvider, browser: Browser, turned_back: TurnedBack
) -> None:
    back = consented_connect(browser)
    other = User.objects.create_user("other")
    carried_into(browser, lambda client: client.force_login(other, PASSWORD_BACKEND))
    turned_back(browser.come_back(back), "state_mismatch", "another user is signed in")
    assert signed_in(browser.client) == str(other.pk)
    assert not ProviderAccount.objects.exists()


@pytest.mark.source("RFC 9700 section 4.7")
def test_nobody_at_the_end(member: Any, browser: Browser, turned_back: TurnedBack) -> None:
    """Least of all does it sign somebody in."""
    back = consented_connect(browser)

    def sign_out(client: Any) -> None:
        client.logout()
        client.get("/auth/quota/start")

    carried_into(browser, sign_out)
    turned_back(browser.come_back(back), "state_mismatch", "another user is signed in")
    assert not signed_in(browser.client)
    assert not ProviderAccount.objects.exists()


@pytest.mark.source("RFC 9700 section 4.7")
@pytest.mark.django_db(transaction=True)
def test_a_logout_while_the_wallet_is_asked_for(
    member: Any, provider: HostileProvider, browser: Browser, turned_back: TurnedBack
) -> None:
    back = consented_connect(browser)
    other_tab = another_browser(key_of(browser))

    def token(request: Seen) -> Answer:
        other_tab.client.post("/auth/quota/logout")
        connections.close_all()
        return provider._token(request)

    provider.server.on("/oauth/token", token)
    turned_back(browser.come_back(back), "state_mismatch", "another user is signed in")
    assert not ProviderAccount.objects.exists()


@pytest.mark.source("RFC 9700 section 4.7")
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_visitor_connects_nothing(
    method: str, provider: HostileProvider, browser: Browser
) -> None:
    answer = browser.client.generic(method, "/auth/quota/connect")
    assert answer["Location"] == "/auth/quota/start?next=/auth/quota/connect"
    assert pending.SESSION_KEY not in browser.client.session
    assert provider.asked() == []


@pytest.mark.source("OIDC Core 5.7")
def test_a_sign_in_is_no_connection(member: Any, browser: Browser) -> None:
    """Else a link to start would connect whatever wallet the browser is signed in with."""
    browser.sign_in()
    assert accounts.account_of(member) is None


# --- other backends of the project ---


class Greedy:
    """Takes any credentials, and says that they are the victim's."""

    seen: ClassVar[list[Any]] = []

    def authenticate(self, request: Any, **credentials: Any) -> Any:
        self.seen.append(request)
        return User.objects.get(username="victim")

    def get_user(self, pk: Any) -> Any:
        return User.objects.filter(pk=pk).first()


@pytest.mark.source("Django: authenticate() asks every backend")
@pytest.mark.parametrize("known", [False, True], ids=["a first sign-in", "a later one"])
def test_a_greedy_backend(
    known: bool, browser: Browser, turned_back: TurnedBack, settings: Settings
) -> None:
    User.objects.create_user("victim")
    if known:
        another_browser().sign_in()
    Greedy.seen.clear()
    settings.AUTHENTICATION_BACKENDS = [
        f"{__name__}.Greedy",
        "django_quota.backends.QuotaBackend",
    ]
    back = browser.at_provider(browser.start())
    turned_back(browser.come_back(back), "sign_in_refused", "no backend accepted them")
    assert signed_in(browser.client) is None
    (request,) = Greedy.seen
    for secret in (query_of(back)["code"], query_of(back)["state"]):
        assert secret not in f"{request.GET} {request.get_full_path()} {request.META}"


# --- what happens at the same moment ---


@pytest.mark.source("OIDC Core 5.7; a whole save would bring the row back")
@pytest.mark.parametrize("what", ["disconnected", "deleted"])
def test_an_account_that_goes_during_its_sign_in(
    what: str,
    browser: Browser,
    turned_back: TurnedBack,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    another_browser().sign_in()
    User.objects.update(password="pbkdf2_sha256$1$salt$hash")

    def meanwhile(backend: Any, user: Any) -> bool:
        connecting.disconnect(user) if what == "disconnected" else User.objects.all().delete()
        return True

    monkeypatch.setattr(QuotaBackend, "user_can_authenticate", meanwhile)
    turned_back(browser.sign_in(), "account_conflict", "the account was removed just now")
    assert not ProviderAccount.objects.exists()
    assert signed_in(browser.client) is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.source("RFC 9700 section 4.3.1; Django: ATOMIC_REQUESTS")
def test_no_transaction_is_open_while_quota_is_asked(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a rollback would bring a spent state back, and a slow provider would hold locks."""
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    open_at: list[str] = []
    for module, name in (
        (provider_module, "exchange_code"),
        (provider_module, "authorization_url"),
    ):

        def asked(*args: Any, ask: Any, **kwargs: Any) -> Any:
            if connection.in_atomic_block:
                open_at.append(ask.__name__)
            return ask(*args, **kwargs)

        monkeypatch.setattr(module, name, partial(asked, ask=getattr(module, name)))
    assert browser.sign_in()["Location"] == "/"
    assert open_at == []
