"""The recipe's sign-in, end to end against the live sandbox, and every way it can fail."""

import logging
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from bs4 import BeautifulSoup
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.test import Client
from django.utils import timezone

from django_quota.models import ProviderAccount, QuotaToken
from django_quota.signals import sign_in_failed, signed_in, wallet_connected
from django_quota.tokens.access import get_access_token
from django_quota.web import error_texts, outcomes, pending
from tests.sandbox_client import Person, Sandbox, query_of, wanted_at

pytestmark = pytest.mark.django_db(transaction=True)

BACKEND = "django_quota.backends.QuotaBackend"


@pytest.fixture
def failures() -> Any:
    """What the project's receiver of `sign_in_failed` was told."""
    told: list[tuple[str, str]] = []

    def receiver(*, code: str, reason: str, **others: Any) -> None:
        told.append((code, reason))

    sign_in_failed.connect(receiver)
    yield told
    sign_in_failed.disconnect(receiver)


def assert_refused(
    answer: Any, client: Client, code: str, caplog: pytest.LogCaptureFixture, reason: str
) -> None:
    """Nobody is signed in; the person sees `code` in words; the log says why, once."""
    assert answer.status_code == 302
    path, query = wanted_at(answer)
    assert (path, query["quota_error"]) == ("/auth/quota/error", code)
    assert "_auth_user_id" not in client.session
    told = [r for r in caplog.records if r.name == "django_quota.sign_in"]
    assert [reason in record.getMessage() for record in told] == [True], caplog.text
    page = client.get(answer["Location"])
    assert page.status_code == 200
    words = error_texts.SIGN_IN_ERRORS[code]
    for text in (words.title, words.message, words.action):
        assert str(text) in page.content.decode()
    assert "/auth/quota/start" in page.content.decode()


