"""Where the contestants write: a new database for each of them."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class SQLite:
    name = f"SQLite {sqlite3.sqlite_version}"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def new(self, owner: str) -> Iterator[dict[str, Any]]:
        """Django's settings for an empty database."""
        path = self.folder / f"{owner}.sqlite3"
        for file in self.folder.glob(f"{owner}.sqlite3*"):
            file.unlink()
        yield {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": str(path),
            "OPTIONS": {
                "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL",
                "transaction_mode": "IMMEDIATE",
            },
        }


class PostgreSQL:
    """The server that PGHOST and its like name, or one from a wheel, as the tests have it."""

    def __init__(self) -> None:
        if "PGHOST" in os.environ:
            names = {"HOST": "PGHOST", "PORT": "PGPORT", "USER": "PGUSER", "PASSWORD": "PGPASSWORD"}
            self.server: dict[str, Any] = {
                "ENGINE": "django.db.backends.postgresql",
                **{ours: os.environ.get(theirs, "") for ours, theirs in names.items()},
            }
        else:
            from tests.postgres import server_settings

            self.server = server_settings()
        version = self._execute("SHOW server_version")
        self.name = f"PostgreSQL {version.split()[0]}"

    def _execute(self, statement: str) -> str:
        """The first value of its answer, or ""."""
        import psycopg

        given = {
            "host": self.server["HOST"],
            "port": self.server["PORT"],
            "user": self.server["USER"],
            "password": self.server["PASSWORD"],
        }
        options = {name: value for name, value in given.items() if value}
        with psycopg.connect(dbname="postgres", autocommit=True, **options) as connection:
            cursor = connection.execute(statement.encode())
            return str(cursor.fetchall()[0][0]) if cursor.description else ""

    @contextmanager
    def new(self, owner: str) -> Iterator[dict[str, Any]]:
        """Django's settings for an empty database, which is removed afterwards."""
        name = "quota_benchmark_" + re.sub(r"\W", "_", owner.lower())
        self._execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self._execute(f"CREATE DATABASE {name}")
        try:
            yield {**self.server, "NAME": name}
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")


Database = SQLite | PostgreSQL


def databases(folder: Path) -> list[Database]:
    """SQLite, and PostgreSQL where there is one."""
    found: list[Database] = [SQLite(folder)]
    try:
        found.append(PostgreSQL())
    except (Exception, SystemExit) as error:
        print(f"Without PostgreSQL: {error}")
    return found
