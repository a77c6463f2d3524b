"""The OAuth and OpenID Connect endpoints, used like an app and a browser use them."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from jwcrypto import jwk, jwt
from jwcrypto.common import base64url_decode

from tests.helpers.concurrency import begin_together

from .client import (
    POST_LOGOUT_URI,
    REDIRECT_URI,
    SCOPES,
    App,
    Sandbox,
    SandboxProcess,
    Visitor,
    read_claims,
    read_redirect,
)


def verify_claims(sandbox: Sandbox, app: App, id_token: str) -> dict[str, Any]:
    """Verify an id_token with the published keys, and return its claims."""
    keys = jwk.JWKSet.from_json(sandbox.get("/.well-known/jwks.json").text)
    token = jwt.JWT(jwt=id_token, key=keys, algs=["RS256"])
    checked: dict[str, Any] = json.loads(token.claims)
    assert checked["aud"] == app.client_id
    return checked


class TestDiscovery:
    def test_document(self, sandbox: Sandbox) -> None:
        reply = sandbox.get("/.well-known/openid-configuration")
        assert reply.headers["Cache-Control"] == "public, max-age=3600"
        document = reply.json()
        endpoints = {
            "authorization_endpoint": "/oauth/authorize",
            "token_endpoint": "/oauth/token",
            "userinfo_endpoint": "/oauth/userinfo",
            "jwks_uri": "/.well-known/jwks.json",
            "revocation_endpoint": "/oauth/revoke",
            "end_session_endpoint": "/oauth/end_session",
        }
        assert {name: document.pop(name) for name in endpoints} == {
            name: f"{sandbox.url}{path}" for name, path in endpoints.items()
        }
        assert document == {
            "issuer": sandbox.url,
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post", "none"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "scopes_supported": [
                *("openid", "profile", "email", "credits.read", "credits.spend"),
                *("account.read", "account.write", "apps.read", "apps.write"),
            ],
            "claims_supported": [
                *("sub", "iss", "aud", "exp", "iat", "auth_time", "nonce"),
                *("email", "email_verified", "name", "picture"),
            ],
            "code_challenge_methods_supported": ["S256", "plain"],
            "authorization_response_iss_parameter_supported": True,
        }

    def test_keys_have_no_private_parts(self, sandbox: Sandbox) -> None:
        reply = sandbox.get("/.well-known/jwks.json")
        assert "max-age" in reply.headers["Cache-Control"]
        for key in reply.json()["keys"]:
            assert key.keys() == {"kty", "alg", "use", "kid", "n", "e"}
            assert (key["kty"], key["alg"], key["use"]) == ("RSA", "RS256", "sig")

    def test_new_key_signs_and_the_old_one_stays_published(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        kid = sandbox.post("/sandbox/rotate-keys").json()["kid"]
        fresh = sandbox.refresh(app, tokens["refresh_token"]).json()["id_token"]
        assert json.loads(base64url_decode(fresh.split(".")[0]))["kid"] == kid
        assert verify_claims(sandbox, app, fresh)
        assert verify_claims(sandbox, app, tokens["id_token"])


class TestAuthorize:
    def test_sign_in_and_consent_lead_to_tokens(
        self, sandbox: Sandbox, app: App, browser: Visitor
    ) -> None:
        user = sandbox.add_user(name="Mary Somerville")
        start = int(time.time())
        consent = browser.sign_in(browser.open(app), user["email"])
        assert "Test App" in consent.text
        for words in ("See your e-mail address", "Spend your credits on AI requests"):
            assert words in consent.text
        returned = read_redirect(browser.submit(consent, decision="allow"))
        assert returned.keys() == {"code", "state", "iss"}
        assert returned["state"] == browser.state
        assert returned["iss"] == sandbox.url

        reply = sandbox.token(browser.exchange(app, returned["code"]))
        assert "no-store" in reply.headers["Cache-Control"]
        assert reply.headers["Content-Type"] == "application/json"
        tokens = reply.json()
        assert tokens.pop("access_token").startswith("quota_token_")
        assert tokens.pop("refresh_token").startswith("quota_refresh_")
        claims = verify_claims(sandbox, app, tokens.pop("id_token"))
        assert tokens == {"token_type": "Bearer", "expires_in": 3600, "scope": SCOPES}
        assert claims.pop("exp") - claims.pop("iat") == 3600
        assert start <= claims.pop("auth_time") <= time.time()
        assert claims.keys() >= {"at_hash", "jti", "aud"}
        picture = claims["picture"]
        assert {
            name: claims[name] for name in claims.keys() - {"at_hash", "jti", "aud", "picture"}
        } == {
            "iss": sandbox.url,
            "sub": user["id"],
            "nonce": browser.nonce,
            "name": "Mary Somerville",
            "email": user["email"],
            "email_verified": True,
        }
        image = sandbox.http.get(picture, timeout=10)
        assert image.headers["Content-Type"] == "image/svg+xml"

    def test_second_authorization_needs_no_consent(
        self, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        browser.authorize(app, user["email"])
        assert "code" in read_redirect(browser.open(app))

    def test_fewer_scopes_need_no_consent(
        self, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        browser.authorize(app, user["email"])
        assert "code" in read_redirect(browser.open(app, scope="credits.read"))

    def test_more_scopes_need_consent(
        self, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        browser.authorize(app, user["email"], scope="openid")
        page = browser.open(app)
        assert page.status_code == 200
        assert "See your e-mail address" in page.text

    def test_another_app_needs_consent(
        self, sandbox: Sandbox, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        browser.authorize(app, user["email"])
        other = sandbox.register_app(name="Other App")
        page = browser.open(other)
        assert page.status_code == 200
        assert "Other App" in page.text

    def test_prompt_consent_shows_the_consent_page(
        self, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        browser.authorize(app, user["email"])
        assert browser.open(app, prompt="consent").status_code == 200

    def test_prompt_login_shows_the_sign_in_page(
        self, sandbox: Sandbox, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        browser.authorize(app, user["email"])
        other = sandbox.add_user()
        page = browser.sign_in(browser.open(app, prompt="login"), other["email"])
        assert other["email"] in page.text

    def test_prompt_none_returns_an_error_until_consent(
        self, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        assert read_redirect(browser.open(app, prompt="none"))["error"] == "login_required"
        page = browser.sign_in(browser.open(app), user["email"])
        assert read_redirect(browser.open(app, prompt="none"))["error"] == "consent_required"
        browser.submit(page, decision="allow")
        assert "code" in read_redirect(browser.open(app, prompt="none"))

    def test_cancel_returns_access_denied(
        self, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        page = browser.sign_in(browser.open(app), user["email"])
        returned = read_redirect(browser.submit(page, decision="cancel"))
        assert returned["error"] == "access_denied"
        assert returned["state"] == browser.state
        assert "iss" in returned
        assert browser.open(app).status_code == 200

    def test_wrong_password(self, app: App, user: dict[str, Any], browser: Visitor) -> None:
        form = browser.get(browser.open(app).headers["Location"])
        assert "Test App" in form.text
        page = browser.submit(form, username=user["email"], password="wrong")
        assert page.status_code == 200
        assert "do not match" in page.text
        assert "autocomplete" in page.text
        assert browser.open(app).status_code == 302

    def test_email_is_case_insensitive(
        self, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        page = browser.sign_in(browser.open(app), user["email"].upper())
        assert page.status_code == 200

    def test_sign_in_does_not_redirect_to_another_site(
        self, user: dict[str, Any], browser: Visitor
    ) -> None:
        form = browser.get("/login?next=https://evil.example/")
        reply = browser.submit(form, username=user["email"], password=browser.password)
        assert reply.headers["Location"] == "/"

    @pytest.mark.parametrize(
        "uri",
        [
            REDIRECT_URI + "/",
            REDIRECT_URI + "?x=1",
            REDIRECT_URI.replace("5280", "5281"),
            REDIRECT_URI.replace("localhost", "127.0.0.1"),
            REDIRECT_URI.replace("http", "https"),
            "https://evil.example/<script>",
            None,
        ],
    )
    def test_unregistered_redirect_uri_shows_an_error_page(
        self, app: App, browser: Visitor, uri: str | None
    ) -> None:
        page = browser.open(app, redirect_uri=uri)
        assert page.status_code == 400
        assert "Location" not in page.headers
        assert "invalid_redirect_uri" in page.text
        assert "PATCH /developers/apps/:id" in page.text
        assert "<script>" not in page.text
        if uri and "<" not in uri:
            assert uri in page.text

    def test_loopback_port_is_part_of_the_uri(self, sandbox: Sandbox, browser: Visitor) -> None:
        uri = "http://127.0.0.1:5280/auth/quota/callback"
        app = sandbox.register_app(redirect_uris=[uri])
        page = browser.open(app, redirect_uri=uri.replace("5280", "9999"))
        assert page.status_code == 400
        assert "invalid_redirect_uri" in page.text
        assert browser.open(app, redirect_uri=uri).status_code == 302

    @pytest.mark.parametrize("client_id", ["quota_client_unknown", "", None])
    def test_unknown_client_shows_an_error_page(
        self, app: App, browser: Visitor, client_id: str | None
    ) -> None:
        page = browser.open(app, client_id=client_id)
        assert page.status_code == 400
        assert "Location" not in page.headers
        assert "invalid_client" in page.text

    @pytest.mark.parametrize(
        ("changes", "error"),
        [
            ({"scope": "openid account.write"}, "invalid_scope"),
            ({"scope": "openid nonsense"}, "invalid_scope"),
            ({"scope": ""}, "invalid_scope"),
            ({"scope": None}, "invalid_scope"),
            ({"code_challenge": None}, "invalid_request"),
            ({"code_challenge_method": "S512"}, "invalid_request"),
            ({"response_type": "token"}, "unauthorized_client"),
            ({"response_type": "nonsense"}, "unsupported_response_type"),
            ({"prompt": "none login"}, "invalid_request"),
        ],
    )
    def test_invalid_request_is_rejected_before_sign_in(
        self, app: App, browser: Visitor, changes: dict[str, str | None], error: str
    ) -> None:
        returned = read_redirect(browser.open(app, **changes))
        assert returned["error"] == error
        assert returned["state"] == browser.state
        assert "iss" in returned

    def test_invalid_claims_parameter_shows_an_error_page(self, app: App, browser: Visitor) -> None:
        page = browser.open(app, claims="{")
        assert page.status_code == 400
        assert "invalid_request" in page.text

    def test_consent_form_needs_a_csrf_token(
        self, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        page = browser.sign_in(browser.open(app), user["email"])
        reply = browser.http.post(
            page.url, data={"decision": "allow"}, timeout=10, allow_redirects=False
        )
        assert reply.status_code == 403

    def test_page_has_a_strict_content_security_policy(self, app: App, browser: Visitor) -> None:
        page = browser.get(browser.open(app).headers["Location"])
        policy = page.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "<script" not in page.text
        assert "style=" not in page.text
        sheet = browser.get("/static/quota_sandbox/quota.css")
        assert sheet.headers["Content-Type"].startswith("text/css")


class TestCode:
    def test_is_single_use(
        self, sandbox: Sandbox, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        code = browser.authorize(app, user["email"])
        tokens = sandbox.token(browser.exchange(app, code)).json()
        again = sandbox.token(browser.exchange(app, code))
        assert again.status_code == 400
        assert again.json()["error"] == "invalid_grant"
        assert sandbox.get("/v1/balance", tokens["access_token"]).status_code == 200

    def test_concurrent_requests_succeed_once(
        self, sandbox: Sandbox, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        body = browser.exchange(app, browser.authorize(app, user["email"]))
        statuses = begin_together([lambda: sandbox.token(body).status_code] * 8)
        assert sorted(statuses) == [200] + [400] * 7

    @pytest.mark.parametrize(
        ("changes", "status", "error"),
        [
            ({"code": "nonsense"}, 400, "invalid_grant"),
            ({"code_verifier": "wrong" * 10}, 400, "invalid_grant"),
            ({"code_verifier": None}, 400, "invalid_request"),
            ({"redirect_uri": REDIRECT_URI + "/"}, 400, "invalid_grant"),
            ({"redirect_uri": None}, 400, "invalid_request"),
            ({"client_secret": "quota_secret_wrong"}, 401, "invalid_client"),
            ({"client_secret": None}, 401, "invalid_client"),
            ({"client_id": "quota_client_unknown"}, 401, "invalid_client"),
            ({"grant_type": "password"}, 400, "unsupported_grant_type"),
            ({"grant_type": None}, 400, "unsupported_grant_type"),
            ({"code": None}, 400, "invalid_request"),
        ],
    )
    def test_invalid_request_returns_an_error_and_keeps_the_code(
        self,
        sandbox: Sandbox,
        app: App,
        user: dict[str, Any],
        browser: Visitor,
        changes: dict[str, str | None],
        status: int,
        error: str,
    ) -> None:
        body: dict[str, Any] = browser.exchange(app, browser.authorize(app, user["email"]))
        changed = {name: value for name, value in (body | changes).items() if value is not None}
        reply = sandbox.token(changed)
        assert (reply.status_code, reply.json()["error"]) == (status, error)
        assert "WWW-Authenticate" not in reply.headers
        assert sandbox.token(body).status_code == 200

    def test_other_app_cannot_use_it(
        self, sandbox: Sandbox, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        body = browser.exchange(app, browser.authorize(app, user["email"]))
        other = sandbox.register_app()
        reply = sandbox.token(body | other.credentials)
        assert (reply.status_code, reply.json()["error"]) == (400, "invalid_grant")

    def test_basic_authentication_is_rejected(
        self, sandbox: Sandbox, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        body = browser.exchange(app, browser.authorize(app, user["email"]))
        del body["client_id"], body["client_secret"]
        reply = sandbox.post("/oauth/token", data=body, auth=(app.client_id, app.client_secret))
        assert (reply.status_code, reply.json()["error"]) == (401, "invalid_client")
        # RFC 6749 section 5.2: the challenge has the scheme that the client used.
        assert reply.headers["WWW-Authenticate"] == 'Basic realm="Quota"'

    def test_plain_code_challenge_is_accepted(
        self, sandbox: Sandbox, app: App, user: dict[str, Any], browser: Visitor
    ) -> None:
        plain = {"code_challenge": browser.verifier, "code_challenge_method": "plain"}
        code = browser.authorize(app, user["email"], **plain)
        assert sandbox.token(browser.exchange(app, code)).status_code == 200

    def test_public_client_needs_no_secret(
        self, sandbox: Sandbox, user: dict[str, Any], browser: Visitor
    ) -> None:
        app = sandbox.register_app(token_endpoint_auth_method="none")
        assert app.client_secret == ""
        body = browser.exchange(app, browser.authorize(app, user["email"]))
        del body["client_secret"]
        assert sandbox.token(body).status_code == 200

    def test_without_openid_there_is_no_id_token(
        self, sandbox: Sandbox, app: App, user: dict[str, Any]
    ) -> None:
        tokens = sandbox.sign_in(app, user["email"], scope="credits.read credits.spend")
        assert "id_token" not in tokens
        assert tokens["scope"] == "credits.read credits.spend"
        balance = sandbox.get("/v1/balance", tokens["access_token"]).json()
        assert balance["user_id"] == user["id"]

    def test_id_token_has_only_claims_of_its_scopes(
        self, sandbox: Sandbox, app: App, user: dict[str, Any]
    ) -> None:
        claims = read_claims(sandbox.sign_in(app, user["email"], scope="openid")["id_token"])
        assert not claims.keys() & {"email", "email_verified", "name", "picture"}


class TestRefresh:
    def test_refresh_replaces_both_tokens(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        fresh = sandbox.refresh(app, tokens["refresh_token"]).json()
        assert fresh["refresh_token"] != tokens["refresh_token"]
        assert fresh["access_token"] != tokens["access_token"]
        assert fresh["scope"] == SCOPES
        claims = verify_claims(sandbox, app, fresh["id_token"])
        assert claims["sub"] == read_claims(tokens["id_token"])["sub"]
        assert "nonce" not in claims
        assert sandbox.get("/v1/balance", fresh["access_token"]).status_code == 200
        assert sandbox.get("/v1/balance", tokens["access_token"]).status_code == 401

    def test_knob_keeps_the_old_access_token(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        sandbox.set(access_token_survives_refresh=True)
        assert sandbox.refresh(app, tokens["refresh_token"]).status_code == 200
        assert sandbox.get("/v1/balance", tokens["access_token"]).status_code == 200

    def test_reuse_revokes_all_descendants(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        second = sandbox.refresh(app, tokens["refresh_token"]).json()
        third = sandbox.refresh(app, second["refresh_token"]).json()
        reuse = sandbox.refresh(app, tokens["refresh_token"])
        assert (reuse.status_code, reuse.json()["error"]) == (400, "invalid_grant")
        assert sandbox.refresh(app, third["refresh_token"]).status_code == 400
        assert sandbox.get("/v1/balance", third["access_token"]).status_code == 401

    def test_reuse_without_detection_revokes_nothing(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        sandbox.set(reuse_detection=False)
        second = sandbox.refresh(app, tokens["refresh_token"]).json()
        assert sandbox.refresh(app, tokens["refresh_token"]).status_code == 400
        assert sandbox.refresh(app, second["refresh_token"]).status_code == 200

    def test_reuse_does_not_revoke_another_sign_in(
        self, sandbox: Sandbox, app: App, user: dict[str, Any], tokens: dict[str, Any]
    ) -> None:
        other = sandbox.sign_in(app, user["email"])
        sandbox.refresh(app, tokens["refresh_token"])
        sandbox.refresh(app, tokens["refresh_token"])
        assert sandbox.refresh(app, other["refresh_token"]).status_code == 200

    def test_concurrent_requests_succeed_once(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        sandbox.set(reuse_detection=False)
        refresh_token = tokens["refresh_token"]
        statuses = begin_together([lambda: sandbox.refresh(app, refresh_token).status_code] * 8)
        assert sorted(statuses) == [200] + [400] * 7

    def test_reuse_within_the_grace_period_returns_the_same_tokens(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        sandbox.set(refresh_grace_seconds=60)
        first = sandbox.refresh(app, tokens["refresh_token"]).json()
        again = sandbox.refresh(app, tokens["refresh_token"]).json()
        assert again["access_token"] == first["access_token"]
        assert again["refresh_token"] == first["refresh_token"]
        assert 3590 <= again["expires_in"] <= 3600
        claims = [verify_claims(sandbox, app, reply["id_token"]) for reply in (first, again)]
        assert claims[0]["at_hash"] == claims[1]["at_hash"]

    def test_reuse_after_the_grace_period_is_rejected(
        self,
        sandbox: Sandbox,
        sandbox_process: SandboxProcess,
        app: App,
        tokens: dict[str, Any],
    ) -> None:
        sandbox.set(refresh_grace_seconds=60)
        sandbox.refresh(app, tokens["refresh_token"])
        sandbox_process.execute(
            "UPDATE oauth2_provider_refreshtoken SET revoked = datetime(revoked, '-61 seconds')"
        )
        assert sandbox.refresh(app, tokens["refresh_token"]).status_code == 400

    def test_without_rotation_the_refresh_token_stays_valid(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        sandbox.set(rotate_refresh_tokens=False)
        for _ in range(2):
            reply = sandbox.refresh(app, tokens["refresh_token"])
            assert reply.status_code == 200
            assert "refresh_token" not in reply.json()
            token = reply.json()["access_token"]
            assert sandbox.get("/v1/balance", token).status_code == 200

    def test_scope_can_be_reduced_but_not_extended(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        body = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        more = sandbox.token(body | app.credentials | {"scope": SCOPES + " account.read"})
        assert (more.status_code, more.json()["error"]) == (400, "invalid_scope")
        less = sandbox.token(body | app.credentials | {"scope": "credits.read"})
        assert less.json()["scope"] == "credits.read"

    def test_other_app_cannot_use_it(
        self, sandbox: Sandbox, tokens: dict[str, Any], app: App
    ) -> None:
        other = sandbox.register_app()
        assert sandbox.refresh(other, tokens["refresh_token"]).json()["error"] == "invalid_grant"
        assert sandbox.refresh(app, tokens["refresh_token"]).status_code == 200

    def test_wrong_secret_keeps_the_refresh_token(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        body = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        reply = sandbox.token(body | app.credentials | {"client_secret": "wrong"})
        assert (reply.status_code, reply.json()["error"]) == (401, "invalid_client")
        assert sandbox.refresh(app, tokens["refresh_token"]).status_code == 200

    @pytest.mark.parametrize(
        ("changes", "status", "code"),
        [
            ({"refresh_token": "quota_refresh_unknown"}, 401, "invalid_token"),
            ({"client_secret": "wrong"}, 401, "invalid_client"),
            ({"grant_type": "nonsense"}, 400, "bad_request"),
        ],
    )
    def test_errors_in_the_format_of_quota(
        self,
        sandbox: Sandbox,
        app: App,
        tokens: dict[str, Any],
        changes: dict[str, str],
        status: int,
        code: str,
    ) -> None:
        sandbox.set(token_error_shape="quota")
        body = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
        reply = sandbox.token(body | app.credentials | changes)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (status, code)
        assert error["docs_url"] == f"https://usequota.ai/docs/errors#{code}"


class TestUserinfo:
    def test_claims(self, sandbox: Sandbox, user: dict[str, Any], tokens: dict[str, Any]) -> None:
        claims = sandbox.get("/oauth/userinfo", tokens["access_token"]).json()
        assert claims.pop("picture").startswith(f"{sandbox.url}/avatars/")
        assert claims == {
            "sub": user["id"],
            "email": user["email"],
            "email_verified": True,
            "balance": 1_000_000,
        }

    def test_without_a_wallet_scope_the_balance_is_null(
        self, sandbox: Sandbox, app: App, user: dict[str, Any]
    ) -> None:
        token = sandbox.sign_in(app, user["email"], scope="openid")["access_token"]
        claims = sandbox.get("/oauth/userinfo", token).json()
        assert claims == {"sub": user["id"], "balance": None}

    def test_refusals(self, sandbox: Sandbox, app: App, user: dict[str, Any]) -> None:
        token = sandbox.sign_in(app, user["email"], scope="credits.read")["access_token"]
        reply = sandbox.get("/oauth/userinfo", token)
        assert (reply.status_code, reply.json()["error"]["code"]) == (403, "insufficient_scope")
        assert sandbox.get("/oauth/userinfo").status_code == 401
        assert sandbox.get("/oauth/userinfo", "quota_token_unknown").status_code == 401


class TestRevoke:
    def revoke(self, sandbox: Sandbox, app: App, token: str, hint: str = "") -> int:
        body = {"token": token, "token_type_hint": hint} | app.credentials
        return sandbox.post("/oauth/revoke", data=body).status_code

    def test_refresh_token(self, sandbox: Sandbox, app: App, tokens: dict[str, Any]) -> None:
        assert self.revoke(sandbox, app, tokens["refresh_token"], "refresh_token") == 200
        assert sandbox.refresh(app, tokens["refresh_token"]).status_code == 400
        assert sandbox.get("/v1/balance", tokens["access_token"]).status_code == 401

    def test_access_token(self, sandbox: Sandbox, app: App, tokens: dict[str, Any]) -> None:
        assert self.revoke(sandbox, app, tokens["access_token"]) == 200
        assert sandbox.get("/v1/balance", tokens["access_token"]).status_code == 401

    def test_unknown_token_returns_200(self, sandbox: Sandbox, app: App) -> None:
        assert self.revoke(sandbox, app, "quota_refresh_unknown") == 200

    def test_wrong_secret(self, sandbox: Sandbox, app: App, tokens: dict[str, Any]) -> None:
        body = {"token": tokens["refresh_token"]} | app.credentials | {"client_secret": "wrong"}
        reply = sandbox.post("/oauth/revoke", data=body)
        assert (reply.status_code, reply.json()["error"]) == (401, "invalid_client")
        assert sandbox.refresh(app, tokens["refresh_token"]).status_code == 200

    def test_other_app_cannot_use_it(
        self, sandbox: Sandbox, app: App, tokens: dict[str, Any]
    ) -> None:
        other = sandbox.register_app()
        assert self.revoke(sandbox, other, tokens["refresh_token"]) == 200
        assert sandbox.refresh(app, tokens["refresh_token"]).status_code == 200


class TestEndSession:
    @pytest.fixture
    def signed_in(
        self, sandbox: Sandbox, app: App, user: dict[str, Any], browser: Visitor
    ) -> dict[str, Any]:
        """The tokens of a user whose browser is signed in."""
        code = browser.authorize(app, user["email"])
        tokens: dict[str, Any] = sandbox.token(browser.exchange(app, code)).json()
        return tokens

    def test_hint_signs_out_without_confirmation(
        self, sandbox: Sandbox, app: App, browser: Visitor, signed_in: dict[str, Any]
    ) -> None:
        params = {
            "id_token_hint": signed_in["id_token"],
            "post_logout_redirect_uri": POST_LOGOUT_URI,
            "state": "s t&ate",
        }
        reply = browser.get("/oauth/end_session", params=params)
        location = urlsplit(reply.headers["Location"])
        assert location._replace(query="").geturl() == POST_LOGOUT_URI
        assert parse_qs(location.query) == {"state": ["s t&ate"]}
        assert urlsplit(browser.open(app).headers["Location"]).path == "/login"
        # The tokens stay valid, because background jobs use them.
        assert sandbox.refresh(app, signed_in["refresh_token"]).status_code == 200

    def test_consent_is_needed_again_after_signing_out(
        self, app: App, user: dict[str, Any], browser: Visitor, signed_in: dict[str, Any]
    ) -> None:
        hint = signed_in["id_token"]
        browser.get("/oauth/end_session", params={"id_token_hint": hint})
        page = browser.sign_in(browser.open(app), user["email"])
        assert "Test App" in page.text

    def test_expired_hint_with_an_old_key_is_accepted(
        self, sandbox: Sandbox, app: App, browser: Visitor, user: dict[str, Any]
    ) -> None:
        sandbox.set(id_token_lifetime=0)
        code = browser.authorize(app, user["email"])
        hint = sandbox.token(browser.exchange(app, code)).json()["id_token"]
        sandbox.post("/sandbox/rotate-keys")
        params = {"id_token_hint": hint, "post_logout_redirect_uri": POST_LOGOUT_URI}
        reply = browser.get("/oauth/end_session", params=params)
        assert reply.headers["Location"] == POST_LOGOUT_URI

    @pytest.mark.parametrize(
        "uri",
        [
            POST_LOGOUT_URI + "x",
            POST_LOGOUT_URI.rstrip("/"),
            "https://evil.example/",
            "javascript:alert(1)",
            "//evil.example/",
        ],
    )
    def test_unregistered_return_uri_shows_an_error_page(
        self, app: App, browser: Visitor, signed_in: dict[str, Any], uri: str
    ) -> None:
        params = {"id_token_hint": signed_in["id_token"], "post_logout_redirect_uri": uri}
        page = browser.get("/oauth/end_session", params=params)
        assert page.status_code == 400
        assert "Location" not in page.headers
        assert "post_logout_redirect_uris" in page.text
        assert "code" in read_redirect(browser.open(app))

    def test_return_uri_without_an_app_is_rejected(self, browser: Visitor) -> None:
        params = {"post_logout_redirect_uri": POST_LOGOUT_URI}
        assert browser.get("/oauth/end_session", params=params).status_code == 400

    def test_client_id_is_accepted_instead_of_a_hint(self, app: App, browser: Visitor) -> None:
        params = {"client_id": app.client_id, "post_logout_redirect_uri": POST_LOGOUT_URI}
        reply = browser.get("/oauth/end_session", params=params)
        assert reply.headers["Location"] == POST_LOGOUT_URI

    @pytest.mark.parametrize("client_id", ["quota_client_unknown", "\0"])
    def test_unknown_client_is_rejected(self, browser: Visitor, client_id: str) -> None:
        page = browser.get("/oauth/end_session", params={"client_id": client_id})
        assert page.status_code == 400

    def test_client_id_that_differs_from_the_hint_is_rejected(
        self, sandbox: Sandbox, browser: Visitor, signed_in: dict[str, Any]
    ) -> None:
        other = sandbox.register_app()
        params = {"id_token_hint": signed_in["id_token"], "client_id": other.client_id}
        assert browser.get("/oauth/end_session", params=params).status_code == 400

    @pytest.mark.parametrize(
        "hint", ["nonsense", "a.b.c", "e30.e30.e30", "\0", "eyJraWQiOltdfQ.e30.x"]
    )
    def test_invalid_hint_is_rejected(self, browser: Visitor, hint: str) -> None:
        page = browser.get("/oauth/end_session", params={"id_token_hint": hint})
        assert page.status_code == 400

    def test_hint_with_changed_claims_is_rejected(
        self, browser: Visitor, signed_in: dict[str, Any]
    ) -> None:
        head, _, signature = signed_in["id_token"].split(".")
        params = {"id_token_hint": f"{head}.e30.{signature}"}
        assert browser.get("/oauth/end_session", params=params).status_code == 400

    def test_hint_of_another_user_needs_confirmation(
        self, sandbox: Sandbox, app: App, browser: Visitor, signed_in: dict[str, Any]
    ) -> None:
        other = sandbox.sign_in(app, sandbox.add_user()["email"])
        params = {
            "id_token_hint": other["id_token"],
            "post_logout_redirect_uri": POST_LOGOUT_URI,
        }
        page = browser.get("/oauth/end_session", params=params)
        assert page.status_code == 200
        assert "code" in read_redirect(browser.open(app))
        reply = browser.submit(page, allow="on")
        assert reply.headers["Location"] == POST_LOGOUT_URI
        assert urlsplit(browser.open(app).headers["Location"]).path == "/login"

    def test_user_can_stay_signed_in(
        self, app: App, browser: Visitor, signed_in: dict[str, Any]
    ) -> None:
        page = browser.get("/oauth/end_session")
        assert page.status_code == 200
        reply = browser.submit(page, stay="on")
        assert reply.status_code == 302
        assert "code" in read_redirect(browser.open(app))
