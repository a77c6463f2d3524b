"""The refresh tokens of the provider, each of which may be spent once."""

from __future__ import annotations

import secrets
import threading
from typing import Any


class Family:
    """The tokens that followed from one sign-in.

    A refresh token that is spent twice ends the family, and with it every access token, as RFC 9700
    section 4.14.2 advises and Quota does.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._lock = threading.Lock()
        self._ended = False
        self._newest = ""
        self._access_tokens: set[str] = set()

    def issue(self) -> dict[str, str]:
        """The next pair of tokens."""
        access_token = f"quota_token_{secrets.token_urlsafe(16)}"
        self._newest = f"quota_refresh_{secrets.token_urlsafe(16)}"
        self._access_tokens.add(access_token)
        return {"access_token": access_token, "refresh_token": self._newest}

    def expire(self) -> None:
        """The access tokens so far are of no use any more."""
        self._access_tokens.clear()

    def renew(self, refresh_token: str) -> dict[str, str] | None:
        """The next pair for that token; None if it is refused."""
        with self._lock:
            self.calls += 1
            if refresh_token != self._newest:
                self._ended = True
            return None if self._ended else self.issue()

    def judge(self, got: list[str], refresh_token: str) -> dict[str, Any]:
        """What a storm came to: the calls; how many callers `got` a token that is good now, and
        how many did not; how many of those have one that ended with the family; and whether the
        refresh token that the site has stored would be taken."""
        new = sum(token in self._access_tokens for token in got)
        valid = 0 if self._ended else new
        return {
            "calls": self.calls,
            "valid": valid,
            "failed": len(got) - valid,
            "revoked": new - valid,
            "connected": not self._ended and refresh_token == self._newest,
        }
