"""Streams that tracing has wrapped: read, ended and recorded as if they were bare."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest, HttpResponseBase
from django.test import Client, RequestFactory
from django.urls import path
from openai import OpenAI

from django_quota import signals
from django_quota.ai.factory import async_openai_client, developer_client, openai_client
from django_quota.decorators import quota_required
from django_quota.exceptions import ConfigurationError
from django_quota.models import UsageRecord
from django_quota.streaming import stream_response
from django_quota.wallet.balances import kept_balance
from django_quota.web import closing
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import run_async
from tests.helpers.rows import user_with_wallet
from tests.helpers.streams import QUOTA, VIEWS, AsgiRequest, events, next_event, whole_answer
from tests.helpers.wrapped import SHAPES, OpenTelemetry, generator
from tests.shown import listening
from tests.tiny_server import TinyServer, json_answer
from tests.upstream import Upstream, chunk, last
from tests.urls import urlpatterns as ours
from tests.urls_streaming import ASK

pytestmark = pytest.mark.django_db(transaction=True)


class Tracing:
    """What the views of this module put around a stream; `spans` that have ended."""

    wrap: Callable[..., Any]
    spans = 0

    @classmethod
    def ended(cls) -> None:
        cls.spans += 1


def by_user(request: HttpRequest) -> Any:
    return openai_client(request.user)


def by_developer(request: HttpRequest) -> Any:
    return developer_client("sk-quota-ours")


def by_another_sdk_client(request: HttpRequest) -> Any:
    quota = openai_client(get_user_model().objects.get(username="ada"))
    return OpenAI(api_key="sk-theirs", base_url=str(quota.base_url))


def view_of(client_of: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], HttpResponseBase]:
    def view(request: HttpRequest) -> HttpResponseBase:
        chunks = client_of(request).chat.completions.create(**ASK)
        return stream_response(request, Tracing.wrap(chunks, Tracing.ended))

    return view


@quota_required
async def astream(request: HttpRequest) -> HttpResponseBase:
    client = async_openai_client(await request.auser())
    chunks = await client.chat.completions.create(**ASK)
    return stream_response(request, Tracing.wrap(chunks, Tracing.ended))


def whole(request: HttpRequest) -> HttpResponseBase:
    completion: Any = openai_client(request.user).chat.completions.create(**ASK | {"stream": False})
    return stream_response(request, completion)


async def not_awaited(request: HttpRequest) -> HttpResponseBase:
    client = async_openai_client(await request.auser())
    return stream_response(request, client.chat.completions.create(**ASK))  # type: ignore[arg-type]


urlpatterns = [
    *ours,
    path("stream", view_of(by_user)),
    path("by-developer", view_of(by_developer)),
    path("by-another", view_of(by_another_sdk_client)),
    path("astream", astream),
    path("whole", whole),
    path("not-awaited", not_awaited),
]


@pytest.fixture(scope="module", autouse=True)
def small_heap() -> None:
    """What stands now stays, so that `gc.collect` looks only at what a test leaves behind."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def project(settings: Any) -> Iterator[None]:
    settings.ROOT_URLCONF = __name__
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]
    Tracing.wrap, Tracing.spans = lambda stream, ended: stream, 0
    yield
    wait_for_threads()


@pytest.fixture
def user(settings: Any) -> Any:
    """Ada, with a wallet and a balance that was shown a moment ago."""
    settings.QUOTA_BALANCE_TTL = 3600
    user = user_with_wallet()
    cache_balance(user, 1_000_000)
    return user


@pytest.fixture
def browser(user: Any) -> Client:
    browser = Client(SERVER_NAME="localhost")
    browser.force_login(user)
    return browser


def wait_for_threads() -> None:
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "django_quota-abandoned":
            thread.join()


def billed() -> list[tuple[Any, int | None, bool]]:
    return list(UsageRecord.objects.values_list("user_id", "credits_used", "complete"))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("shape", SHAPES)
