"""The real code, driven along the traces of the model, against a real database.

Each step of a trace is made by the function it is named after, and after each step the row, its
lease and the revocation queue must be what the model says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection  # noqa: F401, for the mark above
from django.utils import timezone

from django_quota import connecting
from django_quota.exceptions import (
    NotConnected,
    ProviderUnavailable,
    QuotaError,
    ReauthenticationRequired,
)
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.oidc import endpoints
from django_quota.tokens import decisions, endings, leases, storing
from django_quota.tokens.decisions import GoOnWith, Wait, require_connected
from django_quota.tokens.leases import Lease
from django_quota.tokens.renewal import Renewal
from tests.model.engine import DONE, Config, Faults, State, first_state, steps

pytestmark = [
    pytest.mark.storm,
    pytest.mark.django_db(transaction=True),
    pytest.mark.skipif("connection.vendor == 'sqlite'", reason="its locks are no row locks"),
]

CONFIGS = [
    Config(("caller", "caller"), faults=Faults(lost_commit=1)),
    Config(("caller", "caller"), faults=Faults(crash=1, outage=1)),
    Config(("caller", "caller"), faults=Faults(slow=1)),
    Config(("caller", "sign-in"), faults=Faults(lost_commit=1)),
    Config(("caller", "sign-in without refresh token"), faults=Faults(lost_commit=1)),
    Config(("caller", "disconnect"), faults=Faults(crash=1)),
    Config(("caller", "require")),
]

Step = tuple[str, int, State]

#: What a caller hears -> its outcome in the model.
OUTCOMES = {
    NotConnected: "not connected",
    ProviderUnavailable: "unavailable",
    ReauthenticationRequired: "sign in",
}


def traces(config: Config) -> list[list[Step]]:
    """Traces that together make every step of the model from every state it can be in. What Quota
    does by itself later, revoking what is queued, is left out: the code has no part in it."""
    first = first_state(config)
    ways: dict[State, list[Step]] = {first: []}  # the shortest one to each state
    found = []
    for state in (waiting := [first]):
        followed = False
        for step in steps(state, config):
            if step[0].startswith("prune"):
                continue
            way = [*ways[state], step]
            if step[2] in ways:
                found.append(way)
            else:
                ways[step[2]] = way
                waiting.append(step[2])
                followed = True
        if not followed:
            found.append(ways[state])
    return found


class Driver:
    """The actors of one trace, each as far as its last step has brought it."""

    def __init__(self, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
        QuotaToken.objects.all().delete()
        PendingRevocation.objects.all().delete()
        get_user_model().objects.all().delete()
        self._patch = monkeypatch
        self._user = get_user_model().objects.create(username="ada")
        self._account = ProviderAccount.objects.create(
            user=self._user, external_id="ada", created_user=True
        )
        QuotaToken.objects.create(
            account=self._account,
            access_token="a0",
            refresh_token="a0",
            expires_at=timezone.now() - timedelta(minutes=1),
        )
        count = len(config.actors)
        self._renewals: list[Renewal | None] = [None] * count
        self._answers: list[Any] = [None] * count
        self._known: list[Any] = [None] * count
        self._sign_ins: list[Any] = [None] * count
        self.heard: list[str | None] = [None] * count

    def make(self, step: Step, before: State) -> None:
        """Make the step, and compare what it leaves with the model."""
        name, number, after = step
        kind = name.removesuffix(", its confirmation lost").removesuffix(", its answer lost")
        work = getattr(self, "_" + kind.replace(": ", "_").replace(" ", "_"))
        try:
            said = work(number, before, after)
        except (NotConnected, ProviderUnavailable, ReauthenticationRequired) as error:
            said = OUTCOMES.get(type(error), "unavailable")
        if name == kind and number >= 0 and after.actors[number][0] == DONE and said is not None:
            assert said == after.actors[number][1], (name, said)
        self._compare(after)

    # Steps, by their names in the model.

    def _look(self, number: int, before: State, after: State) -> str | None:
        if self._renewals[number] is None:
            seen = require_connected(QuotaToken.objects.with_identity().first())
            now = timezone.now()
            self._renewals[number] = Renewal(seen, seen.access_token.reveal(), since=now)
        decision = self._renewal(number).look()
        if isinstance(decision, GoOnWith):
            return "token"
        assert (decision == Wait()) == (after.actors[number][0] == "looking"), decision
        return None

    def _claim(self, number: int, before: State, after: State) -> str | None:
        decision = self._renewal(number).claim()
        return "token" if isinstance(decision, GoOnWith) else None

    def _call(self, number: int, before: State, after: State) -> None:
        called = leases.has_time_to_call(self._renewal(number).claimed)
        assert called == (after.actors[number][0] != "looking")

    def _quota(self, number: int, before: State, after: State) -> None:
        answer = after.actors[number][7]
        assert isinstance(answer, tuple)

        def refresh(token: str) -> endpoints.TokenReply:
            assert token == before.actors[number][6]
            if answer[0] == "failed":
                raise ProviderUnavailable("down")
            if answer[0] == "refused":
                raise ReauthenticationRequired("no", provider_code="invalid_grant")
            return reply(answer[1], answer[2])

        self._patch.setattr(endpoints, "refresh", refresh)
        try:
            self._answers[number] = self._renewal(number).call()
        except QuotaError as error:
            self._answers[number] = error

    _quota_is_away = _quota

    def _save(self, number: int, before: State, after: State) -> str:
        self._renewal(number).save(self._answers[number], time.monotonic())
        return "token"

    def _save_failure(self, number: int, before: State, after: State) -> str:
        self._renewal(number).save_failure(self._answers[number])
        return "token"

    def _exchange_code(self, number: int, before: State, after: State) -> None:
        access, refresh = (str(token) for token in after.actors[number][1:3])
        tokens = reply(access, refresh)
        self._sign_ins[number] = storing._SignIn(self._account, "default", tokens, "openid")

    def _store_create(self, number: int, before: State, after: State) -> None:
        self._known[number] = storing._row_of(self._account, "default")

    def _store_write(self, number: int, before: State, after: State) -> str:
        kept = self._sign_ins[number].save(self._known[number])
        return "signed in" if kept else "overtaken"

    def _disconnect(self, number: int, before: State, after: State) -> str:
        connecting.disconnect(self._user)
        return "disconnected"

    def _require_sign_in(self, number: int, before: State, after: State) -> str:
        with suppress(QuotaToken.DoesNotExist):
            endings.require_sign_in(QuotaToken.objects.with_identity().get(), "asked for")
        return "required"

    def _crash(self, number: int, before: State, after: State) -> None:
        """Nothing of it is left but what is in the database."""

    def _the_lease_ends(self, number: int, before: State, after: State) -> None:
        past = timezone.now() - timedelta(seconds=1)
        QuotaToken.objects.update(lease_until=past)
        assert before.row is not None
        assert before.row.lease is not None
        owner = self._renewals[before.row.lease[0]]
        assert owner is not None
        owner.claimed.lease_until = past

    _the_grace_ends = _the_lease_ends

    def _renewal(self, number: int) -> Renewal:
        made = self._renewals[number]
        assert made is not None
        return made

    def _compare(self, state: State) -> None:
        row = QuotaToken.objects.with_identity().first()
        queued = {pending.token.reveal() for pending in PendingRevocation.objects.all()}
        assert queued == state.queue
        if state.row is None:
            assert row is None
            return
        assert row is not None
        assert row.access_token.reveal() == state.row.access
        assert row.refresh_token.reveal() == state.row.refresh
        assert row.needs_sign_in == state.row.needs_sign_in
        assert self._lease(row) == state.row.lease

    def _lease(self, row: QuotaToken) -> tuple[int, str] | None:
        lease = Lease.of(row)
        if lease.until is None:
            return None
        owners = [made.me if made else "" for made in self._renewals]
        held = lease.until > timezone.now()
        phase = ("grace" if held else "over") if lease.in_grace else "held" if held else "ended"
        return owners.index(lease.owner), phase


def reply(access: str, refresh: str) -> endpoints.TokenReply:
    return endpoints.TokenReply(
        access_token=access,
        refresh_token=refresh or None,
        id_token=None,
        expires_in=3600,
        scope=None,
    )


@pytest.fixture
def no_hurry(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No lease and no grace ends by itself, however busy the machine is."""
    settings.QUOTA_DEADLINE = 50
    monkeypatch.setattr(leases, "GRACE", 60)
    monkeypatch.setattr(decisions, "COOL_DOWN", 0)
    yield


@pytest.mark.usefixtures("no_hurry")
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: ", ".join(config.actors))
def test_code_does_what_the_model_says(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    walked = traces(config)
    assert walked
    for trace in walked:
        driver, state = Driver(config, monkeypatch), first_state(config)
        for step in trace:
            try:
                driver.make(step, state)
            except Exception as error:
                error.add_note(" > ".join(f"{number} {name}" for name, number, _state in trace))
                raise
            state = step[2]
