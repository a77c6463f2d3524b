"""What the OpenAI SDK makes of a reply of Quota's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from django_quota.wallet.usage import arrived

__all__ = ["reply"]


def reply(call_id: Any = "chatcmpl-1", **quota: Any) -> Any:
    """What our client's SDK makes of a reply with Quota's block in it, which has arrived now."""
    made = SimpleNamespace(
        id=call_id,
        model="gpt-4o-mini",
        usage=SimpleNamespace(prompt_tokens=12, completion_tokens=34),
        model_extra={"quota": quota},
    )
    arrived(made)
    return made
