"""Processes that take an order a line and answer each in one line, both in JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from typing import Any, Self

from tests.helpers.programs import ROOT


def environment_with(**ours: str) -> dict[str, str]:
    """Of a process; without a proxy, which would stand between contestants and provider."""
    inherited = {n: v for n, v in os.environ.items() if not n.lower().endswith("_proxy")}
    return {**inherited, **ours}


class Worker:
    """`python -m MODULE` in a process of its own; a context manager."""

    def __init__(self, module: str, **environment: str) -> None:
        self.module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment_with(**environment),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.communicate()

    def ask(self, do: str, **what: Any) -> Any:
        """Its answer. Raises RuntimeError with its traceback if it failed."""
        self.tell(do, **what)
        return self.answer()

    def tell(self, do: str, **what: Any) -> None:
        """Give the order only; `answer` waits for what it says."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **what}) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.module} has ended")
        said = json.loads(line)
        if "failed" in said:
            raise RuntimeError(f"{self.module}: {said['failed']}")
        return said["answer"]


def answer_orders(orders: dict[str, Callable[..., Any]]) -> None:
    """In such a process: do what is asked, until nobody asks any more."""
    answers, sys.stdout = sys.stdout, sys.stderr  # a library may print
    for line in sys.stdin:
        order = json.loads(line)
        try:
            said = {"answer": orders[order.pop("do")](**order)}
        except Exception:
            said = {"failed": traceback.format_exc()}
        print(json.dumps(said), file=answers, flush=True)
