"""Key rotation: bringing what is stored under the newest key of FIELD_ENCRYPTION_KEY.

No lock is held while a value is read or encrypted, and a value is written only where the one that
was read still stands. So it runs beside live renewals, and may be killed and begun again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from django.apps import apps
from django.db import connections, models, router, transaction
from django.views.decorators.debug import sensitive_variables

from .fields import EncryptedTokenField, Rekeying, ciphertext

__all__ = ["Census", "reencrypt", "sample", "unreadable_columns"]

#: Rows that are read at once, and written in one statement. A renewal may wait for that one.
CHUNK = 200
#: Times that the tables are gone through at most. The second proves the first, and meets again what
#: was locked, or was written meanwhile by a process that still has another key in front.
PASSES = 5
#: Unreadable values that are named; there may be as many as rows.
NAMED = 20
#: Rows at either end of a table that `sample` looks at.
SAMPLE = 100

#: The primary key of a row and its ciphertexts.
_Row = tuple[Any, ...]


@dataclass(kw_only=True)
class Census:
    """Under which keys the values in the encrypted columns are. Empty ones are not counted."""

    newest: int = 0
    #: Under another key of the list, when they were looked at.
    older: int = 0
    #: Under no key of the list.
    unreadable: int = 0
    #: The first of these: model, primary key and column.
    named: list[str] = field(default_factory=list)

    @property
    def older_keys_may_go(self) -> bool:
        """Is it shown that nothing here needs a key but the newest?"""
        return not (self.older or self.unreadable)


def reencrypt(*, dry_run: bool = False, progress: bool = False) -> Census:
    """Bring every encrypted column under the first key of FIELD_ENCRYPTION_KEY.

    Goes through the tables until it finds nothing under an older key, which is the proof. A value
    that no key fits is counted, named and left as it is. `dry_run` only counts; `progress` shows a
    bar if stderr is a terminal. It commits chunk by chunk, so in a transaction it raises
    RuntimeError, as durable blocks of Django do.

    Raises ConfigurationError if a key is missing or malformed.
    """
    for _each in range(PASSES):
        census = _go_through(write=not dry_run, progress=progress)
        if dry_run or not census.older:
            break
    return census


@sensitive_variables()
def sample() -> Census:
    """A census of the oldest and the newest rows only: a million rows take it no longer.

    Raises ConfigurationError if a key is missing or malformed.
    """
    census, rekey = Census(), Rekeying()
    for table in _tables():
        for row in {*table.rows()[:SAMPLE], *table.rows().reverse()[:SAMPLE]}:
            _rekeyed(row, table, rekey, census)
    return census


@sensitive_variables()
def unreadable_columns(row: models.Model) -> list[str]:
    """The encrypted columns of `row` that no key fits, in one query.

    Raises ConfigurationError if a key is missing or malformed.
    """
    rekey = Rekeying()
    (table,) = (table for table in _tables() if isinstance(row, table.model))
    for _pk, *values in table.rows().filter(pk=row.pk):
        columns = zip(table.columns, values, strict=True)
        return [column.name for column, value in columns if rekey(value) is None]
    return []


@dataclass(frozen=True, kw_only=True)
class _Table:
    """The encrypted columns of a model, as they are stored."""

    model: type[models.Model]
    columns: list[EncryptedTokenField]

    def rows(self) -> "models.QuerySet[Any, Any]":
        """(primary key, ciphertext, ciphertext ...), in the order of the keys."""
        rows = self.model._default_manager.using(router.db_for_write(self.model)).order_by("pk")
        return rows.values_list("pk", *(ciphertext(column.name) for column in self.columns))

    def chunks(self) -> Iterator[list[_Row]]:
        """All rows, each chunk read when its turn has come."""
        rest = self.rows()
        while chunk := list(rest[:CHUNK]):
            yield chunk
            rest = self.rows().filter(pk__gt=chunk[-1][0])

    @sensitive_variables()
    def swap(self, changes: list[tuple[_Row, _Row]]) -> None:
        """Write new values for old, each only where the old one still stands."""
        alias = router.db_for_write(self.model)
        with transaction.atomic(using=alias, durable=True):
            if connections[alias].features.has_select_for_update_skip_locked:
                # To wait for one row would be to keep all the others locked meanwhile.
                rows = self.model._default_manager.using(alias).select_for_update(skip_locked=True)
                keys = [old[0] for old, _new in changes]
                free = set(rows.filter(pk__in=keys).values_list("pk", flat=True))
                changes = [change for change in changes if change[0][0] in free]
            if changes:
                with connections[alias].cursor() as cursor:
                    cursor.execute(*self._update(changes))

    @sensitive_variables()
    def _update(self, changes: list[tuple[_Row, _Row]]) -> tuple[str, list[Any]]:
        """One statement for all of them, and its parameters: every database takes it, and it is
        twice as fast as one for each. Not by the ORM: our field encrypts what is written by it."""
        quote = connections[router.db_for_write(self.model)].ops.quote_name
        assignments = []
        parameters: list[Any] = []
        for n, column in enumerate(self.columns, start=1):
            pairs = [(old[n], new[n]) for old, new in changes if old[n] != new[n]]
            if pairs:
                name = quote(str(column.column))
                whens = "WHEN %s THEN %s " * len(pairs)
                assignments.append(f"{name} = CASE {name} {whens}ELSE {name} END")
                parameters += chain.from_iterable(pairs)
        sql = (
            f"UPDATE {quote(self.model._meta.db_table)} "  # noqa: S608 - our own names
            f"SET {', '.join(assignments)} "
            f"WHERE {quote(str(self.model._meta.pk.column))} "
            f"IN ({', '.join(['%s'] * len(changes))})"
        )
        return sql, parameters + [old[0] for old, _new in changes]


def _tables() -> list[_Table]:
    """All of this package's that have encrypted columns."""
    tables = []
    for model in apps.get_app_config("django_quota").get_models():
        fields = model._meta.concrete_fields
        if columns := [field for field in fields if isinstance(field, EncryptedTokenField)]:
            tables.append(_Table(model=model, columns=columns))
    return tables


@sensitive_variables()
def _go_through(*, write: bool, progress: bool) -> Census:
    """Look at every row, and rewrite those that need it."""
    census, rekey = Census(), Rekeying()
    total = sum(table.rows().count() for table in _tables()) if progress else None
    from tqdm import tqdm  # not by every web worker: the admin imports this module

    # None: only on a terminal.
    with tqdm(total=total, unit="row", disable=None if progress else True) as bar:
        for table in _tables():
            for rows in table.chunks():
                pairs = [(row, _rekeyed(row, table, rekey, census)) for row in rows]
                changes = [(old, new) for old, new in pairs if old != new]
                if write and changes:
                    table.swap(changes)
                bar.update(len(rows))
    return census


@sensitive_variables()
def _rekeyed(row: _Row, table: _Table, rekey: Rekeying, census: Census) -> _Row:
    """The row as it should be. Its values are counted as they are."""
    pk, *values = row
    new = []
    for column, value in zip(table.columns, values, strict=True):
        renewed = rekey(value)
        if renewed is None:
            census.unreadable += 1
            if len(census.named) < NAMED:
                census.named.append(f"{table.model.__name__} {pk}: {column.name}")
        elif renewed != value:
            census.older += 1
        elif value:
            census.newest += 1
        new.append(value if renewed is None else renewed)
    return pk, *new
