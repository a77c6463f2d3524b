"""The cost of AI calls: read from the replies, recorded, and announced by signals."""

import logging
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import SynchronousOnlyOperation
from django.db import (
    Error,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connections,
    router,
    transaction,
)

from django_quota.conf import get_settings
from django_quota.exceptions import ConfigurationError, QuotaError
from django_quota.models import UsageRecord
from django_quota.money import format_usd, whole_number
from django_quota.signals import balance_low, usage_recorded
from django_quota.tokens import durable
from django_quota.tokens.durable import outbox, with_lock_timeout
from django_quota.tokens.payer import acted_by
from django_quota.tokens.places import Elsewhere, Place, at_place_of_caller, here
from django_quota.tokens.single_flight import in_transaction

from .balances import Balance, forget_balance, keep_balance_after_call

logger = logging.getLogger("django_quota.usage")

#: The attribute of a reply for its time of arrival (Unix time). Like the SDK's `_request_id`, it is
#: not a field of the model, so a dump of the reply does not contain it.
_ARRIVED = "_django_quota_arrived"
#: The attribute of a chunk for the user who pays for it.
_PAYER = "_django_quota_payer"


def arrived(reply: Any) -> None:
    """Store in `reply`, a model of the SDK, that it arrived now: it may be recorded later than
    replies that arrived after it. A copy of its fields, such as JSON for a worker, lacks the time.
    """
    setattr(reply, _ARRIVED, time.time())


class _PayerNote:
    """The payer of a chunk. A pickled chunk does not contain the user's row."""

    def __init__(self, payer: Any) -> None:
        self.payer = payer

    def __deepcopy__(self, memo: Any) -> "_PayerNote":
        return self

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return object, ()


def note_payer(chunk: Any, payer: Any) -> None:
    """Note on `chunk` that `payer` pays for it; None is the developer.

    A wrapper around the stream may hide the client that the stream comes from, but it passes the
    chunks on.
    """
    setattr(chunk, _PAYER, _PayerNote(payer))


def noted_payer(chunk: Any, default: Any) -> Any:
    """Return the payer that `note_payer` noted, else `default`."""
    note = getattr(chunk, _PAYER, None)
    return note.payer if isinstance(note, _PayerNote) else default


@dataclass(frozen=True, kw_only=True)
class Usage:
    """The cost of one AI call and the balance after it, in credits; None if Quota gave none."""

    credits_used: int | None
    balance_after: int | None

    @property
    def cost(self) -> str:
        """The cost as people read it, such as "$0.0042"; "" if unknown."""
        return "" if self.credits_used is None else format_usd(self.credits_used)

    @property
    def balance(self) -> str:
        """The balance as people read it, such as "$0.9958"; "" if unknown."""
        return "" if self.balance_after is None else format_usd(self.balance_after)

    @property
    def state(self) -> str:
        """`Balance.state` of the balance: "available" or "low"; "" if unknown."""
        return "" if self.balance_after is None else Balance(credits=self.balance_after).state


def record_usage(user: Any, reply: Any) -> Usage | None:
    """Record the cost of an AI call for `user`.

    `reply` is the completion, or the last chunk of a stream, that the OpenAI SDK returned. Quota
    adds a `quota` object to it (quota-protocol section 14). Returns None and records nothing if
    there is no such object.

    It writes one UsageRecord for each completion, with the name of the person who acts as the user,
    if any; it sends `usage_recorded`, and logs the errors of its receivers; and it updates the
    cached balance. Do not call it for calls by `developer_client`, which you pay for.

    `streaming.stream_response` calls it for you. Raises ConfigurationError on an event loop: await
    `arecord_usage(user, reply)` there. Raises the database's error if the caller's transaction is
    lost: the caller's writes are lost then, but the record is not.
    """
    block = (getattr(reply, "model_extra", None) or {}).get("quota")
    if not isinstance(block, dict) or (used := whole_number(block.get("credits_used"))) is None:
        return None
    usage = Usage(credits_used=used, balance_after=whole_number(block.get("balance_after")))
    try:
        if _record(user, reply, usage, complete=True):
            with _without_database():
                _update_balance(user, usage, getattr(reply, _ARRIVED, None))
    except SynchronousOnlyOperation:
        raise ConfigurationError(
            "record_usage uses the database; in async code, await arecord_usage(user, reply)."
        ) from None
    return usage


#: `record_usage` for async code.
arecord_usage = at_place_of_caller(record_usage)


def record_unpriced(user: Any, reply: Any, *, complete: bool) -> None:
    """Record a call of unknown cost: Quota charges for the part of a stream that it sent.

    `reply` is a chunk of a stream that ended early.
    """
    _record(user, reply, Usage(credits_used=None, balance_after=None), complete=complete)
    with _without_database():
        forget_balance(user)


@contextmanager
def _without_database() -> Iterator[None]:
    """Log errors of the database while the cached balance is updated.

    The call is paid for, so the caller must get its answer.
    """
    try:
        yield
    except Error as error:
        logger.warning("the cached balance may be old: %s", type(error).__name__)


