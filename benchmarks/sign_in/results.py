"""From times to figures: what is written to results.json."""

from __future__ import annotations

import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.sign_in.contestants import PROJECTS
from benchmarks.sign_in.run import Figures
from benchmarks.sign_in.storm import Storms
from tests.helpers.programs import ROOT

FLOOR = next(iter(PROJECTS))
#: Others whose versions matter.
BESIDE = ("Django", "requests", "cryptography", "psycopg")


def installed(distribution: str) -> str | None:
    """Its version; None if it is not installed."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def surroundings(packages: Iterable[str]) -> dict[str, Any]:
    """When, where and with what it is measured: with `packages`, and with what is beside them."""
    names = (*BESIDE, *packages)
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": described.stdout.strip() or "unknown",
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
            "load": round(os.getloadavg()[0], 1),
        },
        "versions": {"Python": platform.python_version()}
        | {name: found for name in names if (found := installed(name))},
    }


def processor() -> str:
    path = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", path.read_text()) if path.exists() else None
    return found[1] if found else platform.processor()


def summary(figures: dict[str, Figures]) -> dict[str, Any]:
    """Of all contestants in one situation: visit -> clock -> median, range and ratio to the floor;
    times in milliseconds."""
    floor = figures[FLOOR]
    return {
        name: {
            "checks": of.checks,
            "visits": {
                visit: {
                    **of.counts.get(visit, {}),
                    **{
                        clock: spread(values, floor.times[visit][clock], scale=1000)
                        for clock, values in times.items()
                    },
                }
                for visit, times in of.times.items()
            },
        }
        for name, of in figures.items()
    }


def storm_summary(storms: dict[str, Storms]) -> dict[str, Any]:
    """Of all contestants that renew, on one database: the least and the most of each count, in how
    many rounds the user was still connected, and the time to the last answer."""
    return {
        name: {
            **{
                count: [min(end[count] for end in of.ends), max(end[count] for end in of.ends)]
                for count in ("calls", "valid", "failed", "revoked")
            },
            "connected": sum(end["connected"] for end in of.ends),
            "time": spread(of.times, storms[FLOOR].times, 1000),
        }
        for name, of in storms.items()
    }


def spread(values: list[float], floor: list[float], scale: float = 1) -> dict[str, float]:
    """The median, the quartiles around it, and the median of the ratios to the floor's value in the
    same round: what slows a whole round down hardly changes that. `scale` is for all but ratios."""
    low, median, high = (scale * value for value in statistics.quantiles(values, n=4))
    ratio = statistics.median(ours / theirs for ours, theirs in zip(values, floor, strict=True))
    return {
        "median": round(median, 3),
        "low": round(low, 3),
        "high": round(high, 3),
        "ratio": round(ratio, 3),
    }
