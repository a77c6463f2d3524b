"""What the reply to an AI call says: which call it was, its tokens, and its price."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from django_quota.money import format_usd, whole_number

from .balances import Balance

#: The characters of an id or a name that a record keeps: the width of its columns.
MAX_CHARS = 100
#: The member that holds the reply in the events of the Responses API, such as `response.completed`,
#: and in the first event of Anthropic's API.
_BODY = {"response": "response", "message_start": "message"}


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


UNPRICED = Usage(credits_used=None, balance_after=None)


@dataclass(kw_only=True)
class Reply:
    """What is known of one call. A stream adds to it with each event (`add`)."""

    id: str = ""
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    #: The id of the HTTP request at Quota.
    request_id: str = ""
    created: int | None = None
    usage: Usage | None = None
    #: True for a chunk of a chat completion.
    is_part: bool = False
    #: True if the whole answer arrived.
    complete: bool = True

    @property
    def call_id(self) -> str:
        """The id of the completion. Replies without one, as embeddings are, get one that is made of
        their contents: it is the same each time the reply is recorded, and the balance in it
        distinguishes two replies."""
        if self.id or self.usage is None:
            return self.id
        told = [self.created, self.model, self.prompt_tokens, self.completion_tokens]
        told += [self.usage.credits_used, self.usage.balance_after]
        return f"sha256:{hashlib.sha256(json.dumps(told).encode()).hexdigest()}"

    def add(self, part: Any) -> None:
        """Add what `part` says: a reply, a chunk or an event, as JSON or as a model of an SDK."""
        kind = _text(_get(part, "type"))
        body = _get(part, _BODY.get(kind.partition(".")[0], "")) or part
        self.id = self.id or _text(_get(body, "id"))
        self.model = self.model or _text(_get(body, "model"))
        self.is_part = _text(_get(part, "object")).endswith(".chunk")
        self.created = whole_number(_get(body, "created")) or self.created
        self._add_tokens(_get(body, "usage") or _get(part, "usage"))
        price = _get(body, "quota") or _get(part, "quota")
        if price is None and kind == "quota_usage":  # the last event of Anthropic's API
            price = part
        if (used := whole_number(_get(price, "credits_used"))) is not None:
            after = whole_number(_get(price, "balance_after"))
            self.usage = Usage(credits_used=used, balance_after=after)

    def _add_tokens(self, counts: Any) -> None:
        """Read the token counts of OpenAI's two APIs and of Anthropic's, which counts the cached
        tokens apart from the others. In a stream, the last event has the totals."""
        prompt, completion = _get(counts, "prompt_tokens"), _get(counts, "completion_tokens")
        of_prompt, of_completion = "prompt_tokens_details", "completion_tokens_details"
        if prompt is None and completion is None:
            prompt, completion = _get(counts, "input_tokens"), _get(counts, "output_tokens")
            of_prompt, of_completion = "input_tokens_details", "output_tokens_details"
        read = _count(_get(counts, "cache_read_input_tokens"))
        written = _count(_get(counts, "cache_creation_input_tokens"))
        cached = _count(_get(_get(counts, of_prompt), "cached_tokens"))
        reasoning = _count(_get(_get(counts, of_completion), "reasoning_tokens"))
        self.prompt_tokens = (_count(prompt) + read + written) or self.prompt_tokens
        self.completion_tokens = _count(completion) or self.completion_tokens
        self.cached_tokens = (cached + read) or self.cached_tokens
        self.reasoning_tokens = reasoning or self.reasoning_tokens


def read_reply(reply: Any) -> Reply:
    """Return what `reply` says: a model of an SDK, or its JSON as a dict."""
    found = Reply()
    found.add(reply)
    return found


def _get(source: Any, name: str) -> Any:
    """Return the member `name` of JSON or of a model; None if there is none.

    Quota's own member, `quota`, is in `model_extra` of the SDK's models.
    """
    if isinstance(source, dict):
        return source.get(name)
    extra = getattr(source, "model_extra", None)
    if isinstance(extra, dict) and name in extra:
        return extra[name]
    return getattr(source, name, None)


def _count(value: object) -> int:
    return max(whole_number(value) or 0, 0)


def _text(value: object) -> str:
    """Return `value`, which comes from the network, if it is printable, cut to the column."""
    return value[:MAX_CHARS] if isinstance(value, str) and value.isprintable() else ""
