"""Driving the local Quota from tests: as its operator, and as a person with a browser."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urljoin, urlsplit

import requests
from bs4 import BeautifulSoup
from django.test import Client

SCOPES = ["openid", "profile", "email", "credits.read", "credits.spend"]
PASSWORD = "correct horse battery"
_numbers = itertools.count()


@dataclass
class Sandbox:
    """The operator's side: knobs, wallets, and what was asked."""

    origin: str
    app: dict[str, str] = field(default_factory=dict)

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        reply = requests.request(method, self.origin + path, json=body, timeout=20, **options)
        assert reply.ok, f"{method} {path}: {reply.status_code} {reply.text[:500]}"
        return reply.json()

    def register_app(self, **changes: Any) -> dict[str, str]:
        account = {"email": f"dev{next(_numbers)}-{id(self)}@example.com", "password": PASSWORD}
        session = self.call("POST", "/auth/register", account)["session_token"]
        app = {
            "name": "Test Site",
            "redirect_uris": ["http://localhost/auth/quota/callback"],
            "post_logout_redirect_uris": ["http://localhost/"],
            "allowed_scopes": SCOPES,
        } | changes
        made: dict[str, str] = self.call(
            "POST", "/developers/apps", app, headers={"Authorization": f"Bearer {session}"}
        )
        return made | {"session_token": session}

    def reset(self) -> None:
        self.call("POST", "/sandbox/settings/reset")
        self.forget_requests()

    def set(self, **knobs: Any) -> None:
        self.call("PATCH", "/sandbox/settings", knobs)

    def requests(self) -> list[str]:
        """What Quota was asked since `forget_requests`: "POST /oauth/token" and so on."""
        seen = self.call("GET", "/sandbox/requests")["requests"]
        return [f"{r['method']} {r['path']}" for r in seen]

    def wait_for(self, request: str) -> None:
        """Until Quota is done with `request`, which is noted at its end."""
        give_up = time.monotonic() + 20
        while request not in self.requests():
            assert time.monotonic() < give_up, f"{request} has not ended"
            time.sleep(0.05)

    def forget_requests(self) -> None:
        self.call("DELETE", "/sandbox/requests")

    def person(
        self, client: Client | None = None, *, name: str = "Ada Lovelace", balance: int = 1_000_000
    ) -> Person:
        email = f"person{next(_numbers)}-{id(self)}@example.com"
        self.call(
            "POST",
            "/sandbox/users",
            {"email": email, "name": name, "balance": balance, "password": PASSWORD},
        )
        return Person(self, client or Client(SERVER_NAME="localhost"), email, name)

    def balance_of(self, email: str) -> int:
        users = self.call("GET", "/sandbox/users")["users"]
        return int(next(u["balance"] for u in users if u["email"] == email))


class Person:
    """Somebody with a browser: Django's test client on our side, real HTTP on Quota's."""

    def __init__(self, sandbox: Sandbox, client: Client, email: str, name: str) -> None:
        self.sandbox = sandbox
        self.client = client
        self.email = email
        self.name = name
        self.quota = requests.Session()

    def start(self, **query: str) -> str:
        """Click "Sign in with Quota"; the address at Quota that the browser is sent to."""
        return str(self.client.get("/auth/quota/start", query)["Location"])

    def at_quota(self, url: str, *, allow: bool = True) -> str:
        """Sign in at Quota and answer its consent page; the address that it sends us back to."""
        reply = self.quota.get(url, allow_redirects=False, timeout=20)
        for _ in range(8):
            while reply.is_redirect:
                url = urljoin(reply.url, reply.headers["Location"])
                if not url.startswith(self.sandbox.origin):
                    return url
                reply = self.quota.get(url, allow_redirects=False, timeout=20)
            reply = self.answer(reply, allow=allow)
        raise AssertionError(f"Quota keeps asking: {reply.url}")

    def answer(self, page: requests.Response, *, allow: bool = True) -> requests.Response:
        """Fill in the form on a page of Quota's."""
        soup = BeautifulSoup(page.text, "html.parser")
        form = soup.find("form", method=lambda value: value and value.lower() == "post")
        assert form is not None, f"{page.status_code} {page.url}: {soup.get_text(' ', True)[:500]}"
        data = {i["name"]: i.get("value", "") for i in form.select("input[name]")}
        if "password" in data:
            names = [i["name"] for i in form.select("input[name]")]
            user_field = "email" if "email" in names else "username"
            data |= {user_field: self.email, "password": PASSWORD}
        buttons = form.select("button[name]")
        if buttons:
            data = {k: v for k, v in data.items() if k not in {b["name"] for b in buttons}}
            chosen = next(b for b in buttons if _means_yes(b) is allow)
            data[chosen["name"]] = chosen.get("value", "")
        action = urljoin(page.url, str(form.get("action") or page.url))
        return self.quota.post(
            action, data=data, headers={"Referer": page.url}, allow_redirects=False, timeout=20
        )

    def come_back(self, url: str, **options: Any) -> Any:
        """Follow Quota's redirect to our callback; our answer."""
        parts = urlsplit(url)
        return self.client.get(f"{parts.path}?{parts.query}", **options)

    def sign_in(self, **query: str) -> Any:
        """The whole way; the answer of our callback."""
        return self.come_back(self.at_quota(self.start(**query)))


def _means_yes(button: Any) -> bool:
    return button.get_text(strip=True).lower() in ("allow", "pay", "sign in", "continue") or (
        button.get_text(strip=True).lower().startswith(("allow", "pay"))
    )


def query_of(url: str) -> dict[str, str]:
    """The query parameters of `url`, each of which must be there once."""
    found = parse_qs(urlsplit(url).query, strict_parsing=True, keep_blank_values=True)
    assert all(len(values) == 1 for values in found.values()), url
    return {name: values[0] for name, values in found.items()}


def wanted_at(response: Any) -> tuple[str, dict[str, str]]:
    """Where a redirect of ours goes: the path, and the query parameters."""
    parts = urlsplit(response["Location"])
    return parts.path, dict(parse_qsl(parts.query))
