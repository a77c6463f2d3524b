"""What a stop costs: `python -m benchmarks.stops`, on SQLite or, with `--ds`, on PostgreSQL.

Each server and worker is started, a token is being renewed in it, and it is stopped by SIGTERM.
Quota answers three seconds later. The new pair must be in the database when the main process has
ended: what is left of the others is killed then, as a container ends.

The servers are installed, in their newest releases, into a virtual environment of this script
(`--venv` keeps it). Workers have their queues in a Redis of this script: `redis-server` has to be
there, and a compiler for uWSGI.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from django.db import connection, connections

from benchmarks.course import run
from benchmarks.stopped.contestants import CONTESTANTS, LEAVE, LIMIT, SAID, Contestant
from tests.helpers.programs import ROOT, database, free_port
from tests.light_provider import LightProvider
from tests.storms.crew import make_users

#: Seconds from the signal until Quota answers.
ANSWER = 3
#: Seconds for anything else, on a busy machine.
PATIENCE = 90

#: Below those that the system gives to connections, so that none is taken meanwhile.
ports = count(21000)


class DidNotHappen(Exception):
    """The stop could not be measured."""


def wait_until(happened: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > give_up:
            raise DidNotHappen(what)
        time.sleep(0.05)


class Stop:
    """One stop of one contestant, while the token of one user is being renewed."""

    def __init__(
        self, contestant: Contestant, situation: str, user: str, *, everybody: bool
    ) -> None:
        self.contestant, self.situation, self.user = contestant, situation, user
        self.everybody = everybody
        self.port = next(ports)

    def lost(self, given: dict[str, Any]) -> bool:
        """Did it lose the new pair?"""
        with LightProvider() as quota, tempfile.TemporaryDirectory() as folder:
            quota.set(hang=True)
            self.folder, self.quota = Path(folder), quota
            config = given | {
                "apps": self.contestant.apps,
                "folder": folder,
                "queue": self.user,
                "quota": quota.origin,
            }
            self.environment = os.environ | {
                "DJANGO_QUOTA_STOPS": json.dumps(config, default=str),
                "DJANGO_SETTINGS_MODULE": "benchmarks.stopped.settings",
                "PATH": f"{given['venv']}/bin:{os.environ['PATH']}",
                "PYTHONDONTWRITEBYTECODE": "",
                "PYTHONPATH": str(ROOT),
            }
            try:
                if self.contestant.sender:
                    self.send()
                with self.started() as process:
                    self.renew(process)
                    self.stop(process)
            except DidNotHappen as error:
                raise DidNotHappen(
                    f"{self.contestant.name}, {self.situation}: {error}\n{self.log()}"
                ) from None
            if saved(self.user):
                return False
            if self.situation not in self.contestant.lost:
                print(f"{self.contestant.name}, {self.situation}:", self.log(), file=sys.stderr)
            return True

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[bytes]]:
        command = self.contestant.command.format(
            port=self.port, queue=self.user, how=self.situation, user=self.user
        )
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                shlex.split(command),
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def log(self) -> str:
        return (self.folder / "log").read_text()[-4000:]

    def renew(self, process: subprocess.Popen[bytes]) -> None:
        """Let it begin a renewal; return when Quota has been asked and a page has gone on."""
        if "{port}" in self.contestant.command:
            wait_until(lambda: self.answers(process), "it does not serve")
            threading.Thread(target=self.ask, args=[f"/{self.situation}/{self.user}"]).start()
        wait_until(lambda: self.quota.counts.sent, "Quota was not asked")
        if self.situation == LEAVE:
            wait_until((self.folder / "left").exists, "the page has waited")

    def send(self) -> None:
        """Send its task to a worker."""
        module = ["python", "-m", "benchmarks.stopped.send", self.contestant.sender]
        with (self.folder / "log").open("ab") as log:
            sent = subprocess.run(
                [*module, self.situation, self.user],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                check=False,
            )
        if sent.returncode:
            raise DidNotHappen("the task cannot be sent")

    def answers(self, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            raise DidNotHappen("it has ended")
        return self.ask("/ping") == b"pong"

    def ask(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(connection),
        ):
            connection.request("GET", path)
            return connection.getresponse().read()
        return b""

    def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Stop it; Quota answers later, but for nothing if it does not wait."""
        if self.situation == LIMIT:
            time.sleep(ANSWER)
            self.quota.set(hang=False)
            wait_until((self.folder / "struck").exists, "no time limit struck")
        self.terminate(process)
        if not self.contestant.ends:
            time.sleep(ANSWER)
            self.quota.set(hang=False)
            time.sleep(ANSWER)
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ANSWER)
            return
        self.quota.set(hang=False)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise DidNotHappen("it does not end") from None

    def terminate(self, process: subprocess.Popen[bytes]) -> None:
        """The signal, to the main process only or, as systemd does by default, to all."""
        if not self.everybody:
            process.send_signal(self.contestant.stop)
            return
        listed = subprocess.check_output(["ps", "-o", "pid=", "--sid", str(process.pid)])
        for pid in listed.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), self.contestant.stop)