class TestUnderAsgi:
    def test_stream_that_is_read_to_its_end_is_recorded_once(
        self, upstream: Upstream, browser: Client, user: Any, shape: str, view: str
    ) -> None:
        Tracing.wrap = SHAPES[shape][view]
        upstream.say(chunk("Hel"), chunk("lo"), last(**QUOTA))
        upstream.end()

        with listening(signals.usage_recorded) as heard:
            told = events(whole_answer(browser, view))

        assert [kind for kind, _ in told] == ["delta", "delta", "done"]
        assert told[-1][1]["balance_after"] == 998_800
        assert billed() == [(user.pk, 1_200, True)]
        assert len(heard) == 1
        kept = kept_balance(user)
        assert kept is not None and kept.credits == 998_800
        assert Tracing.spans >= 1

    def test_stream_that_is_left_early_is_ended_and_recorded_once(
        self, upstream: Upstream, browser: Client, user: Any, shape: str, view: str
    ) -> None:
        Tracing.wrap = SHAPES[shape][view]

        async def leave() -> None:
            reader = AsgiRequest(browser, view)
            upstream.say(chunk("first"))
            await reader.ask()
            await reader.read()
            await reader.asgi.send_input({"type": "http.disconnect"})
            if (shape, view) == ("generator", "stream"):
                # It shows nothing by which the thread that reads it could be woken.
                upstream.say(chunk("second"), chunk("third"))
            await reader.asgi.wait(20)
            assert await asyncio.to_thread(upstream.hung_up.wait, 20)

        with listening(signals.usage_recorded) as heard:
            run_async(leave())

        assert billed() == [(user.pk, None, False)]
        assert [each["complete"] for each in heard] == [False]
        assert kept_balance(user) is None
        gc.collect()
        assert Tracing.spans >= 1


@pytest.mark.parametrize("shape", SHAPES)
class TestUnderWsgi:
    def test_stream_that_is_read_to_its_end_is_recorded_once(
        self, upstream: Upstream, browser: Client, user: Any, shape: str
    ) -> None:
        Tracing.wrap = SHAPES[shape]["stream"]
        upstream.say(chunk("all"), last(**QUOTA))
        upstream.end()
        with listening(signals.usage_recorded) as heard:
            told = events(browser.get("/stream").getvalue().decode())
        assert [kind for kind, _ in told] == ["delta", "done"]
        assert billed() == [(user.pk, 1_200, True)]
        assert len(heard) == 1

    def test_stream_that_is_left_early_is_ended_and_recorded(
        self, upstream: Upstream, browser: Client, user: Any, shape: str
    ) -> None:
        Tracing.wrap = SHAPES[shape]["stream"]
        upstream.say(chunk("first"))
        response = browser.get("/stream")
        next_event(iter(response.streaming_content))
        response.close()
        assert upstream.hung_up.wait(20)
        assert billed() == [(user.pk, None, False)]
        assert kept_balance(user) is None


# A generator that has not begun shows nothing by which its stream could be ended.
@pytest.mark.parametrize("shape", ["Langfuse", "OpenTelemetry"])
def test_stream_of_which_nobody_reads_a_word_is_ended(
    upstream: Upstream, browser: Client, user: Any, shape: str
) -> None:
    Tracing.wrap = SHAPES[shape]["stream"]
    browser.get("/stream").close()
    assert upstream.hung_up.wait(20)
    assert billed() == []
    assert kept_balance(user) is None


class TestWhoPays:
    """The client that made the call knows, whatever a wrapper hides."""

    @pytest.fixture(autouse=True)
    def answer(self, upstream: Upstream) -> None:
        upstream.say(chunk("all"), last(**QUOTA))
        upstream.end()

    def kinds(self, browser: Client, view: str) -> list[str]:
        told = events(browser.get(f"/{view}").getvalue().decode())
        return [kind for kind, _ in told]

    def test_copies_of_the_chunks_are_recorded_for_the_user_of_the_client(
        self, browser: Client, user: Any
    ) -> None:
        def copies(stream: Any, ended: Callable[[], None]) -> Any:
            for each in generator(stream, ended):
                yield type(each).model_validate(each.model_dump())

        Tracing.wrap = copies
        assert self.kinds(browser, "stream") == ["delta", "done"]
        assert billed() == [(user.pk, 1_200, True)]

    @pytest.mark.parametrize(
        ("view", "wrap"),
        [
            ("by-developer", generator),
            ("by-developer", OpenTelemetry),
            ("by-another", OpenTelemetry),
        ],
    )
    def test_what_no_user_pays_is_not_recorded(
        self, browser: Client, user: Any, wrap: Any, view: str
    ) -> None:
        Tracing.wrap = wrap
        assert self.kinds(browser, view) == ["delta", "done"]
        assert billed() == []
        kept = kept_balance(user)
        assert kept is not None and kept.credits == 1_000_000


