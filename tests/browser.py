"""A real Chromium, which reports what goes wrong in its pages."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)


@contextmanager
def opened_page(problems: list[str]) -> Iterator[Any]:
    """A page in it; what its console complains of goes into `problems`, which end empty."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-background-networking"]
        )
        page = browser.new_page(viewport={"width": 1200, "height": 900})
        page.on("console", lambda message: _note(message, problems))
        page.on("pageerror", lambda error: problems.append(str(error)))
        yield page
        browser.close()
    assert problems == []  # a violation of the Content-Security-Policy would be one


def _note(message: Any, problems: list[str]) -> None:
    """An error in the console; that the admin has no icon is Django's way."""
    if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
        problems.append(message.text)
