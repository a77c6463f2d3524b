"""Tools: the sandbox calls them, so that an agent can be tried on it."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from openai import OpenAI

from .client import Sandbox

QUESTION = {"role": "user", "content": "2 + 2?"}
RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "4"}
ADD = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
}


def tool(name: str = "add", parameters: Any = ADD) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


Make = Callable[[Any], Any]


@pytest.fixture
def arguments_for(sandbox: Sandbox, tokens: dict[str, Any]) -> Make:
    """What the sandbox makes up for a tool with these parameters."""

    def make(parameters: Any) -> Any:
        body = {"model": "gpt-4o", "messages": [QUESTION], "tools": [tool(parameters=parameters)]}
        reply = sandbox.post("/v1/chat/completions", tokens["access_token"], json=body).json()
        (call,) = reply["choices"][0]["message"]["tool_calls"]
        return json.loads(call["function"]["arguments"])

    return make


@pytest.fixture
def argument_for(arguments_for: Make) -> Make:
    """The same for a tool that takes one argument of this schema."""

    def make(schema: Any) -> Any:
        properties = {"it": schema, "unit": {"enum": ["metre"]}}
        parameters = {"type": "object", "properties": properties, "required": ["it"]}
        return arguments_for(parameters)["it"]

    return make


@pytest.fixture
def client(sandbox: Sandbox, tokens: dict[str, Any]) -> OpenAI:
    return OpenAI(base_url=f"{sandbox.url}/v1", api_key=tokens["access_token"], max_retries=0)


def ask(client: OpenAI, *messages: Any, **options: Any) -> Any:
    given: dict[str, Any] = {"tools": [tool(), tool("say", None)]} | options
    given["messages"] = list(messages) or [QUESTION]
    return client.chat.completions.create(model="gpt-4o-mini", **given)


class TestChoice:
    @pytest.mark.parametrize(
        ("choice", "name"),
        [
            ("required", "add"),
            ("auto", "add"),
            (None, "add"),
            ({"type": "function", "function": {"name": "say"}}, "say"),
        ],
    )
    def test_that_calls(self, client: OpenAI, choice: Any, name: str) -> None:
        options = {} if choice is None else {"tool_choice": choice}
        reply = ask(client, **options)

        (choice,) = reply.choices
        assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
        (call,) = choice.message.tool_calls
        assert (call.type, call.function.name) == ("function", name)
        assert json.loads(call.function.arguments) == ({"a": 1, "b": 1} if name == "add" else {})
        assert reply.quota["credits_used"] > 0

    @pytest.mark.parametrize(
        ("messages", "choice"),
        [
            ([QUESTION], "none"),
            ([QUESTION, {"role": "assistant", "content": None}, RESULT], "auto"),
        ],
    )
    def test_that_answers_in_words(self, client: OpenAI, messages: Any, choice: str) -> None:
        (found,) = ask(client, *messages, tool_choice=choice).choices
        assert (found.finish_reason, found.message.tool_calls) == ("stop", None)
        assert "2 + 2?" in found.message.content

    def test_of_another_question_calls_again(self, client: OpenAI) -> None:
        (found,) = ask(client, QUESTION, RESULT, QUESTION).choices
        assert found.finish_reason == "tool_calls"

    def test_streamed_costs_the_same(self, client: OpenAI) -> None:
        whole = ask(client)
        chunks = list(ask(client, stream=True))

        deltas = [chunk.choices[0].delta.tool_calls for chunk in chunks]
        calls = [delta[0] for delta in deltas if delta]
        assert {call.index for call in calls} == {0}
        assert (calls[0].id[:5], calls[0].function.name) == ("call_", "add")
        assert json.loads("".join(call.function.arguments for call in calls)) == {"a": 1, "b": 1}
        assert chunks[-1].choices[0].finish_reason == "tool_calls"
        assert chunks[-1].quota["credits_used"] == whole.quota["credits_used"]


class TestArguments:
    @pytest.mark.parametrize(
        ("schema", "value"),
        [
            ({"type": "string"}, "example"),
            ({"type": "string", "minLength": 9}, "examplexx"),
            ({"type": "string", "maxLength": 3}, "exa"),
            ({"type": "string", "format": "date"}, "2026-01-31"),
            ({"type": "integer"}, 1),
            ({"type": "integer", "minimum": 18}, 18),
            ({"type": "integer", "minimum": 0, "maximum": 0}, 0),
            ({"type": "integer", "maximum": -3}, -3),
            ({"type": "number", "minimum": 2.5}, 3),
            ({"type": "integer", "exclusiveMinimum": 4, "exclusiveMaximum": 6}, 5),
            ({"type": "boolean"}, True),
            ({"type": "null"}, None),
            ({"type": ["integer", "null"]}, 1),
            ({"enum": ["celsius", "fahrenheit"]}, "celsius"),
            ({"const": 7}, 7),
            ({"type": "string", "default": "en"}, "en"),
            ({"type": "array", "items": {"type": "integer"}}, [1]),
            ({"type": "array", "items": {"type": "boolean"}, "minItems": 2}, [True, True]),
            ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, 1),
            ({"allOf": [{"type": "integer"}, {"minimum": 5}]}, 5),
            (ADD, {"a": 1, "b": 1}),
            ({"$ref": "#/properties/unit"}, "metre"),
        ],
    )
    def test_fit_their_schema(self, argument_for: Make, schema: Any, value: Any) -> None:
        found = argument_for(schema)
        assert (found, type(found)) == (value, type(value))

    def test_that_need_not_be_there_are_made_up_where_none_must(self, arguments_for: Make) -> None:
        assert arguments_for({"properties": {"a": {"type": "integer"}}}) == {"a": 1}

    def test_of_a_schema_in_a_circle_end(self, arguments_for: Make) -> None:
        node = {"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}
        assert json.dumps(arguments_for(node)).count("next") < 10

    @pytest.mark.parametrize(
        "schema",
        [
            {"type": "cheese"},
            {"type": []},
            {"type": 7},
            {"$ref": "#/nowhere"},
            {"$ref": "https://example.com/schema"},
            {"enum": []},
            {"anyOf": [7]},
            {"type": "integer", "minimum": "x"},
            {"type": "string", "minLength": 10**9},
            {"type": "array", "minItems": 10**9, "items": {"type": "null"}},
            {"type": "object", "properties": 7, "required": 7},
            {"type": "object", "required": [7, "x", {}]},
        ],
    )
    def test_of_a_schema_that_is_none_are_made_up_all_the_same(
        self, argument_for: Make, schema: Any
    ) -> None:
        assert len(json.dumps(argument_for(schema))) < 2_000


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": []},
        {"tools": {}},
        {"tools": [7]},
        {"tools": [{"type": "function"}]},
        {"tools": [tool("no spaces")]},
        {"tools": [tool(parameters=7)]},
        {"tools": [tool()] * 129},
        {"tools": [tool()], "tool_choice": "always"},
        {"tools": [tool()], "tool_choice": 7},
        {"tools": [tool()], "tool_choice": {"function": {"name": "other"}}},
        {"tool_choice": "required"},
    ],
)
def test_requests_that_are_refused(
    sandbox: Sandbox, tokens: dict[str, Any], changes: dict[str, Any]
) -> None:
    body = {"model": "gpt-4o-mini", "messages": [QUESTION]} | changes
    reply = sandbox.post("/v1/chat/completions", tokens["access_token"], json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")
