"""Caches that projects really have, and that are poorer than Django's own for tests."""

import json
from typing import Any

from django.core.cache.backends.locmem import LocMemCache


class PlainValuesOnly(LocMemCache):
    """Serializes to JSON, as some Redis set-ups do, where pickle is not allowed."""

    def set(self, key: Any, value: Any, *args: Any, **kwargs: Any) -> None:
        super().set(key, json.dumps(value), *args, **kwargs)

    def get(self, key: Any, default: Any = None, version: Any = None) -> Any:
        found = super().get(key, default, version)
        return json.loads(found) if isinstance(found, str) else found


class Hidden(LocMemCache):
    """One that is down and does not say so, as with IGNORE_EXCEPTIONS."""

    def add(self, *args: Any, **kwargs: Any) -> Any:
        return None

    get = add


class Down(LocMemCache):
    """A cache server that cannot be reached."""

    def get(self, *args: Any, **kwargs: Any) -> Any:
        raise ConnectionError("down")

    add = set = delete = get
