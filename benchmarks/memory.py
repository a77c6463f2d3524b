"""The memory of a worker that serves for long: `python -m benchmarks.memory --sign-ins 10000`.

One process of benchmarks.sign_in signs people in, half of them new, and reads ten tokens for each
sign-in. Its memory is read at the start of the second half and at its end, so that caches that
fill once do not count.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from pathlib import Path

from benchmarks.sign_in.contestant import TOKEN_CALLS
from benchmarks.sign_in.databases import SQLite
from benchmarks.sign_in.run import RETURNING, Course, Provider

NAME = "django_quota"
#: Sign-ins in turn with reads.
STRIDE = 100


def serve(course: Course, sign_ins: int) -> None:
    """So many sign-ins, and ten times as many reads of a token."""
    for _ in range(sign_ins // STRIDE):
        for number in range(STRIDE):
            course._sign_in(NAME, course._new_person() if number % 2 else RETURNING)
        for _ in range(10 * STRIDE // TOKEN_CALLS):
            course.workers[NAME].ask("token", sub=RETURNING)


def megabytes(course: Course) -> float:
    """The memory of the process now."""
    status = Path(f"/proc/{course.workers[NAME]._process.pid}/status").read_text()
    (kilobytes,) = re.findall(r"VmRSS:\s+(\d+)", status)
    return int(kilobytes) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sign-ins", type=int, default=10_000)
    half = parser.parse_args().sign_ins // 2
    with tempfile.TemporaryDirectory() as name, Provider(Path(name)) as quota:
        course = Course([NAME], quota, SQLite(Path(name)), "http")
        with course.open():
            serve(course, STRIDE)
            found = [megabytes(course)]
            for part in ("first", "second"):
                serve(course, half)
                found.append(megabytes(course))
                print(
                    f"{part} {half} sign-ins and {10 * half} token reads: {found[-1]:.1f} MB, "
                    f"{found[-1] - found[-2]:+.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
