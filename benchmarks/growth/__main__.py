"""`python -m benchmarks.growth`: measures, prints the page of the results, and writes it with
growth.json and a plot for each case."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import benchmarks.growth
from benchmarks.growth import lines, page, renewals, sign_ins, streams, token_reads
from benchmarks.growth.figures import NAMES
from benchmarks.sign_in import results
from benchmarks.sign_in.contestants import PROJECTS
from benchmarks.sign_in.databases import PostgreSQL
from tests.helpers.programs import ROOT

CASES = {case.name: case for case in (sign_ins.CASE, token_reads.CASE, streams.CASE, renewals.CASE)}
#: Whose versions matter, beside the contestants'.
SERVERS = ("gunicorn", "uvicorn", "httpx2", "openai")


def measured(options: argparse.Namespace) -> dict[str, Any]:
    packages = (*(PROJECTS[name].package for name in NAMES), *SERVERS)
    found = results.surroundings(packages)
    found["command"] = " ".join(["python -m benchmarks.growth", *sys.argv[1:]])
    database = PostgreSQL()
    found["database"] = database.name
    found["cases"] = []
    for name in options.cases or CASES:
        case = CASES[name]
        print(f"{case.title} ...", flush=True)
        found["cases"].append(case.results(database, case.quick if options.quick else case.full))
    return found


def write(folder: Path, found: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "growth.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "growth.rst").write_text(page.page(found))
    for case in found["cases"]:
        (folder / page.plot_of(case)).write_text(lines.svg(case))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=benchmarks.growth.__doc__
    )
    parser.add_argument(
        "cases",
        nargs="*",
        metavar="CASE",
        help=f"{', '.join(CASES)}; all without one. The results are those of one run: they replace "
        "those of other cases",
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds, rows and streams; it shows the order only"
    )
    parser.add_argument(
        "--output", type=Path, help="folder (docs/benchmarks, or build/benchmarks with --quick)"
    )
    options = parser.parse_args()
    if unknown := set(options.cases) - CASES.keys():
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    folder = "build/benchmarks" if options.quick else "docs/benchmarks"
    options.output = options.output or ROOT / folder
    return options


def main() -> None:
    options = arguments()
    found = measured(options)
    write(options.output, found)
    print(page.page(found))
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
