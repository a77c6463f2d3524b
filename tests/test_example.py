"""The example project, as a person meets it: the demo, real Chromium, the production profile.

Screenshots of each page are kept in `artifacts/`.
"""

import importlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from itertools import product
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from django_quota.sandbox.pricing import PRICES
from tests.browser import Chromium, shot
from tests.helpers.concurrency import wait_until
from tests.helpers.programs import GIVE_UP_AFTER, free_port

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "tools" / "demo" / "demo.py"
MANAGE = ROOT / "example_project" / "manage.py"
ARTIFACTS = ROOT / "artifacts"
PASSWORD = "quota-demo"
WIDER = "document.documentElement.scrollWidth > document.documentElement.clientWidth"


def environment() -> dict[str, str]:
    """A newcomer's: without the settings module of these tests."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("DJANGO_", "QUOTA_"))}
    return inherited | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


class Demo:
    """`tox -e demo`, on ports of its own."""

    def __init__(self, data: Path) -> None:
        self.ports = [free_port(), free_port()]
        self.data = data
        self.url = f"http://localhost:{self.ports[0]}"
        self.quota_url = f"http://127.0.0.1:{self.ports[1]}"

    def command(self, *options: str) -> list[str]:
        port, quota_port = map(str, self.ports)
        where = ["--port", port, "--quota-port", quota_port, "--data-dir", str(self.data)]
        return [sys.executable, str(DEMO), *where, *options]

    @contextmanager
    def running(self) -> Iterator[None]:
        """The demo, until Ctrl-C stops both of its servers."""
        process = subprocess.Popen(
            self.command(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        assert process.stdout is not None
        with process.stdout:
            self.banner = ""
            for line in process.stdout:
                self.banner += line
                if "Ctrl-C" in line:
                    break
            else:
                raise AssertionError(f"the demo has ended: {self.banner}")
            try:
                yield
            finally:
                process.send_signal(signal.SIGINT)
                assert process.wait(30) == 0
        for port in self.ports:
            with pytest.raises(OSError):  # both have stopped
                socket.create_connection(("127.0.0.1", port), timeout=1)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    demo = Demo(tmp_path_factory.mktemp("demo"))
    with demo.running():
        set_knobs(demo)
        yield demo


@pytest.fixture
def problems() -> list[str]:
    """What the browser's console complains of."""
    return []


@pytest.fixture
def page(chromium: Chromium, demo: Demo, problems: list[str]) -> Iterator[Any]:
    with chromium.opened_page(problems) as page:
        yield page


def sign_in(page: Any, demo: Demo, email: str) -> None:
    page.goto(demo.url)
    page.get_by_role("main").get_by_role("link", name="Sign in with Quota").click()
    page.wait_for_url(re.compile(re.escape(demo.quota_url)))
    if page.get_by_label("Password").count():
        page.get_by_label("E-mail").fill(email)
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Sign in").click()


def credits_shown(page: Any) -> int:
    exact = page.locator("header [data-quota-balance]").first.get_attribute("title")
    return int(Decimal(exact.replace("$", "").replace(",", "")) * 1_000_000)


def ask(page: Any, question: str) -> int:
    """Ask, and wait for the whole answer. Return its cost in credits."""
    answers = page.locator("[data-log] .exchange")
    before = answers.count()
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask").click()
    cost = answers.nth(before).locator("[data-cost] data")
    cost.wait_for()
    return int(cost.get_attribute("value"))


@contextmanager
def knobs(demo: Demo, **values: Any) -> Iterator[None]:
    """Quota behaves otherwise for a while."""
    set_knobs(demo, **values)
    try:
        yield
    finally:
        set_knobs(demo)


def set_knobs(demo: Any, **values: Any) -> None:
    """Set these settings of Quota, and the others to their defaults, with answers at once."""
    settings = f"{demo.quota_url}/sandbox/settings"
    requests.post(f"{settings}/reset", timeout=30).raise_for_status()
    values = {"stream_delay": 0} | values
    requests.patch(settings, json=values, timeout=30).raise_for_status()


