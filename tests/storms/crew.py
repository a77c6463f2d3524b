"""Callers by the dozen, in threads and in processes of their own, as web workers are.

`python -m tests.storms.crew CONFIG` is one such process: it says "ready", then takes one order a
line and answers each in one line, both in JSON. `Crew` starts several and lets them begin together.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from itertools import count, cycle, islice
from pathlib import Path
from typing import Any, Self, TypeVar

from django.db import OperationalError, close_old_connections, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from tests.helpers import programs
from tests.helpers.concurrency import GIVE_UP_AFTER, begin_together, outcome
from tests.helpers.databases import every_query
from tests.helpers.priced import ask

T = TypeVar("T")


def work_for(users: Iterable[Any], callers: int) -> list[Callable[[], str]]:
    """Of so many callers, each of whom asks for the token of one of `users`, in turn."""
    from django_quota.tokens.access import get_access_token

    return [
        partial(outcome, partial(get_access_token, user)) for user in islice(cycle(users), callers)
    ]


def make_users(count: int, *, expire_in: float = -1) -> list[Any]:
    """Users u0, u1 ... with a token of `tests.light_provider`, which expires in so many seconds."""
    from django.contrib.auth import get_user_model
    from django.utils import timezone

    from django_quota.models import ProviderAccount, QuotaToken

    users = get_user_model().objects.bulk_create(
        get_user_model()(username=f"u{n}") for n in range(count)
    )
    accounts = ProviderAccount.objects.bulk_create(
        ProviderAccount(user=user, external_id=user.username) for user in users
    )
    QuotaToken.objects.bulk_create(
        QuotaToken(
            account=account,
            access_token=f"quota_token_{account.external_id}.0",
            refresh_token=f"quota_refresh_{account.external_id}.0",
            expires_at=timezone.now() + timedelta(seconds=expire_in),
            # Bulk renewal leaves out what is as new as its run, and SQLite's clock counts in
            # milliseconds.
            updated_at=timezone.now() - timedelta(hours=1),
        )
        for account in accounts
    )
    return users


def get(users: list[int], threads: int) -> list[str]:
    """Order: `threads` callers at once ask for the token of these users, in turn."""
    from django.contrib.auth import get_user_model

    return begin_together(work_for(get_user_model().objects.filter(pk__in=users), threads))


def get_blocking(users: list[int], threads: int) -> list[str]:
    """Order: as `get`, in the way that holds the row's lock while Quota is asked: the floor that
    benchmarks compare with."""
    from django.contrib.auth import get_user_model

    who = get_user_model().objects.filter(pk__in=users)
    works = [partial(outcome, partial(blocking_token, user)) for user in who]
    return begin_together(list(islice(cycle(works), threads)))


def blocking_token(user: Any) -> str:
    """An access token of `user`; `SELECT ... FOR UPDATE`, and the call inside the transaction."""
    from django.db import transaction
    from django.utils import timezone

    from django_quota.models import QuotaToken
    from django_quota.oidc import endpoints

    with transaction.atomic():
        row = QuotaToken.objects.select_for_update(of=("self",)).get(account__user_id=user.pk)
        if row.expires_at <= timezone.now():
            reply = endpoints.refresh(row.refresh_token.reveal())
            row.access_token, row.refresh_token = reply.access_token, reply.refresh_token or ""
            row.expires_at = timezone.now() + timedelta(seconds=reply.expires_in)
            row.save()
        return row.access_token.reveal()


def refuse(users: list[int], threads: int, times: int) -> list[str]:
    """Order: each caller, `times` over, has a token that Quota refuses; all that went wrong."""
    from django.contrib.auth import get_user_model

    from django_quota.tokens.access import get_access_token
    from django_quota.tokens.locking import RowLocked

    who = list(get_user_model().objects.filter(pk__in=users))

    def once() -> str:
        """Asked again while the database is busy, be it to write or to read. Quota was sent
        nothing then, or its count would show it."""
        give_up = time.monotonic() + GIVE_UP_AFTER
        while True:
            close_old_connections()  # as before each request
            user = random.choice(who)
            try:
                return get_access_token(user, rejected=get_access_token(user))
            except (OperationalError, RowLocked):
                if time.monotonic() > give_up:
                    raise

    def work() -> list[str]:
        return [said for _ in range(times) if not (said := outcome(once)).startswith("quota_")]

    return [said for each in begin_together([work] * threads) for said in each]


def renew_all() -> list[tuple[int, int, int]]:
    """Order: renew every token that expires soon, as quota_refresh_tokens does; how many were
    renewed, how many failed, and the most memory that this process has had, in MB."""
    from django_quota.tokens.bulk import refresh_expiring

    done = refresh_expiring(timedelta(minutes=10))
    # Not of getrusage, which begins with what the parent had.
    (most,) = re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return [(done.renewed, done.failed, int(most) // 1024)]


def die(user: int, step: int | None = None, seconds: float | None = None) -> list[bool]:
    """Order: a child process asks for a token and is killed (SIGKILL) at a step, or after so many
    seconds; False if it was done before that."""
    from django.contrib.auth import get_user_model

    from django_quota.tokens.access import get_access_token

    return [killed(partial(get_access_token, get_user_model()(pk=user)), step, seconds)]


def die_delivering(body: str, step: int) -> list[bool]:
    """Order: as `die`, at a step of the delivery of a webhook."""
    return [killed(partial(post_event, body), step)]


def die_granting(user: int, key: str, step: int) -> list[bool]:
    """Order: as `die`, at a step of a grant of five credits."""
    return [killed(partial(give, user, key), step)]


def grant(user: int, key: str) -> list[str]:
    """Order: give the credits under that key; the balance after it, and the entry in the ledger."""
    return [outcome(partial(give, user, key))]


def give(user: int, key: str) -> str:
    """Give five credits to the user with this primary key."""
    from django.contrib.auth import get_user_model

    from django_quota.wallet import grant_credits

    who = get_user_model().objects.get(pk=user)
    done = grant_credits(who, 5, idempotency_key=key)
    return f"{done.balance_after} {done.ledger_id}"


def killed(work: Callable[[], Any], step: int | None, seconds: float | None = None) -> bool:
    """Was a child process that did `work` killed before it was done?"""
    connections.close_all()
    child = os.fork()
    if child == 0:
        try:
            with deadly(step) if step is not None else contextlib.nullcontext():
                work()
        finally:
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def make_event(number: int) -> str:
    """The body of event `number`, which is about user `number` % 100 of `make_users`."""
    from django.utils import timezone

    kind = "usage.completed" if number % 2 else "balance.updated"
    data = {"user_id": f"u{number % 100}", "new_balance": number, "credits_used": 1}
    now = timezone.now().isoformat()
    return json.dumps({"id": f"evt_{number}", "type": kind, "created_at": now, "data": data})


def post_event(body: str) -> int:
    """Deliver it, signed; the status of the answer."""
    from django.test import RequestFactory

    from django_quota.conf import get_settings
    from django_quota.web.webhooks import webhook

    (secret,) = get_settings().webhook_secret
    signature = hmac.new(secret.encode(), body.encode(), hashlib.sha256).hexdigest()
    headers = {"X-Quota-Signature": signature}
    request = RequestFactory().post("/", body, content_type="application/json", headers=headers)
    return webhook(request).status_code


def deliver(bodies: list[str]) -> list[dict[str, Any]]:
    """Order: deliver these as Quota would, again and again what is not taken; how often each status
    was answered, and the ids that this process's receiver heard of."""
    from django_quota.signals import webhook_received

    heard: list[str] = []
    statuses: Counter[int] = Counter()

    def receiver(event: Any, **said: Any) -> None:
        heard.append(event.event_id)

    webhook_received.connect(receiver)
    waiting = deque(bodies)
    while waiting:
        status = post_event(waiting[0])
        statuses[status] += 1
        if status != 200:
            waiting.append(waiting[0])
        waiting.popleft()
    webhook_received.disconnect(receiver)
    return [{"statuses": statuses, "heard": heard}]