def _update_balance(user: Any, usage: Usage, arrived_at: float | None) -> None:
    """Cache the balance after a call, unless the reply is a copy without a time of arrival, which
    may be old; and announce that the balance is low."""
    after, threshold = usage.balance_after, get_settings().low_balance
    if after is None or arrived_at is None:
        forget_balance(user)
    if after is None:
        return
    balance = Balance(credits=after)
    if arrived_at is not None:
        keep_balance_after_call(user, balance, arrived_at=arrived_at)
    if after < threshold <= after + (usage.credits_used or 0):
        balance_low.send_robust(sender=UsageRecord, user=user, balance=balance, threshold=threshold)


def _record(user: Any, reply: Any, usage: Usage, *, complete: bool) -> bool:
    """Write the UsageRecord. Returns False if this completion was recorded before.

    An error of the database must not cost the caller an answer that is paid for, and a rollback of
    the caller's transaction (ATOMIC_REQUESTS) must not remove the record. So the record is written
    on another connection, or waits in memory while the database is away. On SQLite another
    connection cannot write meanwhile, so the record is part of the caller's transaction.

    Raises the database's error only if the caller's transaction is lost.
    """
    record = _Record(user, reply, usage, complete=complete)
    connection = connections[record.alias]
    if connection.vendor != "sqlite" and _is_in_transaction(record.alias):
        return record.write_in_thread()
    try:
        return record.write()
    except Error as error:
        logger.warning("usage not recorded yet: %s", type(error).__name__, exc_info=error)
        if not connection.in_atomic_block:
            record.write_later()
        elif connection.needs_rollback:
            raise  # the transaction cannot be committed, and nothing else reports that
        else:
            transaction.on_commit(record.write, using=record.alias, robust=True)
        return True


def _is_in_transaction(alias: str) -> bool:
    try:
        return in_transaction(alias)
    except Error:  # there is no connection, so there is no transaction
        return False


class _Record:
    """One row of UsageRecord, which is written once, even if the attempt is repeated."""

    def __init__(self, user: Any, reply: Any, usage: Usage, *, complete: bool) -> None:
        tokens = getattr(reply, "usage", None)
        self.alias = _alias(user)
        self._user, self._usage, self._complete = user, usage, complete
        self._call_id = _text(getattr(reply, "id", None)) or uuid.uuid4().hex
        self._values = {
            "model": _text(getattr(reply, "model", None)),
            "prompt_tokens": max(whole_number(getattr(tokens, "prompt_tokens", 0)) or 0, 0),
            "completion_tokens": max(whole_number(getattr(tokens, "completion_tokens", 0)) or 0, 0),
            "credits_used": usage.credits_used,
            "balance_after": usage.balance_after,
            "complete": complete,
            "acted_by": acted_by(),
        }

    def write(self) -> bool:
        """Write the row, and send the signal. Returns False if the row existed."""
        is_new = self._insert()
        if is_new:
            self._send_signal()
        return is_new

    def write_in_thread(self) -> bool:
        """Write the row on another connection, out of reach of the caller's rollback."""
        place, lost = None, None
        try:
            place = here(self.alias)
        except Error as error:
            lost = error
        try:
            is_new = durable.run_in_thread(lambda: self._insert_at(place))
        except IntegrityError:
            # This transaction has created the user, and a rollback removes the user as well.
            return self.write()
        except (Error, QuotaError, RuntimeError) as error:  # RuntimeError: no thread can be started
            logger.warning("usage not recorded yet: %s", type(error).__name__, exc_info=error)
            self.write_later(place)
            is_new = True
        else:
            if is_new:
                self._send_signal()
        if isinstance(lost, OperationalError | InterfaceError):
            raise lost
        return is_new

    def write_later(self, place: Place | None = None) -> None:
        """Write the row when the database is back."""

        def write() -> None:
            if self._insert_at(place):
                self._send_signal()

        outbox.put(write, "usage of a call")

    def _insert_at(self, place: Place | None) -> bool:
        if place is not None:
            place.enter()
        elif not self._is_same_user():
            raise Elsewhere("The caller's schema is unknown, because its connection is lost.")
        return with_lock_timeout(self._insert, self.alias)

    def _is_same_user(self) -> bool:
        """Compare the user: in another tenant's schema, this primary key is another person's."""
        rows = get_user_model()._base_manager.using(self.alias).filter(pk=self._user.pk)
        found = rows.values_list("password", get_user_model().USERNAME_FIELD).first()
        return bool(found == (self._user.password, self._user.get_username()))

    def _insert(self) -> bool:
        rows = UsageRecord.objects.using(self.alias)
        values = {"user": self._user, "call_id": self._call_id, "defaults": self._values}
        return rows.get_or_create(**values)[1]

    def _send_signal(self) -> None:
        usage_recorded.send_robust(
            sender=UsageRecord, user=self._user, usage=self._usage, complete=self._complete
        )


def _alias(user: Any) -> str:
    """Return the user's own database, unless a router decides otherwise.

    In another database the same primary key is another person's.
    """
    return router.db_for_write(UsageRecord, instance=user)


def _text(value: object) -> str:
    """Return `value`, which comes from the network, if it is printable, cut to the column."""
    return value[:100] if isinstance(value, str) and value.isprintable() else ""
