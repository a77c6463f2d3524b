"""What arrives at the callback without the provider's doing, or not the way that it sent it: who
has not started this very sign-in in this very browser is not signed in, and no code goes astray."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from functools import partial
from threading import Barrier
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from django.contrib.auth import SESSION_KEY, get_user_model
from django.db import connections
from django.test import Client
from django.utils.crypto import constant_time_compare
from pytest_django.fixtures import Settings

from django_quota.models import ProviderAccount, QuotaToken
from django_quota.oidc import id_token
from django_quota.wallet import caching
from django_quota.web import pending
from tests.helpers.browser import Browser
from tests.helpers.concurrency import begin_together
from tests.hostile.conftest import Refused
from tests.hostile.provider import REMOVED, HostileProvider, changed, s256
from tests.sandbox_client import query_of, wanted_at
from tests.tiny_server import Answer, Seen, TinyServer, json_answer

pytestmark = pytest.mark.django_db

CALLBACK = "/auth/quota/callback"
EXCHANGE = "POST /oauth/token"
XSS = "<script>alert(1)</script>\r\nforged line of the log"

#: What becomes of the address that the provider sent the browser back to.
Change = Callable[[str], str]


def case(name: str, source: str, change: Change, code: str, reason: str) -> Any:
    return pytest.param(change, code, reason, id=name, marks=pytest.mark.source(source))


def having(**changes: Any) -> Change:
    """The same address with these parameters; what is changed to `...` is left out."""

    def change(url: str) -> str:
        return f"{CALLBACK}?{urlencode(changed(dict(parse_qsl(urlsplit(url).query)), changes))}"

    return change


def plus(raw: str) -> Change:
    return lambda url: f"{url}&{raw}"


def twice(name: str) -> Change:
    return lambda url: f"{url}&{urlencode({name: query_of(url)[name]})}"


UNKNOWN_STATE = ("state_mismatch", "no sign-in with this state")
NO_CODE = ("authorization_failed", "no usable code")
OTHER_ISSUER = ("authorization_failed", "iss is not Quota's")

NEVER_EXCHANGED = [
    case("no state", "RFC 6749 section 10.12", having(state=REMOVED), *UNKNOWN_STATE),
    case("another state", "RFC 6749 section 10.12", having(state="x" * 43), *UNKNOWN_STATE),
    case("an empty state", "RFC 6749 section 10.12", having(state=""), *UNKNOWN_STATE),
    case("a state that is not ASCII", "RFC 6749 appendix A.5", having(state="é😀"), *UNKNOWN_STATE),
    case(
        "a NUL behind the state",
        "RFC 6749 appendix A.5",
        lambda url: having(state=query_of(url)["state"] + "\0")(url),
        *UNKNOWN_STATE,
    ),
    case(
        "a state that is not UTF-8",
        "RFC 6749 appendix B",
        lambda url: f"{having(state=REMOVED)(url)}&state=%ff%zz",
        *UNKNOWN_STATE,
    ),
    case("state twice", "RFC 6749 section 3.1", twice("state"), *UNKNOWN_STATE),
    case(
        "an error without a state",
        "RFC 6749 section 4.1.2.1",
        having(error="access_denied", code=REMOVED, state=REMOVED),
        *UNKNOWN_STATE,
    ),
    case(
        "an error with another state",
        "RFC 6749 section 4.1.2.1",
        having(error="access_denied", code=REMOVED, state="forged"),
        *UNKNOWN_STATE,
    ),
    case(
        "response_mode fragment",
        "OAuth 2.0 Multiple Response Type Encoding Practices section 2.1",
        lambda url: url.replace("?", "?#"),
        *UNKNOWN_STATE,
    ),
    case("no code", "RFC 6749 section 4.1.2", having(code=REMOVED), *NO_CODE),
    case("an empty code", "RFC 6749 section 4.1.2", having(code=""), *NO_CODE),
    case("a code of 100 KB", "RFC 6749 section 4.1.2", having(code="x" * 100_000), *NO_CODE),
    case("code twice", "RFC 6749 section 3.1", twice("code"), *NO_CODE),
    case(
        "an id_token and no code",
        "OIDC Core 3.1.2.5",
        having(code=REMOVED, id_token="eyJhbGciOiJSUzI1NiJ9.e30.x"),
        *NO_CODE,
    ),
    case(
        "both a code and an error",
        "RFC 6749 section 4.1.2.1",
        having(error="access_denied"),
        "access_denied",
        "the person cancelled",
    ),
    case(
        "error twice",
        "RFC 6749 section 3.1",
        plus("error=access_denied&error=access_denied"),
        "authorization_failed",
        "another error",
    ),
    case(
        "another iss, not advertised",
        "RFC 9207 section 2.4",
        having(iss="https://evil.example"),
        *OTHER_ISSUER,
    ),
    case("an empty iss, not advertised", "RFC 9207 section 2.4", having(iss=""), *OTHER_ISSUER),
]


@pytest.mark.parametrize(("change", "code", "reason"), NEVER_EXCHANGED)
def test_never_exchanged(
    change: Change,
    code: str,
    reason: str,
    provider: HostileProvider,
    browser: Browser,
    refused: Refused,
) -> None:
    back = browser.at_provider(browser.start())
    refused(browser.come_back(change(back)), code, reason)
    assert EXCHANGE not in provider.asked()


@pytest.mark.source("RFC 6749 section 10.12")
@pytest.mark.parametrize("change", [having(state="x"), having(state=REMOVED), twice("state")])
def test_a_wrong_state_ends_no_sign_in_that_is_under_way(change: Change, browser: Browser) -> None:
    """Else anybody could, by an image tag."""
    back = browser.at_provider(browser.start(next="/?welcome=1"))
    browser.come_back(change(back))
    assert browser.come_back(back)["Location"] == "/?welcome=1"


# --- error responses ---


def error(name: str, code: str, reason: str, source: str = "RFC 6749 section 4.1.2.1") -> Any:
    return pytest.param(name, code, reason, id=name, marks=pytest.mark.source(source))


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        error("invalid_request", "authorization_failed", "another error"),
        error("unauthorized_client", "authorization_failed", "another error"),
        error("unsupported_response_type", "authorization_failed", "another error"),
        error("access_denied", "access_denied", "the person cancelled"),
        error("invalid_scope", "invalid_scope", "not among the app's allowed_scopes"),
        error("server_error", "provider_unavailable", "answered server_error"),
        error(
            "temporarily_unavailable", "provider_unavailable", "answered temporarily_unavailable"
        ),
        error("login_required", "authorization_failed", "another error", "OIDC Core 3.1.2.6"),
        error("", "authorization_failed", "another error"),
    ],
)
def test_an_error_response(
    name: str, code: str, reason: str, browser: Browser, refused: Refused
) -> None:
    back = having(error=name, code=REMOVED)(browser.at_provider(browser.start()))
    refused(browser.come_back(back), code, reason)


@pytest.mark.source("RFC 6749 section 10.14")
@pytest.mark.parametrize("name", ["error", "error_description", "error_uri"])
def test_what_the_provider_says_of_an_error_is_repeated_nowhere(
    name: str, browser: Browser, refused: Refused, caplog: pytest.LogCaptureFixture
) -> None:
    said = {"error": "server_error", name: XSS}
    back = having(**said, code=REMOVED)(browser.at_provider(browser.start()))
    answer = browser.come_back(back)
    code = "authorization_failed" if name == "error" else "provider_unavailable"
    refused(answer, code, "Quota answered")
    page = browser.client.get(answer["Location"]).content.decode()
    for text in (caplog.text, answer["Location"], page):
        assert "alert" not in text
        assert "forged" not in text


# --- the callback in another browser, and again ---


@pytest.mark.source("RFC 9700 section 4.7; RFC 6749 section 10.12")
def test_login_csrf(provider: HostileProvider, browser: Browser, refused: Refused) -> None:
    """The attacker has the victim's browser open the attacker's own callback."""
    attacker = Browser(Client(SERVER_NAME="localhost"))
    back = attacker.at_provider(attacker.start())
    browser.start()
    refused(browser.come_back(back), *UNKNOWN_STATE)
    assert EXCHANGE not in provider.asked()


@pytest.mark.source("RFC 6749 section 10.12")
def test_the_session_was_lost_on_the_way(browser: Browser, refused: Refused) -> None:
    back = browser.at_provider(browser.start())
    browser.client.cookies.clear()
    refused(browser.come_back(back), *UNKNOWN_STATE)


@pytest.mark.source("RFC 6749 section 4.1.2")
def test_a_state_is_good_for_one_attempt(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    """Also where that failed: what happened to its code is not known."""
    back = browser.at_provider(browser.start())
    browser.come_back(having(code=REMOVED)(back))
    again = browser.come_back(back)
    assert wanted_at(again)[1]["quota_error"] == "state_mismatch"
    assert EXCHANGE not in provider.asked()


@pytest.mark.source("RFC 6749 section 10.12")
@pytest.mark.parametrize(
    ("change", "where"),
    [
        pytest.param(lambda url: url, "/?welcome=1", id="the back button"),
        pytest.param(having(code="forged"), "/?welcome=1", id="a forged code"),
        pytest.param(lambda url: CALLBACK, "/", id="a tab restored without the query"),
        pytest.param(having(state="forged", error="access_denied"), "/", id="a forged error"),
        pytest.param(having(state="forged"), "/", id="a forged state"),
    ],
)
def test_who_is_signed_in_goes_on(
    change: Change,
    where: str,
    provider: HostileProvider,
    browser: Browser,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """To where that sign-in has led, or home."""
    back = browser.at_provider(browser.start(next="/?welcome=1"))
    browser.come_back(back)
    user = browser.client.session[SESSION_KEY]
    asked = provider.asked()

    answer = browser.come_back(change(back))

    assert (answer.status_code, answer["Location"]) == (302, where)
    assert browser.client.session[SESSION_KEY] == user
    assert provider.asked() == asked
    assert not [r for r in caplog.records if r.name == "django_quota.sign_in"]


@pytest.mark.source("RFC 6749 section 4.1.2")
@pytest.mark.django_db(transaction=True)
def test_the_same_callback_twice_at_once(
    provider: HostileProvider, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider may revoke the tokens of a code that it is sent twice."""
    back = browser.at_provider(browser.start(next="/?welcome=1"))
    both_have_read = Barrier(2)
    real = pending.pop

    def pop_together(session: Any, state: Any) -> Any:
        session.get(pending.SESSION_KEY)
        both_have_read.wait(20)
        return real(session, state)

    monkeypatch.setattr(pending, "pop", pop_together)

    def run() -> str:
        tab = Browser(Client(SERVER_NAME="localhost"))
        tab.client.cookies["sessionid"] = browser.client.cookies["sessionid"].value
        return wanted_at(tab.come_back(back))[0]

    assert sorted(begin_together([run, run])) == ["/", "/auth/quota/error"]
    assert provider.asked().count(EXCHANGE) == 1


