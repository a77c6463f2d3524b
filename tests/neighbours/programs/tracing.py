"""An answer is read to its end and another one left early, both traced: `tracing PACKAGE`.

PACKAGE is "langfuse", or the module of an OpenAIInstrumentor of OpenTelemetry's. No span leaves the
process.
"""

import asyncio
import gc
import json
import sys
import threading
from importlib import import_module
from typing import Any

from tests.neighbours import project

PACKAGE = sys.argv[1]
VIEWS = ["stream", "astream"]

project.configure(
    middleware=["django_quota.middleware.QuotaMiddleware"], ROOT_URLCONF="tests.urls_streaming"
)

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

spans = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))

if PACKAGE == "langfuse":
    from langfuse import Langfuse

    Langfuse(
        public_key="pk-lf-test",
        secret_key="sk-lf-test",
        base_url="http://127.0.0.1:9",
        tracer_provider=provider,
        span_exporter=spans,
    )
    import_module("langfuse.openai")  # changes the SDK
else:
    import_module(PACKAGE).OpenAIInstrumentor().instrument(tracer_provider=provider)

from django.core.cache import cache
from django.test import Client
from django.test.utils import override_settings

from django_quota import signals, streaming
from django_quota.models import UsageRecord
from django_quota.wallet.balances import kept_balance
from tests.helpers.balances import cache_balance
from tests.helpers.concurrency import run_async
from tests.helpers.rows import user_with_wallet
from tests.helpers.streams import QUOTA, AsgiRequest, events, next_event, whole_answer
from tests.shown import listening
from tests.tiny_server import TinyServer
from tests.upstream import Upstream, chunk, last


def whole_under_wsgi(upstream: Upstream) -> str:
    upstream.say(chunk("all"), last(**QUOTA))
    upstream.end()
    return browser.get("/stream").getvalue().decode()


def left_under_wsgi(upstream: Upstream) -> str:
    upstream.say(chunk("first"))
    response: Any = browser.get("/stream")
    first = next_event(iter(response.streaming_content))
    response.close()
    assert upstream.hung_up.wait(20)
    return first


def whole_under_asgi(view: str) -> Any:
    def read(upstream: Upstream) -> str:
        upstream.say(chunk("all"), last(**QUOTA))
        upstream.end()
        return whole_answer(browser, view)

    return read


def left_under_asgi(view: str) -> Any:
    async def leave(upstream: Upstream) -> str:
        reader = AsgiRequest(browser, view)
        upstream.say(chunk("first"))
        await reader.ask()
        first = await reader.read()
        await reader.leave()
        assert await asyncio.to_thread(upstream.hung_up.wait, 20)
        return first

    return lambda upstream: run_async(leave(upstream))


def refused(upstream: Upstream) -> str:
    """An async stream under WSGI."""
    try:
        browser.get("/astream")
    except Exception as error:
        assert upstream.hung_up.wait(20)
        return f"event: {type(error).__name__}\ndata: null\n\n"
    raise AssertionError("it was not refused")


def seen_of(journey: Any) -> dict[str, Any]:
    """What the browser, the records and the tracer know of one answer."""
    UsageRecord.objects.all().delete()
    cache.clear()
    cache_balance(user, 1_000_000)
    kinds: set[str] = set()
    real = streaming.is_asynchronous

    def look(stream: Any) -> bool | None:
        kinds.add(type(stream).__name__)
        return real(stream)

    streaming.is_asynchronous = look
    with TinyServer() as server, listening(signals.usage_recorded) as heard:
        upstream = Upstream()
        server.on("/v1/chat/completions", upstream)
        with override_settings(QUOTA_BASE_URL=server.origin):
            told = events(journey(upstream))
    streaming.is_asynchronous = real
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "django_quota-abandoned":
            thread.join()
    kept = kept_balance(user)
    return {
        "events": [kind for kind, _ in told],
        "records": list(UsageRecord.objects.values_list("credits_used", "complete")),
        "heard": len(heard),
        "balance": kept and kept.credits,
        "wrapper": sorted(kinds),
    }


user = user_with_wallet()
browser = Client(SERVER_NAME="localhost")
browser.force_login(user)
seen: dict[str, Any] = {
    "whole wsgi": seen_of(whole_under_wsgi),
    "left wsgi": seen_of(left_under_wsgi),
}
for view in VIEWS:
    seen[f"whole asgi {view}"] = seen_of(whole_under_asgi(view))
    seen[f"left asgi {view}"] = seen_of(left_under_asgi(view))
seen["an async one under wsgi"] = seen_of(refused)
# Not counted for each: in some runs langfuse hands spans over later.
seen["is traced"] = bool(spans.get_finished_spans())
print(json.dumps(seen))
