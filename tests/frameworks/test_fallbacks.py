"""Where a framework leaves the client that it was given, the developer does not pay in silence."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from django_quota.ai import openai_client
from tests.frameworks.conftest import Trap, is_installed
from tests.sandbox_client import Sandbox

pytestmark = [
    pytest.mark.framework,
    pytest.mark.django_db(transaction=True),
    pytest.mark.filterwarnings("ignore"),
]


def test_dspy_request_is_sent_without_the_developers_key(
    user: Any, sandbox: Sandbox, trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ignores the client; the recipe's `api_key="unused"` makes it fail at OpenAI."""
    if not is_installed("dspy"):
        pytest.skip("dspy is not installed")
    monkeypatch.delenv("OPENAI_CUSTOM_HEADERS")
    lm15 = importlib.import_module("dspy.lm15")
    recipe = importlib.import_module("tests.frameworks.recipes.dspy")
    trap.server.requests.clear()
    request = lm15.Request(model="openai/gpt-4o-mini", messages=(lm15.Message.user("Hello"),))

    with pytest.raises(Exception, match="the developer would have paid"):
        recipe.language_model(openai_client(user))(request)
    sent = [seen.headers["authorization"] for seen in trap.server.requests]
    assert set(sent) == {"Bearer unused"}
    assert sandbox.requests() == []
