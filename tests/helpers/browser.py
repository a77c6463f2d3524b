"""One browser for all tests that sign in: the site on one side, any provider on the other."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
from django.test import Client

__all__ = ["Browser"]


class Browser:
    """Django's test client at the site, real HTTP at the provider.

    This one is at a provider that asks nothing. `Person` signs in at the sandbox.
    """

    def __init__(self, client: Client, *, start_path: str = "/auth/quota/start") -> None:
        self.client = client
        self.start_path = start_path

    def start(self, **query: str) -> str:
        """Click "Sign in with Quota". Return where the browser is sent to at the provider."""
        return str(self.client.get(self.start_path, query)["Location"])

    def at_provider(self, url: str) -> str:
        """Sign in there. Return where the provider sends the browser back to."""
        reply = requests.get(url, allow_redirects=False, timeout=20)
        return urljoin(url, reply.headers["Location"])

    def come_back(self, url: str, **options: Any) -> Any:
        """Follow the provider's redirect to the callback. Return the site's response."""
        parts = urlsplit(url)
        return self.client.get(f"{parts.path}?{parts.query}", **options)

    def sign_in(self, **query: str) -> Any:
        """The whole way. Return the response of the callback."""
        return self.come_back(self.at_provider(self.start(**query)))
