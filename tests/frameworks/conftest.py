"""Two users with a wallet each, and an environment in which everything is a trap."""

from __future__ import annotations

import importlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import pytest
from django.contrib.auth import get_user_model

from tests.frameworks.named import FRAMEWORKS, NEED_OPENAI_3
from tests.sandbox_client import Person, Sandbox
from tests.tiny_server import Answer, Seen, TinyServer, json_answer

DEVELOPER_KEY = "sk-developer-hush"
#: Telemetry and lists of prices that a framework would get from the Internet.
QUIET = {
    "ANONYMIZED_TELEMETRY": "False",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OTEL_SDK_DISABLED": "true",
}


@dataclass
class Trap:
    """An AI that the environment names, and what has been asked of it or of the Internet."""

    server: TinyServer
    hosts: list[str] = field(default_factory=list)

    def caught(self) -> list[str]:
        return [seen.target for seen in self.server.requests] + self.hosts


@pytest.fixture(scope="session")
def trap() -> Iterator[Trap]:
    """OPENAI_* and ANTHROPIC_* name a developer's key and an AI that answers each call.

    Set before a framework is imported, as some read them then.
    """
    look_up = socket.getaddrinfo

    def noting(host: Any, *args: Any, **options: Any) -> Any:
        if host not in ("127.0.0.1", "localhost", None):
            trap.hosts.append(str(host))
            raise socket.gaierror(socket.EAI_NONAME, "no Internet in this test")
        return look_up(host, *args, **options)

    with TinyServer() as server, pytest.MonkeyPatch.context() as patch:
        trap = Trap(server)
        for path in ("chat/completions", "responses", "messages"):
            server.on(f"/v1/{path}", _answer_for_the_developer)
        for maker in ("OPENAI", "ANTHROPIC"):
            version = "/v1" if maker == "OPENAI" else ""
            patch.setenv(f"{maker}_API_KEY", DEVELOPER_KEY)
            patch.setenv(f"{maker}_AUTH_TOKEN", DEVELOPER_KEY)
            patch.setenv(f"{maker}_CUSTOM_HEADERS", f"Authorization: Bearer {DEVELOPER_KEY}")
            for name in ("BASE_URL", "API_BASE"):
                patch.setenv(f"{maker}_{name}", server.origin + version)
        for name, value in QUIET.items():
            patch.setenv(name, value)
        patch.setattr(socket, "getaddrinfo", noting)
        yield trap


def _answer_for_the_developer(request: Seen) -> Answer:
    return json_answer({"error": {"message": "the developer would have paid"}}, status=418)


def is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it is missing
        return False


@dataclass
class Recipe:
    """A module of `recipes`, and its functions that ask one question."""

    name: str
    module: Any

    @property
    def path(self) -> str:
        """Where it calls Quota."""
        return "/v1/messages" if self.name == "anthropic" else "/v1/chat/completions"

    @property
    def ask(self) -> Callable[[Any, str], Any] | None:
        return getattr(self.module, "ask", None)

    @property
    def aask(self) -> Any:
        return getattr(self.module, "aask", None)


@pytest.fixture(params=FRAMEWORKS)
def recipe(request: pytest.FixtureRequest, trap: Trap) -> Iterator[Recipe]:
    """Each recipe whose framework is installed; its calls never reach the trap."""
    if not is_installed(FRAMEWORKS[request.param]):
        pytest.skip(f"{request.param} is not installed")
    if request.param in NEED_OPENAI_3 and version("openai").startswith("2."):
        pytest.skip(f"{request.param} needs release 3 of the OpenAI SDK")
    module = importlib.import_module(f"tests.frameworks.recipes.{request.param}")
    trap.server.requests.clear()
    trap.hosts.clear()
    yield Recipe(request.param, module)
    assert trap.caught() == []


@dataclass
class Payer:
    """A user, and the person whose wallet is theirs."""

    user: Any
    person: Person

    def balance(self) -> int:
        return self.person.sandbox.balance_of(self.person.email)


@pytest.fixture
def ada(user: Any, person: Person) -> Payer:
    return Payer(user, person)


@pytest.fixture
def grace(user: Any, sandbox: Sandbox) -> Payer:
    """Somebody else, with five dollars."""
    person = sandbox.person(name="Grace Hopper", balance=5_000_000)
    person.sign_in()
    sandbox.forget_requests()
    return Payer(get_user_model().objects.exclude(pk=user.pk).get(), person)
