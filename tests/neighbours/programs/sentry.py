"""Runs the failing journeys of tests/test_secrets.py; what a tracker is told goes nowhere."""

import json
import re
import sys
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport

from tests.shown import SECRET


class Kept(Transport):  # type: ignore[misc]
    """What the SDK would send."""

    def __init__(self, options: Any = None) -> None:
        super().__init__(options)
        self.texts: list[str] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        self.texts.append(envelope.serialize().decode())


class Reporting:
    """Has the SDK report each error that a test of `test_secrets` looks at."""

    def __init__(self) -> None:
        self.journeys: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        module = sys.modules["tests.test_secrets"]
        real = module.report_of

        def report_of(error: Exception) -> str:
            assert error.__traceback__ is not None
            sentry_sdk.capture_exception(error.with_traceback(error.__traceback__.tb_next))
            text: str = real(error)
            return text

        module.report_of = report_of

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.journeys.append(report.nodeid)


def main() -> None:
    kept, reporting = Kept(), Reporting()
    sentry_sdk.init(
        dsn="https://key@sentry.example/1",
        transport=kept,
        attach_stacktrace=True,
        include_source_context=False,
        max_request_body_size="always",
        max_value_length=100_000,
        send_default_pii=True,
        traces_sample_rate=1.0,
    )
    chosen = ["-q", "-p", "no:randomly", "-m", "", "-k", "error_page", "tests/test_secrets.py"]
    # The SDK has imported a plugin of pytest already.
    quiet = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    status = pytest.main([*chosen, *quiet], plugins=[reporting])
    sentry_sdk.flush()
    found = [
        text[max(0, match.start() - 300) : match.end() + 40]
        for text in kept.texts
        for match in re.finditer(SECRET, text)
    ]
    print()
    print(
        json.dumps(
            {
                "status": int(status),
                "journeys": len(reporting.journeys),
                "errors": sum('"exception"' in text for text in kept.texts),
                "variables": sum('"vars"' in text for text in kept.texts),
                "found": found,
            }
        )
    )


main()
