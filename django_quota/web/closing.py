"""Finds out how an AI's stream is read, and ends it, also if it is wrapped.

Tracing (Langfuse, OpenTelemetry) wraps a stream of the OpenAI SDK in an object of its own. The
wrapper forwards much, little or nothing, and may have both synchronous and asynchronous methods.
Only its public attributes are read here.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any

logger = logging.getLogger("django_quota.streaming")

#: Attributes that hold the wrapped stream, in proxies of wrapt, OpenTelemetry and Langfuse.
_WRAPPED_ATTRIBUTES = ("__wrapped__", "stream", "response")
#: Deeper than any real nesting. Some objects return another object for every attribute.
_MAX_LAYERS = 10


def layers(stream: Any) -> list[Any]:
    """`stream` and the streams that it wraps, outermost first."""
    found = [stream]
    while len(found) < _MAX_LAYERS:
        shown = (getattr(found[-1], name, None) for name in _WRAPPED_ATTRIBUTES)
        inner = next((each for each in shown if _iteration_methods(each)), None)
        if inner is None or any(inner is each for each in found):
            break
        found.append(inner)
    return found


def _iteration_methods(stream: Any) -> list[str]:
    return [name for name in ("__iter__", "__aiter__") if hasattr(type(stream), name)]


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs in this thread; None if none does."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def is_asynchronous(stream: Any) -> bool | None:
    """Return True if `stream` is read with `async for`, None if it is not a stream (but a complete
    answer, say).

    A wrapper that supports both is like the stream that it wraps. If it hides that, it counts as
    asynchronous while an event loop is running.
    """
    # A model of the SDK can be iterated, too, over its fields.
    if not _iteration_methods(stream) or hasattr(stream, "model_fields_set"):
        return None
    for layer in layers(stream):
        if len(names := _iteration_methods(layer)) == 1:
            return names == ["__aiter__"]
    return running_loop() is not None


def http_response(stream: Any) -> Any:
    """The HTTP response that `stream` is read from; None if a wrapper hides it."""
    for layer in layers(stream):
        response = getattr(layer, "response", None)
        if hasattr(response, "is_closed") and hasattr(response, "extensions"):
            return response
    return None


def end_stream(stream: Any) -> None:
    """End a synchronous stream with each of its methods for that.

    One alone is not enough: some wrappers end their span in `__exit__` and the call in `close`,
    some have one of the two, and some have neither. Errors are logged only: the answer has been
    read, or is not wanted any more.
    """
    for end in _ending_methods(stream, "close"):
        with _logging_errors():
            end()
    if _is_open(response := http_response(stream)):
        with _logging_errors():
            response.close()


async def aend_stream(stream: Any) -> None:
    """`end_stream` for an asynchronous stream.

    `close` is called only if there is no `aclose`: a wrapper's synchronous `close` may call the
    SDK's and not await it.
    """
    for end in _ending_methods(stream, "aclose", "close"):
        with _logging_errors():
            if isawaitable(result := end()):
                await result
    if _is_open(response := http_response(stream)):
        with _logging_errors():
            await response.aclose()


def _ending_methods(stream: Any, *names: str) -> Iterator[Callable[[], Any]]:
    methods = (getattr(stream, name, None) for name in names)
    if (method := next(filter(callable, methods), None)) is not None:
        yield method
    exit_name = "__aexit__" if names[0] == "aclose" else "__exit__"
    if hasattr(type(stream), exit_name):
        yield lambda: getattr(stream, exit_name)(None, None, None)


def _is_open(response: Any) -> bool:
    return response is not None and not response.is_closed


@contextmanager
def _logging_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        logger.warning("a stream was not closed as it should be", exc_info=error)
