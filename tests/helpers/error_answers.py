"""What a project's page or API answers to each error of the package, as the README says."""

import logging

import pytest

#: Class of the error, HTTP status, what the JSON has besides the code and the words.
ANSWERS: list[tuple[str, int, dict[str, str]]] = [
    ("NotConnected", 401, {"login_url": "/auth/quota/connect"}),
    ("ReauthenticationRequired", 401, {"login_url": "/auth/quota/connect"}),
    ("InsufficientCredits", 402, {"topup_url": "/auth/quota/packages"}),
    ("InsufficientScope", 403, {"login_url": "/auth/quota/connect"}),
    ("SpendingLimitReached", 402, {}),
    ("RateLimited", 429, {}),
    ("ProviderUnavailable", 503, {}),
    ("RefreshImpossibleHere", 503, {}),
    ("TokenUnreadable", 502, {}),
]


def mailed(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What Django's own settings for logging mail to ADMINS, in production."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.split(".")[0] == "django" and record.levelno >= logging.ERROR
    ]
