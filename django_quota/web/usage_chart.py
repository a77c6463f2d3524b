"""The chart on the usage page: bars for the days, as numbers for an inline SVG."""

from collections.abc import Sequence
from dataclasses import dataclass

from django_quota.wallet.spending import DaySpending

#: The size of the drawing, in its own units. Below 1000, so that no locale puts a separator into
#: a number.
HEIGHT, BAR_WIDTH, GAP = 200, 14, 6
#: So that a day on which little was spent is not mistaken for one without calls.
MIN_BAR_HEIGHT = 3


@dataclass(frozen=True, kw_only=True)
class Bar:
    """The bar of one day; `x` and `y` are its upper left corner."""

    day: DaySpending
    x: int
    y: int
    height: int


@dataclass(frozen=True, kw_only=True)
class Chart:
    """The bars of all days, and the day on which most was spent (None if nothing was)."""

    bars: list[Bar]
    highest: DaySpending | None

    height = HEIGHT
    bar_width = BAR_WIDTH

    @property
    def width(self) -> int:
        return len(self.bars) * (BAR_WIDTH + GAP) - GAP


def chart_of(days: Sequence[DaySpending]) -> Chart:
    """Return the chart of `days`. The highest bar has the full height."""
    highest = max(days, key=lambda day: day.credits)
    bars = []
    for number, day in enumerate(days):
        height = _bar_height(day.credits, highest.credits)
        x = number * (BAR_WIDTH + GAP)
        bars.append(Bar(day=day, x=x, y=HEIGHT - height, height=height))
    return Chart(bars=bars, highest=highest if highest.credits > 0 else None)


def _bar_height(credits: int, highest: int) -> int:
    return 0 if credits <= 0 else max(MIN_BAR_HEIGHT, HEIGHT * credits // highest)
