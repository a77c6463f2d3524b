"""One person's way through the example, over real HTTP, as their browser would go it.

`journey()` prints a line for each step that went well and raises JourneyFailed at the first that
did not. Nothing here knows django_quota: it follows the links and sends the forms of the pages.
"""

import base64
import json
import sqlite3
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from urllib.parse import urljoin

import requests
from bs4 import BeautifulSoup, Tag

PASSWORD = "quota-demo"
CREDITS = 1_000_000


class JourneyFailed(Exception):
    """The step that failed, and why."""


class Browser:
    """What the journey needs of one: cookies, redirects, links and forms."""

    def __init__(self) -> None:
        self.session = requests.Session()
        self.response = requests.Response()
        self.page = BeautifulSoup("", "html.parser")

    @property
    def url(self) -> str:
        return self.response.url

    @property
    def text(self) -> str:
        return " ".join(self.page.get_text(" ").split())

    def open(self, url: str) -> None:
        self.show(self.session.get(url, headers={"Accept": "text/html"}, timeout=30))

    def show(self, response: requests.Response) -> None:
        self.response = response
        self.page = BeautifulSoup(response.text, "html.parser")
        expect(response.status_code == 200, f"HTTP {response.status_code} at {response.url}")

    def find(self, selector: str) -> Tag:
        element = self.page.select_one(selector)
        if element is None:
            raise AssertionError(f"no {selector} at {self.url}: {self.text[:200]}")
        return element

    def follow(self, selector: str) -> None:
        self.open(urljoin(self.url, str(self.find(selector)["href"])))

    def form(self, selector: str, **typed: str) -> tuple[str, dict[str, str]]:
        """Where the form of a button goes, and what it sends when that button is pressed."""
        button = self.find(selector)
        form = button.find_parent("form")
        if form is None:
            raise AssertionError(f"{selector} at {self.url} is in no form")
        inputs = form.select("input[name]:not([type=checkbox]), select option[selected]")
        data = {name_of(i): str(i.get("value", "")) for i in inputs}
        if button.get("name"):
            data[str(button["name"])] = str(button.get("value", ""))
        return urljoin(self.url, str(form.get("action") or self.url)), data | typed

    def press(self, selector: str, **typed: str) -> None:
        url, data = self.form(selector, **typed)
        self.show(self.session.post(url, data, headers={"Accept": "text/html"}, timeout=30))


def name_of(field: Tag) -> str:
    """The name of an input, or of the select that an option belongs to."""
    return str((field if field.name == "input" else field.find_parent("select") or field)["name"])


def expect(condition: bool, otherwise: str) -> None:
    """Raise with what was seen instead."""
    if not condition:
        raise AssertionError(otherwise)


def dollars(text: str) -> Decimal:
    """ "$1,234.50" as a number."""
    return Decimal(text.replace("$", "").replace(",", ""))


