"""Functions of the project that a setting names."""

from collections.abc import Callable
from inspect import iscoroutinefunction
from typing import Any

from django.utils.module_loading import import_string

from django_quota.exceptions import ConfigurationError


def import_function(name: str, path: str, task: str) -> Callable[..., Any]:
    """Return the function at the dotted `path`, the value of the setting `name`.

    `task` says what such a function does. Raises ConfigurationError if there is no plain function.
    """
    try:
        function = import_string(path)
    except ImportError as error:
        raise ConfigurationError(
            f"{name} is {path!r}, which cannot be imported: {error}"
        ) from error
    if not is_plain_function(function):
        raise ConfigurationError(
            f"{name} is {path!r}, which must be a function (def, not async def) that {task}."
        )
    return function  # type: ignore[no-any-return]


def is_plain_function(value: Any) -> bool:
    """Return True if `value` can be called and is no coroutine function."""
    return callable(value) and not iscoroutinefunction(value)
