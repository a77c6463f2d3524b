"""Langfuse and OpenTelemetry wrap a stream of the OpenAI SDK, or change it in place."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from tests.neighbours import run

pytestmark = pytest.mark.neighbour

#: Module -> what it makes of a stream, in a synchronous view and in an async one.
PACKAGES = {
    "langfuse": ("WalletStream", "AsyncWalletStream"),
    "opentelemetry.instrumentation.openai": ("ChatStream", "ChatStream"),
    "opentelemetry.instrumentation.genai.openai": ("ChatStreamWrapper", "AsyncChatStreamWrapper"),
}
READ_TO_ITS_END = {
    "events": ["delta", "done"],
    "records": [[1_200, True]],
    "heard": 1,
    "balance": 998_800,
}
LEFT_EARLY = {
    "events": ["delta"],
    "records": [[None, False]],
    "heard": 1,
    "balance": None,
}
REFUSED = {"events": ["ConfigurationError"], "records": [], "heard": 0, "balance": None}


def is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ImportError:  # a package above it is missing
        return False


@pytest.mark.parametrize("package", PACKAGES)
def test_traced_stream_is_ended_and_recorded_once(package: str) -> None:
    if not is_there(package):
        pytest.skip(f"{package} is not installed")
    seen: dict[str, Any] = run("tracing", package)

    wrapper, async_wrapper = ([name] for name in PACKAGES[package])
    assert seen == {
        "whole wsgi": READ_TO_ITS_END | {"wrapper": wrapper},
        "left wsgi": LEFT_EARLY | {"wrapper": wrapper},
        "whole asgi stream": READ_TO_ITS_END | {"wrapper": wrapper},
        "left asgi stream": LEFT_EARLY | {"wrapper": wrapper},
        "whole asgi astream": READ_TO_ITS_END | {"wrapper": async_wrapper},
        "left asgi astream": LEFT_EARLY | {"wrapper": async_wrapper},
        "an async one under wsgi": REFUSED | {"wrapper": async_wrapper},
        "is traced": True,
    }
