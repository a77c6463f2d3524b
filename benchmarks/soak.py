"""Half an hour of everything at once: `python -m benchmarks.soak --minutes 30`.

A real gunicorn (gthread) and a real uvicorn, two workers each, with ATOMIC_REQUESTS, on PostgreSQL,
with `--pgbouncer` through PgBouncer in transaction mode; a strict rotating provider over HTTP,
whose tokens live 20 to 40 seconds. People read pages, spend, sign in and disconnect, webhooks come
in, many of them twice; meanwhile Quota hangs, workers are killed, servers are restarted and keys
rotated. `benchmarks/soaking` has the parts.

Prints what was counted, and what the servers took up each minute. Exit code 1 if a pair of tokens
was lost, a refresh token was sent twice, somebody else's wallet paid, a webhook was handled twice
or never, or a paid call has no record. What was in the hands of a process that was killed is
excused, and counted apart.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import secrets
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import django
import psycopg
from cryptography.fernet import Fernet
from django.core.management import call_command
from django.db import connection
from django.test.utils import override_settings

from benchmarks.soaking.people import Person, Visit, Visitors, read_heard
from benchmarks.soaking.postman import Postman
from benchmarks.soaking.provider import Call, Grant, Provider
from benchmarks.soaking.servers import Server
from benchmarks.soaking.troubles import Troubles
from tests.helpers.programs import free_port

PEOPLE = 48
MIXED, PLAIN = 16, 4
#: Seconds; a plain page that takes longer is slow.
SLOW = 2.0
#: Seconds after an answer in which its process may still have had it in memory only.
IN_HAND = 120


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument(
        "--pool", type=int, default=16, help="places in each process's pool (%(default)s)"
    )
    parser.add_argument("--pgbouncer", action="store_true", help="go through PgBouncer")
    parser.add_argument("--host", default="127.0.0.1", help="PostgreSQL's (%(default)s)")
    parser.add_argument("--port", type=int, default=5432, help="PostgreSQL's (%(default)s)")
    parser.add_argument("--user", default="postgres", help="who may make a database (%(default)s)")
    parser.add_argument("--logs", type=Path, help="keep what the servers log in this directory")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        own = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="quota-soak-")))
        logs = options.logs or own
        logs.mkdir(parents=True, exist_ok=True)
        database = stack.enter_context(new_database(options))
        if options.pgbouncer:
            database |= stack.enter_context(pgbouncer(database, own, logs))
        postman = Postman()
        people = [Person(number) for number in range(1, PEOPLE + 1)]
        quota = Provider([person.sub for person in people], postman.tell)
        stack.enter_context(quota)
        env = environment(own, quota, database)
        os.environ.update(env)
        django.setup()
        call_command("migrate", verbosity=0)
        connection.close()
        soak = Soak(people, quota, postman, env, database, own, logs)
        soak.run(options.minutes * 60)
        return soak.report()


@contextlib.contextmanager
def new_database(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Django's settings for a new, empty database, which is dropped at the end."""
    server = {"host": options.host, "port": options.port, "user": options.user}
    name = f"quota_soak_{os.getpid()}"
    with psycopg.connect(dbname="postgres", autocommit=True, **server) as admin:
        admin.execute(f"CREATE DATABASE {name}")
    try:
        yield {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": name,
            "HOST": options.host,
            "PORT": options.port,
            "USER": options.user,
            "ATOMIC_REQUESTS": True,
            "OPTIONS": {"pool": {"min_size": 1, "max_size": options.pool, "max_idle": 20}},
        }
    finally:
        connection.close()
        with psycopg.connect(dbname="postgres", autocommit=True, **server) as admin:
            admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextlib.contextmanager
def pgbouncer(database: dict[str, Any], own: Path, logs: Path) -> Iterator[dict[str, Any]]:
    """A PgBouncer before it; the settings that differ then."""
    port = free_port()
    config = own / "pgbouncer.ini"
    to = " ".join(
        f"{name.lower()}={database[key]}"
        for name, key in {"host": "HOST", "port": "PORT", "dbname": "NAME", "user": "USER"}.items()
    )
    config.write_text(
        f"[databases]\n{database['NAME']} = {to}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\nauth_type = any\n"
        "pool_mode = transaction\ndefault_pool_size = 20\nmax_client_conn = 500\n"
        "ignore_startup_parameters = extra_float_digits\nuser = nobody\n"
    )
    own.chmod(0o755)
    with (logs / "pgbouncer.log").open("ab") as log:
        process = subprocess.Popen(["pgbouncer", str(config)], stdout=log, stderr=log)
    try:
        time.sleep(1)
        yield {"PORT": port, "OPTIONS": {}, "DISABLE_SERVER_SIDE_CURSORS": True}
    finally:
        process.terminate()
        process.wait(10)


def environment(own: Path, quota: Provider, database: dict[str, Any]) -> dict[str, str]:
    """What every process of the site is told."""
    keys = own / "keys"
    keys.write_text(Fernet.generate_key().decode())
    soak = {
        "secret_key": secrets.token_urlsafe(50),
        "database": database,
        "base_url": quota.origin,
        "keys": str(keys),
    }
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "benchmarks.soaking.settings",
        "QUOTA_SOAK": json.dumps(soak),
        "QUOTA_SOAK_HEARD": str(own / "heard"),
        "TMPDIR": str(own),
    }


