"""Hooks for the end of a process, which wait for the renewals that are running.

Between Quota's answer and the save, the new tokens exist only in the memory of this process. A
normal exit waits for the threads. This module covers the other exits: a server that kills itself
with the signal it received, a server whose threads are greenlets, and a worker that calls
`os._exit`. docs/deployment.rst has a table.
"""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable
from importlib import import_module
from typing import Any

from django_quota.conf import get_settings

from . import leases
from .durable import outbox
from .single_flight import renewals


def install() -> None:
    """Install the hooks. Another call changes nothing; Django makes one in some tests."""
    atexit.register(wait_for_renewals)
    if "celery" in sys.modules:
        # A worker of Celery's prefork pool calls os._exit.
        signals = import_module("celery.signals")
        signals.worker_process_shutdown.connect(wait_for_renewals, weak=False)
    if threading.current_thread() is threading.main_thread():
        _chain(signal.SIGTERM)


def wait_for_renewals(*args: Any, **kwargs: Any) -> None:
    """Wait for the renewals that are running, as long as a call and its save may take.

    Then try the items of the outbox once more.
    """
    seconds = get_settings().deadline + leases.MARGIN
    renewals.stop(seconds)
    outbox.stop(seconds)


def _chain(signum: int) -> None:
    """Make the signal wait for renewals before its current effect.

    The effect is the default, which ends the process, or uvicorn's handler: uvicorn kills its
    process with the same signal at the end. Other servers exit normally, and keep their handlers.
    """
    before = signal.getsignal(signum)
    if before is signal.SIG_DFL:
        signal.signal(signum, _wait_and_end)
    elif callable(before) and getattr(before, "__module__", "").startswith("uvicorn"):
        signal.signal(signum, _Waiting(before))


def _wait_and_end(signum: int, frame: Any) -> None:
    # The signal may come twice: systemd sends it to every process, and so does the parent.
    signal.signal(signum, signal.SIG_IGN)
    wait_for_renewals()
    signal.signal(signum, signal.SIG_DFL)
    os.kill(os.getpid(), signum)


class _Waiting:
    """A signal handler that calls `before` when no renewal is running.

    It does not block the event loop. A second signal does not end the wait: systemd signals every
    process, and uvicorn's main process signals its workers again. The wait is limited, and SIGKILL
    ends it.
    """

    def __init__(self, before: Callable[[int, Any], object]) -> None:
        self._before = before
        self._waits = False

    def __call__(self, signum: int, frame: Any) -> None:
        if self._waits:
            return
        if not (renewals.is_running() or outbox.is_waiting()):
            self._before(signum, frame)
            return
        self._waits = True
        how = (signum, frame)
        threading.Thread(target=self._wait, args=how, name="django_quota-stop").start()

    def _wait(self, signum: int, frame: Any) -> None:
        wait_for_renewals()
        self._waits = False
        self._before(signum, frame)
