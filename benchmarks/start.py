"""What the app adds to `django.setup()`: `python -m benchmarks.start`.

Each start is a new process; with the app and without take turns. CPU seconds and memory of the
process, which other work on the machine changes little.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

APPS = [f"django.contrib.{name}" for name in ("auth", "contenttypes", "sessions", "messages")]
ROUNDS = 15


def start(with_app: bool) -> tuple[float, float]:
    """Set Django up here; the CPU milliseconds that it took, and the megabytes that it added."""
    import django
    from django.conf import settings

    settings.configure(INSTALLED_APPS=[*APPS, *(["django_quota"] if with_app else [])])
    memory, began = megabytes(), time.process_time()
    django.setup()
    return 1000 * (time.process_time() - began), megabytes() - memory


def megabytes() -> float:
    """The most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    if sys.argv[1:]:
        print(json.dumps(start(sys.argv[1] == "with")))
        return
    figures: dict[str, list[list[float]]] = {"with": [], "without": []}
    for _ in range(ROUNDS):
        for name, measured in figures.items():
            command = [sys.executable, "-m", "benchmarks.start", name]
            measured.append(json.loads(subprocess.check_output(command)))
    for index, unit in enumerate(("ms of CPU", "MB")):
        took = {name: [each[index] for each in measured] for name, measured in figures.items()}
        more = [a - b for a, b in zip(took["with"], took["without"], strict=True)]
        print(
            f"django.setup(): {statistics.median(took['with']):.0f} {unit} with the app, "
            f"{statistics.median(took['without']):.0f} without; more: "
            f"{statistics.median(more):.1f} ({min(more):.1f} to {max(more):.1f})"
        )


if __name__ == "__main__":
    main()
