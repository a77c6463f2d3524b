"""A password hasher that keeps the sandbox quick to start and to sign in to."""

from __future__ import annotations

from django.contrib.auth.hashers import PBKDF2PasswordHasher


class QuickPasswordHasher(PBKDF2PasswordHasher):
    """PBKDF2 with few rounds.

    The default takes a quarter of a second for each password. These passwords guard play money
    on one machine, and the demo ones are printed on the sign-in page.
    """

    algorithm = "pbkdf2_quick"
    iterations = 10_000
