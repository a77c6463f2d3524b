"""A fast password hasher, so that the sandbox starts and signs in without delay."""

from __future__ import annotations

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class QuickPasswordHasher(PBKDF2PasswordHasher):
    """PBKDF2 with few iterations.

    Django's default takes a quarter of a second per password. The passwords of the sandbox only
    protect play money, and those of the demo users are printed on the sign-in page.
    """

    algorithm = "pbkdf2_quick"
    iterations = 10_000