def balance_at_quota(demo: Demo, name: str) -> int:
    users = requests.get(f"{demo.quota_url}/sandbox/users", timeout=30).json()["users"]
    return int(next(user["balance"] for user in users if user["name"] == name))


def save_person(demo: Demo, person: dict[str, Any]) -> None:
    """Add this person at Quota, or change what is known there."""
    reply = requests.post(f"{demo.quota_url}/sandbox/users", json=person, timeout=30)
    reply.raise_for_status()


def sign_in_as_new(page: Any, demo: Demo, name: str) -> None:
    """Somebody with a dollar, at the chat."""
    person = {"email": f"{name}@example.com", "name": name, "password": PASSWORD}
    save_person(demo, person | {"balance": 1_000_000})
    sign_in(page, demo, person["email"])
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url(f"{demo.url}/")
    page.goto(f"{demo.url}/chat")


@pytest.mark.tool
def test_the_banner_tells_all_that_is_needed(demo: Demo) -> None:
    for needed in (demo.url, demo.quota_url, "ada@example.com", PASSWORD, "admin", "Ctrl-C"):
        assert needed in demo.banner


@pytest.mark.browser
def test_the_journey_in_a_browser(page: Any, demo: Demo) -> None:
    page.goto(demo.url)
    shot(page, "1-signed-out")

    sign_in(page, demo, "ada@example.com")
    page.get_by_role("button", name="Allow").wait_for()
    consent = page.get_by_role("main").inner_text()
    assert "Inkwell" in consent
    assert "balance" in consent and "Spend" in consent
    shot(page, "2-consent")
    page.get_by_role("button", name="Allow").click()

    page.wait_for_url(f"{demo.url}/")
    assert "Ada Lovelace" in page.get_by_role("main").inner_text()
    picture = page.get_by_role("main").locator("img").first
    assert picture.evaluate("img => img.complete && img.naturalWidth > 0")
    assert page.locator("header [data-quota-balance]").inner_text() == "$1.00"
    shot(page, "3-signed-in")

    page.get_by_role("link", name="Chat", exact=True).click()
    before = credits_shown(page)
    cost = ask(page, "Why is the sky blue?")
    shot(page, "4-chat")
    assert credits_shown(page) == before - cost
    page.reload()
    assert credits_shown(page) == before - cost

    before = credits_shown(page)
    page.get_by_role("banner").get_by_role("link", name="Buy credits").click()
    page.get_by_role("button", name="$5.00").wait_for()
    shot(page, "5-buy-credits")
    page.get_by_role("button", name="$5.00").click()
    page.get_by_role("button", name="Pay").wait_for()
    shot(page, "6-payment")
    page.get_by_role("button", name="Pay").click()
    page.wait_for_url(re.compile(re.escape(demo.url)))
    assert credits_shown(page) == before + 5_000_000

    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("main").get_by_role("link", name="Sign in with Quota").wait_for()
    assert page.locator("[data-quota-balance]").count() == 0
    page.get_by_role("main").get_by_role("link", name="Sign in with Quota").click()
    page.get_by_label("Password").wait_for()  # Quota asks again


@pytest.mark.browser
def test_cancelling_at_consent_comes_back_with_a_sentence(page: Any, demo: Demo) -> None:
    sign_in(page, demo, "grace@example.com")
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_url(re.compile("quota_error=access_denied"))
    assert "You cancelled the sign-in" in page.get_by_role("main").inner_text()
    shot(page, "7-cancelled")
    page.get_by_role("link", name="Try again").click()
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url(f"{demo.url}/")
    assert "Grace Hopper" in page.get_by_role("main").inner_text()


