"""Example values for JSON Schemas: the arguments of the sandbox's tool calls."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["make_example"]

#: A schema can refer to itself. At this depth the example ends.
MAX_DEPTH = 8
MAX_ARRAY_ITEMS = 100
MAX_STRING_LENGTH = 1_000
EXAMPLES_BY_FORMAT = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "ada@example.com",
    "uri": "https://example.com/",
    "uuid": "8c5f3f0e-7a4e-4b57-9c7e-0d6f0f5b1c11",
}


def make_example(schema: Any) -> Any:
    """Return a value that is valid for a JSON Schema.

    Supports the keywords that tools commonly use and ignores the rest. For an invalid schema,
    returns some value instead of raising an error.
    """
    return _example(schema, schema, 0)


def _example(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth > MAX_DEPTH:
        return None
    if isinstance(reference := schema.get("$ref"), str):
        return _example(_resolve_reference(reference, root), root, depth + 1)
    for keyword in ("const", "default"):
        if keyword in schema:
            return schema[keyword]
    for keyword in ("enum", "examples"):
        if isinstance(values := schema.get(keyword), list) and values:
            return values[0]
    for keyword in ("anyOf", "oneOf", "allOf"):
        if isinstance(schemas := schema.get(keyword), list) and schemas:
            merged = {name: value for name, value in schema.items() if name != keyword}
            for part in schemas if keyword == "allOf" else schemas[:1]:
                merged |= part if isinstance(part, dict) else {}
            return _example(merged, root, depth + 1)
    return _example_of_type(schema, root, depth)


def _example_of_type(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):  # such as ["string", "null"]
        kind = kind[0] if kind else "null"
    if kind == "object":
        return _example_object(schema, root, depth)
    if kind == "array":
        # Deeply nested arrays are empty unless minItems forbids it, to keep examples small.
        least = max(math.ceil(_read_number(schema, "minItems")), 1 if depth < MAX_DEPTH // 2 else 0)
        count = min(least, MAX_ARRAY_ITEMS)
        return [_example(schema.get("items"), root, depth + 1) for _ in range(count)]
    if kind in ("integer", "number"):
        return _example_integer(schema)
    if kind == "boolean":
        return True
    if kind == "string":
        return _example_string(schema)
    return None


def _example_integer(schema: dict[str, Any]) -> int:
    """Return an integer, which is valid for both ``integer`` and ``number``."""
    least = max(
        _read_number(schema, "minimum", -math.inf),
        _read_number(schema, "exclusiveMinimum", -math.inf) + 1,
    )
    most = min(
        _read_number(schema, "maximum", math.inf),
        _read_number(schema, "exclusiveMaximum", math.inf) - 1,
    )
    value: float = max(1, least) if most >= 1 else max(most, least)
    return math.ceil(value)


def _example_object(schema: dict[str, Any], root: dict[str, Any], depth: int) -> dict[str, Any]:
    properties = schema.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    required = schema.get("required")
    names = [name for name in properties if isinstance(required, list) and name in required]
    if not names and depth == 0:
        names = [*properties]
    return {name: _example(properties[name], root, depth + 1) for name in names}


def _example_string(schema: dict[str, Any]) -> str:
    text = EXAMPLES_BY_FORMAT.get(str(schema.get("format")), "example")
    least = int(_read_number(schema, "minLength"))
    most = int(_read_number(schema, "maxLength", MAX_STRING_LENGTH))
    return text.ljust(min(least, MAX_STRING_LENGTH), "x")[: max(most, 0)]


def _read_number(schema: dict[str, Any], name: str, default: float = 0) -> Any:
    value: Any = schema.get(name)
    return value if type(value) in (int, float) and math.isfinite(value) else default


def _resolve_reference(reference: str, root: dict[str, Any]) -> Any:
    """Return the schema at a JSON Pointer (RFC 6901) such as ``#/$defs/Point``."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        found = found.get(part) if isinstance(found, dict) else None
    return found
