"""Tool calls: the choice of the tool and its example arguments."""

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


def make_tool(name: str = "add", parameters: Any = ADD) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


GetArguments = Callable[[Any], Any]


@pytest.fixture
def arguments_for(sandbox: Sandbox, tokens: dict[str, Any]) -> GetArguments:
    """A function that returns the sandbox's arguments for a tool with given parameters."""

    def get(parameters: Any) -> Any:
        body = {
            "model": "gpt-4o",
            "messages": [QUESTION],
            "tools": [make_tool(parameters=parameters)],
        }
        reply = sandbox.post("/v1/chat/completions", tokens["access_token"], json=body).json()
        (call,) = reply["choices"][0]["message"]["tool_calls"]
        return json.loads(call["function"]["arguments"])

    return get


@pytest.fixture
def argument_for(arguments_for: GetArguments) -> GetArguments:
    """A function that returns the sandbox's argument for a given schema."""

    def get(schema: Any) -> Any:
        properties = {"value": schema, "unit": {"enum": ["metre"]}}
        parameters = {"type": "object", "properties": properties, "required": ["value"]}
        return arguments_for(parameters)["value"]

    return get


@pytest.fixture
def client(sandbox: Sandbox, tokens: dict[str, Any]) -> OpenAI:
    return OpenAI(base_url=f"{sandbox.url}/v1", api_key=tokens["access_token"], max_retries=0)


def request_chat(client: OpenAI, *messages: Any, **options: Any) -> Any:
    body: dict[str, Any] = {"tools": [make_tool(), make_tool("say", None)]} | options
    body["messages"] = list(messages) or [QUESTION]
    return client.chat.completions.create(model="gpt-4o-mini", **body)


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
    def test_answer_is_a_tool_call(self, client: OpenAI, choice: Any, name: str) -> None:
        options = {} if choice is None else {"tool_choice": choice}
        reply = request_chat(client, **options)

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
    def test_answer_is_text(self, client: OpenAI, messages: Any, choice: str) -> None:
        (answer,) = request_chat(client, *messages, tool_choice=choice).choices
        assert (answer.finish_reason, answer.message.tool_calls) == ("stop", None)
        assert "2 + 2?" in answer.message.content

    def test_next_question_is_answered_with_a_call(self, client: OpenAI) -> None:
        (answer,) = request_chat(client, QUESTION, RESULT, QUESTION).choices
        assert answer.finish_reason == "tool_calls"

    def test_streamed_call_costs_the_same(self, client: OpenAI) -> None:
        whole = request_chat(client)
        chunks = list(request_chat(client, stream=True))

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
    def test_argument_is_valid_for_its_schema(
        self, argument_for: GetArguments, schema: Any, value: Any
    ) -> None:
        found = argument_for(schema)
        assert (found, type(found)) == (value, type(value))

    def test_optional_arguments_are_given_if_none_is_required(
        self, arguments_for: GetArguments
    ) -> None:
        assert arguments_for({"properties": {"a": {"type": "integer"}}}) == {"a": 1}

    def test_recursive_schema_has_a_finite_example(self, arguments_for: GetArguments) -> None:
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
            {"type": "array", "minItems": 1.5, "items": {"type": "null"}},
            {"type": "object", "properties": 7, "required": 7},
            {"type": "object", "required": [7, "x", {}]},
        ],
    )
    def test_invalid_schema_has_an_example(self, argument_for: GetArguments, schema: Any) -> None:
        assert len(json.dumps(argument_for(schema))) < 2_000


@pytest.mark.parametrize(
    "changes",
    [
        {"tools": []},
        {"tools": {}},
        {"tools": [7]},
        {"tools": [{"type": "function"}]},
        {"tools": [make_tool("no spaces")]},
        {"tools": [make_tool(parameters=7)]},
        {"tools": [make_tool()] * 129},
        {"tools": [make_tool()], "tool_choice": "always"},
        {"tools": [make_tool()], "tool_choice": 7},
        {"tools": [make_tool()], "tool_choice": {"function": {"name": "other"}}},
        {"tool_choice": "required"},
    ],
)
def test_invalid_tools_return_400(
    sandbox: Sandbox, tokens: dict[str, Any], changes: dict[str, Any]
) -> None:
    body = {"model": "gpt-4o-mini", "messages": [QUESTION]} | changes
    reply = sandbox.post("/v1/chat/completions", tokens["access_token"], json=body)
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_request")
