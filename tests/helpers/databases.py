"""What differs between the databases, and a project that has more than one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connection, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.signals import connection_created
from django.db.backends.utils import CursorWrapper

from tests.helpers.concurrency import closes_connections

needs_second_connection = pytest.mark.skipif(
    "connection.vendor == 'sqlite'", reason="SQLite has one writer: it refuses instead"
)


def ask_server(question: dict[str, str]) -> int:
    """The number that the database server answers to the question in its own SQL."""
    with connection.cursor() as cursor:
        cursor.execute(question[connection.vendor])
        return int(cursor.fetchone()[0])


class ReadFromReplica:
    """A database router: reads go to a replica."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


#: What makes one connection read-only, with the errors of a server that is.
READ_ONLY = {
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "postgresql": "SET default_transaction_read_only = on",
    "sqlite": "PRAGMA query_only = ON",
}


@contextmanager
def read_only_database() -> Iterator[None]:
    """Nothing can be written, on whatever connection of whatever thread."""

    def limit(connection: Any, **_: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(READ_ONLY[connection.vendor])

    limit(connection)
    connection_created.connect(limit)
    try:
        yield
    finally:
        connection_created.disconnect(limit)
        connections.close_all()


@contextmanager
def every_query(wrapper: Callable[..., Any]) -> Iterator[None]:
    """`connection.execute_wrapper(wrapper)` for the connections of all threads."""
    real = CursorWrapper._execute_with_wrappers

    def execute(cursor: Any, sql: str, params: Any, many: bool, executor: Any) -> Any:
        def inner(*query: Any) -> Any:
            return real(cursor, *query[:3], executor)

        return wrapper(inner, sql, params, many, {"connection": cursor.db, "cursor": cursor})

    CursorWrapper._execute_with_wrappers = execute
    try:
        yield
    finally:
        CursorWrapper._execute_with_wrappers = real


@contextmanager
def statements() -> Iterator[list[str]]:
    """The SQL that the connections of all threads execute meanwhile."""
    seen: list[str] = []

    def note(execute: Any, sql: str, *args: Any) -> Any:
        seen.append(sql)
        return execute(sql, *args)

    with every_query(note):
        yield seen


@contextmanager
def losing_the_confirmation(
    meanwhile: Callable[[], Any] = lambda: None, *, of: int = 1
) -> Iterator[None]:
    """COMMIT number `of` happens, then `meanwhile`, and the connection breaks before it is told."""
    real, left = BaseDatabaseWrapper._commit, of

    def commit(connection: BaseDatabaseWrapper) -> None:
        nonlocal left
        real(connection)
        left -= 1
        if left == 0:
            with ThreadPoolExecutor(1) as pool:
                pool.submit(closes_connections(meanwhile)).result(30)
            raise OperationalError("server closed the connection unexpectedly")

    BaseDatabaseWrapper._commit = commit
    try:
        yield
    finally:
        BaseDatabaseWrapper._commit = real
    assert left <= 0, "there were fewer commits"


@contextmanager
def failing_commit() -> Iterator[None]:
    """The next COMMIT fails, and nothing is stored."""
    real = BaseDatabaseWrapper._commit

    def commit(connection: BaseDatabaseWrapper) -> None:
        BaseDatabaseWrapper._commit = real
        raise OperationalError("could not serialize access")

    BaseDatabaseWrapper._commit = commit
    try:
        yield
    finally:
        BaseDatabaseWrapper._commit = real
