"""Ciphertexts as they are stored, read and written by the hundred.

This is SQL and not the ORM, which takes longer to load a row and to build its UPDATE than Fernet to
encrypt it. What stands in the statements beside parameters is names of our own tables and columns,
and integers.
"""

from typing import NamedTuple

from django.apps import apps
from django.db import connections, models, router

from django_quota.fields import EncryptedTokenField

#: A row: its primary key, then its ciphertexts in the order of `Ciphertexts.columns`.
Row = tuple[int, *tuple[str, ...]]


class Change(NamedTuple):
    """A row to write: its primary key, and the values of all its encrypted columns."""

    key: int
    old: tuple[str, ...]
    new: tuple[str, ...]


class Ciphertexts:
    """The encrypted columns of a model, on the write database."""

    def __init__(self, model: type[models.Model]) -> None:
        self.model = model
        self.columns = encrypted_columns(model)
        self.alias = router.db_for_write(model)
        self._connection = connections[self.alias]
        quote = self._connection.ops.quote_name
        self._table = quote(model._meta.db_table)
        self._quoted = [quote(name) for name in self.columns]
        self._select = f"SELECT id, {', '.join(self._quoted)} FROM {self._table}"  # noqa: S608

    def count(self) -> int:
        """Return the number of rows."""
        return self.model._default_manager.using(self.alias).count()

    def first(self, count: int, *, after: int = 0) -> list[Row]:
        """Return the first `count` rows whose primary key is greater than `after`."""
        return self._read(f"{self._select} WHERE id > {after:d} ORDER BY id LIMIT {count:d}")

    def last(self, count: int) -> list[Row]:
        """Return the last `count` rows, the newest first."""
        return self._read(f"{self._select} ORDER BY id DESC LIMIT {count:d}")

    def swap(self, changes: list[Change]) -> None:
        """Write each row that still has its old values. Must be called in a transaction.

        Leaves out rows that others have locked: while waiting for one, this would keep the others
        locked.
        """
        stored = {key: tuple(values) for key, *values in self._lock(changes)}
        unchanged = [change for change in changes if stored.get(change.key) == change.old]
        if unchanged:
            self._write(unchanged)

    def _lock(self, changes: list[Change]) -> list[Row]:
        """Lock and return the rows that nobody else has locked."""
        features = self._connection.features
        lock = ""
        if features.has_select_for_update:
            skip_locked = features.has_select_for_update_skip_locked
            lock = self._connection.ops.for_update_sql(skip_locked=skip_locked)
        else:
            # On SQLite a transaction that reads first fails if another one has written since. One
            # that writes first waits for the one write lock.
            first = changes[0].key
            self._execute(f"UPDATE {self._table} SET id = id WHERE id = {first:d}")  # noqa: S608
        return self._read(f"{self._select} WHERE id IN ({_keys(changes)}) {lock}")

    def _write(self, changes: list[Change]) -> None:
        """Write all rows in one statement."""
        cases = " ".join(f"WHEN {change.key:d} THEN %s" for change in changes)
        columns = ", ".join(f"{name} = CASE id {cases} END" for name in self._quoted)
        values = zip(*(change.new for change in changes), strict=True)
        self._execute(
            f"UPDATE {self._table} SET {columns} WHERE id IN ({_keys(changes)})",  # noqa: S608
            [value for column in values for value in column],
        )

    def _read(self, sql: str) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return list(cursor.fetchall())

    def _execute(self, sql: str, parameters: list[str] | None = None) -> None:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)


def all_ciphertexts() -> list[Ciphertexts]:
    """Return those of each model of this package that has encrypted columns."""
    models = apps.get_app_config("django_quota").get_models()
    return [Ciphertexts(model) for model in models if encrypted_columns(model)]


def encrypted_columns(model: type[models.Model]) -> list[str]:
    """Return the names of the encrypted fields of `model`, which are those of their columns."""
    fields = model._meta.concrete_fields
    return [field.name for field in fields if isinstance(field, EncryptedTokenField)]


def _keys(changes: list[Change]) -> str:
    return ", ".join(f"{change.key:d}" for change in changes)
