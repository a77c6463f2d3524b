"""The cost of AI calls: read from the replies, recorded, and announced by signals."""

import asyncio
import gc
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any

from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error

from django_quota.conf import get_settings
from django_quota.exceptions import ConfigurationError
from django_quota.models import UsageRecord
from django_quota.signals import balance_low
from django_quota.tokens import durable
from django_quota.tokens.payer import during
from django_quota.tokens.places import at_place_of_caller

from .balances import Balance, forget_balance, keep_balance_after_call
from .calls import Call, Caller
from .pending_record import PendingRecord, recorded_usage
from .replies import UNPRICED, Reply, Usage, read_reply

logger = logging.getLogger("django_quota.usage")


def record_usage(user: Any, reply: Any) -> Usage | None:
    """Return the cost of an AI call by `user`, and record it unless that has been done.

    The clients of `django_quota.ai` record each call themselves (QUOTA_RECORD_USAGE). Call this to
    read the cost, or to record a call that another client has made with the user's token.

    `reply` is what the SDK returned: the completion, the response or the message, the last chunk or
    event of a stream, or its JSON as a dict. Quota adds a `quota` object to it (quota-protocol
    section 14). Where it is missing, because the SDK has dropped it, the cost is that of the record
    with the same id. Returns None if neither is known.

    A new record has the name of the person who acts as the user, if any; `usage_recorded` is sent,
    whose receivers' errors are logged. Do not call it for calls by `developer_client`, which you
    pay for. Raises ConfigurationError on an event loop: await `arecord_usage(user, reply)` there.
    Raises the database's error if the caller's transaction is lost: the caller's writes are lost
    then, but the record is not.
    """
    found = read_reply(reply)
    try:
        if found.usage is None:
            return recorded_usage(user, found.id) if found.id and not found.is_part else None
        call = Caller().call(user)
        if PendingRecord(call, found).write_at_once():
            with _without_database():
                _update_balance(user, found.usage, arrived_at=None)
    except SynchronousOnlyOperation:
        raise ConfigurationError(
            "record_usage uses the database; in async code, await arecord_usage(user, reply)."
        ) from None
    return found.usage


#: `record_usage` for async code.
arecord_usage = at_place_of_caller(record_usage)


#: The calls that this thread leaves to another one to record; None if it records them itself.
left_to_record: ContextVar[list[tuple[Call, Reply | None, float]] | None] = ContextVar(
    "django_quota_left_to_record", default=None
)


def record_call(call: Call, reply: Reply | None, arrived_at: float) -> None:
    """Record a call whose reply ended at `arrived_at` (Unix time), and update the balance.

    Without QUOTA_RECORD_USAGE it is not recorded, and the next page asks Quota for the balance.
    `reply` is None if nothing is known of the call but that it may have cost something. Raises
    nothing, because the caller must get the answer that is paid for.
    """
    if (left := left_to_record.get()) is not None:
        left.append((call, reply, arrived_at))
        return
    record = partial(_record, call, reply, arrived_at)
    try:
        if _is_on_event_loop() or threading.get_ident() in _collecting:
            durable.start_in_thread(record)
        elif call.is_here():
            record()
        else:
            # This thread may be in a transaction or in the schema of another tenant.
            durable.run_in_thread(record)
    except Exception as error:  # no thread can be started, as at the end of the process
        logger.exception("the usage of a call was not recorded: %s", type(error).__name__)


def _record(call: Call, reply: Reply | None, arrived_at: float) -> None:
    usage = UNPRICED if reply is None else reply.usage or UNPRICED
    for bill in call.bills:
        bill.add(usage.credits_used)
    try:
        with during(call.request) if call.request is not None else nullcontext():
            if reply is None or not reply.call_id or not get_settings().record_usage:
                if call.place is not None and not call.is_here():
                    call.place.enter()
                forget_balance(call.user)
            elif PendingRecord(call, reply).write():
                with _without_database():
                    _update_balance(call.user, usage, arrived_at=arrived_at)
    except Exception as error:
        logger.exception("the usage of a call was not recorded: %s", type(error).__name__)


async def arecord_call(call: Call, reply: Reply | None, arrived_at: float) -> None:
    """`record_call` for async code."""
    try:
        await _arecord(call.user, call, reply, arrived_at)
    except Exception as error:  # the connection that async code uses is in another schema
        logger.exception("the usage of a call was not recorded: %s", type(error).__name__)


@at_place_of_caller
def _arecord(user: Any, call: Call, reply: Reply | None, arrived_at: float) -> None:
    record_call(call, reply, arrived_at)


def _is_on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


#: The threads in which the garbage collector is running. It closes the streams that nobody closed,
#: and may interrupt any code for that, also code that holds a lock of the database's driver.
_collecting: set[int] = set()


def _note_collection(phase: str, info: dict[str, int]) -> None:
    change = _collecting.add if phase == "start" else _collecting.discard
    change(threading.get_ident())


gc.callbacks.append(_note_collection)


@contextmanager
def _without_database() -> Iterator[None]:
    """Log errors of the database while the cached balance is updated.

    The call is paid for, so the caller must get its answer.
    """
    try:
        yield
    except Error as error:
        logger.warning("the cached balance may be old: %s", type(error).__name__)


def _update_balance(user: Any, usage: Usage, *, arrived_at: float | None) -> None:
    """Cache the balance after a call, unless it is not known when the reply arrived; and announce
    that the balance is low."""
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
