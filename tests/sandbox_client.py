"""Driving the local Quota from tests: as its operator, and as a person with a browser."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urljoin, urlsplit

import requests
import urllib3
from bs4 import BeautifulSoup
from django.test import Client

from tests.helpers.browser import Browser

SCOPES = ["openid", "profile", "email", "credits.read", "credits.spend"]
PASSWORD = "correct horse battery"
_numbers = itertools.count()
#: The operator's connections, which all tests of a process share: a new connection costs the
#: sandbox a thread and a connection to its database.
_operator = urllib3.PoolManager(retries=False)


@dataclass
class Sandbox:
    """The operator's side: knobs, wallets, and what was asked."""

    origin: str
    app: dict[str, str] = field(default_factory=dict)
    #: True once a test has changed a setting of the sandbox.
    is_changed: bool = False

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Any:
        url = self.origin + path
        reply = _operator.request(method, url, json=body, headers=headers, timeout=20)
        assert reply.status < 400, f"{method} {path}: {reply.status} {reply.data[:500]!r}"
        return reply.json()

    def new_developer(self) -> tuple[str, str]:
        """Somebody who has a dollar to give away: the e-mail address, and the session token."""
        account = {"email": f"dev{next(_numbers)}-{id(self)}@example.com", "password": PASSWORD}
        return account["email"], self.call("POST", "/auth/register", account)["session_token"]

    def register_app(self, **changes: Any) -> dict[str, str]:
        _email, session = self.new_developer()
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

    def api_key(self, session: str) -> str:
        """A new API key of the developer."""
        headers = {"Authorization": f"Bearer {session}"}
        return str(self.call("POST", "/developers/keys", {"name": "Site"}, headers=headers)["key"])

    def reset(self) -> None:
        """Back to the default settings and quick answers, if a test changed a setting."""
        if self.is_changed:
            self.call("POST", "/sandbox/settings/reset")
            self.make_quick()

    def make_quick(self) -> None:
        """No pause between the words of an answer."""
        self.call("PATCH", "/sandbox/settings", {"stream_delay": 0})

    def set(self, **knobs: Any) -> None:
        self.is_changed = True
        self.call("PATCH", "/sandbox/settings", knobs)

    def requests(self) -> list[str]:
        """What Quota was asked since `forget_requests`: "POST /oauth/token" and so on."""
        seen = self.call("GET", "/sandbox/requests")["requests"]
        return [f"{r['method']} {r['path']}" for r in seen]

    def forget_requests(self) -> None:
        self.call("DELETE", "/sandbox/requests")

    def person(
        self,
        client: Client | None = None,
        *,
        name: str = "Ada Lovelace",
        balance: int = 1_000_000,
    ) -> Person:
        """Somebody new."""
        email = f"person{next(_numbers)}-{id(self)}@example.com"
        self.call(
            "POST",
            "/sandbox/users",
            {"email": email, "name": name, "balance": balance, "password": PASSWORD},
        )
        return Person(self, client or Client(SERVER_NAME="localhost"), email, name)

    def again(self, regular: Person) -> Person:
        """The same person, with a dollar again, at a browser that is new to the site and has been
        at Quota before: it asks for the password and the consent once."""
        known = {"email": regular.email, "name": regular.name, "balance": 1_000_000}
        self.call("POST", "/sandbox/users", known)
        person = Person(self, Client(SERVER_NAME="localhost"), regular.email, regular.name)
        person.quota = regular.quota
        return person

    def set_balance(self, email: str, credits: int) -> None:
        self.call("POST", "/sandbox/users", {"email": email, "balance": credits})

    def balance_of(self, email: str) -> int:
        return int(self._user(email)["balance"])

    def sub_of(self, email: str) -> str:
        return str(self._user(email)["id"])

    def _user(self, email: str) -> dict[str, Any]:
        users = self.call("GET", "/sandbox/users")["users"]
        found: dict[str, Any] = next(user for user in users if user["email"] == email)
        return found


class Person(Browser):
    """Somebody with an account at the sandbox, at a browser that keeps its cookies there."""

    def __init__(self, sandbox: Sandbox, client: Client, email: str, name: str) -> None:
        super().__init__(client)
        self.sandbox = sandbox
        self.email = email
        self.name = name
        self.quota = requests.Session()

    def at_provider(self, url: str) -> str:
        return self.at_quota(url)

    def at_quota(self, url: str, *, allow: bool = True) -> str:
        """Sign in at Quota and answer what it asks; the address that it sends us back to."""
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


def _means_yes(button: Any) -> bool:
    return button.get_text(strip=True).lower() in (
        "allow",
        "pay",
        "sign in",
        "continue",
        "sign out",
    ) or (button.get_text(strip=True).lower().startswith(("allow", "pay")))


def query_of(url: str) -> dict[str, str]:
    """The query parameters of `url`, each of which must be there once."""
    found = parse_qs(urlsplit(url).query, strict_parsing=True, keep_blank_values=True)
    assert all(len(values) == 1 for values in found.values()), url
    return {name: values[0] for name, values in found.items()}


def wanted_at(response: Any) -> tuple[str, dict[str, str]]:
    """Where a redirect of ours goes: the path, and the query parameters."""
    parts = urlsplit(response["Location"])
    return parts.path, dict(parse_qsl(parts.query))
