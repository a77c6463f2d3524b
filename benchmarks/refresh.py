"""What renewing tokens costs, and what it withstands: `python -m benchmarks.refresh CASE`.

Prints a line for each figure: what, measured, what it must be, on which database. Calls are
counted at a provider over real HTTP; times are ratios to something measured beside them, because
the machine may be busy. A new, empty database is made and dropped; `--ds` says where, as pytest's
option does.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.course import run
from benchmarks.refreshing import accidents, crowds, many_rows, patience
from tests.light_provider import LightProvider

CASES: dict[str, Callable[[LightProvider], None]] = {
    work.__name__: work
    for work in (
        crowds.threads,
        crowds.processes,
        crowds.storms,
        crowds.writes,
        crowds.tasks,
        crowds.users,
        patience.leeway,
        patience.hang,
        accidents.kill,
        accidents.reuse,
        many_rows.million,
        accidents.restart,
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    helps = "\n".join(f"{name}: {work.__doc__}" for name, work in CASES.items())
    parser.add_argument("case", choices=CASES, metavar="CASE", help=helps)
    parser.add_argument(
        "--ds", default="tests.settings", help="settings, e.g. tests.settings_postgresql"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as own:
        if options.case == "restart":
            # On a server of its own: nobody else's is to be restarted.
            options.ds = "tests.settings_postgresql"
            Path(own).chmod(0o755)
            tempfile.tempdir = own
        run(CASES[options.case], options.ds)


if __name__ == "__main__":
    main()
