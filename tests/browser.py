"""A real Chromium, which reports what goes wrong in its pages, and this project as it sees it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pytest_django.fixtures import Settings
from pytest_django.live_server_helper import LiveServer

from tests.sandbox_client import PASSWORD, Person, Sandbox

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)

#: Where the pictures of pages go.
ARTIFACTS = Path(__file__).parent.parent / "artifacts"


class Chromium:
    """One browser for all tests of a process: starting it takes longer than most tests of a page.

    Playwright marks its event loop as running in this thread until it is stopped, which would
    disturb the tests without a browser. The mark is there only while `opened_page` is.
    """

    def __init__(self, path: str) -> None:
        # Not at the top: most runs have no test with a browser.
        from playwright.sync_api import sync_playwright

        self.path = path
        with self._marked(None):
            self._playwright = sync_playwright().start()
            self._loop = asyncio.get_running_loop()
            self._launch()

    @contextmanager
    def _marked(self, loop: asyncio.AbstractEventLoop | None) -> Iterator[None]:
        asyncio._set_running_loop(loop)
        try:
            yield
        finally:
            asyncio._set_running_loop(None)

    def _launch(self) -> None:
        self._browser = self._playwright.chromium.launch(
            executable_path=self.path, args=["--no-sandbox", "--disable-background-networking"]
        )

    def stop(self) -> None:
        with self._marked(self._loop):
            self._browser.close()
            self._playwright.stop()

    @contextmanager
    def opened_page(self, problems: list[str]) -> Iterator[Any]:
        """A page with no cookies of other tests. Errors in its console are added to `problems`,
        which must be empty at the end."""
        with self._marked(self._loop):
            if not self._browser.is_connected():
                self._launch()
            page = self._browser.new_page(viewport={"width": 1200, "height": 900})
            page.on("console", lambda message: _note(message, problems))
            page.on("pageerror", lambda error: problems.append(str(error)))
            try:
                yield page
            finally:
                for context in self._browser.contexts:
                    context.close()
        assert problems == []  # a violation of the Content-Security-Policy would be one


def _note(message: Any, problems: list[str]) -> None:
    """An error in the console; that the admin has no icon is Django's way."""
    if message.type == "error" and not message.location["url"].endswith("/favicon.ico"):
        problems.append(message.text)


@contextmanager
def live_site(sandbox: Sandbox, settings: Settings) -> Iterator[str]:
    """This project on a port of its own, registered at the local Quota; its origin.

    To be entered before `opened_page`: Django's connections of a thread with Playwright's loop are
    others.
    """
    live = LiveServer("localhost")
    callback = f"{live.url}/auth/quota/callback"
    app = sandbox.register_app(redirect_uris=[callback], post_logout_redirect_uris=[f"{live.url}/"])
    settings.QUOTA_CLIENT_ID = app["client_id"]
    settings.QUOTA_CLIENT_SECRET = app["client_secret"]
    try:
        yield str(live.url)
    finally:
        live.stop()


def sign_in_at_quota(page: Any, person: Person) -> None:
    """Answer Quota's questions, at which the browser is now."""
    page.get_by_label("E-mail").fill(person.email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Allow").click()


def shot(page: Any, name: str) -> None:
    """A picture of `page`, to look at."""
    ARTIFACTS.mkdir(exist_ok=True)
    page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)
