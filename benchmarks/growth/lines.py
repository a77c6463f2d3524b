"""Lines as SVG, above one another: the floor's and ours."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from benchmarks.growth.figures import OURS
from benchmarks.sign_in.plots import text
from benchmarks.sign_in.results import FLOOR

WIDTH, LEFT, PLOT, HEIGHT, HEAD, FOOT = 860, 80, 640, 220, 62, 44
#: Dark on white, and told apart by the dashes as well.
COLOURS = {FLOOR: "#9c4a00", OURS: "#2b6cb0"}
STYLES = {
    FLOOR: f'stroke="{COLOURS[FLOOR]}" stroke-dasharray="6 4"',
    OURS: f'stroke="{COLOURS[OURS]}"',
}
#: How many lines across, above the one at zero.
TICKS = 4
#: What the highest of them may be, times a power of ten.
STEPS = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)

#: Contestant -> a `results.spread` for each place.
Lines = dict[str, list[dict[str, float]]]


def svg(case: dict[str, Any]) -> str:
    """One panel for each measure."""
    panel_height = HEAD + HEIGHT + FOOT
    height = 30 + panel_height * len(case["measures"])
    parts = []
    for number, (what, lines) in enumerate(case["measures"].items()):
        parts += panel(what, case["at"], case["across"], lines, 30 + panel_height * number)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
            f'width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">',
            # White below black: readable on a dark page, too.
            '<rect width="100%" height="100%" fill="white"/>',
            text(10, 22, case["title"], 'font-size="16" font-weight="bold"'),
            *parts,
            "</svg>\n",
        ]
    )


def panel(what: str, at: list[int], across: str, lines: Lines, top: float) -> list[str]:
    most = nice(max(point["high"] for line in lines.values() for point in line))
    bottom = top + HEAD + HEIGHT
    xs = places(at)
    parts = [text(10, top + 24, what, 'font-weight="bold"'), *legend(top + 24)]
    for tick in range(TICKS + 1):
        y = bottom - HEIGHT * tick / TICKS
        parts += [
            f'<line x1="{LEFT}" x2="{LEFT + PLOT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#cccccc"/>',
            text(LEFT - 8, y + 4, f"{most * tick / TICKS:,g}", 'text-anchor="end"'),
        ]
    for x, value in zip(xs, at, strict=True):
        parts.append(text(x, bottom + 18, f"{value:,}", 'text-anchor="middle"'))
    parts.append(text(LEFT + PLOT / 2, bottom + 36, across, 'text-anchor="middle"'))
    for name, line in lines.items():
        parts += drawn(name, xs, line, bottom, HEIGHT / most)
    return parts + labels(xs, lines, bottom, HEIGHT / most)


def places(at: list[int]) -> list[float]:
    """Where on the page: in proportion from 0 on, else as many times more."""
    on = [float(value) if at[0] == 0 else math.log(value) for value in at]
    width = (on[-1] - on[0]) or 1
    inside = PLOT - 100
    return [LEFT + 50 + inside * (value - on[0]) / width for value in on]


def nice(most: float) -> float:
    """The next number a fourth of which is short in words."""
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * step for step in STEPS if power * step >= most)


def drawn(
    name: str, xs: list[float], line: list[dict[str, float]], bottom: float, scale: float
) -> list[str]:
    """The medians in a line, and the quartiles across it."""
    ys = [bottom - scale * point["median"] for point in line]
    parts = [
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke-width="2" '
        f"{STYLES[name]}/>"
        for (x1, y1), (x2, y2) in pairwise(zip(xs, ys, strict=True))
    ]
    for x, y, point in zip(xs, ys, line, strict=True):
        low, high = (bottom - scale * point[end] for end in ("low", "high"))
        colour = COLOURS[name]
        parts += [
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>',
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}"/>',
        ]
    return parts


def labels(xs: list[float], lines: Lines, bottom: float, scale: float) -> list[str]:
    """Each median in words: of the higher line above it, of the lower one below, or beside it if
    there is no room above the axis."""
    parts = []
    for number, x in enumerate(xs):
        points = {name: line[number] for name, line in lines.items()}
        highest = max(points, key=lambda name: points[name]["median"])
        for name, point in points.items():
            high, median, low = (bottom - scale * point[end] for end in ("high", "median", "low"))
            if name == highest:
                where = (x, high - 8, "middle")
            elif low + 20 < bottom:
                where = (x, low + 17, "middle")
            else:
                where = (x + 10, median + 4, "start")
            parts.append(label(*where, amount(point["median"]), COLOURS[name]))
    return parts


def label(x: float, y: float, anchor: str, said: str, colour: str) -> str:
    """Readable on a line, too."""
    halo = 'stroke="white" stroke-width="4" paint-order="stroke"'
    return text(x, y, said, f'text-anchor="{anchor}" font-size="12" fill="{colour}" {halo}')


def amount(number: float) -> str:
    """With about three digits."""
    digits = 0 if abs(number) >= 100 else 1 if abs(number) >= 10 else 2
    return f"{number:,.{digits}f}"


def legend(y: float) -> list[str]:
    parts = []
    for x, (name, style) in zip((300, 400), STYLES.items(), strict=True):
        parts += [
            f'<line x1="{x}" x2="{x + 30}" y1="{y - 4}" y2="{y - 4}" stroke-width="2" {style}/>',
            text(x + 36, y, name),
        ]
    return [*parts, text(540, y, "medians, with quartiles")]