class TestSuccess:
    def test_first_sign_in_makes_a_user_with_account_and_tokens(self, person: Person) -> None:
        before = timezone.now()
        answer = person.sign_in(next="/?welcome=1")

        assert (answer.status_code, answer["Location"]) == (302, "/?welcome=1")
        account = ProviderAccount.objects.get()
        assert (account.email, account.name) == (person.email, "Ada Lovelace")
        assert account.picture.startswith(person.sandbox.origin)
        assert account.issuer == person.sandbox.origin
        assert account.last_sign_in_at is not None and account.last_sign_in_at >= before
        user = get_user_model().objects.get()
        assert account.user == user
        assert user.email == person.email
        assert not user.has_usable_password()
        token = QuotaToken.objects.get(account=account)
        assert token.scope.split() == [
            "openid",
            "profile",
            "email",
            "credits.read",
            "credits.spend",
        ]
        left = token.expires_at - timezone.now()
        assert 3500 < left.total_seconds() <= 3601
        assert "$1.00" in person.client.get("/").content.decode()

    def test_the_same_person_again_is_the_same_user(self, person: Person) -> None:
        person.sign_in()
        person.client.logout()
        person.sign_in()
        assert get_user_model().objects.count() == 1

    def test_returning_sign_in_costs_exactly_one_request(
        self, person: Person, sandbox: Sandbox
    ) -> None:
        person.sign_in()
        back = person.at_quota(person.start())
        sandbox.forget_requests()

        person.come_back(back)

        assert sandbox.requests() == ["POST /oauth/token"]

    def test_what_is_sent_to_quota(self, person: Person) -> None:
        url = person.start()
        sent = query_of(url)

        assert url.split("?")[0] == f"{person.sandbox.origin}/oauth/authorize"
        (started,) = person.client.session[pending.SESSION_KEY]
        assert sent == {
            "response_type": "code",
            "client_id": person.sandbox.app["client_id"],
            "redirect_uri": "http://localhost/auth/quota/callback",
            "scope": "openid profile email credits.read credits.spend",
            "state": started["state"],
            "nonce": started["nonce"],
            "code_challenge": pending.PendingSignIn(**started).code_challenge,
            "code_challenge_method": "S256",
        }

    def test_every_start_has_its_own_secrets(self, person: Person) -> None:
        first, second = query_of(person.start()), query_of(person.start())
        for name in ("state", "nonce", "code_challenge"):
            assert first[name] != second[name]
            assert len(first[name]) >= 43

    def test_two_tabs_at_once(self, person: Person) -> None:
        one, two = person.start(next="/?tab=1"), person.start(next="/?tab=2")
        assert person.come_back(person.at_quota(one))["Location"] == "/?tab=1"
        assert person.come_back(person.at_quota(two))["Location"] == "/?tab=2"

    def test_the_redirect_uri_of_the_start_is_the_one_that_is_sent(self, person: Person) -> None:
        """The callback arrives under another host name; the exchange repeats the first one."""
        back = person.at_quota(person.start())
        answer = person.come_back(back, headers={"host": "127.0.0.1"})
        assert (answer.status_code, answer["Location"]) == (302, "/")

    def test_a_fixed_redirect_uri(self, person: Person, settings: Any) -> None:
        settings.QUOTA_REDIRECT_URI = "http://localhost/auth/quota/callback"
        answer = person.client.get("/auth/quota/start", headers={"host": "app.example"})
        sent = query_of(answer["Location"])
        assert sent["redirect_uri"] == "http://localhost/auth/quota/callback"

    def test_behind_a_tls_proxy(self, person: Person, settings: Any) -> None:
        settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
        headers = {"x-forwarded-proto": "https", "host": "app.example"}
        sent = query_of(person.client.get("/auth/quota/start", headers=headers)["Location"])
        assert sent["redirect_uri"] == "https://app.example/auth/quota/callback"

    def test_the_session_key_changes_also_for_the_same_person(self, person: Person) -> None:
        person.start()
        anonymous = person.client.session.session_key
        person.sign_in()
        first = person.client.session.session_key
        person.sign_in()
        assert len({anonymous, first, person.client.session.session_key}) == 3

    def test_signing_in_over_another_users_session(self, person: Person) -> None:
        other = get_user_model().objects.create_user("other")
        person.client.force_login(other, "django.contrib.auth.backends.ModelBackend")
        session = person.client.session
        session["cart"] = "the other's"
        session.save()

        person.sign_in()

        assert "cart" not in person.client.session
        assert person.client.session["_auth_user_id"] != str(other.pk)

    def test_a_replayed_callback_sends_the_signed_in_person_on(self, person: Person) -> None:
        back = person.at_quota(person.start(next="/?welcome=1"))
        person.come_back(back)
        user = person.client.session["_auth_user_id"]

        again = person.come_back(back)

        assert (again.status_code, again["Location"]) == (302, "/?welcome=1")
        assert person.client.session["_auth_user_id"] == user

    def test_a_replayed_callback_of_an_earlier_sign_in_sends_them_home(
        self, person: Person
    ) -> None:
        back = person.at_quota(person.start(next="/?welcome=1"))
        person.come_back(back)
        person.sign_in(next="/?welcome=2")
        assert person.come_back(back)["Location"] == "/"

    def test_a_replayed_callback_of_somebody_else_leads_nowhere(
        self, person: Person, sandbox: Sandbox
    ) -> None:
        back = person.at_quota(person.start(next="/?welcome=1"))
        person.come_back(back)
        other = sandbox.person()
        assert wanted_at(other.come_back(back))[1]["quota_error"] == "state_mismatch"
        other.sign_in()
        assert other.come_back(back)["Location"] == "/"

    @pytest.mark.parametrize(
        ("headers", "status"),
        [
            ({"Sec-Purpose": "prefetch"}, 204),
            ({"Sec-Purpose": "prefetch;prerender"}, 204),
            ({"Sec-Purpose": "Prefetch; anonymous-client-ip"}, 204),
            ({"Purpose": "prefetch"}, 204),
            ({"X-Moz": "prefetch"}, 204),
            ({"X-Purpose": "preview"}, 204),
            # Chromium would keep a 204 for the click, which would then do nothing.
            ({"Sec-Purpose": "prefetch", "Sec-Fetch-Mode": "navigate"}, 403),
            ({"Sec-Purpose": "prefetch;prerender", "Sec-Fetch-Mode": "navigate"}, 403),
        ],
    )
    def test_what_a_browser_fetches_ahead_touches_nothing(
        self, person: Person, sandbox: Sandbox, headers: dict[str, str], status: int
    ) -> None:
        back = person.at_quota(person.start(next="/?welcome=1"))
        before = dict(person.client.session)
        sandbox.forget_requests()
        for url in ("http://localhost/auth/quota/start?next=/", back):
            answer = person.come_back(url, headers=headers)
            assert (answer.status_code, answer.content) == (status, b"")
            assert answer["Cache-Control"] == "no-store, private"
            assert not answer.cookies
        assert dict(person.client.session) == before
        assert sandbox.requests() == []
        assert person.come_back(back)["Location"] == "/?welcome=1"

    @pytest.mark.parametrize("purpose", ["", "navigate", "no-prefetch", "\x00"])
    def test_another_purpose_is_no_reason_to_refuse(self, person: Person, purpose: str) -> None:
        back = person.at_quota(person.start())
        assert person.come_back(back, headers={"Sec-Purpose": purpose})["Location"] == "/"

    def test_the_project_is_told(self, person: Person) -> None:
        told = []

        def receiver(**kwargs: Any) -> None:
            told.append((kwargs["user"], kwargs["account"], kwargs["request"].path))

        signed_in.connect(receiver)
        person.sign_in()
        signed_in.disconnect(receiver)

        account = ProviderAccount.objects.get()
        assert told == [(account.user, account, "/auth/quota/callback")]

    def test_keys_rotated_since_are_fetched_once(self, person: Person, sandbox: Sandbox) -> None:
        person.sign_in()
        sandbox.call("POST", "/sandbox/rotate-keys")
        back = person.at_quota(person.start())
        sandbox.forget_requests()

        assert person.come_back(back)["Location"] == "/"

        assert sandbox.requests() == ["POST /oauth/token", "GET /.well-known/jwks.json"]

    def test_claims_that_only_userinfo_has(self, person: Person, sandbox: Sandbox) -> None:
        sandbox.set(id_token_overrides={"email": None, "name": None})
        person.sign_in()
        account = ProviderAccount.objects.get()
        assert (account.email, account.name) == (person.email, "Ada Lovelace")
        assert "GET /oauth/userinfo" in sandbox.requests()

    def test_userinfo_being_down_does_not_stop_a_sign_in(
        self, person: Person, sandbox: Sandbox
    ) -> None:
        sandbox.set(
            id_token_overrides={"email": None},
            fail={"path": "/oauth/userinfo", "status": 503, "times": 1},
        )
        assert person.sign_in()["Location"] == "/"
        assert ProviderAccount.objects.get().email == ""

    def test_the_issuer_may_differ_if_we_say_so(
        self, person: Person, sandbox: Sandbox, settings: Any
    ) -> None:
        sandbox.set(issuer="https://www.usequota.ai")
        settings.QUOTA_ISSUER = "https://www.usequota.ai"
        assert person.sign_in()["Location"] == "/"
        assert ProviderAccount.objects.get().issuer == "https://www.usequota.ai"

    def test_a_moved_issuer_keeps_the_users(
        self, person: Person, sandbox: Sandbox, settings: Any
    ) -> None:
        person.sign_in()
        sandbox.set(issuer="https://www.usequota.ai")
        settings.QUOTA_ISSUER = "https://www.usequota.ai"
        person.sign_in()
        assert get_user_model().objects.count() == 1

    def test_nothing_is_cached_or_named_to_other_sites(self, person: Person) -> None:
        start = person.client.get("/auth/quota/start")
        callback = person.come_back(person.at_quota(start["Location"]))
        error = person.client.get("/auth/quota/error?quota_error=access_denied")
        for response in (start, callback, error):
            assert response["Cache-Control"] == "no-store, private"
            assert response["Referrer-Policy"] == "same-origin"
            assert response["X-Frame-Options"] == "DENY"

    @pytest.mark.parametrize("path", ["connect", "logout", "checkout", "disconnect"])
    def test_posts_need_a_csrf_token_also_without_the_middleware(
        self, person: Person, settings: Any, path: str
    ) -> None:
        """As Django's own login and logout do."""
        person.sign_in()
        settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if "Csrf" not in name]
        strict = Client(enforce_csrf_checks=True, SERVER_NAME="localhost")
        strict.cookies = person.client.cookies
        assert strict.post(f"/auth/quota/{path}").status_code == 403
        assert QuotaToken.objects.exists()


