"""What tracing puts around a stream of the OpenAI SDK, each kind as a small class.

tests/neighbours/test_tracing.py has the real ones; these stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Langfuse:
    """As that of Langfuse 3: it forwards nothing, has no `close`, and leaves without a word."""

    def __init__(self, response: Any, ended: Callable[[], None] = lambda: None) -> None:
        self.response = response
        self._ended = ended

    def __iter__(self) -> Any:
        try:
            yield from self.response
        finally:
            self._ended()

    def __next__(self) -> Any:
        return next(self.response)

    def __enter__(self) -> Any:
        return self.__iter__()

    def __exit__(self, *error: object) -> None:
        pass


class AsyncLangfuse:
    """`Langfuse` for async streams."""

    def __init__(self, response: Any, ended: Callable[[], None] = lambda: None) -> None:
        self.response = response
        self._ended = ended

    async def __aiter__(self) -> Any:
        try:
            async for chunk in self.response:
                yield chunk
        finally:
            self._ended()

    async def __anext__(self) -> Any:
        return await anext(self.response)

    async def __aenter__(self) -> Any:
        return self.__aiter__()

    async def __aexit__(self, *error: object) -> None:
        pass


class OpenTelemetry:
    """As that of opentelemetry-instrumentation-openai-v2: one class of both kinds, whose
    `close` forgets to await, and whose `with` ends the span and not the call."""

    def __init__(self, stream: Any, ended: Callable[[], None] = lambda: None) -> None:
        self.stream = stream
        self._ended = ended

    def __iter__(self) -> Any:
        return self

    def __aiter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        return next(self.stream)

    async def __anext__(self) -> Any:
        return await anext(self.stream)

    def __enter__(self) -> Any:
        return self

    async def __aenter__(self) -> Any:
        return self

    def __exit__(self, *error: object) -> None:
        self._ended()

    async def __aexit__(self, *error: object) -> None:
        self._ended()

    def close(self) -> None:
        self.stream.close()
        self._ended()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def generator(stream: Any, ended: Callable[[], None] = lambda: None) -> Any:
    """A generator function, which shows nothing at all."""
    try:
        with stream:
            yield from stream
    finally:
        ended()


async def async_generator(stream: Any, ended: Callable[[], None] = lambda: None) -> Any:
    try:
        async with stream:
            async for chunk in stream:
                yield chunk
    finally:
        ended()


#: How a name of `tests.helpers.streams.VIEWS` is wrapped.
SHAPES: dict[str, dict[str, Callable[..., Any]]] = {
    "Langfuse": {"stream": Langfuse, "astream": AsyncLangfuse},
    "OpenTelemetry": {"stream": OpenTelemetry, "astream": OpenTelemetry},
    "generator": {"stream": generator, "astream": async_generator},
}
