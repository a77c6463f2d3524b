"""What people and scripts see of a spending limit."""

from __future__ import annotations

from typing import Any

import pytest
from django.test import AsyncClient

from django_quota.contrib.drf import exception_handler
from django_quota.exceptions import SpendingLimitReached
from tests.helpers.concurrency import run_async
from tests.helpers.priced import PricedAnswers
from tests.helpers.streams import VIEWS, events, whole_answer
from tests.sandbox_client import Person, wanted_at
from tests.tiny_server import TinyServer
from tests.upstream import Upstream, chunk

pytestmark = pytest.mark.django_db(transaction=True)

CHAT = "/v1/chat/completions"
PAGE = {"accept": "text/html"}


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.urls_limits"
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]


@pytest.fixture
def server(user: Any, settings: Any) -> Any:
    with TinyServer() as server:
        server.on(CHAT, PricedAnswers(40))
        settings.QUOTA_BASE_URL = server.origin
        yield server


def test_script_is_told_the_limit_and_what_was_spent(
    person: Person, server: TinyServer, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.QUOTA_SPENDING_LIMITS = {"request": 100}
    answer = person.client.get("/agent")
    body = answer.json()
    assert (answer.status_code, len(server.seen(CHAT))) == (402, 3)
    assert list(body) == ["error"]  # no page to go to: credits would not help
    told = body["error"]
    assert (told["code"], told["kind"]) == ("spending_limit_reached", "request")
    assert (told["limit"], told["spent"]) == (100, 120)
    assert told["message"] and told["hint"] and told["reference"]
    assert "Retry-After" not in answer
    (line,) = [r for r in caplog.records if told["reference"] in r.getMessage()]
    assert line.levelname == "WARNING"


def test_script_is_told_when_the_day_ends(
    person: Person, server: TinyServer, settings: Any
) -> None:
    settings.QUOTA_SPENDING_LIMITS = {"user_day": 100}
    answer = person.client.get("/agent")
    assert answer.json()["error"]["kind"] == "user_day"
    assert 0 < int(answer["Retry-After"]) <= 86400


def test_next_request_has_its_whole_limit_again(
    person: Person, server: TinyServer, settings: Any
) -> None:
    settings.QUOTA_SPENDING_LIMITS = {"request": 40}
    person.client.get("/agent")
    person.client.get("/agent")
    assert len(server.seen(CHAT)) == 2


def test_request_of_an_async_view_is_stopped(
    user: Any, person: Person, server: TinyServer, settings: Any
) -> None:
    settings.QUOTA_SPENDING_LIMITS = {"request": 100}
    client = AsyncClient()
    client.cookies = person.client.cookies
    answer: Any = run_async(client.get("/aagent"))
    assert (answer.status_code, len(server.seen(CHAT))) == (402, 3)


@pytest.mark.parametrize(
    ("kind", "code", "words", "link"),
    [
        ("request", "spending_limit_reached", "A spending limit was reached", "Try again"),
        ("user_day", "day_limit_reached", "You can go on tomorrow.", "Go back"),
    ],
)
def test_person_sees_which_limit_it_is_and_a_link_back(
    person: Person, server: TinyServer, settings: Any, kind: str, code: str, words: str, link: str
) -> None:
    settings.QUOTA_SPENDING_LIMITS = {kind: 1}
    answer = person.client.get("/agent?topic=1", headers=PAGE)
    path, query = wanted_at(answer)
    assert (path, query["quota_error"]) == ("/auth/quota/error", code)
    page = person.client.get(answer["Location"]).content.decode()
    assert words in page.replace("&#x27;", "'")
    assert f'href="/agent?topic=1">{link}</a>' in page
    assert query["quota_ref"] in page


@pytest.mark.parametrize("view", VIEWS)
def test_stream_that_is_cut_ends_with_an_error_event(
    person: Person, server: TinyServer, view: str
) -> None:
    live = Upstream()
    server.on(CHAT, live, PricedAnswers(40))
    live.say(chunk("Hel"), chunk("lo"))

    kind, body = events(whole_answer(person, view))[-1]

    assert kind == "error"
    assert (body["error"]["code"], body["error"]["limit"]) == ("spending_limit_reached", 1)
    assert live.hung_up.wait(20)


def test_rest_framework_tells_the_limit_too(user: Any, rf: Any) -> None:
    request = rf.get("/")
    request.user, request.session = user, {}
    error = SpendingLimitReached("for the log", kind="user_day", limit=5, spent=7, retry_after=9)
    response = exception_handler(error, {"request": request})
    assert response is not None
    assert (response.status_code, response.headers["Retry-After"]) == (402, "9")
    told = response.data["error"]
    assert (told["kind"], told["limit"], told["spent"]) == ("user_day", 5, 7)
