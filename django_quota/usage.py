"""What AI calls cost: read from the replies, recorded, and told to whoever listens."""

import logging
import time
import uuid
from dataclasses import dataclass
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import DatabaseError, router, transaction

from .balances import Balance, forget_balance, keep_balance
from .conf import get_settings
from .exceptions import ConfigurationError
from .models import UsageRecord
from .money import format_usd, whole_number
from .signals import balance_low, usage_recorded

__all__ = ["Usage", "arecord_usage", "record_unpriced", "record_usage"]

logger = logging.getLogger("django_quota.usage")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What one AI call cost, in credits, and what it left in the wallet; None where not said."""

    credits_used: int | None
    balance_after: int | None

    @property
    def cost(self) -> str:
        """For people: "$0.0042"; "" if not said."""
        return "" if self.credits_used is None else format_usd(self.credits_used)

    @property
    def balance(self) -> str:
        """For people: "$0.9958"; "" if not said."""
        return "" if self.balance_after is None else format_usd(self.balance_after)

    @property
    def state(self) -> str:
        """`Balance.state` of what is left: "available" or "low"; "" if not said."""
        return "" if self.balance_after is None else Balance(credits=self.balance_after).state


def record_usage(user: Any, reply: Any) -> Usage | None:
    """Record what a call has cost `user`: from a completion, or the last chunk of a stream.

    `reply` is what the OpenAI SDK returned; Quota adds a `quota` object to it (quota-protocol
    section 14). The balance shown next is then right without another request; a UsageRecord is
    written, once for each completion, and `usage_recorded` sent; what its receivers raise goes into
    the log. None, and nothing recorded, for a chunk without that object. Not for what was paid by
    `developer_client`, whose balance is yours.

    `streaming.stream_response` does this by itself. Raises ConfigurationError on an event loop,
    where it is `await arecord_usage(user, reply)`.
    """
    block = (getattr(reply, "model_extra", None) or {}).get("quota")
    if not isinstance(block, dict) or (used := whole_number(block.get("credits_used"))) is None:
        return None
    usage = Usage(credits_used=used, balance_after=whole_number(block.get("balance_after")))
    try:
        if _record(user, reply, usage, complete=True):
            _tell_balance(user, usage)
    except SynchronousOnlyOperation:
        raise ConfigurationError(
            "record_usage asks the database; in async code, await arecord_usage(user, reply)."
        ) from None
    return usage


#: `record_usage` for async code.
arecord_usage = sync_to_async(record_usage)


def record_unpriced(user: Any, reply: Any, *, complete: bool) -> None:
    """Record a call of which Quota has not said what it cost: a stream that ended before its end is
    charged for what was sent of it. `reply` is a chunk that did arrive."""
    forget_balance(user)
    _record(user, reply, Usage(credits_used=None, balance_after=None), complete=complete)


def _tell_balance(user: Any, usage: Usage) -> None:
    after, threshold = usage.balance_after, get_settings().low_balance
    if after is None:
        forget_balance(user)
        return
    balance = Balance(credits=after)
    keep_balance(user, balance, as_of=time.time())
    if after < threshold <= after + (usage.credits_used or 0):
        balance_low.send_robust(sender=UsageRecord, user=user, balance=balance, threshold=threshold)


def _record(user: Any, reply: Any, usage: Usage, *, complete: bool) -> bool:
    """False if this very completion was recorded before.

    What the database says never takes an answer away that is paid for. On SQLite a transaction
    that has read cannot write once somebody else has (ATOMIC_REQUESTS): it is then written after.
    """

    def write() -> bool:
        return _write(user, reply, usage, complete=complete)

    try:
        return write()
    except DatabaseError as error:
        logger.warning("usage not recorded yet: %s", type(error).__name__)
        transaction.on_commit(write, using=router.db_for_write(UsageRecord), robust=True)
        return True


def _write(user: Any, reply: Any, usage: Usage, *, complete: bool) -> bool:
    tokens = getattr(reply, "usage", None)
    _row, is_new = UsageRecord.objects.get_or_create(
        user=user,
        call_id=_text(getattr(reply, "id", None)) or uuid.uuid4().hex,
        defaults={
            "model": _text(getattr(reply, "model", None)),
            "prompt_tokens": max(whole_number(getattr(tokens, "prompt_tokens", 0)) or 0, 0),
            "completion_tokens": max(whole_number(getattr(tokens, "completion_tokens", 0)) or 0, 0),
            "credits_used": usage.credits_used,
            "balance_after": usage.balance_after,
            "complete": complete,
        },
    )
    if is_new:
        usage_recorded.send_robust(sender=UsageRecord, user=user, usage=usage, complete=complete)
    return is_new


def _text(value: object) -> str:
    """What fits into the columns; what came from the network is not trusted to."""
    return value[:100] if isinstance(value, str) and value.isprintable() else ""
