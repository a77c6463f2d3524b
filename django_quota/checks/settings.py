"""Checks of this package's own settings."""

from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from django_quota import conf
from django_quota.exceptions import ConfigurationError
from django_quota.fields import crypter
from django_quota.tokens.impersonation import project_function
from django_quota.wallet.limits import function_of_project


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Report every QUOTA_* setting that is missing, malformed or unknown."""
    messages: list[CheckMessage] = [
        Error(
            str(error),
            hint=conf.REQUIRED_HELP if name in conf.REQUIRED else None,
            id="django_quota.E001" if conf.is_missing(name) else "django_quota.E002",
        )
        for name, error in conf.problems().items()
    ]
    messages += [
        Warning(
            f"{name} is not a setting of django_quota.",
            hint="Is it misspelt? The settings are listed in docs/settings.rst.",
            id="django_quota.W001",
        )
        for name in conf.unknown_names()
    ]
    return messages


def check_encryption_key(**kwargs: Any) -> list[CheckMessage]:
    """Check FIELD_ENCRYPTION_KEY: without a valid key no token can be stored."""
    try:
        crypter()
    except ConfigurationError as error:
        return [Error(str(error), id="django_quota.E003")]
    return []


def check_impersonation(**kwargs: Any) -> list[CheckMessage]:
    """Check that QUOTA_IMPERSONATION names a function that can be called."""
    if conf.problems():  # check_settings reports them
        return []
    try:
        project_function()
    except ConfigurationError as error:
        return [Error(str(error), id="django_quota.E006")]
    return []


def check_spending_limits(**kwargs: Any) -> list[CheckMessage]:
    """Check that QUOTA_SPENDING_LIMITS can be read, and that a limit for a day can be reached."""
    if conf.problems():
        return []
    try:
        function_of_project()
    except ConfigurationError as error:
        return [Error(str(error), id="django_quota.E008")]
    settings = conf.get_settings()
    if getattr(settings.spending_limits, "user_day", None) and not settings.record_usage:
        return [
            Warning(
                "QUOTA_SPENDING_LIMITS has a limit for a user's day, and QUOTA_RECORD_USAGE is "
                "off: nothing is recorded, so the limit is never reached.",
                hint="Set QUOTA_RECORD_USAGE = True, or record each call with record_usage.",
                id="django_quota.W016",
            )
        ]
    return []