@pytest.mark.browser
def test_an_empty_wallet_leads_to_buying(page: Any, demo: Demo, problems: list[str]) -> None:
    sign_in(page, demo, "bob@example.com")
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url(f"{demo.url}/")
    page.goto(f"{demo.url}/chat")
    page.get_by_label("Your question").fill("Hello")
    page.get_by_role("button", name="Ask").click()
    link = page.get_by_role("main").get_by_role("link", name="Buy credits")
    link.wait_for()
    assert "Your credits do not cover this." in page.get_by_role("main").inner_text()
    shot(page, "8-out-of-credits")
    problems.clear()  # the browser notes the 402

    link.click()
    page.get_by_role("button", name="$5.00").click()
    page.get_by_role("button", name="Pay").click()
    page.wait_for_url(f"{demo.url}/chat")  # back where the question was asked
    page.get_by_label("Your question").fill("Hello again")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("This answer cost").wait_for()

    page.get_by_role("link", name="Usage").click()
    page.get_by_role("heading", name="Last calls").wait_for()
    assert page.get_by_role("banner").get_by_role("link", name="Chat").is_visible()  # our frame
    shot(page, "8-usage")


@pytest.mark.browser
def test_running_out_of_credits_in_the_middle_of_a_chat(
    page: Any, demo: Demo, problems: list[str]
) -> None:
    """One answer, then none; buying, and going on; and a banner that has said so before."""
    person = {"email": "cy@example.com", "name": "Cy", "password": PASSWORD, "balance": 12_000}
    save_person(demo, person)
    sign_in(page, demo, "cy@example.com")
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url(f"{demo.url}/")
    assert "Your credits are running low." in page.inner_text("body")
    shot(page, "8-low-balance")
    page.goto(f"{demo.url}/chat")
    page.get_by_label("Your question").fill("One")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("This answer cost").wait_for()
    assert page.locator("header .quota-balance__low").inner_text() == "low"  # still
    person["balance"] = 9_000
    save_person(demo, person)
    page.get_by_label("Your question").fill("Two")
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("Your credits do not cover this.").wait_for()
    assert page.get_by_label("Your question").input_value() == "Two"  # nothing is typed again
    assert page.get_by_text("This answer cost").count() == 1
    # The balance that was wrong is asked for.
    page.locator("header [data-quota-balance]", has_text="$0.0090 low").wait_for()
    problems.clear()  # the browser notes the 402

    page.get_by_role("main").get_by_role("link", name="Buy credits").click()
    assert "$0.0090" in page.get_by_role("main").inner_text()
    page.get_by_role("button", name="$5.00").click()
    page.get_by_role("button", name="Pay").click()
    page.wait_for_url(f"{demo.url}/chat")  # back where they were, with what they had asked
    assert page.get_by_label("Your question").input_value() == "Two"
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("This answer cost").nth(1).wait_for()
    assert credits_shown(page) > 4_900_000
    page.reload()
    assert page.get_by_label("Your question").input_value() == ""


@pytest.mark.browser
def test_an_answer_that_breaks_off(page: Any, demo: Demo, problems: list[str]) -> None:
    """What has arrived stays, and a sentence says what has happened; then all goes on."""
    sign_in(page, demo, "grace@example.com")
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url(f"{demo.url}/")
    page.goto(f"{demo.url}/chat")
    with knobs(demo, stream_breaks_after=3):
        page.get_by_label("Your question").fill("Why is the sky blue?")
        page.get_by_role("button", name="Ask").click()
        page.get_by_text("The answer broke off before its end. Please ask again.").wait_for()
        page.get_by_text("This answer ended early.").wait_for()
    assert page.locator("[data-log] [data-answer]").inner_text().startswith("Good question.")
    assert page.get_by_label("Your question").input_value() == "Why is the sky blue?"
    shot(page, "8-broken-off")

    page.get_by_role("button", name="Ask").click()
    page.get_by_text("This answer cost").wait_for()


@pytest.mark.browser
def test_conversation_is_sent_along_and_kept_until_a_new_one(page: Any, demo: Demo) -> None:
    sign_in_as_new(page, demo, "dora")
    first = ask(page, "One")
    second = ask(page, "One")
    assert second > first  # the first exchange is part of its prompt
    page.reload()
    assert page.locator("[data-log] .exchange").count() == 2
    for number in range(5):
        ask(page, f"Again {number}")
    page.reload()
    assert page.locator("[data-log] .exchange").count() == 6

    page.get_by_role("button", name="New conversation").click()
    page.wait_for_url(f"{demo.url}/chat")
    assert page.locator("[data-log] .exchange").count() == 0
    assert ask(page, "One") == first


