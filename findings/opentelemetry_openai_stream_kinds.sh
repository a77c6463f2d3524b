#!/usr/bin/env bash
# opentelemetry-instrumentation-openai 0.62.4 around a synchronous stream of openai 3.57.0.
#
# Behaviour seen:
#   1. The wrapped stream of a synchronous client has __iter__ and __aiter__; isinstance says Stream.
#      `async for` over it fails at the first step: the inner stream has no __anext__.
#   2. close() of the wrapper ends the HTTP answer, but not the span. The span ends only when the
#      wrapper is collected.
# Why a good guess misses: an object with __aiter__ is taken for asynchronous, as plain streams of the
# SDK have exactly one of the two methods; and close() is where other wrappers end their span.
# What to do instead: look for __next__ or __anext__ of what is wrapped (`__wrapped__`), and drop the
# last reference to a stream that was left early.
#
# Run it: bash findings/opentelemetry_openai_stream_kinds.sh   (Python 3.11 or newer, a package index)
# Fails if what it sees differs from the above.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q openai==3.57.0 opentelemetry-instrumentation-openai==0.62.4 opentelemetry-sdk==1.45.2
"$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import gc
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import openai
from opentelemetry.instrumentation.openai import OpenAIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter


class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in ("one", "two"):
            choice = {"index": 0, "delta": {"content": word}, "finish_reason": None}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            self.wfile.write(f"data: {json.dumps(chunk | {'choices': [choice]})}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = openai.OpenAI(api_key="k", base_url=f"http://127.0.0.1:{server.server_port}/v1")


def stream():
    messages = [{"role": "user", "content": "x"}]
    return client.chat.completions.create(model="m", messages=messages, stream=True)


plain = stream()
assert hasattr(plain, "__iter__") and not hasattr(plain, "__aiter__")
plain.close()

spans, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(spans))
OpenAIInstrumentor().instrument(tracer_provider=provider)

wrapped = stream()
print("type:", type(wrapped).__name__, "| isinstance of Stream:", isinstance(wrapped, openai.Stream))
print("has __iter__:", hasattr(wrapped, "__iter__"), "| has __aiter__:", hasattr(wrapped, "__aiter__"))
assert isinstance(wrapped, openai.Stream) and hasattr(wrapped, "__aiter__")


async def read():
    async for _chunk in wrapped:
        raise SystemExit("async for works now")


try:
    asyncio.run(read())
except AttributeError as error:
    print("async for: AttributeError:", error)
else:
    raise SystemExit("async for raised nothing")

whole = [chunk.choices[0].delta.content for chunk in stream()]
assert whole == ["one", "two"], whole

spans.clear()
left = stream()
next(iter(left))
left.close()
after_close = len(spans.get_finished_spans())
del left
gc.collect()
after_collection = len(spans.get_finished_spans())
print("spans of a stream that was left: after close()", after_close, "| after collection", after_collection)
assert (after_close, after_collection) == (0, 1)
PYTHON
echo "as described"
