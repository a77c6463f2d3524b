"""What happens to the site meanwhile: outages, kills, restarts, key rotations, cron."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cryptography.fernet import Fernet

from benchmarks.soaking.provider import Provider
from benchmarks.soaking.servers import Server

#: Seconds of an outage, in which no request is answered.
OUTAGE = 10
#: Seconds from one trouble to the next.
PAUSE = 12


class Troubles:
    """They come in turn, until `stop`."""

    def __init__(
        self, quota: Provider, servers: list[Server], env: dict[str, str], keys: Path, log: Path
    ) -> None:
        self._quota, self._servers, self._env = quota, servers, env
        self._keys, self._log = keys, log
        #: When Quota answered nothing: from, until.
        self.outages: list[tuple[float, float]] = []
        self.happened: Counter[str] = Counter()
        self.slowest_stop = 0.0
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=work) for work in (self._one_by_one, self._every_so_often)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _one_by_one(self) -> None:
        gunicorn, uvicorn = self._servers
        turn: list[Callable[[], None]] = [
            self.outage,
            lambda: self.kill(gunicorn),
            lambda: self.kill(uvicorn),
            lambda: self.restart(gunicorn),
            self.outage_with_a_kill,
            lambda: self.restart(uvicorn),
            self.outage_with_a_restart,
            self.rotate_keys,
        ]
        for trouble in itertools.cycle(turn):
            if self._over.wait(PAUSE):
                return
            trouble()

    def _every_so_often(self) -> None:
        for command in itertools.cycle(
            [("quota_prune",), ("quota_refresh_tokens", "--within", "0.25")]
        ):
            if self._over.wait(15):
                return
            self.manage(*command)

    def manage(self, *command: str) -> int:
        """Run a command of the package's; its exit code."""
        self._say(" ".join(command))
        with self._log.open("ab") as log:
            code = subprocess.run(
                [sys.executable, "-m", "django", *command], env=self._env, stdout=log, stderr=log
            ).returncode
        self.happened[f"{command[0]}: {code}"] += 1
        return code

    def outage(self) -> None:
        self._say("Quota hangs")
        began = time.time()
        self._quota.hang(OUTAGE)
        self.outages.append((began, time.time()))
        self.happened["outages"] += 1

    def _outage_with(self, trouble: Callable[[Server], None], server: Server) -> None:
        outage = threading.Thread(target=self.outage)
        outage.start()
        time.sleep(OUTAGE / 3)
        trouble(server)
        outage.join()

    def outage_with_a_kill(self) -> None:
        for server in self._servers:
            self._outage_with(self.kill, server)

    def outage_with_a_restart(self) -> None:
        for server in self._servers:
            self._outage_with(self.restart, server)

    def kill(self, server: Server) -> None:
        self._say(f"kill -9 {server.kill_worker()} of {server.name}")
        self.happened["workers killed"] += 1

    def restart(self, server: Server) -> None:
        self._say(f"{server.name} is restarted")
        self.slowest_stop = max(self.slowest_stop, server.restart())
        self.happened["restarts"] += 1

    def rotate_keys(self) -> None:
        """As docs/background-work.rst says, one server after the other."""
        (old,), new = self._keys.read_text().split(), Fernet.generate_key().decode()
        for keys in ([old, new], [new, old]):
            self._deploy(keys)
        for _attempt in range(3):
            if self.manage("quota_reencrypt_tokens") == 0:
                self._deploy([new])
                self.happened["key rotations"] += 1
                return
        self._deploy([old, new])

    def _deploy(self, keys: list[str]) -> None:
        self._say(f"{len(keys)} keys are deployed")
        self._keys.write_text(" ".join(keys))
        for server in self._servers:
            self.restart(server)

    def _say(self, what: str) -> None:
        with self._log.open("a") as log:
            log.write(f"{time.strftime('%H:%M:%S')} ===== {what}\n")
