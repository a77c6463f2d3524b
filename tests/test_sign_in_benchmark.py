"""The benchmark of sign-ins measures what it says; its times are no matter of a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.sign_in import page
from benchmarks.sign_in.contestants import PROJECTS
from benchmarks.sign_in.databases import SQLite
from benchmarks.sign_in.results import storm_summary, summary
from benchmarks.sign_in.rotation import Family
from benchmarks.sign_in.run import NEW, RETURNING, VISITS, Course, Figures, Provider
from benchmarks.sign_in.storm import Crews, Storms

pytestmark = pytest.mark.tool

ALL = ("user", "last_login", "session", "link", "refresh_token", "encrypted")
NAMES = ["floor", "django_quota", "mozilla-django-oidc"]


@pytest.fixture
def course(tmp_path: Path) -> Iterator[Course]:
    with Provider(tmp_path) as quota:
        course = Course(NAMES, quota, SQLite(tmp_path), "https")
        with course.open():
            yield course


@pytest.mark.process
class TestCourse:
    def test_counts_what_each_contestant_does(self, course: Course) -> None:
        figures = course.measure(latency=0, rounds=1)
        ours, floor, mozilla = (figures[name] for name in ("django_quota", "floor", NAMES[2]))
        for each in (ours, floor):
            assert set(each.checks) == set(ALL)
            for visit in (RETURNING, NEW):
                assert each.counts[visit]["requests"] == ["POST /oauth/token"]
                assert each.counts[visit]["connections"] == 0
        assert mozilla.checks == ["user", "last_login", "session"]
        assert len(mozilla.counts[RETURNING]["requests"]) == 3
        assert mozilla.counts[RETURNING]["connections"] == 3

    def test_a_contestant_that_has_not_written_what_it_promises_ends_the_run(
        self, course: Course, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PROJECTS["mozilla-django-oidc"], "promises", ALL)
        with pytest.raises(RuntimeError, match="there is no encrypted, link, refresh_token"):
            course.measure(latency=0, rounds=1)


@pytest.mark.process
def test_storm_of_few_callers_makes_one_call_and_no_failure(tmp_path: Path) -> None:
    with Provider(tmp_path) as quota:
        crews = Crews(NAMES, quota, SQLite(tmp_path), size=2)
        with crews.open():
            storms = crews.measure(rounds=1)
    assert storms.keys() == {"floor", "django_quota"}
    for each in storms.values():
        assert each.ends == [{"calls": 1, "valid": 4, "failed": 0, "revoked": 0, "connected": True}]


class TestFamily:
    def test_token_that_is_spent_twice_ends_it(self) -> None:
        family = Family()
        first = family.issue()["refresh_token"]
        family.expire()
        pair = family.renew(first)
        assert pair is not None
        got = [pair["access_token"], "RuntimeError: no"]
        assert family.judge(got, pair["refresh_token"]) == {
            "calls": 1,
            "valid": 1,
            "failed": 1,
            "revoked": 0,
            "connected": True,
        }
        assert family.renew(first) is None
        assert family.renew(pair["refresh_token"]) is None
        assert family.judge(got, pair["refresh_token"]) == {
            "calls": 3,
            "valid": 0,
            "failed": 2,
            "revoked": 1,
            "connected": False,
        }

    def test_token_of_before_is_not_valid(self) -> None:
        family = Family()
        pair = family.issue()
        family.expire()
        assert family.judge([pair["access_token"]], pair["refresh_token"])["failed"] == 1


def test_table_of_storms_says_who_cannot_renew() -> None:
    end = {"calls": 1, "valid": 4, "failed": 0, "revoked": 0, "connected": True}
    worse = {"calls": 4, "valid": 0, "failed": 4, "revoked": 1, "connected": False}
    storms = {
        "floor": Storms(ends=[end, end], times=[1, 2]),
        "other": Storms(ends=[end, worse], times=[2, 6]),
    }
    storm = {"rounds": 2, "contestants": storm_summary(storms)}
    _, _, _, floor, other, without, _ = page.storm_table(storm, ["third"])
    assert floor.split()[:8] == ["floor", "1", "4", "0", "0", "2", "of", "2"]
    assert "1 to 4" in other
    assert "1 of 2" in other
    assert other.split()[-1] == "2.50"
    assert without == "third" + without[5:-12] + "cannot renew"


def some_results(name: str) -> dict[str, Any]:
    figures = {"floor": Figures(), name: Figures()}
    for times, of in zip(((1, 2), (2, 6)), figures.values(), strict=True):
        for visit in VISITS:
            for seconds in times:
                of.note(visit, {"wall": seconds, "cpu": seconds})
    return {
        "database": "SQLite 3",
        "scheme": "http",
        "latency": 0,
        "users": 0,
        "contestants": summary(figures),
    }


def test_ratio_is_the_median_of_the_rounds() -> None:
    (_, other) = some_results("other")["contestants"].values()
    assert other["visits"][RETURNING]["wall"]["ratio"] == 2.5


def test_plot_is_svg_with_each_name() -> None:
    root = ElementTree.fromstring(page.plot(some_results("<other>")))
    said = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert said.count("<other>") == len(VISITS)


def test_table_has_a_line_for_each_name() -> None:
    lines = page.table(some_results("other")["contestants"], RETURNING)
    assert [line.split()[0] for line in lines[3:5]] == ["floor", "other"]
    assert lines[4].split()[-6] == "2.50"
