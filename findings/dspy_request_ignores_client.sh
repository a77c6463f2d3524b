#!/usr/bin/env bash
# DSPy 3.4.1 with litellm 1.110.2: an LM that was given an OpenAI client.
#
# Behaviour seen: `LM(..., engine="litellm", client=client)` sends lm("text") and lm(messages=[...])
# through the client: to its address, with its key. lm(Request(...)), which DSPy 3.4 recommends in
# place of messages, goes to OPENAI_BASE_URL with OPENAI_API_KEY, without a warning. So does
# the same Request in async code (`acall`), with an async client.
# Why a good guess misses: the LM keeps its arguments for each call, and the same call without a
# Request obeys this one. The conversion of a Request passes on only a list of known options
# (api_key, api_base, ...), and the client is not among them.
# What to do instead: give the LM `api_key="unused"`, too. The client is still used where it was, and a
# Request goes out with that key, so that it fails and bills nobody.
#
# DSPy deep-copies the client for each call, which the SDK's cannot bear, so the script gives its own
# a `__deepcopy__`.
#
# Run it: bash findings/dspy_request_ignores_client.sh   (Python 3.11 or newer, a package index)
# Fails if what it sees differs from the above.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --only-binary :all: dspy==3.4.1 litellm==1.110.2 openai==3.57.0
cd "$folder"
LITELLM_LOCAL_MODEL_COST_MAP=True DSPY_CACHEDIR="$folder/cache" "$folder/venv/bin/python" - <<'PYTHON'
import asyncio
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

asked = []


class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        where = "client's" if self.server is of_client else "environment's"
        asked.append((where, self.headers["Authorization"]))
        message = {"role": "assistant", "content": "Hi"}
        body = {
            "id": "c",
            "object": "chat.completion",
            "created": 1,
            "model": "gpt-4o-mini",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args):
        pass


def start():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"http://127.0.0.1:{server.server_port}/v1"


of_client, address = start()
_of_environment, os.environ["OPENAI_BASE_URL"] = start()
os.environ["OPENAI_API_KEY"] = "sk-environment"

import dspy
import openai
from dspy.lm15 import Message, Request

options = {"engine": "litellm", "cache": False, "num_retries": 0, "max_tokens": 9}
request = Request(model="openai/gpt-4o-mini", messages=(Message.user("Hi"),))


def lm(kind, **more):
    client = kind(api_key="sk-client", base_url=address)
    kind.__deepcopy__ = lambda self, memo: self
    return dspy.LM("openai/gpt-4o-mini", client=client, **options, **more)


def seen(what):
    (found,) = asked
    asked.clear()
    print(f"{what}: the {found[0]} address, {found[1]}")
    return found


lm(openai.OpenAI)("Hi")
assert seen("text") == ("client's", "Bearer sk-client")
lm(openai.OpenAI)(request)
assert seen("Request") == ("environment's", "Bearer sk-environment")
asyncio.run(lm(openai.AsyncOpenAI).acall("Hi"))
assert seen("text, async") == ("client's", "Bearer sk-client")
asyncio.run(lm(openai.AsyncOpenAI).acall(request))
assert seen("Request, async") == ("environment's", "Bearer sk-environment")
lm(openai.OpenAI, api_key="unused")("Hi")
assert seen('text, with api_key="unused"') == ("client's", "Bearer sk-client")
lm(openai.OpenAI, api_key="unused")(request)
assert seen('Request, with api_key="unused"') == ("environment's", "Bearer unused")
PYTHON
echo "as described"
