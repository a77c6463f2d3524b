"""Key rotation: encrypt stored values again with the newest key of FIELD_ENCRYPTION_KEY.

No lock is held while values are read and encrypted, and a row is written only if it still has the
values that were read. So it is safe beside live renewals, and can be interrupted and repeated.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from django.db import models, transaction

from django_quota.exceptions import TokenUnreadable
from django_quota.fields import Rotation

from .ciphertexts import Change, Ciphertexts, Row, all_ciphertexts, encrypted_columns

__all__ = ["reencrypt"]

#: Rows that are read at once and written in one transaction, which a renewal may have to wait for.
CHUNK = 100
#: The most passes through the tables. The second pass verifies the first. It also rewrites values
#: that were locked, or were written meanwhile by a process that still uses another key first.
PASSES = 5
#: Seconds before each pass after the second, in which the transactions that hold locks may end.
PAUSE = 0.5
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
    for number in range(PASSES):
        if number >= 2:
            time.sleep(PAUSE)
        report = _go_through(write=not dry_run, progress=progress)
        if dry_run or not report.older:
            break
    return report


def sample() -> KeyReport:
    """Report on the oldest and the newest rows only, which is fast in a table of any size.

    Raises ConfigurationError if a key is missing or malformed.
    """
    rotation, report = Rotation(), KeyReport()
    for stored in all_ciphertexts():
        for row in {*stored.first(SAMPLE), *stored.last(SAMPLE)}:
            _rotated(row, stored, rotation, report)
    return report


def unreadable_columns(row: models.Model) -> list[str]:
    """Return the names of the encrypted columns of `row` that no key decrypts.

    Raises ConfigurationError if a key is missing or malformed.
    """
    rotation = Rotation()
    values = {name: getattr(row, name).ciphertext for name in encrypted_columns(type(row))}
    return [name for name, value in values.items() if _rotated_value(value, rotation) is None]


def _go_through(*, write: bool, progress: Callable[[int, int], None] | None) -> KeyReport:
    """Read every row and, with `write`, rewrite those that use an older key."""
    rotation, report = Rotation(), KeyReport()
    done, total = 0, sum(each.count() for each in all_ciphertexts()) if progress else 0
    for stored in all_ciphertexts():
        for rows in _chunks(stored):
            rotated = (_rotated(row, stored, rotation, report) for row in rows)
            changes = [change for change in rotated if change.new != change.old]
            if write and changes:
                with transaction.atomic(using=stored.alias, durable=True):
                    stored.swap(changes)
            done += len(rows)
            if progress:
                progress(done, total)
    return report


def _chunks(stored: Ciphertexts) -> Iterator[list[Row]]:
    """Yield all rows in chunks. Each chunk is read when it is needed."""
    after = 0
    while chunk := stored.first(CHUNK, after=after):
        yield chunk
        after = chunk[-1][0]


def _rotated(row: Row, stored: Ciphertexts, rotation: Rotation, report: KeyReport) -> Change:
    """Encrypt the values of `row` that use an older key again. Counts all values."""
    key, *values = row
    changed = []
    for name, old in zip(stored.columns, values, strict=True):
        new = _rotated_value(old, rotation)
        if new is None:
            report.unreadable += 1
            if len(report.examples) < MAX_EXAMPLES:
                report.examples.append(f"{stored.model.__name__} {key}: {name}")
        elif new != old:
            report.older += 1
        elif old:
            report.newest += 1
        changed.append(old if new is None else new)
    return Change(key, tuple(values), tuple(changed))


def _rotated_value(ciphertext: str, rotation: Rotation) -> str | None:
    try:
        return rotation.rotated(ciphertext)
    except TokenUnreadable:
        return None
