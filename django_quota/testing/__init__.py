"""Helpers for the tests of projects that use this package.

Django's TestCase and pytest-django's `db` run each test in a transaction that is never committed,
so no other connection sees its rows. But tokens are renewed on another connection if the code runs
in a transaction (ATOMIC_REQUESTS, `atomic()`) or on an event loop.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from django_quota.tokens.single_flight import renewals

__all__ = ["renewals_in_this_transaction"]


@contextmanager
def renewals_in_this_transaction() -> Iterator[None]:
    """Renew tokens on the caller's connection, in the caller's transaction.

    With unittest::

        class BillingTests(TestCase):
            def setUp(self):
                self.enterContext(renewals_in_this_transaction())

    With pytest::

        @pytest.fixture(autouse=True)
        def renewals(db):
            with renewals_in_this_transaction():
                yield

    Use it in tests only: outside of tests, a rollback would restore a spent token. It affects the
    whole process.
    """
    before = renewals.inline
    renewals.inline = True
    try:
        yield
    finally:
        renewals.inline = before
