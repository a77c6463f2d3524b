"""An AI call that a user pays for: who, for what, and where its usage is recorded.

It is described before the call is sent, in the caller's thread, because the reply may end in a
thread that knows neither the request nor the tenant.
"""

import threading
from dataclasses import dataclass, replace
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.http import HttpRequest

from django_quota.exceptions import ConfigurationError
from django_quota.models import UsageRecord
from django_quota.tokens.payer import current_request
from django_quota.tokens.places import Place, at_place_of_caller, here

from .attribution import Attribution, Bill, current_block
from .limits import bills_of_project, has_project_limits, require_below


@dataclass(frozen=True, eq=False)
class Call:
    """One AI call."""

    user: Any
    request: HttpRequest | None
    attribution: Attribution
    #: Where its cost is added up, outermost first.
    bills: tuple[Bill, ...]
    #: The database of the record.
    alias: str
    #: The caller's connection to it, and its tenant. None on an event loop: see `with_tenant`.
    connection: BaseDatabaseWrapper | None
    place: Place | None

    def is_here(self) -> bool:
        """Return True in the caller's thread, unless its connection is in another schema by now.

        It makes no query.
        """
        if self.connection is None:
            return True
        is_callers = connections[self.alias] is self.connection
        return is_callers and (self.place is None or here(self.alias) == self.place)


class Caller:
    """The request and the block (`billed_for`, `spending_limit`) in which a client is made.

    A thread that the view starts knows neither, so its calls belong to those of its client.
    """

    def __init__(self) -> None:
        self.request = current_request()
        self._block = current_block()
        self._thread = threading.current_thread()

    def begin(self, user: Any, method: str = "POST") -> Call:
        """Describe the call that this thread sends now, if no limit is reached.

        It makes one query if the user has a limit for the day, else none. `method` is that of the
        HTTP request: a GET, such as for the list of models, costs nothing and is always sent.
        Raises SpendingLimitReached, and ConfigurationError if the project's function fails.
        """
        call = self.call(user)
        if method.upper() != "POST":
            return call
        try:
            return _limited(user, call)
        except SynchronousOnlyOperation:
            raise ConfigurationError(
                "The spending limit of a user's day uses the database; in async code, use "
                "async_openai_client."
            ) from None

    async def abegin(self, user: Any, method: str = "POST") -> Call:
        """`begin` for async code."""
        call = await with_tenant(self.call(user, on_loop=True))
        if method.upper() != "POST":
            return call
        if has_project_limits():
            return await _alimited(user, call)
        return _limited(user, call)

    def call(self, user: Any, *, on_loop: bool = False) -> Call:
        """Describe a call of this thread or task. It makes no query."""
        block = current_block()
        if threading.current_thread() is not self._thread:
            block = self._block.around(block)
        # The user's own database, unless a router decides otherwise: in another database the same
        # primary key is another person's.
        alias = router.db_for_write(UsageRecord, instance=user)
        connection, place = (None, None) if on_loop else _connection_and_place(alias)
        request = current_request() or self.request
        return Call(user, request, block.attribution, block.bills, alias, connection, place)


async def with_tenant(call: Call) -> Call:
    """Return `call`, which is sent on an event loop, with the tenant of the thread that async code
    uses for the database. Without django-tenants it returns `call` itself, at once."""
    if not hasattr(connections[call.alias], "set_tenant"):
        return call
    connection, place = await sync_to_async(_connection_and_place)(call.alias)
    return replace(call, connection=connection, place=place)


def _connection_and_place(alias: str) -> tuple[BaseDatabaseWrapper, Place | None]:
    connection = connections[alias]
    # Only with django-tenants, whose connections know their schema without a query.
    return connection, here(alias) if getattr(connection, "schema_name", None) else None


def _limited(user: Any, call: Call) -> Call:
    """Return `call` with the bills of QUOTA_SPENDING_LIMITS, if no limit is reached."""
    require_below(call.bills)
    for bill in bills_of_project(user, call.request, call.alias):
        require_below([bill])
        call = replace(call, bills=(bill, *call.bills))
    return call


_alimited = at_place_of_caller(_limited)