class TestRefusal:
    def test_async_stream_under_wsgi_is_ended(
        self, upstream: Upstream, browser: Client, user: Any
    ) -> None:
        upstream.say(chunk("first"))
        with pytest.raises(ConfigurationError, match="synchronous view, or an ASGI server"):
            browser.get("/astream")
        assert upstream.hung_up.wait(20)
        wait_for_threads()
        assert kept_balance(user) is None

    def test_async_stream_without_its_loop_is_ended(self) -> None:
        """What closes it would have to be awaited."""
        near, far = socket.socketpair()
        network = SimpleNamespace(get_extra_info=lambda name: near)

        class Stream:
            response = SimpleNamespace(is_closed=False, extensions={"network_stream": network})

            def __aiter__(self) -> Any:
                return self

        request = RequestFactory().get("/")
        request.user = AnonymousUser()
        with near, far:
            with pytest.raises(ConfigurationError):
                stream_response(request, Stream())  # type: ignore[arg-type]
            far.settimeout(20)
            assert far.recv(1) == b""

    @pytest.mark.parametrize("shape", SHAPES)
    def test_wrapped_async_stream_under_wsgi_is_refused(
        self, upstream: Upstream, browser: Client, user: Any, shape: str
    ) -> None:
        Tracing.wrap = SHAPES[shape]["astream"]
        with pytest.raises(ConfigurationError, match="synchronous view, or an ASGI server"):
            browser.get("/astream")
        if shape != "generator":  # which shows nothing that could be ended from here
            assert upstream.hung_up.wait(20)

    def test_whole_answer_is_refused_with_advice(
        self, user: Any, browser: Client, settings: Any
    ) -> None:
        with TinyServer() as server:
            server.on("/v1/chat/completions", json_answer({"id": "1", "choices": []}))
            settings.QUOTA_BASE_URL = server.origin
            with pytest.raises(ConfigurationError, match="stream=True"):
                browser.get("/whole")
        assert kept_balance(user) is None

    def test_call_that_is_not_awaited_is_refused_with_advice(
        self, user: Any, browser: Client
    ) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # that a coroutine was never awaited
            with pytest.raises(ConfigurationError, match="with await"):
                browser.get("/not-awaited")
            gc.collect()


class TestClosing:
    @pytest.mark.parametrize("way", ["close", "__exit__", "response"])
    def test_stream_with_one_way_to_end_is_ended(self, way: str) -> None:
        ended: list[str] = []

        def end(*_: Any) -> None:
            ended.append(way)

        members: dict[str, Any] = {"__iter__": lambda self: self, "__next__": lambda self: 1}
        if way == "response":
            members[way] = SimpleNamespace(is_closed=False, extensions={}, close=end)
        else:
            members[way] = end
        closing.end_stream(type("Stream", (), members)())
        assert ended == [way]

    @pytest.mark.parametrize("way", ["aclose", "close", "__aexit__", "response"])
    def test_async_stream_with_one_way_to_end_is_ended(self, way: str) -> None:
        ended: list[str] = []

        async def end(*_: Any) -> None:
            ended.append(way)

        members: dict[str, Any] = {"__aiter__": lambda self: self}
        if way == "response":
            members[way] = SimpleNamespace(is_closed=False, extensions={}, aclose=end)
        else:
            members[way] = end
        run_async(closing.aend_stream(type("Stream", (), members)()))
        assert ended == [way]

    def test_way_that_fails_is_logged_and_the_next_one_taken(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        ended: list[str] = []

        class Stream:
            def __iter__(self) -> Any:
                return self

            def close(self) -> None:
                raise RuntimeError("the tracer's own")

            def __exit__(self, *error: object) -> None:
                ended.append("__exit__")

        closing.end_stream(Stream())
        assert ended == ["__exit__"]
        assert "not closed as it should be" in caplog.text

    def test_object_that_answers_every_name_with_itself_ends(self) -> None:
        class Everything:
            def __iter__(self) -> Any:
                return self

            def __getattr__(self, name: str) -> Any:
                return Everything()

        assert len(closing.layers(Everything())) == 10

    def test_object_of_both_kinds_is_what_the_stream_in_it_is(self) -> None:
        def words() -> Iterator[str]:
            yield "word"

        async def later_words() -> Any:
            yield "word"

        async def ask() -> bool | None:
            return closing.is_asynchronous(OpenTelemetry(words()))

        assert run_async(ask()) is False
        assert closing.is_asynchronous(OpenTelemetry(later_words())) is True

    def test_object_of_both_kinds_that_shows_nothing_is_what_the_caller_is(self) -> None:
        class Both:
            __iter__ = __aiter__ = lambda self: self

        async def ask() -> bool | None:
            return closing.is_asynchronous(Both())

        assert closing.is_asynchronous(Both()) is False
        assert run_async(ask()) is True


def test_plain_request_refuses_what_is_no_stream(user: Any) -> None:
    request = RequestFactory().get("/")
    request.user = user
    with pytest.raises(ConfigurationError, match="This is not a stream"):
        stream_response(request, object())  # type: ignore[arg-type]
