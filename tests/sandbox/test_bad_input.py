"""Invalid requests get an error, and never make the sandbox fail."""

from __future__ import annotations

import contextlib
import socket
from typing import Any
from urllib.parse import urlsplit

import pytest

from .client import App, Sandbox, Visitor

JSON_ENDPOINTS = [
    ("POST", "/auth/register"),
    ("POST", "/auth/login"),
    ("POST", "/developers/apps"),
    ("PATCH", "/developers/apps/{app}"),
    ("POST", "/api/payments/checkout"),
    ("POST", "/v1/chat/completions"),
    ("PATCH", "/sandbox/settings"),
    ("POST", "/sandbox/users"),
]
BODIES: list[bytes] = [
    b"",
    b"{",
    b"nonsense",
    b"null",
    b"true",
    b"7",
    b'"text"',
    b"[]",
    b"[[[]]]",
    b"[" * 100_000,
    b'{"email": NaN}',
    b'{"email": 1e999, "balance": -1e999}',
    b'{"email": ' + b"9" * 5_000 + b"}",
    b'{"email": "\\ud800", "password": "\\udfff\\udfff\\udfff"}',
    b'{"name": "\\u0000", "email": "a\\u0000@b.c", "messages": "\\u0000"}',
    b'{"a": "\xff\xfe"}',
    b"\xff\xfe\x00",
    b"\x00",
    b'{"email": {}, "password": [], "name": {}, "model": {}, "messages": {}, "package_id": []}',
    b"x" * 3_000_000,
]


@pytest.mark.parametrize(("method", "template"), JSON_ENDPOINTS)
def test_json_endpoint_with_an_invalid_body_returns_400(
    sandbox: Sandbox, app: App, tokens: dict[str, Any], method: str, template: str
) -> None:
    bearer = app.session_token if "developers" in template else tokens["access_token"]
    for body in BODIES:
        for content_type in ("application/json", "text/plain", "multipart/form-data"):
            reply = sandbox.call(
                method,
                template.format(app=app.id),
                bearer,
                data=body,
                headers={"Content-Type": content_type},
            )
            assert reply.status_code == 400, (body[:50], reply.text)
            error = reply.json()["error"]
            assert error["code"]
            assert error["message"]


@pytest.mark.parametrize(("method", "template"), JSON_ENDPOINTS)
@pytest.mark.parametrize("wrong", ["PUT", "DELETE", "OPTIONS"])
def test_json_endpoint_with_another_method_returns_405(
    sandbox: Sandbox, app: App, method: str, template: str, wrong: str
) -> None:
    reply = sandbox.call(wrong, template.format(app=app.id))
    assert reply.status_code == 405
    assert method in reply.headers["Allow"]
    assert reply.json()["error"]["code"] == "method_not_allowed"


OAUTH_VALUES = [
    "%zz",
    "%",
    "%00",
    "%FF%FE",
    "%ED%A0%80",
    "+",
    "a" * 5_000,
    "%F0%9F%92%A9",
    "<script>alert(1)</script>",
    "a&client_id=b&client_id=c",
    "[]",
    "http://[",
    "javascript:alert(1)",
]
AUTHORIZE_FIELDS = [
    "client_id",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "prompt",
    "claims",
    "resource",
    "max_age",
    "id_token_hint",
    "ui_locales",
    "approval_prompt",
]


@pytest.mark.parametrize("field", AUTHORIZE_FIELDS)
def test_authorize_with_an_invalid_parameter_does_not_fail(
    sandbox: Sandbox, app: App, user: dict[str, Any], browser: Visitor, field: str
) -> None:
    browser.sign_in(browser.open(app), user["email"])
    good = {k: v for k, v in browser.authorize_params(app).items() if k != field}
    with Visitor(sandbox.url) as signed_out:
        for value in OAUTH_VALUES:
            for visitor in (browser, signed_out):
                page = visitor.get(f"/oauth/authorize?{field}={value}", params=good)
                assert page.status_code in (200, 302, 400), (value, page.status_code)
                assert "<script" not in page.text
                if page.status_code == 200:
                    reply = visitor.submit(page, decision="allow")
                    assert reply.status_code in (302, 400), (value, reply.status_code)


