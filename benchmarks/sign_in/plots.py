"""Bars as SVG."""

from __future__ import annotations

from html import escape
from typing import Any

WIDTH, LABEL, BAR, ROW, HEAD = 860, 190, 480, 34, 44
COLOURS = {"wall": "#2b6cb0", "cpu": "#dd8a3c"}


def svg(title: str, panels: dict[str, dict[str, Any]]) -> str:
    """One panel below the other: its heading -> contestant -> clock -> a `results.spread`."""
    parts, top = [], 30
    for heading, contestants in panels.items():
        parts += panel(heading, contestants, top)
        top += HEAD + ROW * len(contestants)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top + 30}" '
            'font-family="sans-serif" font-size="13">',
            '<rect width="100%" height="100%" fill="white"/>',
            text(10, 22, title, 'font-size="16" font-weight="bold"'),
            *parts,
            *legend(top + 16),
            "</svg>\n",
        ]
    )


def panel(heading: str, contestants: dict[str, Any], top: float) -> list[str]:
    most = max(clocks[clock]["high"] for clocks in contestants.values() for clock in COLOURS)
    parts = [text(10, top + 24, f"{heading}, ms", 'font-weight="bold"')]
    for number, (name, clocks) in enumerate(contestants.items()):
        middle = top + HEAD + ROW * number
        parts.append(text(LABEL - 8, middle + 4, name, 'text-anchor="end"'))
        for clock, y in (("wall", middle - 12), ("cpu", middle + 1)):
            parts += bar(clocks[clock], y, BAR / most, COLOURS[clock])
    return parts


def bar(spread: dict[str, float], y: float, scale: float, colour: str) -> list[str]:
    """The median as a bar, the range as a line on it, and both in words."""
    length, low, high = (scale * spread[each] for each in ("median", "low", "high"))
    said = f"{spread['median']:.2f} ({spread['ratio']:.2f} x)"
    return [
        f'<rect x="{LABEL}" y="{y}" width="{length:.1f}" height="11" fill="{colour}"/>',
        f'<line x1="{LABEL + low:.1f}" x2="{LABEL + high:.1f}" y1="{y + 5.5}" y2="{y + 5.5}" '
        'stroke="black"/>',
        text(LABEL + max(length, high) + 6, y + 10, said, 'font-size="11"'),
    ]


def legend(y: float) -> list[str]:
    wall, cpu = COLOURS["wall"], COLOURS["cpu"]
    return [
        text(LABEL, y, "wall time", f'fill="{wall}"'),
        text(LABEL + 80, y, "CPU time of the contestant's process", f'fill="{cpu}"'),
        text(LABEL + 350, y, "line: quartiles; x: to the floor"),
    ]


def text(x: float, y: float, said: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(said)}</text>'