@pytest.mark.browser
def test_model_and_length_are_chosen(page: Any, demo: Demo) -> None:
    sign_in_as_new(page, demo, "edgar")
    model, length = page.get_by_label("Model"), page.get_by_label("Length")
    assert model.locator("option").all_inner_texts() == list(PRICES)
    assert (model.input_value(), length.input_value()) == ("gpt-4o-mini", "500")

    cheap = ask(page, "One")
    page.get_by_role("button", name="New conversation").click()
    model.select_option("gpt-4o")
    length.select_option("Short")
    assert ask(page, "One") > cheap
    assert "gpt-4o" in page.locator("[data-log] [data-cost]").inner_text()
    page.reload()
    assert (model.input_value(), length.input_value()) == ("gpt-4o", "150")


@pytest.mark.browser
def test_stop_ends_the_call_at_quota_and_keeps_what_was_written(page: Any, demo: Demo) -> None:
    sign_in_as_new(page, demo, "frida")
    before = credits_shown(page)
    whole = ask(page, "Why is the sky blue?")
    page.get_by_role("button", name="New conversation").click()
    with knobs(demo, stream_delay=0.3):  # the whole answer would take half a minute
        page.get_by_label("Your question").fill("Why is the sky blue?")
        page.get_by_role("button", name="Ask").click()
        page.locator("[data-log] [data-answer]", has_text="question").wait_for()
        shot(page, "4-chat-stop")
        page.get_by_role("button", name="Stop").click()
        page.get_by_text("You stopped this answer.").wait_for()
        # The end of the call: a part of the answer is paid for.
        wait_until(lambda: before - 2 * whole < balance_at_quota(demo, "frida") < before - whole)

    def is_kept() -> int:
        page.reload()
        return int(page.get_by_text("This answer ended early.").count())

    wait_until(is_kept)
    assert page.locator("[data-log] [data-answer]").inner_text().startswith("Good question.")
    assert credits_shown(page) == balance_at_quota(demo, "frida")


@pytest.mark.browser
def test_tool_call_is_shown_and_paid_for(page: Any, demo: Demo) -> None:
    sign_in_as_new(page, demo, "gustav")
    spent = ask(page, "Hello")
    before = credits_shown(page)
    page.get_by_label("May look up what I have spent").check()
    cost = ask(page, "What did I spend?")
    page.get_by_text("Looked up: ").wait_for()
    shot(page, "4-chat-tool")

    assert credits_shown(page) == before - cost
    looked_up = page.locator("[data-log] .lookup")
    assert looked_up.inner_text().startswith("Looked up: 1 call in the last 7 days")
    assert looked_up.locator("data").get_attribute("value") == str(spent)
    page.reload()
    assert looked_up.count() == 1
    assert page.locator("[data-log] [data-cost] data").last.get_attribute("value") == str(cost)


@pytest.mark.browser
def test_chat_without_javascript(page: Any, demo: Demo) -> None:
    sign_in_as_new(page, demo, "henrik")
    plain = page.context.browser.new_context(java_script_enabled=False).new_page()
    plain.context.add_cookies(page.context.cookies())
    plain.goto(f"{demo.url}/chat")
    assert not plain.get_by_role("button", name="Stop").is_visible()
    plain.get_by_label("Your question").fill("What did I spend?")
    plain.get_by_label("May look up what I have spent").check()
    plain.get_by_role("button", name="Ask").click()

    plain.get_by_text("This answer cost").wait_for()
    assert plain.get_by_text("Looked up: ").is_visible()
    balance = credits_shown(plain)
    plain.reload()
    assert credits_shown(plain) == balance