@dataclass(frozen=True)
class Sample:
    minute: int
    server: str
    takes: dict[str, int]


class Soak:
    """The run, and what it has found."""

    def __init__(
        self,
        people: list[Person],
        quota: Provider,
        postman: Postman,
        env: dict[str, str],
        database: dict[str, Any],
        own: Path,
        logs: Path,
    ) -> None:
        self.quota, self.postman, self.own, self.logs = quota, postman, own, logs
        self.servers = [
            Server(name, env, logs / f"{name}.log", database["PORT"])
            for name in ("gunicorn", "uvicorn")
        ]
        self.visitors = Visitors(people, self.servers, quota)
        keys, log = own / "keys", logs / "troubles.log"
        self.troubles = Troubles(quota, self.servers, env, keys, log)
        self.samples: list[Sample] = []
        self.undelivered = 0

    def run(self, seconds: float) -> None:
        self.postman.servers = self.servers
        for server in self.servers:
            server.start()
        self.postman.start()
        over = threading.Event()
        sampling = threading.Thread(target=self._sample, args=(over,))
        try:
            self.visitors.sign_everybody_in()
            self.visitors.start(MIXED, PLAIN)
            self.troubles.start()
            sampling.start()
            time.sleep(seconds)
        finally:
            over.set()
            self.troubles.stop()
            self.visitors.stop()
            self._give_back()
            self.undelivered = self.postman.stop()
            for server in self.servers:
                server.stop()
            if sampling.is_alive():
                sampling.join()

    def _sample(self, over: threading.Event) -> None:
        began = time.monotonic()
        while not over.wait(2):
            minute = int((time.monotonic() - began) // 60) + 1
            for server in self.servers:
                server.look_after_workers()
                self.samples.append(Sample(minute, server.name, server.takes()))

    def _give_back(self) -> None:
        """What waits for it; Quota tells of that by webhook."""
        for _attempt in range(5):
            if self.troubles.manage("quota_prune") == 0:
                return

    def report(self) -> int:
        with override_settings(FIELD_ENCRYPTION_KEY=(self.own / "keys").read_text().split()):
            kept, mixed_rows = tokens_in_rows()
            records = recorded_calls()
        verdict: dict[str, list[Any]] = {
            "pairs lost by us": self.lost(kept),
            "tokens spent twice": self.reused(),
            "wallets mixed up": [*self.mixed_calls(), *self.visitors.mixed, *mixed_rows],
            "webhooks handled twice": self.doubles(),
            "webhooks never handled": self.missing_events(),
            "paid calls without a record": self.unrecorded(records),
        }
        self.show_set_up()
        self.show_load(records, kept)
        for what, found in verdict.items():
            say(what, len(found), "0")
        self.show_pages()
        self.show_samples()
        (self.logs / "failures.log").write_text("\n".join(self.visitors.failures))
        for what, found in verdict.items():
            for one in found[:20]:
                print(f"{what}: {one}")
        return 1 if any(verdict.values()) else 0

    def excuses(self, process: int, at: float) -> bool:
        """Was `process` killed when it may have had, in memory only, what it got at that time?"""
        killed = Server.killed.get(process)
        return killed is not None and at - 1 <= killed <= at + IN_HAND

    def gone(self, kept: set[str]) -> list[Grant]:
        """Grants whose newest refresh token nobody has: not ended by the person, nor given back."""
        return [
            grant
            for grant in self.quota.books.grants.values()
            if grant.ended_by != "user" and not grant.given_back and grant.newest not in kept
        ]

    def lost(self, kept: set[str]) -> list[Grant]:
        return [
            grant for grant in self.gone(kept) if not self.excuses(grant.owner, grant.answered_at)
        ]

    def reused(self) -> list[Grant]:
        """Grants that ended because we sent a refresh token that had been spent."""
        return [
            grant
            for grant in self.quota.books.grants.values()
            if grant.ended_by == "reused" and not self.excuses(grant.owner, grant.answered_at)
        ]

    def mixed_calls(self) -> list[Call]:
        return [call for call in self.quota.books.calls if call.payer != call.wanted]

    def _heard(self) -> dict[str, list[int]]:
        return read_heard(self.own / "heard")

    def doubles(self) -> list[str]:
        """Heard again, though who had heard it was not killed."""
        return [
            event
            for event, processes in self._heard().items()
            if any(process not in Server.killed for process in processes[:-1])
        ]

    def missing_events(self) -> list[str]:
        return sorted(self.postman.events - set(self._heard()))

    def unrecorded(self, records: dict[str, bool]) -> list[Call]:
        return [
            call
            for call in self.quota.books.calls
            if call.whole and call.id not in records and not self.excuses(call.process, call.at)
        ]

    def show_set_up(self) -> None:
        with connection.cursor() as cursor:
            cursor.execute("SHOW server_version")
            (server,) = cursor.fetchone()
        bouncer = "" if connection.settings_dict["OPTIONS"] else " through PgBouncer"
        names = ("Django", "gunicorn", "uvicorn", "psycopg", "openai")
        versions = ", ".join(f"{name} {version(name)}" for name in names)
        print(f"Python {platform.python_version()}, {versions}, PostgreSQL {server}{bouncer}")

    def show_load(self, records: dict[str, bool], kept: set[str]) -> None:
        books, visits = self.quota.books, self.visitors.visits
        say("requests", len(visits) + self.postman.statuses.total(), "")
        for name in ("renewed", "sign-ins", "refused", "reused", "revoked"):
            say(f"... at Quota: {name}", books.outcomes[name], "")
        say("paid calls", len(books.calls), "")
        partial = [call for call in books.calls if not call.whole]
        known = sum(call.id in records for call in partial)
        say("... streams that were left: with a record", f"{known} of {len(partial)}", "")
        say("webhooks", len(self.postman.events), "")
        say("... deliveries by status", shown(self.postman.statuses), "")
        for name, times in sorted(self.troubles.happened.items()):
            say(name, times, "")
        say("slowest stop of a server, in s", round(self.troubles.slowest_stop), "")
        say("workers that died by themselves", sum(server.died for server in self.servers), "0")
        excused = len(self.gone(kept)) - len(self.lost(kept))
        say("excused by a kill: pairs", excused, "")
        missing = [call for call in books.calls if call.whole and call.id not in records]
        say("... paid calls without a record", len(missing) - len(self.unrecorded(records)), "")
        twice = sum(len(processes) > 1 for processes in self._heard().values())
        say("... webhooks handled twice", twice - len(self.doubles()), "")
        say("undelivered at the end", self.undelivered, "0")

    def show_pages(self) -> None:
        for what, server in itertools.product(("plain", "balance"), self.servers):
            for name, found in self._by_phase(what, server).items():
                seconds = sorted(visit.seconds for visit in found)
                outcomes = Counter(visit.outcome for visit in found)
                slow = sum(visit.seconds > SLOW for visit in found)
                say(f"{server.name}: {what} pages, {name}", shown(outcomes), "no failed ones")
                if seconds:
                    median, longest = statistics.median(seconds), seconds[-1]
                    said = f"{1000 * median:.0f} ms, {longest:.1f} s, {slow}"
                    say(f"... median, longest, above {SLOW:g} s", said, "")
        for server in self.servers:
            others = [visit for visit in self.visitors.visits if visit.server == server.name]
            whats = sorted({visit.what for visit in others} - {"plain", "balance"})
            for what in whats:
                outcomes = Counter(visit.outcome for visit in others if visit.what == what)
                say(f"{server.name}: {what}", shown(outcomes), "no failed ones")

    def _by_phase(self, what: str, server: Server) -> dict[str, list[Visit]]:
        disturbed = "beside a kill or a restart"
        phases: dict[str, list[Visit]] = {"calm": [], "in an outage": [], disturbed: []}
        for visit in self.visitors.visits:
            if (visit.what, visit.server) != (what, server.name):
                continue
            end = visit.began + visit.seconds
            if server.was_disturbed(visit.began, end):
                phases[disturbed].append(visit)
            elif any(visit.began < till and since < end for since, till in self.troubles.outages):
                phases["in an outage"].append(visit)
            else:
                phases["calm"].append(visit)
        return phases

    def show_samples(self) -> None:
        row = "{:<8} {:<10} {:>10} {:>8} {:>12}".format
        print(row("minute", "server", "memory, MB", "threads", "connections"), "(the most of each)")
        groups: dict[tuple[int, str], list[dict[str, int]]] = {}
        for sample in self.samples:
            groups.setdefault((sample.minute, sample.server), []).append(sample.takes)
        for (minute, server), takes in groups.items():
            most = [max(one[name] for one in takes) for name in takes[0]]
            print(row(minute, server, *most))


def tokens_in_rows() -> tuple[set[str], list[str]]:
    """The refresh tokens that we have, in rows and in the queue; and rows of somebody else's."""
    from django_quota.models import PendingRevocation, QuotaToken

    kept, mixed = set(), []
    for row in QuotaToken.objects.select_related("account"):
        sub = row.account.external_id
        for token in (row.access_token.reveal(), row.refresh_token.reveal()):
            kept.add(str(token))
            if token and token.rsplit("_", 1)[1].split(".")[0] != sub:
                mixed.append(f"the row of {sub} has a token of another's")
    kept |= {str(pending.token.reveal()) for pending in PendingRevocation.objects.all()}
    return kept, mixed


def recorded_calls() -> dict[str, bool]:
    """Each call that has a record: is it complete?"""
    from django_quota.models import UsageRecord

    return dict(UsageRecord.objects.values_list("call_id", "complete"))


def shown(counts: Counter[Any]) -> str:
    return ", ".join(f"{name} {times}" for name, times in sorted(counts.items())) or "none"


def say(what: str, measured: object, must_be: str) -> None:
    print(f"{what:<50} {measured!s:<42} {must_be}".rstrip(), flush=True)


if __name__ == "__main__":
    sys.exit(main())
