"""The private names of the OpenAI SDK that the package needs, for want of public ones.

A release of the SDK that drops one fails here, with the reason, and not in a user's stream. The
upper bound of `openai` in pyproject.toml is there because of them.
"""

import ast
import sys
from pathlib import Path
from typing import Any

import pytest
from openai import AsyncOpenAI, AsyncStream, OpenAI, Stream, _base_client

from django_quota import ai
from django_quota.ai import clients, factory
from django_quota.ai.sdk_http import SUPPORTED, _release, httpx
from django_quota.exceptions import ConfigurationError
from tests.helpers.concurrency import run_async

SYNC, ASYNC = OpenAI(api_key="x"), AsyncOpenAI(api_key="x")
ANSWER = httpx.Response(200, request=httpx.Request("GET", "http://quota.test"))
STREAMS = [
    Stream[object](cast_to=object, response=ANSWER, client=SYNC),
    AsyncStream[object](cast_to=object, response=ANSWER, client=ASYNC),
]

#: Each name: where the SDK has it, and why the package needs it.
NAMES: dict[str, tuple[list[Any], str]] = {
    "get_platform": ([_base_client], "the X-Stainless headers, found out once for all clients"),
    "_platform": ([ASYNC], "where the result of get_platform is kept"),
    "_prepare_options": ([SYNC, ASYNC], "the token is asked for at each attempt, not once"),
    "_custom_auth": ([SYNC], "the token is written at the last moment, out of each repr"),
    "custom_auth": ([ASYNC], "as _custom_auth"),
    "_auth_headers": ([SYNC, ASYNC], "the SDK must not write the key into a header itself"),
    "_validate_headers": ([SYNC, ASYNC], "it would miss the header that comes later"),
    "_custom_headers": ([SYNC, ASYNC], "OPENAI_CUSTOM_HEADERS could replace Authorization"),
    "_api_key_provider": ([SYNC, ASYNC], "the function given as api_key, which knows who pays"),
    "_process_response": ([SYNC, ASYNC], "what cannot be read becomes one of our errors"),
    "_iterator": (STREAMS, "errors in the middle of a stream become ours"),
    "_default_stream_cls": ([SYNC, ASYNC], "a stream of `post` names who pays, too"),
    "_client": ([SYNC, ASYNC], "the pool of connections is closed when the process ends"),
}


@pytest.mark.parametrize("name", NAMES)
def test_private_name_is_in_the_sdk(name: str) -> None:
    owners, reason = NAMES[name]
    for owner in owners:
        assert name in dir(owner), f"{owner!r} has no {name} any more; it was for: {reason}"


def names_in(module: str) -> set[str]:
    """The names that a module of `django_quota.ai` reads, writes, imports or defines in a class."""
    tree = ast.parse((Path(ai.__file__).parent / f"{module}.py").read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names.add(node.attr)
        elif isinstance(node, ast.alias | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
    return names


def names_in_use() -> set[str]:
    return set().union(*map(names_in, ("auth", "clients", "errors", "factory")))


def test_every_private_name_in_use_is_listed() -> None:
    used = names_in_use()
    theirs = {*dir(SYNC), *dir(ASYNC), *dir(STREAMS[0]), *dir(_base_client)}
    private = {name for name in used & theirs if name[0] == "_" and not name.endswith("__")}
    assert private == {name for name in NAMES if name[0] == "_"} & used


def test_each_listed_name_is_in_use() -> None:
    assert set(NAMES) <= names_in_use()


def test_clients_override_what_they_name() -> None:
    """A renamed method of the SDK would leave ours beside it, never called."""
    for ours, theirs in [
        (clients.WalletClient, OpenAI),
        (clients.AsyncWalletClient, AsyncOpenAI),
    ]:
        for name in ("_prepare_options", "_process_response", "_auth_headers", "request"):
            assert getattr(ours, name) is not getattr(theirs, name)


async def _async_developer_client() -> Any:
    return factory.async_developer_client("sk-quota-test")


each_client = pytest.mark.parametrize(
    "make",
    [
        lambda: factory.openai_client(None),
        lambda: factory.async_openai_client(None),
        lambda: factory.developer_client("sk-quota-test"),
        lambda: run_async(_async_developer_client()),
    ],
    ids=["user", "async user", "developer", "async developer"],
)


@pytest.fixture
def not_imported_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("auth", "clients", "errors", "sdk_http"):
        monkeypatch.delitem(sys.modules, f"django_quota.ai.{module}")
        monkeypatch.delattr(ai, module)
    factory._shared_client.cache_clear()
    factory._shared_async_client.cache_clear()


@each_client
@pytest.mark.parametrize("missing", ["openai", httpx.__name__])
@pytest.mark.usefixtures("not_imported_yet")
def test_missing_sdk_is_a_configuration_error(
    make: Any, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ConfigurationError, match=r'pip install "django-quota\[ai\]"'):
        make()


@each_client
@pytest.mark.parametrize("version", ["0.28.1", "1.109.1", "2.33.9", "4.0.0", "10.1"])
@pytest.mark.usefixtures("not_imported_yet")
def test_release_of_the_sdk_that_is_not_supported_is_a_configuration_error(
    make: Any, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert f"openai {version} is installed" in str(caught.value)
    assert f'pip install "openai{SUPPORTED}"' in str(caught.value)


@pytest.mark.parametrize("version", ["2.34.0", "2.54", "3.0.0b1", "3.999.1"])
def test_supported_release_is_accepted(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda name: version)
    assert _release()[0] in (2, 3)


def test_its_requests_are_made_with_our_http_library() -> None:
    """Else its errors are not caught, and it cannot sign with `BearerAuth`."""
    assert isinstance(SYNC._client, httpx.Client)
    assert isinstance(ASYNC._client, httpx.AsyncClient)
