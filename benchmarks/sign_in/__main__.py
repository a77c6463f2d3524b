"""`python -m benchmarks.sign_in`: measures, prints the page of the results, and writes it with
results.json and a plot for each situation."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import benchmarks.sign_in
from benchmarks.sign_in import page, results, run, storm
from benchmarks.sign_in.contestants import PROJECTS
from benchmarks.sign_in.databases import databases
from tests.helpers.programs import ROOT

ROUNDS, QUICK_ROUNDS = 60, 7
STORMS, QUICK_STORMS = 20, 2
USERS = 50_000


def measured(options: argparse.Namespace, names: list[str]) -> Iterator[dict[str, Any]]:
    """The results of each situation."""
    encrypted = [(options.latency, 0)] if options.quick else [(0, 0), (options.latency, 0)]
    plain = [(0, 0), (0, options.users)] if options.users else [(0, 0)]
    with tempfile.TemporaryDirectory() as folder, run.Provider(Path(folder)) as quota:
        for database in databases(Path(folder)):
            for scheme, situations in (("http", plain), ("https", encrypted)):
                course = run.Course(names, quota, database, scheme)
                with course.open():
                    for latency, users in situations:
                        if users:
                            course.fill(users)
                        figures = course.measure(latency / 1000, options.rounds)
                        yield {
                            "database": database.name,
                            "scheme": scheme,
                            "latency": latency,
                            "users": users,
                            "contestants": results.summary(figures),
                        }


def storms(options: argparse.Namespace, names: list[str]) -> Iterator[dict[str, Any]]:
    """The results of the storms on each database."""
    rounds = QUICK_STORMS if options.quick else STORMS
    with tempfile.TemporaryDirectory() as folder, run.Provider(Path(folder)) as quota:
        for database in databases(Path(folder)):
            size = storm.size_for(database)
            crews = storm.Crews(names, quota, database, size)
            with crews.open():
                yield {
                    "database": database.name,
                    "processes": size,
                    "threads": size,
                    "rounds": rounds,
                    "contestants": results.storm_summary(crews.measure(rounds)),
                }


def write(folder: Path, found: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(found, indent=1) + "\n")
    (folder / "sign-in.rst").write_text(page.page(found))
    for situation in found["situations"]:
        (folder / page.plot_of(situation)).write_text(page.plot(situation))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sign_in", description=benchmarks.sign_in.__doc__
    )
    parser.add_argument(
        "--quick", action="store_true", help="few rounds and situations; it shows the order only"
    )
    parser.add_argument("--rounds", type=int, help=f"{ROUNDS}, or {QUICK_ROUNDS} with --quick")
    parser.add_argument(
        "--latency", type=float, default=20, help="of the provider, in ms (20), beside 0"
    )
    parser.add_argument(
        "--users",
        type=int,
        help=f"measure also among so many ({USERS}, or none with --quick)",
    )
    parser.add_argument("--only", nargs="+", choices=PROJECTS, help="beside the floor", default=[])
    parser.add_argument(
        "--output", type=Path, help="folder (docs/benchmarks, or build/benchmarks with --quick)"
    )
    options = parser.parse_args()
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    if options.users is None:
        options.users = 0 if options.quick else USERS
    folder = "build/benchmarks" if options.quick else "docs/benchmarks"
    options.output = options.output or ROOT / folder
    return options


def main() -> None:
    options = arguments()
    names = [
        name
        for name, project in PROJECTS.items()
        if results.installed(project.package)
        and (not options.only or name in (results.FLOOR, *options.only))
    ]
    if missing := PROJECTS.keys() - names:
        print(f"Without {', '.join(sorted(missing))}.")
    found = results.surroundings(project.package for project in PROJECTS.values())
    found["command"] = " ".join(["python -m benchmarks.sign_in", *sys.argv[1:]])
    found["rounds"] = options.rounds
    found["situations"] = list(measured(options, names))
    found["without_renewal"] = [name for name in names if not PROJECTS[name].renews]
    found["storms"] = list(storms(options, names))
    write(options.output, found)
    print(page.page(found))
    print(f"Written to {options.output}")


if __name__ == "__main__":
    main()