@pytest.mark.browser
def test_looks_of_the_chat_and_the_usage(page: Any, demo: Demo) -> None:
    sign_in_as_new(page, demo, "ida")
    ask(page, "Why is the sky blue?")
    page.get_by_label("May look up what I have spent").check()
    ask(page, "What did I spend?")
    look_at(page, "4-chat")
    page.get_by_role("link", name="Usage").click()
    page.get_by_role("heading", name="Last calls").wait_for()
    assert page.get_by_role("table", name="By purpose").get_by_text("chat").is_visible()
    look_at(page, "8-usage")


def look_at(page: Any, name: str) -> None:
    """Nothing sticks out of the page on a phone and on a screen, in the light and in the dark."""
    for width, scheme in product([390, 1280], ["light", "dark"]):
        page.set_viewport_size({"width": width, "height": 900})
        page.emulate_media(color_scheme=scheme)
        assert not page.evaluate(WIDER), (width, scheme)
        shot(page, f"{name}-{width}-{scheme}")


@pytest.mark.browser
def test_at_phone_width_nothing_sticks_out(page: Any, demo: Demo) -> None:
    page.set_viewport_size({"width": 375, "height": 740})
    page.goto(demo.url)
    assert not page.evaluate(WIDER)
    sign_in(page, demo, "grace@example.com")
    page.get_by_role("button", name="Allow").wait_for()
    assert not page.evaluate(WIDER)
    page.get_by_role("button", name="Allow").click()
    page.wait_for_url(f"{demo.url}/")
    for path in (
        "/",
        "/chat",
        "/auth/quota/usage",
        "/auth/quota/packages",
        "/auth/quota/error?quota_error=x",
    ):
        page.goto(demo.url + path)
        assert not page.evaluate(WIDER), path
        shot(page, f"9-phone-{path.strip('/').replace('/', '-').partition('?')[0] or 'home'}")


@pytest.mark.browser
def test_by_keyboard_alone(page: Any, demo: Demo) -> None:
    """Tab and Enter reach the sign-in, and what has the focus can be seen."""
    page.goto(demo.url)
    for _ in range(12):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "[document.activeElement.textContent.trim(), document.activeElement.href || '',"
            " getComputedStyle(document.activeElement).outlineStyle]"
        )
        assert focused[2] != "none", focused
        if "/auth/quota/start" in focused[1]:
            break
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(re.escape(demo.quota_url)))


