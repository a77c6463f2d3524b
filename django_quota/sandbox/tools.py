"""Tool calls: reads the tools of a chat request and chooses the one to call."""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any

from .api import bad_request
from .json_schema import make_example

__all__ = ["ToolCall", "choose_tool_call"]

MAX_TOOLS = 128
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """A tool call, as a model would request it. ``arguments`` is a JSON string."""

    id: str
    name: str
    arguments: str

    def as_message(self) -> dict[str, Any]:
        """Return the call as an item of ``tool_calls``, in OpenAI's format."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


def choose_tool_call(data: dict[str, Any]) -> ToolCall | None:
    """Return the tool call to answer a chat request with, or None to answer with text.

    If ``tool_choice`` is "required" or names a tool, the answer is always a call. If it is "auto",
    OpenAI's default, the first tool is called once for each question, and the request that brings
    its result is answered with text. Raises a 400.
    """
    tools = _read_tools(data.get("tools"))
    choice = data.get("tool_choice")
    if choice is None:
        choice = "auto" if tools else "none"
    name = _read_function_name(choice)
    if name is None and choice not in ("none", "auto", "required"):
        raise bad_request('tool_choice must be "none", "auto", "required", or name a function.')
    if choice in ("none", "auto") and (choice == "none" or not tools or _has_result(data)):
        return None
    name = next(iter(tools), "") if name is None else name
    if name not in tools:
        raise bad_request("tool_choice asks for a tool that is not in tools.")
    arguments = json.dumps(make_example(tools[name]))
    return ToolCall(id=f"call_{uuid.uuid4().hex[:24]}", name=name, arguments=arguments)


def _read_tools(tools: Any) -> dict[str, Any]:
    """Return the JSON Schema of each tool's arguments, by tool name. Raises a 400."""
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


def _read_function_name(choice: Any) -> str | None:
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else None


def _has_result(data: dict[str, Any]) -> bool:
    """Return True if a tool result follows the last message of the user."""
    for message in reversed(data["messages"]):
        if message["role"] in ("tool", "user"):
            return bool(message["role"] == "tool")
    return False
