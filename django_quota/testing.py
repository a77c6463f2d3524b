"""For the tests of projects that use this package.

Django's TestCase, and pytest-django's `db`, run each test in a transaction that is never committed.
No other connection sees its rows, but a token is renewed on a connection of its own when the code
that asks is in a transaction (ATOMIC_REQUESTS, `atomic()`) or runs in an event loop.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from . import locking

__all__ = ["renewals_in_this_transaction"]


@contextmanager
def renewals_in_this_transaction() -> Iterator[None]:
    """Inside, tokens are renewed on the connection and in the transaction of whoever asks.

    ::

        class BillingTests(TestCase):
            def setUp(self):
                self.enterContext(renewals_in_this_transaction())

    or, with pytest::

        @pytest.fixture(autouse=True)
        def renewals(db):
            with renewals_in_this_transaction():
                yield

    For tests alone: a rollback would bring a spent token back. It holds for the whole process.
    """
    before = locking.together
    locking.together = True
    try:
        yield
    finally:
        locking.together = before
