"""Calls of the tools that a chat request offers, with made-up arguments that fit their schema."""

from __future__ import annotations

import json
import math
import re
import uuid
from dataclasses import dataclass
from typing import Any

from .api import bad_request

__all__ = ["ToolCall", "chosen_call"]

MAX_TOOLS = 128
#: A schema may refer to itself: below this only what must be there is made up.
MAX_DEPTH = 8
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_OF_FORMAT = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "8c5f3f0e-7a4e-4b57-9c7e-0d6f0f5b1c11",
}


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One call of a tool, as the model would ask for it; `arguments` is JSON."""

    id: str
    name: str
    arguments: str

    def as_message(self) -> dict[str, Any]:
        """Return it as a member of a message's ``tool_calls``."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


def chosen_call(data: dict[str, Any]) -> ToolCall | None:
    """Return the call that answers a chat request, None for an answer in words.

    With ``tool_choice`` "required", or naming a tool, there always is one. With "auto", OpenAI's
    default, the first tool is called once for each question: the results are answered in words.
    Raises a 400.
    """
    tools = _read_tools(data.get("tools"))
    choice = data.get("tool_choice")
    if choice is None:
        choice = "auto" if tools else "none"
    name = _named(choice)
    if name is None and choice not in ("none", "auto", "required"):
        raise bad_request('tool_choice must be "none", "auto", "required", or name a function.')
    if choice in ("none", "auto") and (choice == "none" or not tools or _has_result(data)):
        return None
    name = next(iter(tools), "") if name is None else name
    if name not in tools:
        raise bad_request("tool_choice asks for a tool that is not in tools.")
    arguments = json.dumps(_example(tools[name], tools[name], 0))
    return ToolCall(id=f"call_{uuid.uuid4().hex[:24]}", name=name, arguments=arguments)


def _read_tools(tools: Any) -> dict[str, Any]:
    """Return the schema of each tool's arguments, by its name. Raises a 400."""
    if tools is None:
        return {}
    if not isinstance(tools, list) or not 1 <= len(tools) <= MAX_TOOLS:
        raise bad_request(f"tools must be a list of 1 to {MAX_TOOLS} tools.")
    found = {}
    for position, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict):
            function = {}
        name = function.get("name")
        if not isinstance(name, str) or not TOOL_NAME.fullmatch(name):
            raise bad_request(
                f"tools[{position}] must be a function with a name.",
                "Letters, digits, _ and -, 64 at most.",
            )
        schema = function.get("parameters")
        if not isinstance(schema, dict | None):
            raise bad_request(f"tools[{position}].function.parameters must be a JSON Schema.")
        found[name] = schema or {"type": "object"}
    return found


def _named(choice: Any) -> str | None:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _has_result(data: dict[str, Any]) -> bool:
    """Has a tool answered since the person has said something?"""
    roles = [message["role"] for message in data["messages"]]
    return "tool" in roles[len(roles) - roles[::-1].index("user") if "user" in roles else 0 :]


def _example(schema: Any, root: dict[str, Any], depth: int) -> Any:
    """Return a value that fits a JSON Schema, as far as tools use one."""
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return _example(_resolved(reference, root), root, depth + 1)
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    for given in ("enum", "examples"):
        if isinstance(values := schema.get(given), list) and values:
            return values[0]
    for several in ("anyOf", "oneOf", "allOf"):
        if isinstance(values := schema.get(several), list) and values:
            merged = {n: v for n, v in schema.items() if n != several}
            parts = values if several == "allOf" else values[:1]
            for part in parts:
                merged |= part if isinstance(part, dict) else {}
            return _example(merged, root, depth + 1)
    return _of_type(schema, root, depth)


def _of_type(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):  # such as ["string", "null"]
        kind = kind[0] if kind else "null"
    if kind == "object":
        return _object(schema, root, depth)
    if kind == "array":
        count = max(_number(schema, "minItems"), 1 if depth < MAX_DEPTH // 2 else 0)
        return [_example(schema.get("items"), root, depth + 1) for _ in range(min(count, 100))]
    if kind in ("integer", "number"):
        return _in_range(schema)
    if kind == "boolean":
        return True
    if kind == "string":
        return _string(schema)
    return None


def _in_range(schema: dict[str, Any]) -> int:
    """Return a whole number, which is one of both kinds."""
    least, most = _number(schema, "minimum", -math.inf), _number(schema, "maximum", math.inf)
    least = max(least, _number(schema, "exclusiveMinimum", -math.inf) + 1)
    most = min(most, _number(schema, "exclusiveMaximum", math.inf) - 1)
    value: float = max(1, least) if most >= 1 else max(most, least)
    return math.ceil(value)


def _object(schema: dict[str, Any], root: dict[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    required = schema.get("required")
    names = [name for name in properties if isinstance(required, list) and name in required]
    if not names and depth == 0:
        names = [*properties]
    return {name: _example(properties[name], root, depth + 1) for name in names}


def _string(schema: dict[str, Any]) -> str:
    text = _OF_FORMAT.get(str(schema.get("format")), "example")
    least, most = int(_number(schema, "minLength")), int(_number(schema, "maxLength", 1_000))
    return text.ljust(min(least, 1_000), "x")[: max(most, 0)]


def _number(schema: dict[str, Any], name: str, otherwise: float = 0) -> Any:
    value: Any = schema.get(name)
    return value if type(value) in (int, float) and math.isfinite(value) else otherwise


def _resolved(reference: str, root: dict[str, Any]) -> Any:
    """Return what a reference such as ``#/$defs/Point`` points at (RFC 6901)."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    return found