def spend(user: int, threads: int) -> list[list[Any]]:
    """Order: each of `threads` callers calls the AI for this user until it gets an error; how many
    calls it made, and the class of the error."""
    from django.contrib.auth import get_user_model

    from django_quota.ai.factory import openai_client

    def work() -> list[Any]:
        client = openai_client(get_user_model().objects.get(pk=user))
        for made in count():
            try:
                ask(client)
            except Exception as error:
                return [made, type(error).__name__]
        raise AssertionError

    return begin_together([work] * threads)


@contextlib.contextmanager
def deadly(step: int) -> Iterator[None]:
    """This process is killed at its `step`-th step: before or after a query, a commit or a call
    to Quota."""
    from django_quota.oidc import endpoints, wallet_api

    left = step

    def stepwise(real: Callable[..., T]) -> Callable[..., T]:
        def stepped(*args: Any, **options: Any) -> T:
            pass_one()
            result = real(*args, **options)
            pass_one()
            return result

        return stepped

    def pass_one() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def query(execute: Callable[..., T], *args: Any) -> T:
        return stepwise(execute)(*args)

    endpoints.refresh = stepwise(endpoints.refresh)
    wallet_api.fund_user = stepwise(wallet_api.fund_user)
    BaseDatabaseWrapper.commit = stepwise(BaseDatabaseWrapper.commit)  # type: ignore[method-assign]
    with every_query(query):
        yield


ORDERS: dict[str, Callable[..., Any]] = {
    order.__name__: order
    for order in (
        get,
        get_blocking,
        refuse,
        renew_all,
        die,
        die_delivering,
        deliver,
        die_granting,
        grant,
        spend,
    )
}


class Crew:
    """`count` processes that are ready; a context manager.

    They use the database of this process, or one that differs by `database`.
    """

    def __init__(self, count: int, *, database: dict[str, Any] | None = None, **ours: Any) -> None:
        mine = programs.database() | (database or {})
        config = {"database": mine, "settings": ours}
        self._processes = [
            subprocess.Popen(
                [sys.executable, "-m", __name__, json.dumps(config, default=str)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(count)
        ]

    def __enter__(self) -> Self:
        assert self._read() == ["ready"] * len(self._processes)
        return self

    def __exit__(self, *error: object) -> None:
        for process in self._processes:
            process.communicate()

    def order(
        self,
        do: str,
        *,
        crew: int | None = None,
        each: Iterable[dict[str, Any]] | None = None,
        **what: Any,
    ) -> list[Any]:
        """What all of them (or the first `crew`) answered to the same order, as one list. What
        differs for each of them is in `each`."""
        for process, own in zip(self._processes[:crew], each or cycle([{}]), strict=False):
            assert process.stdin is not None
            process.stdin.write(json.dumps({"do": do, **what, **own}) + "\n")
            process.stdin.flush()
        return [said for each in self._read(crew) for said in each]

    def _read(self, crew: int | None = None) -> list[Any]:
        lines = []
        for process in self._processes[:crew]:
            assert process.stdout is not None
            lines.append(json.loads(process.stdout.readline()))
        return lines


def main() -> None:
    programs.set_up()
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        close_old_connections()  # as before each request: a test may have cut them all
        order = json.loads(line)
        print(json.dumps(ORDERS[order.pop("do")](**order)), flush=True)


if __name__ == "__main__":
    main()