@pytest.mark.browser
def test_the_admin(page: Any, demo: Demo) -> None:
    page.goto(f"{demo.url}/admin/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.goto(f"{demo.url}/admin/django_quota/quotatoken/")
    assert "quota_token_" not in page.content()
    shot(page, "10-admin-tokens")
    page.goto(f"{demo.url}/admin/django_quota/provideraccount/")
    shot(page, "10-admin-accounts")


SERVERS = {
    "gunicorn": ["gunicorn", "config.wsgi", "--threads=4", "--bind"],
    "uvicorn": ["uvicorn", "config.asgi:application", "--port"],
}


def test_the_same_under_other_servers(tmp_path: Path) -> None:
    """The whole journey under each, a streamed answer included."""
    sys.path.insert(0, str(DEMO.parent))
    try:
        module, journey = (importlib.import_module(name) for name in ("demo", "journey"))
    finally:
        sys.path.pop(0)
    running = module.Demo(tmp_path, free_port(), free_port())
    url = f"http://127.0.0.1:{running.port}"
    with ExitStack() as stack:
        running.start_quota(stack)
        set_knobs(running)
        running.register_app(None)
        running.manage("migrate", "--verbosity", "0")
        for server, command in SERVERS.items():
            address = url.removeprefix("http://") if server == "gunicorn" else str(running.port)
            log = stack.enter_context((tmp_path / f"{server}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", *command, address],
                cwd=MANAGE.parent,
                env=environment() | running.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            child = module.Child(server, process, tmp_path / f"{server}.log")
            stack.callback(child.stop)
            child.wait_until(lambda: module.answers(url))
            journey.journey(running.app_url, running.quota_url, running.app_database)
            # The next server takes this port, and a busy machine needs time to end this one.
            process.terminate()
            process.wait(GIVE_UP_AFTER)


@pytest.mark.tool
def test_a_second_run_finds_its_data_again(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    with demo.running():
        save_person(demo, {"email": "ada@example.com", "balance": 123_456})
    first = (tmp_path / ".env").read_text()
    assert first.count("QUOTA_CLIENT_ID=") == 1
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0

    with demo.running():
        assert balance_at_quota(demo, "Ada Lovelace") == 123_456
    assert sorted((tmp_path / ".env").read_text().split()) == sorted(first.split())


@pytest.mark.tool
def test_server_that_ends_during_the_journey_is_named(tmp_path: Path) -> None:
    demo = Demo(tmp_path)
    with subprocess.Popen(
        demo.command("--once"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().startswith("ok  signed out")
        (example,) = (
            child
            for child in psutil.Process(process.pid).children()
            if "runserver" in child.cmdline()
        )
        example.kill()
        assert "example has stopped (exit code -9)" in process.stderr.read()
    assert process.returncode == 1


@pytest.mark.tool
@pytest.mark.parametrize(("busy", "option"), [(0, "--port"), (1, "--quota-port")])
def test_a_busy_port_names_its_option(tmp_path: Path, busy: int, option: str) -> None:
    demo = Demo(tmp_path)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", demo.ports[busy]))
        listener.listen()
        done = subprocess.run(
            demo.command("--once"), capture_output=True, text=True, env=environment()
        )
    assert done.returncode == 1
    assert re.search(rf"{demo.ports[busy]} .*{option}\b", done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def configured(tmp_path: Path) -> dict[str, str]:
    """The environment of a registered example project, without a Quota that answers."""
    return environment() | {
        "EXAMPLE_ENV_FILE": str(tmp_path / "none"),
        "EXAMPLE_DATABASE": str(tmp_path / "db.sqlite3"),
        "SESSION_SECRET": "jA8s7d6f5g4h3j2k1l0zMxNcBvQwErTyUiOpLkJhGfDsAzXcVbNm",
        "QUOTA_CLIENT_ID": "quota_client_x",
        "QUOTA_CLIENT_SECRET": "quota_secret_x",
        "FIELD_ENCRYPTION_KEY": "vX3nCwr9nK8x0NQ2Pq7m3dZ1l5yTtG6hR4bJ8sKfE0U=",
    }


def test_the_examples_own_tests_pass(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(MANAGE), "test", "chat"],
        capture_output=True,
        text=True,
        env=configured(tmp_path),
        cwd=MANAGE.parent,
    )

    assert done.returncode == 0 and "Ran 7 tests" in done.stderr, done.stderr


def test_the_production_profile_has_no_deploy_warning(tmp_path: Path) -> None:
    hosts = {"EXAMPLE_PRODUCTION": "1", "EXAMPLE_ALLOWED_HOSTS": "chat.example.com"}
    production = configured(tmp_path) | hosts
    manage = [sys.executable, str(MANAGE)]
    done = subprocess.run(
        [*manage, "check", "--deploy", "--fail-level", "WARNING"],
        capture_output=True,
        text=True,
        env=production,
    )
    assert done.returncode == 0, done.stderr
    assert "no issues (1 silenced)" in done.stdout
    cookies = "from django.conf import settings as s; print(s.SESSION_COOKIE_SECURE, "
    cookies += "s.SESSION_COOKIE_HTTPONLY, s.SESSION_COOKIE_SAMESITE, s.CSRF_COOKIE_SECURE)"
    done = subprocess.run(
        [*manage, "shell", "-v", "0", "-c", cookies], capture_output=True, text=True, env=production
    )
    assert done.stdout.split() == ["True", "True", "Lax", "True"], done.stderr


def test_the_example_uses_only_the_public_face() -> None:
    names = ("ai", "decorators", "exceptions", "models", "streaming", "wallet")
    allowed = {f"django_quota.{name}" for name in names}
    for path in (ROOT / "example_project").rglob("*.py"):
        imported = set(re.findall(r"from (django_quota[\w.]*) import", path.read_text()))
        assert imported <= allowed, path
