"""The benchmark of growth measures what it says; its figures are no matter of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks.growth import figures, lines, page, renewals, sign_ins, streams, token_reads
from benchmarks.growth.figures import NAMES, OURS, Case, Measures, Size
from benchmarks.sign_in.databases import SQLite
from benchmarks.sign_in.run import Provider
from benchmarks.sign_in.workers import Worker

pytestmark = pytest.mark.tool

TINY = Size(at=(1, 2), rounds=2, turn=1)
#: For a run that ends with its first turn.
ONCE = Size(at=(1,), rounds=1, turn=0.1)


@pytest.fixture
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the processes of one contestant only, where a run ends with its first turn."""
    for module in (figures, renewals, sign_ins):
        monkeypatch.setattr(module, "NAMES", (OURS,))


def require_values(measures: Measures, size: Size, whats: set[str]) -> None:
    assert measures.keys() == whats
    for values in measures.values():
        assert tuple(values) == NAMES
        for places in values.values():
            assert {at: len(found) for at, found in places.items()} == dict.fromkeys(
                size.at, size.rounds
            )
            assert all(value > 0 for found in places.values() for value in found)


@pytest.mark.process
class TestSignIns:
    def test_every_sign_in_ends_at_home_with_one_token_request(self, tmp_path: Path) -> None:
        size = Size(at=(1,), rounds=2, turn=0.1)
        measures = sign_ins.measure(SQLite(tmp_path), size)  # it raises otherwise
        require_values(measures, size, {"sign-ins a second"})

    @pytest.mark.usefixtures("only_ours")
    def test_a_failed_sign_in_ends_the_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def spoil(self: Worker, do: str, **what: Any) -> Any:
            answer = Worker.ask(self, do, **what)
            return f"{answer}x" if do == "agree" else answer  # the state is its last parameter

        monkeypatch.setattr(Provider, "ask", spoil)
        with pytest.raises(RuntimeError, match=r"400 unknown state|a sign-in has led to /auth"):
            sign_ins.measure(SQLite(tmp_path), ONCE)


@pytest.mark.process
class TestTokenReads:
    def test_reads_among_so_many_rows(self, tmp_path: Path) -> None:
        size = Size(at=(12,), rounds=2, turn=5)
        measures = token_reads.measure(SQLite(tmp_path), size)  # it counts the rows
        require_values(measures, size, {"reads a second", "median read, ms"})


@pytest.mark.process
class TestRenewals:
    def test_one_call_for_each_renewal(self, tmp_path: Path) -> None:
        measures = renewals.measure(SQLite(tmp_path), TINY)  # it counts the calls
        require_values(measures, TINY, {"renewals a second"})

    @pytest.mark.usefixtures("only_ours")
    def test_a_refused_renewal_ends_the_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(renewals, "CLIENT_SECRET", "another")
        with pytest.raises(RuntimeError, match=r"401|ConfigurationError"):
            renewals.measure(SQLite(tmp_path), Size(at=(1,), rounds=1, turn=1))


@pytest.mark.process
@pytest.mark.django_db(transaction=True)
def test_streams_wait_while_one_more_comes() -> None:
    size = Size(at=(0, 3), rounds=2, turn=1)
    require_values(streams.beside_waiting(size), size, {"first word, ms", "memory, MB"})


def some_results(tmp_path: Path) -> dict[str, Any]:
    def measure(database: object, size: Size) -> Measures:
        values = {  # the turns come in any order
            "floor": {1000: [4.0, 4.0], 1: [1.0, 2.0]},
            "django_quota": {1: [2.0, 6.0], 1000: [2.0, 2.0]},
        }
        return {"things a second": values, "memory, MB": values}

    case = Case("some_things", "Things, by rows", "rows", "{turn} in a turn.", TINY, TINY, measure)
    return case.results(SQLite(tmp_path), Size(at=(1, 1000), rounds=2, turn=1))


def test_ratio_is_the_median_of_the_rounds(tmp_path: Path) -> None:
    measure = some_results(tmp_path)["measures"]["things a second"]
    assert [point["ratio"] for point in measure["django_quota"]] == [2.5, 0.5]


def test_table_has_a_line_for_each_place(tmp_path: Path) -> None:
    rows = [line.split() for line in page.table(some_results(tmp_path))[3:-1]]
    assert [row[0] for row in rows] == ["1", "1,000"]
    assert [row[-1] for row in rows] == ["2.50", "0.50"]


def test_plot_is_svg_with_each_median(tmp_path: Path) -> None:
    root = ElementTree.fromstring(lines.svg(some_results(tmp_path)))
    said = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Things, by rows", "things a second", "memory, MB", "rows", "1,000"} <= set(said)
    assert said.count("floor") == said.count("django_quota") == 2
    assert said.count("1.50") == 2
