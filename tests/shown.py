"""What of an error reaches a log, an error page or an error tracker; and what a signal says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.dispatch import Signal

from django_quota.exceptions import QuotaError

#: What every secret of Quota's has, or of these tests ("hush"). Random text may well hold its few
#: letters, too: so they count where a word begins, those of an id_token also with its second part.
SECRET = re.compile(
    r"(?<![A-Za-z0-9])hush|quota_token_|quota_refresh_|quota_secret_|sk-quota-\w|(?<![\w-])eyJ"
    r"|eyJ[\w-]+\.eyJ"
)


def shown(error: BaseException) -> str:
    """All texts and attributes of `error`, and of the errors that are displayed along with it."""
    texts = []
    seen: BaseException | None = error
    while seen is not None:
        texts.append(f"{seen!s} {seen!r} {seen.args} {vars(seen)}")
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(texts)


def refusal(ask: Callable[[], Any], kind: type[QuotaError]) -> Any:
    """The error that `ask` ends in: of exactly this kind, and without a secret ("hush")."""
    with pytest.raises(kind) as raised:
        ask()
    assert type(raised.value) is kind
    assert "hush" not in shown(raised.value)
    return raised.value


@contextmanager
def listening(signal: Signal) -> Iterator[list[dict[str, Any]]]:
    """What `signal` says meanwhile."""
    heard: list[dict[str, Any]] = []

    def receiver(**said: Any) -> None:
        heard.append(said)

    signal.connect(receiver)
    try:
        yield heard
    finally:
        signal.disconnect(receiver)