@pytest.mark.source("design: the cache is a convenience")
def test_a_cache_that_hides_that_it_is_down_stops_nobody(
    browser: Browser, settings: Settings
) -> None:
    settings.CACHES = {"default": {"BACKEND": "tests.caches.Hidden"}}
    assert browser.sign_in()["Location"] == "/"


@pytest.mark.source("design: the cache is a convenience")
def test_a_cache_that_is_down_stops_nobody(
    browser: Browser, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def down(*args: Any) -> bool:
        raise ConnectionError("redis://:hush@cache.example")

    monkeypatch.setattr(caching, "cache", SimpleNamespace(add=down, get=down))
    assert browser.sign_in()["Location"] == "/"
    assert "the cache does not work: ConnectionError" in caplog.text
    assert "hush" not in caplog.text


@pytest.mark.source("RFC 6749 section 4.1.2; Django: SESSION_ENGINE")
def test_a_session_that_lives_in_its_cookie(browser: Browser, settings: Settings) -> None:
    """What was taken out of it is out of the cookie, too, where nobody was signed in."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    browser.come_back(having(code=REMOVED)(browser.at_provider(browser.start())))
    assert browser.client.session[pending.SESSION_KEY] == []
    assert browser.sign_in()["Location"] == "/"
    assert SESSION_KEY in browser.client.session


@pytest.mark.source("RFC 6749 section 4.1.2")
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_two_tabs(order: tuple[int, int], browser: Browser) -> None:
    tabs = [browser.at_provider(browser.start(next=f"/?tab={n}")) for n in range(2)]
    for tab in order:
        assert browser.come_back(tabs[tab])["Location"] == f"/?tab={tab}"
    assert SESSION_KEY in browser.client.session
    assert get_user_model().objects.count() == 1


# --- logout in another tab ---


@pytest.mark.source("RFC 6749 section 10.12")
def test_a_logout_ends_what_was_under_way(provider: HostileProvider, browser: Browser) -> None:
    browser.sign_in()
    back = browser.at_provider(browser.start())
    browser.client.post("/auth/quota/logout")
    assert wanted_at(browser.come_back(back))[1]["quota_error"] == "state_mismatch"
    assert provider.asked().count(EXCHANGE) == 1


@pytest.fixture
def logout_at_the_exchange(
    transactional_db: None, provider: HostileProvider, browser: Browser
) -> Callable[[bool], None]:
    """The person, who is signed in, signs in again; while the provider is asked for the tokens,
    they sign out in another tab."""
    browser.sign_in()
    session = browser.client.session
    session["cart"] = "theirs"
    session.save()
    other_tab = Client(SERVER_NAME="localhost")
    other_tab.cookies["sessionid"] = browser.client.cookies["sessionid"].value

    def prepare(works: bool) -> None:
        def token(request: Seen) -> Answer:
            other_tab.post("/auth/quota/logout")
            connections.close_all()
            return provider._token(request) if works else json_answer({}, status=503)

        provider.server.on("/oauth/token", token)

    return prepare


@pytest.mark.source("RFC 6749 section 10.12")
def test_a_logout_during_an_exchange_that_fails(
    logout_at_the_exchange: Callable[[bool], None], browser: Browser
) -> None:
    """An answer in words, not Django's 400 for a session that has ended meanwhile."""
    logout_at_the_exchange(False)
    answer = browser.sign_in()
    assert answer.status_code == 302
    assert wanted_at(answer)[1]["quota_error"] == "token_exchange_failed"
    assert SESSION_KEY not in browser.client.session


@pytest.mark.source("RFC 6749 section 10.12")
def test_a_logout_during_an_exchange_that_works(
    logout_at_the_exchange: Callable[[bool], None], browser: Browser
) -> None:
    """The person did sign in; nothing of the session that they ended comes back with it."""
    logout_at_the_exchange(True)
    assert browser.sign_in()["Location"] == "/"
    assert SESSION_KEY in browser.client.session
    assert "cart" not in browser.client.session


# --- whose answer it is: RFC 9207 ---


@pytest.fixture
def sends_iss(provider: HostileProvider) -> None:
    provider.discovery["authorization_response_iss_parameter_supported"] = True
    provider.callback["iss"] = provider.origin


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(change, id=name, marks=pytest.mark.source("RFC 9207 section 2.4"))
        for name, change in [
            ("missing", having(iss=REMOVED)),
            ("another", having(iss="https://evil.example")),
            ("with a slash more", lambda url: having(iss=query_of(url)["iss"] + "/")(url)),
            ("twice", twice("iss")),
            ("missing in an error", having(iss=REMOVED, error="access_denied")),
        ]
    ],
)
def test_a_wrong_iss(
    change: Change, sends_iss: None, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    back = browser.at_provider(browser.start())
    refused(browser.come_back(change(back)), *OTHER_ISSUER)
    assert EXCHANGE not in provider.asked()


@pytest.mark.source("RFC 9207 section 2.4")
@pytest.mark.parametrize("advertised", [True, False, REMOVED])
def test_the_right_iss(advertised: Any, provider: HostileProvider, browser: Browser) -> None:
    provider.discovery["authorization_response_iss_parameter_supported"] = advertised
    provider.callback["iss"] = provider.origin
    assert browser.sign_in()["Location"] == "/"


@pytest.mark.source("RFC 9700 section 4.4; RFC 9207 section 2.4")
def test_mix_up(
    sends_iss: None, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    """The browser was led to another provider, which answers with a code and a name of its own."""
    with TinyServer() as server:
        other = HostileProvider(server)
        other.callback["iss"] = other.origin
        url = browser.start().replace(provider.origin, other.origin)
        refused(browser.come_back(browser.at_provider(url)), *OTHER_ISSUER)
        assert EXCHANGE not in provider.asked() + other.asked()


# --- whose code it is: PKCE and nonce ---


@pytest.mark.source("RFC 7636 sections 4.1 and 4.2; RFC 9700 section 2.1.1")
def test_the_verifier_fits_the_challenge(provider: HostileProvider, browser: Browser) -> None:
    url = browser.start()
    assert browser.come_back(browser.at_provider(url))["Location"] == "/"
    (exchange,) = provider.server.seen("/oauth/token")
    assert re.fullmatch(r"[A-Za-z0-9._~-]{43,128}", exchange.form["code_verifier"])
    sent = query_of(url)
    assert sent["code_challenge_method"] == "S256"
    assert sent["code_challenge"] == s256(exchange.form["code_verifier"])


@pytest.mark.source("RFC 9700 sections 4.5 and 4.5.3.1")
def test_a_stolen_code(browser: Browser, refused: Refused) -> None:
    """Code injection: the victim's code comes in under the attacker's own state."""
    victim = Browser(Client(SERVER_NAME="localhost"))
    stolen = query_of(victim.at_provider(victim.start()))["code"]
    back = having(code=stolen)(browser.at_provider(browser.start()))
    refused(browser.come_back(back), "token_exchange_failed", "HTTP 400 invalid_grant")


@pytest.mark.source("RFC 9700 section 4.5.3.2; OIDC Core 3.1.3.7 item 11")
def test_a_stolen_code_at_a_provider_without_pkce(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    victim = Browser(Client(SERVER_NAME="localhost"))
    without = re.sub("&code_challenge=[^&]*", "", victim.start())
    stolen = query_of(victim.at_provider(without))["code"]
    back = having(code=stolen)(browser.at_provider(browser.start()))
    refused(browser.come_back(back), "invalid_id_token", "nonce mismatch")


@pytest.mark.source("OIDC Core 15.5.2; oidcc-client-test-nonce-invalid")
def test_the_id_token_of_an_earlier_sign_in(
    provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    """Of the same person in the same browser, so that nothing but the nonce is another."""
    earlier = query_of(browser.start())["nonce"]
    provider.token["id_token"] = provider.id_token(earlier)
    refused(browser.sign_in(), "invalid_id_token", "nonce mismatch")


@pytest.mark.source("OIDC Core 3.1.2.5")
def test_an_id_token_in_the_address_is_nobodys(provider: HostileProvider, browser: Browser) -> None:
    """It is signed, and has our nonce; but who signs in is said by the token endpoint alone."""
    url = browser.start()
    provider.claims["sub"] = "somebody-else"
    smuggled = provider.id_token(query_of(url)["nonce"])
    del provider.claims["sub"]
    browser.come_back(having(id_token=smuggled)(browser.at_provider(url)))
    assert ProviderAccount.objects.get().external_id == provider.person["sub"]


# --- what only looks like a code, and too much of everything ---


@pytest.mark.source("RFC 6749 appendix A.11")
@pytest.mark.parametrize(
    ("raw", "arrives"),
    [
        ("a%00b", "a\0b"),
        ("%ff%fe", "\ufffd\ufffd"),
        ("%zz%", "%zz%"),
        ("a%26b%3Dc%0d%0a", "a&b=c\r\n"),
    ],
)
def test_a_code_that_is_none(
    raw: str, arrives: str, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    """It is the provider's to refuse, and reaches it as the one field that it is."""
    back = having(code=REMOVED)(browser.at_provider(browser.start()))
    answer = browser.come_back(f"{back}&code={raw}")
    refused(answer, "token_exchange_failed", "HTTP 400 invalid_grant")
    (exchange,) = provider.server.seen("/oauth/token")
    assert exchange.form["code"] == arrives


@pytest.mark.source("RFC 6749 section 4.1.2: the client MUST ignore unrecognized parameters")
def test_other_parameters_are_ignored(browser: Browser) -> None:
    back = browser.at_provider(browser.start(next="/?welcome=1"))
    assert browser.come_back(f"{back}&other={'x' * 100_000}")["Location"] == "/?welcome=1"


@pytest.mark.source("Django: DATA_UPLOAD_MAX_NUMBER_FIELDS")
def test_too_many_parameters_end_nothing(provider: HostileProvider, browser: Browser) -> None:
    back = browser.at_provider(browser.start())
    assert browser.come_back(back + "&x" * 1001).status_code == 400
    assert EXCHANGE not in provider.asked()
    assert browser.come_back(back)["Location"] == "/"


@pytest.mark.source("OAuth 2.0 Form Post Response Mode section 2")
@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE"])
def test_another_method_spends_nothing(
    method: str, provider: HostileProvider, browser: Browser
) -> None:
    """Among them the POST of response_mode form_post, which we have not asked for."""
    back = browser.at_provider(browser.start())
    answer = browser.client.generic(
        method,
        f"{CALLBACK}?{urlsplit(back).query}",
        urlsplit(back).query,
        content_type="application/x-www-form-urlencoded",
    )
    assert (answer.status_code, answer["Allow"]) == (405, "GET")
    assert EXCHANGE not in provider.asked()
    assert browser.come_back(back)["Location"] == "/"


# --- what is kept in the session ---


def rewritten(browser: Browser, rewrite: Callable[[list[Any]], Any]) -> None:
    session = browser.client.session
    session[pending.SESSION_KEY] = rewrite(session[pending.SESSION_KEY])
    session.save()


@pytest.mark.source("RFC 6749 section 10.12")
@pytest.mark.parametrize(
    "seconds_ago",
    [pending.LIFETIME + 1, -3600, float("nan")],
    ids=["long ago", "in the future", "no number"],
)
def test_started_at_no_good_time(
    seconds_ago: float, provider: HostileProvider, browser: Browser, refused: Refused
) -> None:
    back = browser.at_provider(browser.start())
    rewritten(browser, lambda kept: [kept[0] | {"started_at": time.time() - seconds_ago}])
    refused(browser.come_back(back), "state_mismatch", "more than 15 minutes ago, or this clock")
    assert EXCHANGE not in provider.asked()


def of_one(**changes: Any) -> Callable[[list[Any]], Any]:
    return lambda kept: [changed(kept[0], changes)]


REWRITES = {
    "nothing": lambda kept: None,
    "a number": lambda kept: 5,
    "a string": lambda kept: "django_quota",
    "a mapping": lambda kept: {item["state"]: item for item in kept},
    "a list of states": lambda kept: [item["state"] for item in kept],
    "a list of lists": lambda kept: [list(item) for item in kept],
    "without a state": of_one(state=REMOVED),
    "with a state that is a list": of_one(state=["x"]),
    "without a redirect_uri": of_one(redirect_uri=REMOVED),
    "with more than we know": of_one(prompt="login"),
    "with a redirect_uri that is none": of_one(redirect_uri=None),
    "with a verifier that is none": of_one(code_verifier=None),
    "with a nonce that is a number": of_one(nonce=5),
    "with a next that is a number": of_one(next=5),
    "with a user who is a number": of_one(user_pk=5),
    "with a time in words": of_one(started_at="yesterday"),
}


@pytest.mark.source("Django sessions: what an earlier version of this package kept")
@pytest.mark.parametrize("rewrite", REWRITES.values(), ids=REWRITES)
def test_a_session_of_another_version(
    rewrite: Callable[[list[Any]], Any],
    provider: HostileProvider,
    browser: Browser,
    refused: Refused,
) -> None:
    back = browser.at_provider(browser.start())
    rewritten(browser, rewrite)
    refused(browser.come_back(back), *UNKNOWN_STATE)
    assert EXCHANGE not in provider.asked()

    browser.start()
    rewritten(browser, rewrite)
    assert browser.sign_in()["Location"] == "/", "nor is it in the way of the next sign-in"


@pytest.mark.source("RFC 6749 section 10.12")
def test_more_than_can_be_under_way(provider: HostileProvider, browser: Browser) -> None:
    """The oldest gives way, the session does not grow, and all others can still be finished."""
    backs = [
        browser.at_provider(browser.start(next=f"/?n={n}")) for n in range(pending.MAX_PENDING)
    ]
    full = len(browser.client.session[pending.SESSION_KEY])
    backs.append(browser.at_provider(browser.start(next=f"/?n={pending.MAX_PENDING}")))
    assert len(browser.client.session[pending.SESSION_KEY]) == full == pending.MAX_PENDING

    oldest = browser.come_back(backs[0])
    assert wanted_at(oldest)[1]["quota_error"] == "state_mismatch"
    for n in (pending.MAX_PENDING, 1):
        assert browser.come_back(backs[n])["Location"] == f"/?n={n}"
    assert QuotaToken.objects.count() == 1


@pytest.mark.source("RFC 6749 section 10.12")
def test_a_wallet_that_was_not_connected_in_time(
    provider: HostileProvider, browser: Browser, told: list[dict[str, Any]]
) -> None:
    """Who is signed in, and comes back late, is told that nothing has been connected."""
    user = get_user_model().objects.create_user("member")
    browser.client.force_login(user, "django.contrib.auth.backends.ModelBackend")
    url = browser.client.post("/auth/quota/connect", {"next": "/?a=1"})["Location"]
    back = browser.at_provider(url)
    late = time.time() - pending.LIFETIME - 1
    rewritten(browser, lambda kept: [kept[0] | {"started_at": late}])
    path, query = wanted_at(browser.come_back(back))
    assert (query["quota_error"], query["quota_retry"]) == ("state_mismatch", "connect")
    assert (path, query["next"]) == ("/auth/quota/error", "/?a=1")
    assert "more than 15 minutes ago" in told[0]["reason"]
    assert EXCHANGE not in provider.asked()


@pytest.mark.source("RFC 6265bis section 5.6: what is too long for a cookie is dropped")
def test_what_is_pending_fits_into_a_cookie(browser: Browser, settings: Settings) -> None:
    """Else ten links, with a long `next` each, would lock a browser out: the cookie that cannot
    be replaced stays as it was."""
    settings.SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
    for number in range(10):
        browser.start(next=f"/{number}/{secrets.token_urlsafe(750)}")
        assert len(browser.client.cookies["sessionid"].OutputString()) < 4096
    assert browser.sign_in(next="/?welcome=1")["Location"] == "/?welcome=1"


@pytest.mark.source("CWE-208: what is secret is compared in constant time")
def test_state_and_nonce_are_compared_in_constant_time(
    browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = []
    for module in (pending, id_token):

        def compare(one: Any, other: Any, module: Any = module) -> bool:
            compared.append(module)
            return constant_time_compare(one, other)

        monkeypatch.setattr(module, "constant_time_compare", compare)
    browser.sign_in()
    assert compared == [pending, id_token]


@pytest.mark.database
@pytest.mark.django_db(transaction=True)
@pytest.mark.source("RFC 6749 section 4.1.2")
def test_two_tabs_at_the_same_moment(
    provider: HostileProvider, browser: Browser, settings: Settings
) -> None:
    """Each has a code of its own; both come back while the provider takes its time."""
    settings.QUOTA_TIMEOUT = settings.QUOTA_DEADLINE = 30
    tabs = [browser.at_provider(browser.start(next=f"/?tab={n}")) for n in range(2)]
    together = Barrier(2)

    def when_both_ask(seen: Seen) -> Answer:
        together.wait(20)
        return provider._token(seen)

    provider.server.on("/oauth/token", when_both_ask)
    sessionid = browser.client.cookies["sessionid"].value

    def come_back(url: str) -> Any:
        client = Client(SERVER_NAME="localhost")
        client.cookies["sessionid"] = sessionid
        return Browser(client).come_back(url)

    answers = begin_together([partial(come_back, url) for url in tabs])
    places = [answer["Location"] for answer in answers]
    assert get_user_model().objects.count() == 1
    # The one that ends second finds that the first has rotated the session's key.
    assert sum(place in ("/?tab=0", "/?tab=1") for place in places) >= 1, places
    assert all(answer.status_code == 302 for answer in answers)