class TestNext:
    @pytest.mark.parametrize(
        "evil",
        [
            "//evil.example",
            "https://evil.example/",
            "https:evil.example",
            "\\\\evil.example",
            "/\\evil.example",
            "javascript:alert(1)",
            "https://localhost@evil.example/",
            " //evil.example",
            "\x00//evil.example",
            "http:///evil.example",
        ],
    )
    def test_stays_on_this_site(self, person: Person, evil: str) -> None:
        assert person.sign_in(next=evil)["Location"] == "/"

    def test_is_kept_through_a_failure(self, person: Person) -> None:
        back = person.at_quota(person.start(next="/?welcome=1"), allow=False)
        answer = person.come_back(back)
        assert wanted_at(answer)[1]["next"] == "/?welcome=1"
        retry = "/auth/quota/start?next=%2F%3Fwelcome%3D1"
        assert retry in person.client.get(answer["Location"]).content.decode()

    def test_is_dropped_from_an_error_page_if_it_leaves_the_site(self, client: Client) -> None:
        page = client.get("/auth/quota/error?quota_error=access_denied&next=//evil.example")
        assert "evil" not in page.content.decode()


class TestTroubleshootingTableOfTheRecipe:
    def test_invalid_scope(
        self, person: Person, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.QUOTA_SCOPES = "openid account.write"
        answer = person.come_back(person.at_quota(person.start()))
        assert_refused(answer, person.client, "invalid_scope", caplog, "allowed_scopes; add it")

    def test_invalid_redirect_uri(self, person: Person) -> None:
        """Quota cannot send the person back to an address it does not know: it shows the code."""
        url = person.client.get("/auth/quota/start", headers={"host": "app.example"})["Location"]
        page = person.quota.get(url, timeout=20)
        assert page.status_code == 400
        assert "invalid_redirect_uri" in page.text
        assert "http://app.example/auth/quota/callback" in page.text

    def test_state_mismatch(self, person: Person, caplog: pytest.LogCaptureFixture) -> None:
        """The session cookie did not survive the trip."""
        back = person.at_quota(person.start())
        person.client.cookies.clear()
        answer = person.come_back(back)
        assert_refused(
            answer, person.client, "state_mismatch", caplog, "no sign-in with this state"
        )
        assert "allow cookies" in str(error_texts.SIGN_IN_ERRORS["state_mismatch"].action)

    @pytest.mark.parametrize(
        ("claims", "reason"),
        [
            ({"iss": "https://evil.example"}, "iss is not the issuer"),
            ({"aud": "quota_client_other"}, "aud is not our client id"),
            ({"exp": 1_000_000_000}, "expired (exp); is this machine's clock right?"),
            ({"nonce": "another"}, "nonce mismatch"),
            ({"nonce": None}, "has no nonce"),
            ({"sub": None}, "has no sub"),
        ],
    )
    def test_invalid_id_token(
        self,
        person: Person,
        sandbox: Sandbox,
        caplog: pytest.LogCaptureFixture,
        claims: dict[str, Any],
        reason: str,
    ) -> None:
        sandbox.set(id_token_overrides=claims)
        answer = person.sign_in()
        assert_refused(answer, person.client, "invalid_id_token", caplog, reason)
        assert not get_user_model().objects.exists()

    def test_no_id_token(
        self, person: Person, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        sandbox.set(omit_id_token=True)
        answer = person.sign_in()
        assert_refused(answer, person.client, "invalid_id_token", caplog, "no usable id_token")

    def test_403_insufficient_scope(self, person: Person, settings: Any) -> None:
        from django_quota.exceptions import InsufficientScope
        from django_quota.wallet import purchases

        settings.QUOTA_SCOPES = "openid email profile credits.spend"
        person.sign_in()
        with pytest.raises(InsufficientScope, match="sign in again"):
            purchases.get_balance(get_user_model().objects.get())
        answer = person.client.get("/auth/quota/balance")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")
        assert answer.json()["login_url"] == "/auth/quota/start"

    def test_402_insufficient_credits(self, person: Person, sandbox: Sandbox) -> None:
        from django_quota.ai import factory
        from django_quota.exceptions import InsufficientCredits

        broke = sandbox.person(balance=0)
        broke.sign_in()
        client = factory.openai_client(get_user_model().objects.get())
        with pytest.raises(InsufficientCredits, match="let the user buy credits"):
            client.chat.completions.create(
                model="gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}]
            )


class TestRefused:
    def test_cancelled_at_consent(self, person: Person, caplog: pytest.LogCaptureFixture) -> None:
        back = person.at_quota(person.start(), allow=False)
        assert_refused(
            person.come_back(back), person.client, "access_denied", caplog, "person cancelled"
        )

    def test_quota_down_at_start_up(
        self, client: Client, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"  # the discard port: nobody listens
        assert client.get("/").status_code == 200
        answer = client.get("/auth/quota/start?next=/")
        assert_refused(answer, client, "provider_unavailable", caplog, "Quota cannot be reached")

    def test_quota_down_at_the_exchange(
        self, person: Person, settings: Any, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        back = person.at_quota(person.start())
        sandbox.set(fail={"path": "/oauth/token", "status": 503, "times": 1})
        answer = person.come_back(back)
        assert_refused(answer, person.client, "token_exchange_failed", caplog, "HTTP 503")

    def test_an_issuer_that_we_do_not_know(
        self, person: Person, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        sandbox.set(issuer="https://www.usequota.ai")
        answer = person.client.get("/auth/quota/start")
        line = 'QUOTA_ISSUER = "https://www.usequota.ai"'
        assert_refused(answer, person.client, "issuer_mismatch", caplog, line)

    def test_settings_missing(
        self, person: Person, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        del settings.QUOTA_CLIENT_ID
        answer = person.client.get("/auth/quota/start")
        assert_refused(
            answer, person.client, "not_configured", caplog, "QUOTA_CLIENT_ID is missing"
        )
        (record,) = [r for r in caplog.records if r.name == "django_quota.sign_in"]
        assert record.levelno == logging.ERROR

    def test_a_wrong_client_secret(
        self, person: Person, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        settings.QUOTA_CLIENT_SECRET = "quota_secret_wrong"
        answer = person.sign_in()
        assert_refused(
            answer, person.client, "token_exchange_failed", caplog, "check QUOTA_CLIENT_ID"
        )

    def test_a_code_that_was_used(
        self, person: Person, caplog: pytest.LogCaptureFixture, sandbox: Sandbox
    ) -> None:
        """A replay under a live state of the attacker's own still has the wrong code."""
        used = query_of(person.at_quota(person.start()))["code"]
        person.come_back(person.at_quota(person.start()))
        person.client.logout()
        state = query_of(person.start())["state"]
        answer = person.client.get(
            "/auth/quota/callback", {"code": used, "state": state, "iss": sandbox.origin}
        )
        assert_refused(
            answer, person.client, "token_exchange_failed", caplog, "HTTP 400 invalid_grant"
        )

    def test_another_browsers_callback(
        self, person: Person, sandbox: Sandbox, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Login CSRF: the attacker's code and state, in the victim's browser."""
        attacker = sandbox.person()
        back = attacker.at_quota(attacker.start())
        victim = person.client
        victim.get("/auth/quota/start")
        answer = person.come_back(back)
        assert_refused(answer, victim, "state_mismatch", caplog, "no sign-in with this")

    def test_nobody_is_signed_out_by_a_forged_error(self, person: Person) -> None:
        person.sign_in()
        for query in ("error=x", "error=access_denied&state=forged", "code=x&state=y", ""):
            answer = person.client.get(f"/auth/quota/callback?{query}")
            assert (answer.status_code, answer["Location"]) == (302, "/")
        assert "_auth_user_id" in person.client.session

    @pytest.mark.parametrize(
        "change",
        [
            {"state": "wrong"},
            {"state": None},
            {"state": ["{state}", "{state}"]},
            {"state": "x" * 100_000},
            {"state": "\x00"},
            {"state": "😀"},
        ],
    )
    def test_a_tampered_state(
        self, person: Person, change: dict[str, Any], caplog: pytest.LogCaptureFixture
    ) -> None:
        back = person.at_quota(person.start())
        answer = person.client.get(tampered(back, change))
        assert_refused(
            answer, person.client, "state_mismatch", caplog, "no sign-in with this state"
        )

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"code": None}, "no usable code"),
            ({"code": ["{code}", "{code}"]}, "no usable code"),
            ({"code": "x" * 100_000}, "no usable code"),
            ({"code": "\x00"}, ""),
            ({"iss": "https://evil.example"}, "iss is not Quota's"),
            ({"iss": None}, "iss is not Quota's"),
            ({"error": "<script>alert(1)</script>", "error_description": "<b>"}, "another error"),
        ],
    )
    def test_a_tampered_callback(
        self,
        person: Person,
        change: dict[str, Any],
        reason: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        back = person.at_quota(person.start())
        answer = person.client.get(tampered(back, change))
        code = wanted_at(answer)[1]["quota_error"]
        assert code == ("authorization_failed" if reason else "token_exchange_failed")
        assert_refused(answer, person.client, code, caplog, reason)
        assert "script" not in caplog.text

    def test_a_state_can_be_used_once_even_if_it_fails(
        self, person: Person, sandbox: Sandbox, failures: Any
    ) -> None:
        back = person.at_quota(person.start())
        sandbox.set(fail={"path": "/oauth/token", "status": 503, "times": 1})
        person.come_back(back)
        person.come_back(back)
        assert [code for code, _ in failures] == ["token_exchange_failed", "state_mismatch"]

    def test_an_expired_pending_sign_in(
        self, person: Person, monkeypatch: pytest.MonkeyPatch, failures: Any
    ) -> None:
        back = person.at_quota(person.start())
        now = pending.time.time()
        monkeypatch.setattr(pending.time, "time", lambda: now + pending.LIFETIME + 1)
        person.come_back(back)
        assert [code for code, _ in failures] == ["state_mismatch"]

    def test_the_oldest_of_too_many_pending_ones_is_dropped(self, person: Person) -> None:
        urls = [person.start(next=f"/?n={n}") for n in range(pending.MAX_PENDING + 1)]
        assert len(person.client.session[pending.SESSION_KEY]) == pending.MAX_PENDING
        last = person.come_back(person.at_quota(urls[-1]))
        assert last["Location"] == f"/?n={pending.MAX_PENDING}"
        person.client.logout()
        first = person.come_back(person.at_quota(urls[0]))
        assert wanted_at(first)[1]["quota_error"] == "state_mismatch"

    @pytest.mark.parametrize("method", ["post", "put", "delete", "head", "options", "patch"])
    @pytest.mark.parametrize("path", ["start", "callback"])
    def test_wrong_method(self, person: Person, method: str, path: str) -> None:
        assert getattr(person.client, method)(f"/auth/quota/{path}").status_code == 405

    def test_an_error_url_that_leads_nowhere_is_no_500(self, person: Person, settings: Any) -> None:
        settings.QUOTA_ERROR_URL = "no_such_name"
        answer = person.come_back(person.at_quota(person.start(), allow=False))
        assert wanted_at(answer)[0] == "/auth/quota/error"

    def test_a_session_that_another_tab_has_ended(
        self, person: Person, monkeypatch: pytest.MonkeyPatch, failures: Any
    ) -> None:
        back = person.at_quota(person.start())
        real = pending.pop

        def ended_meanwhile(session: Any, state: Any) -> Any:
            started = real(session, state)
            Session.objects.all().delete()
            return started

        monkeypatch.setattr(pending, "pop", ended_meanwhile)
        person.come_back(back)
        assert [code for code, _ in failures] == ["state_mismatch"]

    def test_quota_error_url_of_the_recipe(self, person: Person, settings: Any) -> None:
        settings.QUOTA_ERROR_URL = "/"
        back = person.at_quota(person.start(), allow=False)
        answer = person.come_back(back)
        path, query = wanted_at(answer)
        assert (path, query["quota_error"]) == ("/", "access_denied")
        page = person.client.get(answer["Location"]).content.decode()
        for text in ("You cancelled the sign-in", "Try again", query["quota_ref"]):
            assert text in page

    def test_a_strange_code_gets_general_words(self, client: Client) -> None:
        page = client.get("/auth/quota/error?quota_error=<script>").content.decode()
        assert "Sign-in failed" in page
        assert "<script>" not in page


class TestBesideAnotherProvider:
    """Stock mozilla-django-oidc serves another provider in the same project."""

    @pytest.fixture(autouse=True)
    def stock(self, settings: Any) -> None:
        settings.AUTHENTICATION_BACKENDS = [
            "mozilla_django_oidc.auth.OIDCAuthenticationBackend",
            *settings.AUTHENTICATION_BACKENDS,
        ]
        for name in ("TOKEN", "USER", "JWKS", "AUTHORIZATION"):
            setattr(settings, f"OIDC_OP_{name}_ENDPOINT", "http://127.0.0.1:9/")
        settings.OIDC_RP_CLIENT_ID = settings.OIDC_RP_CLIENT_SECRET = "other"
        settings.OIDC_RP_SIGN_ALGO = "RS256"

    def test_its_backend_is_not_given_our_code(self, person: Person) -> None:
        assert person.sign_in()["Location"] == "/"
        backend = person.client.session["_auth_user_backend"]
        assert backend == "django_quota.backends.QuotaBackend"

    def test_its_session_refresh_leaves_our_users_alone(
        self, person: Person, settings: Any
    ) -> None:
        settings.MIDDLEWARE = [
            *settings.MIDDLEWARE,
            "mozilla_django_oidc.middleware.SessionRefresh",
        ]
        settings.ROOT_URLCONF = "tests.urls_with_stock"
        person.sign_in()
        assert person.client.get("/").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("get", "start"), ("post", "connect"), ("post", "checkout"), ("post", "logout")],
)
def test_htmx_is_sent_on_to_quota(person: Person, sandbox: Sandbox, method: str, path: str) -> None:
    """By its own header: it would fetch what a redirect leads to, another site's page."""
    person.sign_in()
    answer = getattr(person.client, method)(
        f"/auth/quota/{path}", {"package_id": "starter"}, headers={"HX-Request": "true"}
    )
    assert answer["HX-Redirect"].startswith(sandbox.origin)
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("path", "there"),
    [("checkout", "/auth/quota/packages?reason=no_checkout&next=%2Fchat"), ("disconnect", "/chat")],
)
def test_htmx_is_sent_on_to_pages_of_this_site(
    person: Person, sandbox: Sandbox, path: str, there: str
) -> None:
    """Where it would swap them into the one that is open."""
    person.sign_in()
    sandbox.set(fail={"path": "/api/payments/checkout", "status": 404, "times": 1})
    form = {"package_id": "starter", "next": "/chat"}
    answer = person.client.post(f"/auth/quota/{path}", form, headers={"HX-Request": "true"})
    assert (answer.status_code, answer["HX-Redirect"]) == (200, there)


class TestConnect:
    @pytest.fixture
    def member(self, person: Person) -> Any:
        """A user of the site who signs in by password."""
        user = get_user_model().objects.create_user("member", "member@example.com", "x")
        person.client.force_login(user, "django.contrib.auth.backends.ModelBackend")
        return user

    def connect(self, person: Person, **data: str) -> Any:
        """See the page that asks, and agree."""
        soup = BeautifulSoup(person.client.get("/auth/quota/connect", data).content, "html.parser")
        form = {i["name"]: i.get("value", "") for i in soup.select("form input[name]")}
        url = person.client.post("/auth/quota/connect", form)["Location"]
        return person.come_back(person.at_quota(url))

    def test_a_mere_link_connects_nothing(self, person: Person, member: Any) -> None:
        """This browser may be signed in at Quota as somebody else, who would own this account."""
        answer = person.client.get("/auth/quota/connect")
        assert answer.status_code == 200
        assert pending.SESSION_KEY not in person.client.session
        strict = Client(enforce_csrf_checks=True, SERVER_NAME="localhost")
        strict.cookies = person.client.cookies
        assert strict.post("/auth/quota/connect").status_code == 403

    @pytest.mark.parametrize(
        ("has_password", "setting", "words"),
        [
            (True, False, "You still sign in here as you do now."),
            (True, True, "From then on you can sign in here with that Quota account, too."),
            (False, False, "From then on you can sign in here with that Quota account, too."),
        ],
    )
    def test_page_says_whether_the_wallet_will_allow_a_sign_in(
        self,
        person: Person,
        member: Any,
        settings: Any,
        has_password: bool,
        setting: bool,
        words: str,
    ) -> None:
        settings.QUOTA_CONNECT_SIGNS_IN = setting
        if not has_password:
            member.set_unusable_password()
            member.save()
            person.client.force_login(member, "django.contrib.auth.backends.ModelBackend")

        page = person.client.get("/auth/quota/connect").content.decode()

        said = [text for text in ("You still sign in here", "From then on") if text in page]
        assert words in page
        assert len(said) == 1

    def test_connects_the_wallet_to_who_is_signed_in(self, person: Person, member: Any) -> None:
        answer = self.connect(person, next="/?connected=1")

        assert answer["Location"] == "/?connected=1"
        account = ProviderAccount.objects.get()
        assert account.user == member
        assert QuotaToken.objects.get().scope.split() == ["credits.read", "credits.spend"]
        assert "$1.00" in person.client.get("/").content.decode()

    def sign_in_elsewhere(self, person: Person) -> Any:
        """In a browser where nobody is signed in."""
        person.client.logout()
        return person.come_back(person.at_quota(person.start()))

    def test_it_is_no_way_in_for_a_user_with_a_password(
        self, person: Person, member: Any, failures: Any
    ) -> None:
        """It would go round their second factor."""
        self.connect(person)
        before = QuotaToken.objects.get().refresh_token

        self.sign_in_elsewhere(person)

        assert [code for code, _ in failures] == ["wallet_only"]
        assert "_auth_user_id" not in person.client.session
        assert QuotaToken.objects.get().refresh_token == before

    def test_it_is_one_where_the_site_says_so(
        self, person: Person, member: Any, settings: Any
    ) -> None:
        settings.QUOTA_CONNECT_SIGNS_IN = True
        self.connect(person)
        self.sign_in_elsewhere(person)
        assert person.client.session["_auth_user_id"] == str(member.pk)

    def test_it_is_one_for_a_user_without_a_password(self, person: Person, member: Any) -> None:
        member.set_unusable_password()
        member.save()
        person.client.force_login(member, "django.contrib.auth.backends.ModelBackend")
        self.connect(person)
        self.sign_in_elsewhere(person)
        assert person.client.session["_auth_user_id"] == str(member.pk)

    def test_who_is_signed_in_renews_the_connection(self, person: Person, member: Any) -> None:
        """Quota has ended it, and the site sends them to sign in with Quota again."""
        self.connect(person)
        before = QuotaToken.objects.get().grant
        person.come_back(person.at_quota(person.start()))
        assert person.client.session["_auth_user_id"] == str(member.pk)
        assert QuotaToken.objects.get().grant != before

    def test_who_is_told_of_it_can_use_the_wallet(self, person: Person, member: Any) -> None:
        got = []

        def use(user: Any, account: ProviderAccount, **said: Any) -> None:
            got.append((user, account.user, get_access_token(user)[:12]))

        wallet_connected.connect(use)
        try:
            self.connect(person)
        finally:
            wallet_connected.disconnect(use)
        assert got == [(member, member, "quota_token_")]

    def test_asks_before_it_replaces(self, person: Person, member: Any, sandbox: Sandbox) -> None:
        self.connect(person)
        first = ProviderAccount.objects.get().external_id
        page = person.client.get("/auth/quota/connect").content.decode()
        assert "replaces it here" in page
        other = sandbox.person(person.client, balance=2_000_000)
        url = person.client.post("/auth/quota/connect")["Location"]  # did not see that page
        refused = person.come_back(other.at_quota(url))
        assert wanted_at(refused)[1]["quota_error"] == "wallet_already_connected"

        self.connect(other)

        account = ProviderAccount.objects.get()
        assert account.user == member
        assert account.external_id != first
        assert "$2.00" in person.client.get("/").content.decode()

    def test_a_wallet_of_another_user_stays_theirs(
        self, person: Person, sandbox: Sandbox, failures: Any
    ) -> None:
        person.sign_in()
        member = get_user_model().objects.create_user("member")
        person.client.force_login(member, "django.contrib.auth.backends.ModelBackend")
        self.connect(person)
        assert [code for code, _ in failures] == ["account_in_use"]
        assert ProviderAccount.objects.get().user != member

    def test_another_user_at_the_end_than_at_the_start(
        self, person: Person, member: Any, failures: Any
    ) -> None:
        back = person.at_quota(person.client.post("/auth/quota/connect")["Location"])
        session = person.client.session
        other = get_user_model().objects.create_user("other")
        started = session[pending.SESSION_KEY]
        person.client.force_login(other, "django.contrib.auth.backends.ModelBackend")
        session = person.client.session
        session[pending.SESSION_KEY] = started
        session.save()

        person.come_back(back)

        assert [code for code, _ in failures] == ["state_mismatch"]
        assert not QuotaToken.objects.exists()

    def test_a_failure_is_tried_again_as_what_it_was(self, person: Person, member: Any) -> None:
        """A sign-in instead would leave this account for another one."""
        url = person.client.post("/auth/quota/connect", {"next": "/?a=b"})["Location"]
        answer = person.come_back(person.at_quota(url, allow=False))
        page = person.client.get(answer["Location"]).content.decode()
        assert 'href="/auth/quota/connect?next=%2F%3Fa%3Db"' in page
        assert "/auth/quota/start" not in page

    def test_a_visitor_signs_in_first(self, client: Client) -> None:
        answer = client.get("/auth/quota/connect")
        assert answer["Location"] == "/auth/quota/start?next=/auth/quota/connect"


class TestLogout:
    def test_a_form_is_sent_to_quota_and_back(self, person: Person) -> None:
        person.sign_in()
        answer = person.client.post("/auth/quota/logout", headers={"accept": "text/html"})

        assert answer.status_code == 302
        sent = query_of(answer["Location"])
        assert answer["Location"].startswith(f"{person.sandbox.origin}/oauth/end_session?")
        assert sent["post_logout_redirect_uri"] == "http://localhost/"
        assert "_auth_user_id" not in person.client.session
        ended = person.quota.get(answer["Location"], allow_redirects=False, timeout=20)
        assert ended.headers["Location"] == "http://localhost/"

    def test_the_next_sign_in_asks_again(self, person: Person) -> None:
        person.sign_in()
        silent = person.quota.get(person.start(), allow_redirects=False, timeout=20)
        assert silent.headers["Location"].startswith("http://localhost/auth/quota/callback")
        url = person.client.post("/auth/quota/logout", headers={"accept": "text/html"})["Location"]
        person.quota.get(url, allow_redirects=False, timeout=20)

        page = person.quota.get(person.start(), timeout=20)

        assert "password" in page.text

    def test_after_a_disconnect_the_next_sign_in_asks_too(self, person: Person) -> None:
        """There is no id_token any more; the client id says who asks."""
        person.sign_in()
        person.client.post("/auth/quota/disconnect")
        url = person.client.post("/auth/quota/logout", headers={"accept": "text/html"})["Location"]
        assert query_of(url) == {
            "client_id": person.sandbox.app["client_id"],
            "post_logout_redirect_uri": "http://localhost/",
        }
        assert person.at_quota(url) == "http://localhost/"
        assert "password" in person.quota.get(person.start(), timeout=20).text

    def test_an_id_token_of_any_length_fits_through_nginx(self, person: Person) -> None:
        """Whose buffer for the head of an answer has 4096 bytes."""
        person.sign_in()
        sent = []
        for length in (2500, 2501, 60_000):
            row = QuotaToken.objects.get()
            row.id_token = "x" * length
            row.save()
            answer = person.client.post("/auth/quota/logout", headers={"accept": "text/html"})
            head = [f"{name}: {value}" for name, value in answer.items()]
            head += [cookie.output() for cookie in answer.cookies.values()]
            assert len("\r\n".join(head)) < 3600
            sent.append("id_token_hint" in query_of(answer["Location"]))
            person.client.force_login(get_user_model().objects.get(), BACKEND)
            session = person.client.session
            outcomes.record_landing(session, "state", "/", "")
            session.save()
        assert sent == [True, False, False]

    def test_fetch_gets_the_url_as_in_the_recipe(self, person: Person) -> None:
        person.sign_in()
        answer = person.client.post("/auth/quota/logout", headers={"accept": "*/*"})
        assert list(answer.json()) == ["logout_url"]
        assert answer.json()["logout_url"].startswith(f"{person.sandbox.origin}/oauth/end_session?")

    def test_without_an_id_token_it_stays_here(self, client: Client, sandbox: Sandbox) -> None:
        client.force_login(
            get_user_model().objects.create_user("x"), "django.contrib.auth.backends.ModelBackend"
        )
        assert client.post("/auth/quota/logout").json() == {"logout_url": "/"}
        assert "_auth_user_id" not in client.session

    def test_quota_down_signs_out_here_all_the_same(self, person: Person, settings: Any) -> None:
        person.sign_in()
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        answer = person.client.post("/auth/quota/logout", headers={"accept": "text/html"})
        assert (answer.status_code, answer["Location"]) == (302, "/")
        assert "_auth_user_id" not in person.client.session

    def test_get_does_not_sign_out(self, person: Person) -> None:
        person.sign_in()
        assert person.client.get("/auth/quota/logout").status_code == 405
        assert "_auth_user_id" in person.client.session

    def test_needs_the_csrf_token(self, person: Person) -> None:
        strict = Client(enforce_csrf_checks=True)
        assert strict.post("/auth/quota/logout").status_code == 403

    def test_the_tokens_stay_for_jobs_and_other_browsers(self, person: Person) -> None:
        person.sign_in()
        person.client.post("/auth/quota/logout")
        assert QuotaToken.objects.get().status == QuotaToken.Status.ACTIVE


def tampered(url: str, change: dict[str, Any]) -> str:
    """Our callback's path with its parameters changed, repeated or (None) left out."""
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    pairs = []
    for name, value in {**query, **change}.items():
        for item in value if isinstance(value, list) else [value]:
            if item is not None:
                pairs.append((name, query.get(name, "") if item == f"{{{name}}}" else item))
    return f"/auth/quota/callback?{urlencode(pairs)}"
