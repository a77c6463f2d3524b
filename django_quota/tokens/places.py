"""The place of a token row: its database, and the schema in that database.

A site may serve many tenants, each with its own database or schema, where the same primary key is
another person's. Often only one thread knows the tenant: a router reads a `threading.local`, or a
connection is set to a schema. But a renewal may run in another thread. So the place is determined
once, in the caller's thread, and passed on.
"""

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from asgiref.sync import sync_to_async
from django.conf import settings
from django.db import InterfaceError, OperationalError, connections, router
from django.db.backends.base.base import BaseDatabaseWrapper
from django.utils.functional import LazyObject, empty

from django_quota.exceptions import RefreshImpossibleHere
from django_quota.models import QuotaToken, require_user

P = ParamSpec("P")
T = TypeVar("T")

#: Queries that tell schemas apart, by the table that our table's name refers to.
_WHICH_TABLE = {
    "postgresql": "SELECT current_database(), to_regclass('{table}')::oid::bigint",
    "mysql": "SELECT DATABASE()",
}


class Elsewhere(RefreshImpossibleHere):
    """The connection of a renewal cannot be brought to the caller's schema."""


@dataclass(frozen=True)
class Place:
    """A database alias, and the schema that one thread's connection uses."""

    alias: str
    schema: Hashable
    #: Arguments of the connection's `set_tenant`, where it has one (django-tenants).
    tenant: tuple[Any, ...] = field(default=(), compare=False, repr=False)

    def enter(self) -> None:
        """Bring this thread's own connection to this place.

        Raises Elsewhere if it stays in another schema, whose rows belong to other people.
        """
        connection = connections[self.alias]
        if not (connection.in_atomic_block or connection.settings_dict["AUTOCOMMIT"]):
            connection.set_autocommit(True)  # else the save would not be committed
        if self.tenant:
            connection.set_tenant(*self.tenant)  # type: ignore[attr-defined]
        if here(self.alias) != self:
            raise Elsewhere(
                "A token is renewed on a separate connection, which is in another schema than "
                "yours. Call get_access_token outside of any transaction and not in async code; "
                "docs/tenants.rst lists the supported ways to choose the schema."
            )

    def call(self, work: Callable[[], T]) -> T:
        """`enter`, then call `work`."""
        self.enter()
        return work()


def here(alias: str) -> Place:
    """Return the place of this thread's connection to the database `alias`.

    It makes at most one query, and raises the errors of a query.
    """
    connection = connections[alias]
    tenant: tuple[Any, ...] = ()
    if hasattr(connection, "set_tenant"):
        tenant = (connection.tenant, connection.include_public_schema)  # type: ignore[attr-defined]
    return Place(alias, _schema(connection), tenant)


def database_of(user: Any) -> str:
    """Return the alias of the database of `user`'s token row, from the router.

    Raises TypeError if `user` is not a user. Raises RefreshImpossibleHere if the router, in this
    thread, returns another database than the user's, where the primary key is another person's.
    """
    alias = _routed_alias(user)
    origin = user._state.db if user.pk is not None else None
    # Another alias may be allowed: a user from a replica, if the router allows the relation.
    if origin not in (None, alias):
        row = QuotaToken()
        row._state.db = alias
        if not router.allow_relation(row, user):
            raise RefreshImpossibleHere(
                f"The user was loaded from the database {origin!r}, and in this thread the router "
                f"sends their token to {alias!r}, where that primary key is another person's. Keep "
                "the tenant in a ContextVar, not in a threading.local; for a replica, define "
                "allow_relation in the router."
            )
    return alias


def at_place_of_caller(
    work: Callable[Concatenate[Any, P], T],
) -> Callable[..., Coroutine[Any, Any, T]]:
    """Make `work(user, ...)` async, as `sync_to_async` does, but never in another tenant's schema.

    `work` runs in a thread with its own connection, while a script may have set the schema on the
    connection of the event loop's thread. Then the coroutine raises RefreshImpossibleHere.
    """

    @wraps(work)
    async def twin(user: Any, *args: P.args, **kwargs: P.kwargs) -> T:
        call = partial(work, user, *args, **kwargs)
        return await sync_to_async(_call_at_place_of_loop)(_place_of_loop(user), call)

    return twin


def _call_at_place_of_loop(loops: Place | None, call: Callable[[], T]) -> T:
    if loops is not None and here(loops.alias) != loops:
        raise RefreshImpossibleHere(
            "The connection of the event loop's thread is in one schema, and the connection that "
            "async code uses for the database is in another. Set the schema inside the async code, "
            "with sync_to_async, or call the sync function."
        )
    return call()


def _place_of_loop(user: Any) -> Place | None:
    """Return the place of the event loop's thread; None if it has no connection, as in a server."""
    # A lazy user, such as `request.user`, would use the database here, on the event loop.
    is_lazy = isinstance(user, LazyObject) and user._wrapped is empty
    alias = router.db_for_write(QuotaToken) if is_lazy else _routed_alias(user)
    with _hidden_loop():
        for connection in connections.all(initialized_only=True):
            if connection.alias == alias and _may_have_schema(connection):
                try:
                    return here(alias)
                except (OperationalError, InterfaceError):
                    return None  # the connection is lost, so its schema is unknown
    return None


@contextmanager
def _hidden_loop() -> Iterator[None]:
    """Hide the running event loop from Django, which gives connections to sync code only.

    The block makes at most one short query, and only in a script.
    """
    loop = asyncio.get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)


def _routed_alias(user: Any) -> str:
    require_user(user)
    hints = {} if user.pk is None else {"instance": user}
    alias: str = router.db_for_write(QuotaToken, **hints)
    return alias


def _may_have_schema(connection: BaseDatabaseWrapper) -> bool:
    """Return True if a schema may have been set on the connection.

    A schema is set on an open connection. Some backends, such as django-tenants', also store its
    name until they connect.
    """
    public = getattr(settings, "PUBLIC_SCHEMA_NAME", "public")
    has_name = getattr(connection, "schema_name", None) not in (None, public)
    return has_name or connection.connection is not None


def _schema(connection: BaseDatabaseWrapper) -> Hashable:
    """Return a value that is equal for two connections of an alias if they use the same tables."""
    if name := getattr(connection, "schema_name", None):
        # django-tenants sets the schema with its next query.
        return str(name)
    sql = _WHICH_TABLE.get(connection.vendor)
    if sql is None:  # SQLite has no schemas
        return None
    with connection.cursor() as cursor:
        cursor.execute(sql.format(table=connection.ops.quote_name(QuotaToken._meta.db_table)))
        return tuple(cursor.fetchone())
