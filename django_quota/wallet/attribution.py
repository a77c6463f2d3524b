"""What the AI calls of a block are for, and what they cost together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from django.db.models import Model
from django.http import HttpRequest

from django_quota.tokens.payer import current_request

from .replies import MAX_CHARS


@dataclass(frozen=True, kw_only=True)
class Attribution:
    """What `billed_for` writes into each usage record."""

    purpose: str = ""
    object_type: str = ""
    object_id: str = ""


class Bill:
    """The calls of a block, added up, and the limit of what they may cost. For any thread."""

    #: What it is for: "block", "request" or "user_day".
    kind = "block"

    def __init__(self, limit: int | None = None) -> None:
        self._lock = threading.Lock()
        #: The credits at which no more calls are sent; None without a limit.
        self.limit = limit
        #: The credits that Quota has reported for these calls.
        self.credits_used = 0
        #: The calls whose reply has arrived.
        self.calls = 0

    def add(self, credits_used: int | None) -> None:
        """Add one call; None if its cost is unknown."""
        with self._lock:
            self.calls += 1
            self.credits_used += credits_used or 0

    @property
    def is_reached(self) -> bool:
        """True if the calls have cost as much as the limit."""
        return self.limit is not None and self.credits_used >= self.limit


@dataclass(frozen=True)
class _Block:
    """The innermost block, and the bills of all blocks around a call, outermost first."""

    attribution: Attribution = Attribution()
    bills: tuple[Bill, ...] = ()
    #: The request in which it was opened; None outside of requests.
    request: HttpRequest | None = None

    def around(self, inner: "_Block") -> "_Block":
        """Return the block of a thread that is in `inner` and uses a client made in this block."""
        if not self.bills:
            return inner
        is_named = inner.attribution != Attribution()
        return _Block(
            inner.attribution if is_named else self.attribution,
            tuple(dict.fromkeys((*self.bills, *inner.bills))),
        )


_OUTSIDE = _Block()
_block: ContextVar[_Block] = ContextVar("django_quota_block", default=_OUTSIDE)


def current_block() -> _Block:
    """Return the block of this thread or task.

    A generator that is left open in a block leaves it in the context of the thread, which another
    request uses next. So a block of another request does not count.
    """
    block = _block.get()
    return block if block.request in (None, current_request()) else _OUTSIDE


@contextmanager
def billed_for(*, purpose: str = "", object: Model | None = None) -> Iterator[Bill]:
    """Write what a block's AI calls are for into their usage records, and add up their cost.

    `purpose` is a name of your own, such as "summary", of at most 100 characters. `object` is the
    saved model instance that the calls are for. A block inside another one changes only what it
    names. Tasks that are started inside belong to the block, and so do threads that use a client
    made inside.

    Raises ValueError for a longer `purpose` or an unsaved `object`, and TypeError for an `object`
    that is not a model instance.
    """
    with open_block(Bill(), **_given(purpose, object)) as bill:
        yield bill


@contextmanager
def open_block(bill: Bill, **attribution: str) -> Iterator[Bill]:
    """Add the calls of a block up in `bill`, too, and change what they are for."""
    outer = current_block()
    named = replace(outer.attribution, **attribution)
    block = _Block(named, (*outer.bills, bill), current_request())
    _block.set(block)
    try:
        yield bill
    finally:
        if _block.get() is block:  # else a generator with this block ends in another context
            _block.set(outer)


def _given(purpose: str, obj: Model | None) -> dict[str, str]:
    if len(purpose) > MAX_CHARS:
        raise ValueError(f"The purpose has more than {MAX_CHARS} characters: {purpose[:20]}...")
    given = {"purpose": purpose} if purpose else {}
    if obj is None:
        return given
    if not isinstance(obj, Model):
        raise TypeError(f"billed_for(object=...) takes a model instance, not {type(obj).__name__}.")
    if obj.pk is None:
        raise ValueError("billed_for(object=...) takes an object that has been saved.")
    return {**given, "object_type": obj._meta.label_lower, "object_id": str(obj.pk)[:MAX_CHARS]}
