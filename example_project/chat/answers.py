"""AI calls that the signed-in user pays for."""

from collections.abc import Iterator
from typing import Any

from django_quota.ai import openai_client
from django_quota.wallet import billed_for

from .models import Exchange, conversation
from .tools import TOOLS, look_up_spending

# Seconds without a word after which a call fails. The SDK's own limit is ten minutes.
TIMEOUT = 30


class Answer:
    """The chunks of an answer. Like a stream of the OpenAI SDK, it is read once, then closed.

    If the model calls the tool, that call ends, the tool runs, and a second call writes the answer.
    Whatever has been read is kept when the answer is closed, also if the reader has left.
    """

    def __init__(self, exchange: Exchange, *, may_look_up: bool) -> None:
        self.exchange = exchange
        self._client = openai_client(exchange.user)
        self._messages: list[Any] = [
            message
            for earlier in conversation(exchange.user)
            for message in (
                {"role": "user", "content": earlier.question},
                {"role": "assistant", "content": earlier.answer},
            )
        ]
        self._messages.append({"role": "user", "content": exchange.question})
        self._tool_calls: dict[int, Any] = {}
        self._bills: list[Any] = []
        self._is_complete = self._is_closed = False
        # `stream_response` looks here for the connection that it ends when the reader leaves.
        self.stream = self._call(**({"tools": TOOLS} if may_look_up else {}))

    def _call(self, **tools: Any) -> Any:
        """The stream of a new call. Raises an error of django_quota."""
        with billed_for(purpose="chat") as bill:
            self._bills.append(bill)
            return self._client.chat.completions.create(
                model=self.exchange.model,
                # This also limits the credits that Quota reserves in the wallet.
                max_tokens=self.exchange.max_tokens,
                messages=self._messages,
                stream=True,
                timeout=TIMEOUT,
                **tools,
            )

    def __iter__(self) -> Iterator[Any]:
        yield from self._read()
        if self._tool_calls:
            self._run_tools()
            self.stream = self._call(tools=TOOLS, tool_choice="none")
            yield from self._read()
        self._is_complete = True

    def _read(self) -> Iterator[Any]:
        """Read one call. The chunks of a call of the tool are not part of the answer."""
        is_tool_call = False
        for chunk in self.stream:
            for choice in chunk.choices:
                self.exchange.answer += choice.delta.content or ""
                for part in choice.delta.tool_calls or []:
                    is_tool_call = True
                    self._add_to_tool_call(part)
            if not is_tool_call:
                yield chunk

    def _add_to_tool_call(self, part: Any) -> None:
        """The name comes first, then the arguments in pieces."""
        function = {"name": part.function.name, "arguments": ""}
        call = self._tool_calls.setdefault(
            part.index, {"id": part.id, "type": "function", "function": function}
        )
        call["function"]["arguments"] += part.function.arguments or ""

    def _run_tools(self) -> None:
        calls = list(self._tool_calls.values())
        self._messages.append({"role": "assistant", "content": None, "tool_calls": calls})
        for call in calls:
            found = look_up_spending(self.exchange.user, call["function"]["arguments"])
            self.exchange.lookup = found
            result = {"role": "tool", "tool_call_id": call["id"], "content": str(found)}
            self._messages.append(result)

    def close(self) -> None:
        self.stream.close()
        if self.exchange.answer and not self._is_closed:
            self._is_closed = True
            if self._is_complete:  # else the cost of the last call is unknown
                self.exchange.credits_used = sum(bill.credits_used for bill in self._bills)
            self.exchange.keep()
