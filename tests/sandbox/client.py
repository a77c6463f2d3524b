"""Helpers that start a sandbox and use it like an app's server and a user's browser do."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import re
import secrets
import select
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests

REDIRECT_URI = "http://localhost:5280/auth/quota/callback"
POST_LOGOUT_URI = "http://localhost:5280/"
SCOPES = "openid profile email credits.read credits.spend"
START_TIMEOUT_SECONDS = 60
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class SandboxProcess:
    """A running sandbox."""

    url: str
    data: Path
    process: subprocess.Popen[str]

    def execute(self, sql: str) -> None:
        """Change its data, to move a row into the past for example."""
        with closing(sqlite3.connect(self.data, timeout=30)) as connection, connection:
            connection.execute(sql)


def start_sandbox(data: Path, *options: str) -> SandboxProcess:
    """Start a sandbox on a free port, and wait until it accepts requests."""
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "django_quota.sandbox",
            "--port",
            "0",
            "--data",
            str(data),
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests compare its stderr, and Python's development mode would write warnings to it.
        env={name: value for name, value in os.environ.items() if name != "PYTHONDEVMODE"},
    )
    assert process.stdout is not None
    readable, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_SECONDS)
    line = process.stdout.readline() if readable else ""
    match = re.fullmatch(r"Quota sandbox ready at (http://\S+)\n", line)
    if match is None:
        process.kill()
        raise AssertionError(f"no sandbox: {line!r} {process.communicate()}")
    return SandboxProcess(match[1], data, process)


def stop_sandbox(sandbox: SandboxProcess) -> tuple[int, str, str]:
    """Stop a sandbox; return its exit status and the rest of its stdout and stderr."""
    sandbox.process.send_signal(signal.SIGTERM)
    out, err = sandbox.process.communicate(timeout=10)
    return sandbox.process.returncode, out, err


@dataclass(frozen=True)
class App:
    """A registered app, and the session token of its developer."""

    id: str
    client_id: str
    client_secret: str
    session_token: str

    @property
    def credentials(self) -> dict[str, str]:
        """The parameters that authenticate the app at the token endpoint."""
        return {"client_id": self.client_id, "client_secret": self.client_secret}


@dataclass
class Sandbox:
    """The HTTP client of an app's server."""

    url: str
    http: requests.Session

    def get(self, path: str, token: str = "", **options: Any) -> requests.Response:
        """Send a GET request, with a bearer token if given."""
        return self.call("GET", path, token, **options)

    def post(self, path: str, token: str = "", **options: Any) -> requests.Response:
        """Send a POST request, with a bearer token if given."""
        return self.call("POST", path, token, **options)

    def call(self, method: str, path: str, token: str = "", **options: Any) -> requests.Response:
        """Send a request, with a bearer token if given."""
        headers = options.pop("headers", {})
        if token:
            headers = headers | {"Authorization": f"Bearer {token}"}
        return self.http.request(
            method, f"{self.url}{path}", headers=headers, timeout=30, allow_redirects=False,
            **options,
        )  # fmt: skip

    def set(self, **knobs: Any) -> dict[str, Any]:
        """Change knobs, and return all of them."""
        reply = self.call("PATCH", "/sandbox/settings", json=knobs)
        assert reply.status_code == 200, reply.text
        settings: dict[str, Any] = reply.json()
        return settings

    def add_user(self, balance: int = 1_000_000, **fields: Any) -> dict[str, Any]:
        """Create a user with a random e-mail address."""
        email = f"{secrets.token_hex(6)}@example.com"
        reply = self.post("/sandbox/users", json={"email": email, "balance": balance} | fields)
        assert reply.status_code == 201, reply.text
        user: dict[str, Any] = reply.json()["user"]
        return user

    def user(self, email: str) -> dict[str, Any]:
        """Return the user with this e-mail address, as stored now."""
        users = self.get("/sandbox/users").json()["users"]
        found: dict[str, Any] = next(user for user in users if user["email"] == email)
        return found

    def register_developer(self) -> str:
        """Register a developer, and return their session token."""
        email = f"dev-{secrets.token_hex(6)}@example.com"
        reply = self.post("/auth/register", json={"email": email, "password": "correct horse"})
        assert reply.status_code == 201, reply.text
        token: str = reply.json()["session_token"]
        return token

    def register_app(self, **fields: Any) -> App:
        """Register an app of a new developer, by default with ``SCOPES``."""
        session_token = self.register_developer()
        body = {
            "name": "Test App",
            "redirect_uris": [REDIRECT_URI],
            "allowed_scopes": SCOPES.split(),
            "post_logout_redirect_uris": [POST_LOGOUT_URI],
        }
        reply = self.post("/developers/apps", session_token, json=body | fields)
        assert reply.status_code == 201, reply.text
        app = reply.json()
        return App(app["id"], app["client_id"], app.get("client_secret", ""), session_token)

    def token(self, data: dict[str, str]) -> requests.Response:
        """Send a request to the token endpoint."""
        return self.post("/oauth/token", data=data)

    def refresh(self, app: App, refresh_token: str) -> requests.Response:
        """Exchange a refresh token."""
        body = {"grant_type": "refresh_token", "refresh_token": refresh_token}
        return self.token(body | app.credentials)

    def sign_in(self, app: App, email: str, scope: str = SCOPES) -> dict[str, Any]:
        """Sign in with a new browser, and return the reply of the token endpoint."""
        with Visitor(self.url) as browser:
            code = browser.authorize(app, email, scope=scope)
            reply = self.token(browser.exchange(app, code))
        assert reply.status_code == 200, reply.text
        tokens: dict[str, Any] = reply.json()
        return tokens


