"""The package beside real releases of what its users install with it; `tox -e neighbours`.

A neighbour needs its own INSTALLED_APPS, so each test runs a program of `programs/` in a process
of its own. The program calls `project.configure` first and prints one JSON object at its end.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.sandbox_client import Sandbox

ROOT = Path(__file__).parent.parent.parent
#: Seconds that a program may take.
PATIENCE = 300


def run(name: str, *args: str, sandbox: Sandbox | None = None, **environment: str) -> Any:
    """Run `programs/<name>.py` with `args`; the JSON object on the last line of its stdout.

    `sandbox` is the local Quota that it signs in at; the rest goes into its environment.
    """
    variables = os.environ | environment | {"PYTHONPATH": str(ROOT)}
    variables.pop("DJANGO_SETTINGS_MODULE", None)
    if sandbox is not None:
        variables["QUOTA_BASE_URL"] = sandbox.origin
        variables["QUOTA_APP"] = json.dumps(sandbox.app)
    done = subprocess.run(
        [sys.executable, "-m", f"tests.neighbours.programs.{name}", *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=variables,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, f"{name} ended with {done.returncode}:\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])
