"""Shows the progress of a command on a terminal."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from django.core.management.base import OutputWrapper


@contextmanager
def progress_on(stream: OutputWrapper, unit: str) -> Iterator[Callable[[int, int], None] | None]:
    """Yield a function that writes "3 of 7 tokens", each time over the same line of `stream`.

    Yields None if `stream` is not a terminal, so that nothing is counted for a log file.
    """
    if not stream.isatty():
        yield None
        return
    try:
        yield partial(_show, stream, unit)
    finally:
        stream.write("")


def _show(stream: OutputWrapper, unit: str, done: int, total: int) -> None:
    stream.write(f"\r{done} of {total} {unit}", style_func=str, ending="")
    stream.flush()