@dataclass
class Visitor:
    """A user's browser. It keeps cookies and submits forms, but follows no redirects."""

    url: str
    password: str = "quota-demo"
    http: requests.Session = field(default_factory=requests.Session)
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    state: str = field(default_factory=lambda: secrets.token_hex(8))

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *error: object) -> None:
        self.http.close()

    def authorize_params(self, app: App, **changes: str | None) -> dict[str, str]:
        """Return valid parameters with ``changes``; None removes a parameter."""
        digest = hashlib.sha256(self.verifier.encode()).digest()
        params: dict[str, str | None] = {
            "response_type": "code",
            "client_id": app.client_id,
            "redirect_uri": REDIRECT_URI,
            "scope": SCOPES,
            "state": self.state,
            "nonce": self.nonce,
            "code_challenge": base64.urlsafe_b64encode(digest).decode().rstrip("="),
            "code_challenge_method": "S256",
        }
        merged = params | changes
        return {name: value for name, value in merged.items() if value is not None}

    def open(self, app: App, **changes: str | None) -> requests.Response:
        """Request the authorization endpoint."""
        params = self.authorize_params(app, **changes)
        return self.get("/oauth/authorize", params=params)

    def get(self, path: str, **options: Any) -> requests.Response:
        """Request a page of Quota."""
        url = path if path.startswith("http") else f"{self.url}{path}"
        headers = {"Accept": "text/html"}
        return self.http.get(url, headers=headers, timeout=30, allow_redirects=False, **options)

    def submit(self, page: requests.Response, **fields: str) -> requests.Response:
        """Submit the form on a page: its hidden fields and ``fields``."""
        hidden = re.findall(r'<input type="hidden" name="([^"]+)"(?: value="([^"]*)")?', page.text)
        data = {name: html.unescape(value) for name, value in hidden}
        return self.http.post(
            page.url, data=data | fields, headers={"Accept": "text/html"}, timeout=30,
            allow_redirects=False,
        )  # fmt: skip

    def sign_in(self, page: requests.Response, email: str) -> requests.Response:
        """Follow the redirect to the sign-in page, sign in, and return the next page."""
        assert urlsplit(page.headers["Location"]).path == "/login", page.headers
        form = self.get(page.headers["Location"])
        reply = self.submit(form, username=email, password=self.password)
        assert reply.status_code == 302, reply.text
        return self.get(reply.headers["Location"])

    def authorize(self, app: App, email: str, **changes: str | None) -> str:
        """Sign in, consent, and return the code."""
        page = self.sign_in(self.open(app, **changes), email)
        assert page.status_code == 200, page.text
        return read_redirect(self.submit(page, decision="allow"))["code"]

    def exchange(self, app: App, code: str) -> dict[str, str]:
        """Return the body of the token request for a code."""
        return {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT_URI,
            "code_verifier": self.verifier,
        } | app.credentials


def read_redirect(reply: requests.Response) -> dict[str, str]:
    """Return the parameters of a redirect to the app."""
    assert reply.status_code == 302, reply.text
    location = reply.headers["Location"]
    assert location.startswith(f"{REDIRECT_URI}?"), location
    return {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}


def read_claims(id_token: str) -> dict[str, Any]:
    """Return the claims of an id_token without verifying it."""
    payload = id_token.split(".")[1]
    decoded: dict[str, Any] = json.loads(
        base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    )
    return decoded
