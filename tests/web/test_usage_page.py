"""The usage page: what it shows, to whom, and the file that it offers."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from bs4 import BeautifulSoup
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from django_quota.models import UsageRecord
from django_quota.web import usage_page

pytestmark = pytest.mark.django_db

URL = "/auth/quota/usage"
PAGE = {"accept": "text/html"}


def make_user(name: str) -> Any:
    return get_user_model().objects.create_user(name)


def record(user: Any, count: int = 1, **fields: Any) -> None:
    first = UsageRecord.objects.count()
    UsageRecord.objects.bulk_create(
        UsageRecord(
            **{
                "user": user,
                "call_id": f"chatcmpl-{first + number}",
                "model": "gpt-4o-mini",
                "prompt_tokens": 1_000,
                "completion_tokens": 500,
                "credits_used": 4_210,
                **fields,
            }
        )
        for number in range(count)
    )


@pytest.fixture
def ada() -> Any:
    return make_user("ada")


@pytest.fixture
def browser(ada: Any) -> Client:
    client = Client(SERVER_NAME="localhost", headers=PAGE)
    client.force_login(ada, "django.contrib.auth.backends.ModelBackend")
    return client


def page(browser: Client) -> BeautifulSoup:
    response = browser.get(URL)
    assert response.status_code == 200
    return BeautifulSoup(response.content, "html.parser")


def last_calls(browser: Client) -> list[str]:
    rows = page(browser).select(".quota-calls tbody tr")
    return [" ".join(row.get_text(" ").split()) for row in rows]


def rows_of_file(browser: Client) -> list[dict[str, str]]:
    response = browser.get(URL, {"format": "csv"})
    text = response.content.decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text)))


class TestWhoSeesIt:
    def test_visitor_is_sent_to_sign_in_and_back(self) -> None:
        response = Client(SERVER_NAME="localhost").get(URL, headers=PAGE)

        assert response.status_code == 302
        assert response["Location"] == "/auth/quota/start?next=%2Fauth%2Fquota%2Fusage"

    def test_script_of_a_visitor_gets_a_401(self) -> None:
        assert Client(SERVER_NAME="localhost").get(URL, {"format": "csv"}).status_code == 401

    @pytest.mark.parametrize("query", [{}, {"format": "csv"}, {"user": "bob", "user_id": "2"}])
    def test_user_sees_no_call_of_another_user(
        self, browser: Client, ada: Any, query: dict[str, str]
    ) -> None:
        record(ada, purpose="hers")
        record(make_user("bob"), purpose="his")

        text = browser.get(URL, query).content.decode()

        assert "hers" in text and "his<" not in text and '"his"' not in text

    def test_staff_who_act_as_a_user_see_what_that_user_sees(
        self, browser: Client, ada: Any
    ) -> None:
        staff = make_user("staff")
        record(ada, purpose="hers")
        record(staff, purpose="of staff")
        session = browser.session
        session["hijack_history"] = [str(staff.pk)]
        session.save()

        text = browser.get(URL).content.decode()

        assert "hers" in text and "of staff" not in text

    def test_call_by_staff_on_behalf_of_the_user_is_marked(self, browser: Client, ada: Any) -> None:
        record(ada, acted_by="staff")

        assert "on your behalf" in last_calls(browser)[0]
        assert "staff" not in last_calls(browser)[0]

    def test_no_cache_keeps_the_page_or_the_file(self, browser: Client, ada: Any) -> None:
        record(ada)
        for query in ({}, {"format": "csv"}):
            assert browser.get(URL, query)["Cache-Control"] == "no-store, private"

    def test_post_is_refused(self, browser: Client) -> None:
        assert browser.post(URL).status_code == 405


class TestPage:
    def test_user_without_calls_is_told_so(self, browser: Client) -> None:
        shown = page(browser)

        assert "You have not used the AI yet." in shown.get_text()
        assert shown.find("svg") is None and shown.find("table") is None

    def test_call_is_shown_with_model_purpose_tokens_and_cost(
        self, browser: Client, ada: Any
    ) -> None:
        at = datetime(2026, 1, 31, 23, 30, tzinfo=UTC)
        record(ada, purpose="summary", created_at=at)

        with timezone.override(UTC):
            (call,) = last_calls(browser)

        assert call == "Jan. 31, 2026 11:30 p.m. gpt-4o-mini summary 1,500 tokens $0.0042"

    def test_times_are_in_the_current_time_zone(
        self, browser: Client, ada: Any, settings: Any
    ) -> None:
        record(ada, created_at=datetime(2026, 1, 31, 23, 30, tzinfo=UTC))
        settings.TIME_ZONE = "Asia/Tokyo"

        assert last_calls(browser)[0].startswith("Feb. 1, 2026 8:30 a.m.")
        assert rows_of_file(browser)[0]["date"] == "2026-02-01T08:30:00+09:00"

    def test_call_of_unknown_cost_is_marked_and_counted(self, browser: Client, ada: Any) -> None:
        record(ada, credits_used=None, complete=False)

        assert last_calls(browser)[0].endswith("unknown ended early")
        text = " ".join(page(browser).get_text(" ").split())
        assert "1 call ended early, so its cost is not known here" in text
        assert "Nothing was spent in this time." in text

    def test_calls_are_the_newest_ones_only(self, browser: Client, ada: Any) -> None:
        old = timezone.now() - timedelta(days=100)
        record(ada, purpose="old", created_at=old)
        record(ada, usage_page.MAX_CALLS, purpose="new")

        calls = last_calls(browser)

        assert len(calls) == usage_page.MAX_CALLS
        assert not any("old" in call for call in calls)

    def test_empty_purpose_is_other(self, browser: Client, ada: Any) -> None:
        record(ada, 2, purpose="chat")
        record(ada)

        purposes = page(browser).select("[aria-labelledby=quota-purposes] tbody th")

        assert [purpose.get_text(strip=True) for purpose in purposes] == ["chat", "Other"]

    @pytest.mark.parametrize(("purpose", "count"), [("", 0), ("chat", 1)])
    def test_purposes_are_shown_where_calls_have_one(
        self, browser: Client, ada: Any, purpose: str, count: int
    ) -> None:
        record(ada, purpose=purpose)

        assert len(page(browser).select("[aria-labelledby=quota-purposes]")) == count

    def test_names_are_escaped(self, browser: Client, ada: Any) -> None:
        record(ada, purpose="<script>alert(1)</script>", model="<b>")

        text = browser.get(URL).content.decode()

        assert "<script>alert" not in text and "<b>" not in text

    def test_chart_has_a_bar_and_a_row_for_each_day(self, browser: Client, ada: Any) -> None:
        record(ada, credits_used=1_000_000)
        record(ada, credits_used=10, created_at=timezone.now() - timedelta(days=2))

        chart = page(browser).find("figure")

        assert chart is not None
        heights = [int(str(bar["height"])) for bar in chart.select(".quota-chart__bar")]
        assert heights == [*[0] * 27, 3, 0, 200]
        cells = [row.select("td")[1].get_text(strip=True) for row in chart.select("tbody tr")]
        assert cells == ["$1.00", "$0.00", "<$0.0001", *["$0.00"] * 27]

    def test_chart_tells_a_screen_reader_what_it_shows(self, browser: Client, ada: Any) -> None:
        record(ada)

        (drawing,) = page(browser).select("figure svg")

        assert drawing["role"] == "img"
        assert drawing["aria-labelledby"] == "quota-chart-title quota-chart-desc"
        assert "Spending by day" in drawing.select("title#quota-chart-title")[0].get_text()
        assert "$0.0042" in drawing.select("desc#quota-chart-desc")[0].get_text()

    def test_day_on_which_credits_came_back_has_no_bar(self, browser: Client, ada: Any) -> None:
        record(ada, credits_used=-500)
        record(ada, credits_used=500, created_at=timezone.now() - timedelta(days=1))

        bars = page(browser).select(".quota-chart__bar")

        assert [bar["height"] for bar in bars[-2:]] == ["200", "0"]

    def test_numbers_of_the_chart_have_no_separators_in_any_language(
        self, browser: Client, ada: Any, settings: Any
    ) -> None:
        settings.LANGUAGE_CODE, settings.USE_THOUSAND_SEPARATOR = "de", True
        record(ada, 2_000, credits_used=1_234_567)

        shown = page(browser)

        for bar in shown.select("rect"):
            for name in ("x", "y", "width", "height"):
                assert re.fullmatch(r"\d+", str(bar.get(name, "0")))
        assert shown.find("data", value="2469134000") is not None

    def test_exact_cost_is_its_title(self, browser: Client, ada: Any) -> None:
        record(ada, credits_used=4_213)

        (cost,) = page(browser).select(".quota-calls data")

        assert (cost["title"], cost.get_text()) == ("$0.004213", "$0.0042")

    def test_more_calls_take_no_more_queries(self, browser: Client, ada: Any) -> None:
        record(ada)
        with CaptureQueriesContext(connection) as few:
            page(browser)
        for number in range(20):
            created_at = timezone.now() - timedelta(days=number)
            record(ada, 500, purpose=f"purpose {number}", created_at=created_at)
        with CaptureQueriesContext(connection) as many:
            page(browser)

        assert len(few) == len(many) == 5  # session, user, days, purposes, calls


class TestFile:
    def test_file_is_a_download_that_excel_reads_as_utf8(self, browser: Client, ada: Any) -> None:
        record(ada, purpose="Zusammenfassung für Łódź")

        response = browser.get(URL, {"format": "csv"})

        assert response["Content-Type"] == "text/csv; charset=utf-8"
        assert re.fullmatch(
            r'attachment; filename="usage-\d{4}-\d\d-\d\d\.csv"', response["Content-Disposition"]
        )
        assert response.content.startswith(b"\xef\xbb\xbf")
        assert "für Łódź" in response.content.decode()

    def test_row_has_exact_amounts_and_an_iso_date(self, browser: Client, ada: Any) -> None:
        at = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)
        record(ada, credits_used=4_213, created_at=at, cached_tokens=3, reasoning_tokens=7)

        with timezone.override(ZoneInfo("UTC")):
            (row,) = rows_of_file(browser)

        assert row == {
            "date": "2026-07-01T12:00:00+00:00",
            "model": "gpt-4o-mini",
            "purpose": "",
            "prompt_tokens": "1000",
            "completion_tokens": "500",
            "cached_tokens": "3",
            "reasoning_tokens": "7",
            "credits": "4213",
            "usd": "0.004213",
            "complete": "yes",
            "call_id": "chatcmpl-0",
        }

    def test_unknown_cost_is_empty(self, browser: Client, ada: Any) -> None:
        record(ada, credits_used=None, complete=False)

        (row,) = rows_of_file(browser)

        assert (row["credits"], row["usd"], row["complete"]) == ("", "", "no")

    @pytest.mark.parametrize(
        ("purpose", "cell"),
        [
            ("=1+1", "'=1+1"),
            ("+1", "'+1"),
            ("-1", "'-1"),
            ("@SUM(A1)", "'@SUM(A1)"),
            (" =1", "' =1"),
            ("\t=1", "'\t=1"),
            ("\uff1d1+1", "'\uff1d1+1"),
            ("a;=1", "a;'=1"),
            ('a",=1', "a\",'=1"),
            ("a = b", "a = b"),
            ("gpt-4o@home", "gpt-4o@home"),
        ],
    )
    def test_cell_is_no_formula(self, browser: Client, ada: Any, purpose: str, cell: str) -> None:
        record(ada, purpose=purpose, model=purpose)

        (row,) = rows_of_file(browser)

        assert (row["purpose"], row["model"]) == (cell, cell)

    def test_file_has_the_newest_calls_up_to_its_maximum(
        self, browser: Client, ada: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(usage_page, "MAX_CSV_CALLS", 3)
        record(ada, created_at=timezone.now() - timedelta(days=400))
        record(ada, 3, purpose="new")

        assert [row["purpose"] for row in rows_of_file(browser)] == ["new"] * 3

    def test_file_takes_one_query_for_all_calls(
        self, browser: Client, ada: Any, django_assert_num_queries: Any
    ) -> None:
        record(ada, 1_000)

        with django_assert_num_queries(3):  # session, user, calls
            assert len(rows_of_file(browser)) == 1_000