def saved(user: str) -> bool:
    """Is the new pair in the database?"""
    from django_quota.models import QuotaToken

    try:
        row = QuotaToken.objects.get(account__external_id=user)
        return row.refresh_token.reveal() == f"quota_refresh_{user}.1"
    finally:
        connections.close_all()


def installed(contestants: list[Contestant], venv: Path) -> dict[str, str]:
    """Install what they need; package -> version. A package that does not install is left out."""
    if not venv.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    install = [f"{venv}/bin/python", "-m", "pip", "install", "--quiet", "--upgrade"]
    subprocess.run([*install, str(ROOT), "psycopg[binary]"], check=True)
    for packages in dict.fromkeys(contestant.packages for contestant in contestants):
        subprocess.run([*install, *packages], check=False)
    frozen = subprocess.check_output([venv / "bin/python", "-m", "pip", "list", "--format=json"])
    return {each["name"].lower(): each["version"] for each in json.loads(frozen)}


@contextmanager
def redis() -> Iterator[str]:
    """A Redis of our own; its URL."""
    port = free_port()
    command = f"redis-server --port {port} --bind 127.0.0.1 --save '' --appendonly no"
    process = subprocess.Popen(shlex.split(command), stdout=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


def measure(options: argparse.Namespace) -> bool:
    """Print the table; False if a pair was lost that need not be, or a stop was not measured."""
    chosen = [each for each in CONTESTANTS if options.only.lower() in each.name.lower()]
    if not chosen:
        print(f"no server or worker is called {options.only!r}")
        return False
    users = iter(make_users(options.times * sum(len(each.situations) for each in chosen)))
    with ExitStack() as stack:
        venv = options.venv or Path(stack.enter_context(tempfile.TemporaryDirectory()), "venv")
        versions = installed(chosen, venv)
        where = database() | {"ENGINE": connection.settings_dict["ENGINE"]}
        given = {"database": where, "redis": stack.enter_context(redis()), "venv": str(venv)}
        pool = stack.enter_context(ThreadPoolExecutor(options.jobs))
        stops = [
            (
                each,
                how,
                [
                    Stop(each, how, next(users).username, everybody=options.everybody)
                    for _ in range(options.times)
                ],
            )
            for each in chosen
            if each.packages[0] in versions
            for how in each.situations
        ]
        running = [[pool.submit(stop.lost, given) for stop in row] for _, _, row in stops]
        print("server | version | when it is stopped | times | pairs lost")
        right = [
            show(each, versions[each.packages[0]], how, results)
            for (each, how, _), results in zip(stops, running, strict=True)
        ]
    missing = [each.name for each in chosen if each.packages[0] not in versions]
    if missing:
        print(f"not installed: {', '.join(missing)}")
    return all(right)


def show(each: Contestant, version: str, how: str, results: list[Future[bool]]) -> bool:
    """Print a line; True if it is as it has to be."""
    lost = 0
    for result in results:
        try:
            lost += result.result()
        except DidNotHappen as error:
            print(error, file=sys.stderr)
            return False
    print(f"{each.name} | {version} | {SAID[how]} | {len(results)} | {lost}", flush=True)
    return not lost or how in each.lost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--only", default="", metavar="NAME", help="whose name contains it")
    parser.add_argument("--everybody", action="store_true", help="SIGTERM to its children, too")
    parser.add_argument("--jobs", type=int, default=4, help="so many at once")
    parser.add_argument("--venv", type=Path, help="keep the virtual environment there")
    parser.add_argument("--ds", default="tests.settings", help="a settings module: which database")
    options = parser.parse_args()
    right: list[bool] = []
    run(lambda _quota: right.append(measure(options)), options.ds)
    sys.exit(not right[0])


if __name__ == "__main__":
    main()
