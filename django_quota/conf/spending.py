"""The values of QUOTA_SPENDING_LIMITS."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from django_quota.exceptions import ConfigurationError

from . import values
from .functions import is_plain_function

#: What a function in QUOTA_SPENDING_LIMITS does.
TASK = "takes a user and returns the limits of their calls"


@dataclass(frozen=True, kw_only=True)
class SpendingLimits:
    """What AI calls may spend of one wallet, in credits; None is no limit."""

    #: In one HTTP request.
    request: int | None = None
    #: In one day.
    user_day: int | None = None


#: A function of the project decides for each user.
LimitsOfUser = Callable[[Any], Any]
#: A str is the dotted path of such a function.
LimitsSetting = SpendingLimits | LimitsOfUser | str | None
_NAMES = [field.name for field in fields(SpendingLimits)]


def spending_limits(name: str, value: Any) -> LimitsSetting:
    """Limits, a function that returns them, its dotted path, or None for no limits."""
    if isinstance(value, str):
        return values.optional_path(name, value)
    return value if is_plain_function(value) else read_limits(name, value)


def read_limits(name: str, value: Any) -> SpendingLimits | None:
    """Limits, from a dict such as {"user_day": 500_000}; None for None.

    Raises ConfigurationError for other keys, and for what is not a whole number above 0.
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            f"{name} must be a dict such as {{'user_day': 500_000}}, or a function (def, not async "
            f"def) that {TASK}."
        )
    for key, credits in value.items():
        if key == "call":
            raise ConfigurationError(
                f"{name} cannot have the key 'call': Quota reports the price of a call at its end. "
                "Limit the length of its answer with max_tokens."
            )
        if key not in _NAMES:
            raise ConfigurationError(f"{name} has the unknown key {key!r}; it knows {_NAMES}.")
        if not is_limit(credits):
            raise ConfigurationError(
                f"{name}[{key!r}] must be a whole number of credits above 0 (1,000,000 are $1.00)."
            )
    return SpendingLimits(**value)


def is_limit(credits: Any) -> bool:
    """Return True if `credits` is a whole number above 0, and no bool."""
    return type(credits) is int and 0 < credits < 1 << 62
