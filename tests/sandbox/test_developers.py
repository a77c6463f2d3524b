"""The developer's JSON API: accounts and apps."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from .client import REDIRECT_URI, App, Sandbox

PASSWORD = "correct horse"


def make_email() -> str:
    return f"Dev-{secrets.token_hex(6)}@Example.com"


class TestAccounts:
    def test_register_login_me_logout(self, sandbox: Sandbox) -> None:
        email = make_email()
        reply = sandbox.post("/auth/register", json={"email": email, "password": PASSWORD})
        assert reply.status_code == 201
        registered = reply.json()
        assert registered.keys() == {"user", "session_token", "expires_at"}
        assert registered["user"].keys() == {"id", "email", "balance"}
        assert registered["user"]["email"] == email.lower()
        assert registered["user"]["balance"] == 1_000_000
        assert registered["session_token"].startswith("sess_")

        reply = sandbox.post("/auth/login", json={"email": email, "password": PASSWORD})
        assert reply.status_code == 200
        assert reply.json()["user"] == registered["user"]
        token = reply.json()["session_token"]
        assert sandbox.get("/auth/me", token).json() == {"user": registered["user"]}
        assert sandbox.post("/auth/logout", token).json() == {"success": True}
        assert sandbox.get("/auth/me", token).status_code == 401
        assert sandbox.get("/auth/me", registered["session_token"]).status_code == 200

    def test_email_can_be_registered_once(self, sandbox: Sandbox) -> None:
        body = {"email": make_email(), "password": PASSWORD}
        assert sandbox.post("/auth/register", json=body).status_code == 201
        body["email"] = body["email"].upper()
        reply = sandbox.post("/auth/register", json=body)
        assert (reply.status_code, reply.json()["error"]["code"]) == (409, "email_exists")

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            ({"email": "nonsense", "password": PASSWORD}, "invalid_email"),
            ({"email": "", "password": PASSWORD}, "invalid_email"),
            ({"email": "a@example.com", "password": "short"}, "weak_password"),
            ({"email": "a@example.com"}, "bad_request"),
            ({"email": 1, "password": PASSWORD}, "bad_request"),
            ({"email": "a@example.com", "password": ["x"]}, "bad_request"),
            ({"email": "a\0@example.com", "password": PASSWORD}, "bad_request"),
            ({"email": "a@example.com", "password": "x" * 2_000}, "bad_request"),
        ],
    )
    def test_register_with_invalid_data_returns_400(
        self, sandbox: Sandbox, body: Any, code: str
    ) -> None:
        reply = sandbox.post("/auth/register", json=body)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (400, code)
        assert error["docs_url"] == f"https://usequota.ai/docs/errors#{code}"

    @pytest.mark.parametrize("email", ["ada@example.com", "nobody@example.com"])
    def test_login_with_a_wrong_password_returns_401(self, sandbox: Sandbox, email: str) -> None:
        reply = sandbox.post("/auth/login", json={"email": email, "password": "wrong one"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_credentials")

    @pytest.mark.parametrize("token", ["", "sess_unknown", "quota_token_x", "sess_ two", "sess_ü"])
    def test_invalid_session_token_returns_401(self, sandbox: Sandbox, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}".encode()}
        for method, path in [("GET", "/auth/me"), ("POST", "/developers/apps")]:
            reply = sandbox.call(method, path, headers=headers, json={})
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")


class TestApps:
    body: dict[str, Any] = {
        "name": "My App",
        "redirect_uris": [REDIRECT_URI, "https://app.example/cb?x=1"],
        "allowed_scopes": ["openid", "credits.read"],
    }

    def test_create_show_change(self, sandbox: Sandbox) -> None:
        token = sandbox.register_developer()
        reply = sandbox.post("/developers/apps", token, json=self.body)
        assert reply.status_code == 201
        created = reply.json()
        assert created.pop("client_secret").startswith("quota_secret_")
        assert created["client_id"].startswith("quota_client_")
        assert {name: created[name] for name in self.body} == self.body
        assert created["post_logout_redirect_uris"] == []

        for identifier in (created["id"], created["client_id"]):
            path = f"/developers/apps/{identifier}"
            assert sandbox.get(path, token).json() == created
            uris = [f"http://localhost:5280/{identifier}"]
            change: dict[str, Any] = {"post_logout_redirect_uris": uris}
            changed = sandbox.call("PATCH", path, token, json=change)
            assert changed.status_code == 200
            created |= change
            assert changed.json() == created
        change = {"name": "Renamed", "allowed_scopes": ["openid"], "redirect_uris": [REDIRECT_URI]}
        assert sandbox.call("PATCH", path, token, json=change).json() == created | change

    def test_secret_is_only_in_the_first_reply(self, sandbox: Sandbox, app: App) -> None:
        shown = sandbox.get(f"/developers/apps/{app.id}", app.session_token)
        assert app.client_secret not in shown.text
        assert "client_secret" not in shown.json()

    @pytest.mark.parametrize("method", ["GET", "PATCH"])
    def test_app_of_another_developer_returns_403(
        self, sandbox: Sandbox, app: App, method: str
    ) -> None:
        stranger = sandbox.register_developer()
        for identifier in (app.id, app.client_id):
            reply = sandbox.call(
                method, f"/developers/apps/{identifier}", stranger, json={"name": "Mine"}
            )
            assert (reply.status_code, reply.json()["error"]["code"]) == (403, "forbidden")

    @pytest.mark.parametrize("identifier", ["nonsense", "0" * 32, "quota_client_x", "%00"])
    def test_unknown_app_returns_404(self, sandbox: Sandbox, app: App, identifier: str) -> None:
        reply = sandbox.get(f"/developers/apps/{identifier}", app.session_token)
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")

    @pytest.mark.parametrize(
        "uri",
        [
            "http://app.example/cb",
            "http://localhost.evil.example/cb",
            "http://127.0.0.1@evil.example/cb",
            "https://*.example/cb",
            "https://app.example/cb#fragment",
            "https://app.example/c b",
            "https://app.example/c\nb",
            "https://app.example:99999/cb",
            "https://[::1/cb",
            "https:///cb",
            "/cb",
            "",
            "javascript:alert(1)",
            "myapp://cb",
            "https://bücher.example/cb",
            "https://app.example/" + "x" * 3_000,
            7,
            None,
        ],
    )
    @pytest.mark.parametrize("field", ["redirect_uris", "post_logout_redirect_uris"])
    def test_invalid_uri_is_rejected(
        self, sandbox: Sandbox, app: App, field: str, uri: Any
    ) -> None:
        body = self.body | {field: [uri]}
        reply = sandbox.post("/developers/apps", app.session_token, json=body)
        error = reply.json()["error"]
        assert (reply.status_code, error["code"]) == (400, "invalid_redirect_uri")
        assert error["hint"]

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"redirect_uris": []}, "bad_request"),
            ({"redirect_uris": REDIRECT_URI}, "bad_request"),
            ({"redirect_uris": [REDIRECT_URI] * 100}, "bad_request"),
            ({"name": ""}, "bad_request"),
            ({"name": None}, "bad_request"),
            ({"name": "x" * 300}, "bad_request"),
            ({"name": "a\0b"}, "bad_request"),
            ({"allowed_scopes": []}, "bad_request"),
            ({"allowed_scopes": "openid"}, "bad_request"),
            ({"allowed_scopes": ["openid", "nonsense"]}, "invalid_scope"),
            ({"allowed_scopes": [["openid"]]}, "invalid_scope"),
        ],
    )
    def test_invalid_field_is_rejected(
        self, sandbox: Sandbox, app: App, change: dict[str, Any], code: str
    ) -> None:
        created = sandbox.post("/developers/apps", app.session_token, json=self.body | change)
        path = f"/developers/apps/{app.id}"
        patched = sandbox.call("PATCH", path, app.session_token, json=change)
        for reply in (created, patched):
            assert (reply.status_code, reply.json()["error"]["code"]) == (400, code)

    def test_change_without_a_known_field_is_rejected(self, sandbox: Sandbox, app: App) -> None:
        path = f"/developers/apps/{app.id}"
        reply = sandbox.call("PATCH", path, app.session_token, json={"client_secret": "x"})
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")