@pytest.mark.parametrize("path", ["/oauth/token", "/oauth/revoke"])
def test_form_endpoint_with_an_invalid_body_does_not_fail(
    sandbox: Sandbox, app: App, path: str
) -> None:
    bodies = [
        b"",
        b"%zz",
        b"\x00",
        b"\xff\xfe",
        b"grant_type=refresh_token&refresh_token=%00",
        b"grant_type=refresh_token&refresh_token=%ED%A0%80",
        b"grant_type=authorization_code&code=%00&redirect_uri=%00&code_verifier=%00",
        b"grant_type=urn:ietf:params:oauth:grant-type:device_code",
        b"grant_type=password&username=%00&password=x",
        b"grant_type=authorization_code&grant_type=authorization_code",
        b"token=%00&token_type_hint=%00",
        b"token=a&token=b",
        b"&".join(b"a%d=1" % number for number in range(2_000)),
    ]
    credentials = f"&client_id={app.client_id}&client_secret={app.client_secret}".encode()
    form = "application/x-www-form-urlencoded"
    for body in bodies:
        for suffix in (b"", credentials, b"&client_id=%00&client_secret=%00"):
            for content_type in (form, f"{form}; charset=utf-16", "multipart/form-data", "x"):
                reply = sandbox.post(
                    path, data=body + suffix, headers={"Content-Type": content_type}
                )
                assert reply.status_code in (200, 400, 401), (body, reply.status_code)
    assert sandbox.post(f"{path}?%zz", data={"a": "b"}).status_code in (400, 401)
    assert sandbox.get(path).status_code == 405


@pytest.mark.parametrize("shape", ["rfc6749", "quota"])
def test_token_error_has_the_shape_of_the_knob(sandbox: Sandbox, shape: str) -> None:
    sandbox.set(token_error_shape=shape)
    error = sandbox.post("/oauth/token", data={"grant_type": "refresh_token"}).json()["error"]
    assert isinstance(error, str if shape == "rfc6749" else dict)


def test_invalid_bearer_token_returns_401(sandbox: Sandbox) -> None:
    for value in (b"Bearer \xff", b"Bearer quota_token_\xff", b"bearer  quota_token_x", b"\x80"):
        for path in ("/v1/balance", "/oauth/userinfo", "/auth/me"):
            reply = sandbox.get(path, headers={"Authorization": value})
            assert reply.status_code == 401


def test_sign_in_form_with_invalid_input_shows_an_error(browser: Visitor) -> None:
    form = browser.get("/login?next=%00%zz&next=http://[")
    assert form.status_code == 200
    for email, password in [("\0", "\0"), ("", ""), ("x", "x" * 5_000), ("a@b.c", "\ufffe")]:
        page = browser.submit(form, username=email, password=password)
        assert page.status_code == 200
        assert 'role="alert"' in page.text or "field-error" in page.text


def test_unknown_path_returns_404(sandbox: Sandbox, browser: Visitor) -> None:
    for path in (
        "/nothing",
        "/avatars/../x.svg",
        "/avatars/.svg",
        "/static/../settings.py",
        "/%00",
    ):
        assert browser.get(path).status_code == 404
        assert sandbox.get(path).json()["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    "raw",
    [
        b"nonsense\r\n\r\n",
        b"GET /v1/packages HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"POST /oauth/token HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nshort",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ],
)
def test_invalid_http_does_not_fail(sandbox: Sandbox, raw: bytes) -> None:
    address = urlsplit(sandbox.url)
    assert address.hostname is not None
    with socket.create_connection((address.hostname, address.port or 0), timeout=5) as client:
        client.sendall(raw)
        client.shutdown(socket.SHUT_WR)
        client.settimeout(5)
        with contextlib.suppress(ConnectionError):
            assert b" 500 " not in client.recv(100)
    assert sandbox.get("/v1/packages").status_code == 200
