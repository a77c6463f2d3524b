"""Key rotation: encrypt stored values again with the newest key of FIELD_ENCRYPTION_KEY.

No lock is held while values are read and encrypted, and a value is written only if the row still
has the one that was read. So it is safe beside live renewals, and can be interrupted and repeated.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.db import connections, models, router, transaction

from django_quota.exceptions import TokenUnreadable
from django_quota.fields import EncryptedTokenField, Sealed, crypter

__all__ = ["reencrypt"]

#: Rows that are read at once and written in one transaction, which a renewal may have to wait for.
CHUNK = 200
#: The most passes through the tables. The second pass verifies the first. It also rewrites values
#: that were locked, or were written meanwhile by a process that still uses another key first.
PASSES = 5
#: The most unreadable values that a report names. Every row may have one.
MAX_EXAMPLES = 20
#: Rows at each end of a table that `sample` reads.
SAMPLE = 100


@dataclass(kw_only=True)
class KeyReport:
    """How many values each kind of key encrypts, without empty values."""

    #: Encrypted with the first key of FIELD_ENCRYPTION_KEY.
    newest: int = 0
    #: Encrypted with another key of the list, when they were read.
    older: int = 0
    #: Not encrypted with any key of the list.
    unreadable: int = 0
    #: Some of the unreadable values: model, primary key and column.
    examples: list[str] = field(default_factory=list)

    @property
    def older_keys_may_go(self) -> bool:
        """True if all values are encrypted with the newest key."""
        return not (self.older or self.unreadable)


def reencrypt(
    *, dry_run: bool = False, progress: Callable[[int, int], None] | None = None
) -> KeyReport:
    """Encrypt every encrypted column again with the first key of FIELD_ENCRYPTION_KEY.

    It repeats its pass through the tables until no value uses an older key. A value that no key
    decrypts is counted, named and left unchanged. With `dry_run` it only counts. `progress` is
    called with the number of rows that are done and that of all rows.

    Raises ConfigurationError if a key is missing or malformed. Raises RuntimeError in a
    transaction, because it commits chunk by chunk.
    """
    for _each in range(PASSES):
        report = _go_through(write=not dry_run, progress=progress)
        if dry_run or not report.older:
            break
    return report


def sample() -> KeyReport:
    """Report on the oldest and the newest rows only, which is fast in a table of any size.

    Raises ConfigurationError if a key is missing or malformed.
    """
    crypter()  # raises, even where nothing is stored
    report = KeyReport()
    for model in _models():
        for row in {*_rows(model)[:SAMPLE], *_rows(model).reverse()[:SAMPLE]}:
            _rotated(row, report)
    return report


def unreadable_columns(row: models.Model) -> list[str]:
    """Return the names of the encrypted columns of `row` that no key decrypts.

    Raises ConfigurationError if a key is missing or malformed.
    """
    return [name for name in _columns(type(row)) if _rotated_value(getattr(row, name)) is None]


def _models() -> list[type[models.Model]]:
    """Return the models of this package that have encrypted columns."""
    return [each for each in apps.get_app_config("django_quota").get_models() if _columns(each)]


def _columns(model: type[models.Model]) -> list[str]:
    fields = model._meta.concrete_fields
    return [field.name for field in fields if isinstance(field, EncryptedTokenField)]


def _rows(model: type[models.Model]) -> "models.QuerySet[Any]":
    """Return all rows, with their encrypted columns only."""
    alias = router.db_for_write(model)
    return model._default_manager.using(alias).only("pk", *_columns(model)).order_by("pk")


def _chunks(model: type[models.Model]) -> Iterator[list[models.Model]]:
    """Yield all rows in chunks. Each chunk is read when it is needed."""
    rest = _rows(model)
    while chunk := list(rest[:CHUNK]):
        yield chunk
        rest = _rows(model).filter(pk__gt=chunk[-1].pk)


def _go_through(*, write: bool, progress: Callable[[int, int], None] | None) -> KeyReport:
    """Read every row and, with `write`, rewrite those that use an older key."""
    crypter()  # raises, even where nothing is stored
    report = KeyReport()
    done, total = 0, sum(_rows(model).count() for model in _models()) if progress else 0
    for model in _models():
        for rows in _chunks(model):
            changes = [(row, new) for row in rows if (new := _rotated(row, report))]
            if write and changes:
                _swap(model, changes)
            done += len(rows)
            if progress:
                progress(done, total)
    return report


def _rotated(row: models.Model, report: KeyReport) -> dict[str, Sealed]:
    """Return new values for the columns of `row` that use an older key. Counts all columns."""
    changes = {}
    for name in _columns(type(row)):
        old = getattr(row, name)
        new = _rotated_value(old)
        if new is None:
            report.unreadable += 1
            if len(report.examples) < MAX_EXAMPLES:
                report.examples.append(f"{type(row).__name__} {row.pk}: {name}")
        elif new != old:
            report.older += 1
            changes[name] = new
        elif old:
            report.newest += 1
    return changes


def _rotated_value(value: Sealed) -> Sealed | None:
    try:
        return value.rotated()
    except TokenUnreadable:
        return None


def _swap(model: type[models.Model], changes: list[tuple[models.Model, dict[str, Sealed]]]) -> None:
    """Write the new values, each row only if it still has the old ones."""
    alias = router.db_for_write(model)
    with transaction.atomic(using=alias, durable=True):
        if connections[alias].features.has_select_for_update_skip_locked:
            # Skip locked rows: while waiting for one, this would keep the others locked.
            rows = model._default_manager.using(alias).select_for_update(skip_locked=True)
            keys = [row.pk for row, _new in changes]
            free = set(rows.filter(pk__in=keys).values_list("pk", flat=True))
            changes = [change for change in changes if change[0].pk in free]
        for row, new in changes:
            old = {name: getattr(row, name) for name in new}
            model._default_manager.using(alias).filter(pk=row.pk, **old).update(**new)
