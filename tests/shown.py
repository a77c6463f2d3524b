"""What of an error reaches a log, an error page or an error tracker."""

from __future__ import annotations


def shown(error: BaseException) -> str:
    """All texts and attributes of `error`, and of the errors that are displayed along with it."""
    texts = []
    seen: BaseException | None = error
    while seen is not None:
        texts.append(f"{seen!s} {seen!r} {seen.args} {vars(seen)}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(texts)
