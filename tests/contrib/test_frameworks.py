"""The modules for AI frameworks that are not installed; tests/frameworks has the real ones."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import pytest

from django_quota.exceptions import ConfigurationError
from tests.helpers.rows import make_user

#: Module -> its function, the package it imports, and what to install.
MODULES = {
    "crewai": ("llm", "crewai", "crewai"),
    "haystack": ("chat_generator", "haystack", "haystack-ai"),
    "langchain": ("chat_model", "langchain_openai", "langchain-openai"),
    "llama_index": ("llm", "llama_index", "llama-index-llms-openai"),
    "pydantic_ai": ("model", "pydantic_ai", r"pydantic-ai-slim\[openai\]"),
}


@pytest.fixture(params=MODULES)
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module, none of whose framework can be imported."""
    package = MODULES[request.param][1]
    for loaded in list(sys.modules):
        if loaded.partition(".")[0] == package:
            monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, package, None)
    return str(request.param)


def module(name: str) -> ModuleType:
    return importlib.reload(importlib.import_module(f"django_quota.contrib.{name}"))


@pytest.mark.django_db
def test_missing_framework_is_a_configuration_error_when_a_model_is_made(name: str) -> None:
    function, _package, install = MODULES[name]
    make = getattr(module(name), function)
    with pytest.raises(ConfigurationError, match=f"pip install {install}$"):
        make(make_user(), "gpt-4o-mini")


def test_module_is_imported_without_its_framework(name: str) -> None:
    assert module(name).__all__ == [MODULES[name][0]]
