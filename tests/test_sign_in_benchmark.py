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
from benchmarks.sign_in.results import summary
from benchmarks.sign_in.run import NEW, RETURNING, VISITS, Course, Figures, Provider

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