@dataclass
class Journey:
    """The steps, in order; each returns what it has checked."""

    app: str
    quota: str
    database: Path

    def __post_init__(self) -> None:
        self.browser = Browser()
        self.name = f"Journey {time.strftime('%H:%M:%S')}"
        self.email = self.new_person(self.name)
        self.balance = Decimal(0)

    def new_person(self, name: str) -> str:
        """A person at the local Quota with one dollar, who has consented to nothing yet."""
        email = f"journey-{time.time_ns()}@example.com"
        person = {"email": email, "name": name, "password": PASSWORD, "balance": CREDITS}
        requests.post(f"{self.quota}/sandbox/users", json=person, timeout=30).raise_for_status()
        return email

    def shown_balance(self) -> Decimal:
        return dollars(str(self.browser.find("[data-quota-balance]")["title"]))

    def log_in(self, browser: Browser, email: str) -> None:
        """From the example's home page through Quota's sign-in to its consent page."""
        browser.open(self.app)
        browser.follow("a.quota-sign-in")
        expect(browser.url.startswith(f"{self.quota}/login"), f"not Quota's sign-in: {browser.url}")
        browser.press("form [type=submit]", username=email, password=PASSWORD)

    def steps(self) -> list[Callable[[], str]]:
        return [
            self.signed_out,
            self.sign_in,
            self.consent,
            self.signed_in,
            self.claims,
            self.tokens_encrypted,
            self.chat,
            self.balance_fell,
            self.without_javascript,
            self.packages,
            self.checkout,
            self.cancel_at_consent,
            self.sign_out,
            self.sign_in_again,
        ]

    def signed_out(self) -> str:
        self.browser.open(self.app)
        link = self.browser.find("main a.quota-sign-in").get_text(strip=True)
        expect(not self.browser.page.select("[data-quota-balance]"), "a balance is shown")
        return f"{self.app}/ answers 200 with {link!r} and no balance"

    def sign_in(self) -> str:
        self.log_in(self.browser, self.email)
        return f"the link leads to {self.quota}/login, which takes {self.email}"

    def consent(self) -> str:
        expect("Inkwell" in self.browser.text, f"the app is not named: {self.browser.text}")
        scopes = [item.get_text(" ", strip=True) for item in self.browser.page.select(".scopes li")]
        expect(len(scopes) >= 4, f"the scopes are not listed: {self.browser.text}")
        self.browser.press("button[value=allow]")
        return f"names Inkwell and asks for: {'; '.join(scopes)}"

    def signed_in(self) -> str:
        expect(self.browser.url == f"{self.app}/", f"came back to {self.browser.url}")
        expect(self.name in self.browser.text, f"{self.name!r} is not on the page")
        self.browser.find("img.avatar[src]")
        self.balance = self.shown_balance()
        expect(self.balance == 1, f"the balance is {self.balance}, not 1")
        shown = self.browser.find("[data-quota-balance]").get_text(strip=True)
        return f"back at {self.browser.url} as {self.name!r}, with a picture and {shown}"

    def claims(self) -> str:
        answer = self.browser.session.get(f"{self.app}/auth/quota/me", timeout=30)
        user = answer.json()["user"]
        expect(user["email"] == self.email and user["name"] == self.name, f"{user}")
        expect(bool(user["sub"]) and user["picture"].startswith(self.quota), f"{user}")
        return ", ".join(f"{claim} {value}" for claim, value in user.items())

    def tokens_encrypted(self) -> str:
        with closing(sqlite3.connect(self.database)) as connection:
            rows = connection.execute(
                "SELECT access_token, refresh_token, id_token FROM django_quota_quotatoken"
            ).fetchall()
            everything = "\n".join(connection.iterdump())
            sessions = connection.execute("SELECT session_data FROM django_session").fetchall()
        everything += "".join(unpacked(data) for (data,) in sessions)
        plain = [value for row in rows for value in row if value and not value.startswith("gAAAA")]
        expect(bool(rows) and not plain, f"{len(rows)} rows, {len(plain)} values in the clear")
        for prefix in ("quota_token_", "quota_refresh_"):
            expect(prefix not in everything, f"{prefix} is readable in {self.database}")
        return (
            f"every value of {len(rows)} token row(s) is ciphertext (gAAAA...); no quota_token_ or "
            f"quota_refresh_ in the database nor in its {len(sessions)} session(s)"
        )

    def chat(self) -> str:
        self.browser.open(f"{self.app}/chat")
        url = urljoin(self.app, str(self.browser.find("form[data-stream]")["data-stream"]))
        _, data = self.browser.form("form[data-stream] button", question="Why is the sky blue?")
        events = []
        with self.browser.session.post(url, data, stream=True, timeout=60) as response:
            expect(response.status_code == 200, f"HTTP {response.status_code} at {url}")
            for line in response.iter_lines(chunk_size=1, decode_unicode=True):
                if line.startswith("data: "):
                    events.append(json.loads(line.removeprefix("data: ")))
        pieces = [event["text"] for event in events if "text" in event]
        expect(len(pieces) > 1, f"the answer did not stream: {events}")
        done = next(event for event in events if "cost" in event)
        self.cost = Decimal(done["credits_used"]) / CREDITS
        self.reported = Decimal(done["balance_after"]) / CREDITS
        expect(self.cost > 0, f"the answer cost {self.cost}")
        return (
            f"{len(''.join(pieces))} characters in {len(pieces)} pieces, "
            f"cost {done['cost']}, balance {done['balance']}"
        )

    def balance_fell(self) -> str:
        before, expected = self.balance, self.balance - self.cost
        self.browser.open(self.app)
        self.balance = self.shown_balance()
        expect(self.balance == expected == self.reported, f"{self.balance}, not {expected}")
        url = str(self.browser.find("[data-quota-balance]")["data-url"])
        live = self.browser.session.get(urljoin(self.app, url), timeout=30).json()
        expect(Decimal(live["balance"]) / CREDITS == expected, f"the balance view says {live}")
        return f"{before} - {self.cost} = {self.balance}, on the page as in the JSON"

    def without_javascript(self) -> str:
        self.browser.open(f"{self.app}/chat")
        self.browser.press("form[data-stream] button", question="And at night?")
        expect(bool(self.browser.response.history), "reloading the answer would pay again")
        answer = self.browser.page.select("[data-log] [data-answer]")[-1].get_text(strip=True)
        cost = dollars(str(self.browser.page.select("[data-log] [data-cost] data")[-1]["title"]))
        expect(bool(answer) and cost > 0, f"no answer, or it cost {cost}")
        self.browser.open(self.browser.url)  # reload the answer
        self.browser.open(self.app)
        before, self.balance = self.balance, self.shown_balance()
        expect(self.balance == before - cost, f"{self.balance}, not {before} - {cost}")
        return f"the form gets a whole answer for {cost}; reloading its page pays nothing more"

    def packages(self) -> str:
        self.browser.follow("main a.quota-buy-credits")
        cards = [card.get_text(" ", strip=True) for card in self.browser.page.select(".quota-card")]
        expect(bool(cards), f"no packages: {self.browser.text}")
        return f"{len(cards)} to choose from: {'; '.join(cards)}"

    def checkout(self) -> str:
        bought = dollars(self.browser.find(".quota-card .quota-amount").get_text(strip=True))
        self.browser.press(".quota-card button")
        expect(self.browser.url.startswith(f"{self.quota}/checkout/"), f"at {self.browser.url}")
        self.browser.press("button[value=pay]")
        expect(self.browser.url == f"{self.app}/", f"came back to {self.browser.url}")
        before, self.balance = self.balance, self.shown_balance()
        expect(self.balance == before + bought, f"{self.balance}, not {before} + {bought}")
        return f"paid at Quota; {before} + {bought} = {self.balance}"

    def cancel_at_consent(self) -> str:
        browser = Browser()
        self.log_in(browser, self.new_person("Somebody Else"))
        browser.press("button[value=cancel]")
        expect(browser.url.startswith(self.app), f"at {browser.url}")
        code = browser.find("[data-quota-error]")["data-quota-error"]
        expect(code == "access_denied", f"the code is {code}")
        title = browser.find("[data-quota-error] h1").get_text(strip=True)
        retry = browser.find("[data-quota-error] a.quota-button").get_text(strip=True)
        return f"{title!r} with {retry!r}, code {code}"

    def sign_out(self) -> str:
        self.browser.press(".quota-sign-out button")
        expect(self.browser.url == f"{self.app}/", f"came back to {self.browser.url}")
        self.browser.find("main a.quota-sign-in")
        return f"by way of {len(self.browser.response.history)} redirects, signed out at home"

    def sign_in_again(self) -> str:
        self.browser.follow("a.quota-sign-in")
        self.browser.find("input[type=password]")
        expect(self.browser.url.startswith(f"{self.quota}/login"), f"at {self.browser.url}")
        return "Quota asks for the password again"


def unpacked(session_data: str) -> str:
    """What a row of django_session holds: base64, compressed if it begins with a dot."""
    payload = session_data.split(":")[0]
    content = base64.urlsafe_b64decode(payload.lstrip(".") + "===")
    return (zlib.decompress(content) if payload.startswith(".") else content).decode()


def journey(app: str, quota: str, database: Path) -> None:
    """Go the whole way. Raises JourneyFailed naming the step that failed and why."""
    for step in Journey(app, quota, database).steps():
        name = step.__name__.replace("_", " ")
        try:
            print(f"ok  {name}: {step()}", flush=True)
        except Exception as error:
            raise JourneyFailed(f"FAILED {name}: {error}") from error
