"""What the OpenAI SDK makes of a reply of Quota's."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from django_quota.wallet.calls import Caller
from django_quota.wallet.replies import read_reply
from django_quota.wallet.usage import record_call

__all__ = ["record_now", "reply"]


def reply(call_id: Any = "chatcmpl-1", **quota: Any) -> Any:
    """What the SDK makes of a reply with Quota's block in it."""
    return SimpleNamespace(
        id=call_id,
        model="gpt-4o-mini",
        usage=SimpleNamespace(prompt_tokens=12, completion_tokens=34),
        model_extra={"quota": quota},
    )


def record_now(user: Any, made: Any, *, complete: bool = True) -> None:
    """Record a call as a client does when the reply has just ended."""
    read = read_reply(made)
    read.complete = complete
    record_call(Caller().call(user), read, time.time())
