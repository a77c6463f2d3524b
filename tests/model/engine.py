"""What may happen to one token row, step by step, as plain functions of a state.

A state holds the row, what Quota knows, the revocation queue, how far each actor has come, and how
many faults may still happen. `steps` gives every state that can follow. Each step is named after
the method or function of the package that makes it, and is atomic for the same reason: one
transaction, or one answer of Quota's. `tests.model.explore` walks through all of them.

Time has no numbers here. A lease is held, then ended, then in its grace, then over; which of these
comes next is a step of its own, which costs a fault while the owner of the lease is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

#: A token is its family (one letter for each sign-in) and its number in it: "a0", "a1", "b0".
Token = str


class Row(NamedTuple):
    """A row of QuotaToken. `refresh` is "" where Quota gave none."""

    pk: int
    access: Token
    refresh: Token
    version: int = 0
    #: Which sign-in the refresh token is from; 0 before there was one.
    grant: int = 0
    lease: tuple[int, str] | None = None
    needs_sign_in: bool = False
    failures: int = 0
    #: How often the person had disconnected at Quota when these tokens were requested.
    requested_at: int = 0


class Faults(NamedTuple):
    """How many of each may still happen."""

    crash: int = 0
    lost_answer: int = 0
    outage: int = 0
    lost_commit: int = 0
    slow: int = 0


class State(NamedTuple):
    row: Row | None
    quota: tuple[tuple[Token, str], ...]
    queue: frozenset[Token]
    actors: tuple[tuple[object, ...], ...]
    faults: Faults
    #: Every token that was ever queued for revocation.
    dropped: frozenset[Token] = frozenset()
    #: Families that a crash, a lost answer or a very late owner may end (rule 14 of the design).
    excused: frozenset[str] = frozenset()
    next_pk: int = 2
    ended_at_quota: int = 0
    #: Actors whose own lease has ended since they took it.
    late: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Rules:
    """What the engine does, so that each rule can be switched off to see what it prevents."""

    look_again_under_the_lock: bool = True
    grace_for_a_late_owner: bool = True
    own_lease_is_not_taken: bool = True
    successor_of_the_spent_token_is_kept: bool = True
    same_grant_is_never_revoked: bool = True
    superseded_is_queued: bool = True
    sign_in_knows_its_own_write: bool = True
    sign_in_keeps_out_after_a_disconnect: bool = True
    failure_is_of_the_claimed_version: bool = True
    wipe_is_of_the_tried_grant: bool = True
    event_wants_a_later_success: bool = True
    lease_before_the_call: bool = True
    lease_stays_with_its_token: bool = True


@dataclass(frozen=True)
class Config:
    """Who takes part: "caller", "bulk", "sign-in", "sign-in without refresh token", "disconnect",
    "require", "webhook"; which provider; what may go wrong."""

    actors: tuple[str, ...]
    provider: str = "strict"
    faults: Faults = field(default_factory=Faults)
    rules: Rules = field(default_factory=Rules)


class Violation(Exception):
    """A property does not hold."""


Steps = Iterator[tuple[str, int, State]]

#: Where a caller may be, from the first look to the end.
LOOKING, CLAIMING, CLAIMED, CALLING, ANSWERED, DONE = (
    "looking",
    "claiming",
    "claimed",
    "calling",
    "answered",
    "done",
)


def first_state(config: Config) -> State:
    """A user with the pair a0, whose access token has expired; everybody is about to begin."""
    begin = {
        "caller": (LOOKING, None, 0, 0),
        "bulk": (LOOKING, None, 0, 0),
        "webhook": ("event",),
        "sign-in": ("exchange",),
        "sign-in without refresh token": ("exchange",),
        "disconnect": ("delete", None),
        "require": ("require",),
    }
    return State(
        row=Row(1, "a0", "a0"),
        quota=(("a0", "live"),),
        queue=frozenset(),
        actors=tuple(begin[kind] for kind in config.actors),
        faults=config.faults,
    )


def steps(state: State, config: Config) -> Steps:
    """Every step that can follow: its name, whose it is, and the state after it."""
    for number, actor in enumerate(state.actors):
        if actor[0] == DONE:
            continue
        made = _STEPS[str(actor[0])](state, config, number)
        for name, after in made:
            yield name, number, after
        if state.faults.crash and actor[0] not in (LOOKING, "event", "exchange", "require"):
            yield "crash", number, _crash(state, number)
    yield from _time(state, config)
    yield from _environment(state, config)


# The provider ------------------------------------------------------------------------------------


def _status(state: State, token: Token) -> str:
    return dict(state.quota).get(token, "unknown")


def _with_quota(state: State, **changes: str) -> State:
    return state._replace(quota=tuple(sorted((dict(state.quota) | changes).items())))


def _end_family(state: State, family: str) -> State:
    dead = {token: "dead" for token, _status in state.quota if token[0] == family}
    return _with_quota(state, **dead)


def _refresh(state: State, config: Config, token: Token) -> tuple[State, tuple[str, ...]]:
    """Quota's answer to a refresh token: (state, ("reply", access, refresh) or ("refused",))."""
    family, number = token[0], int(token[1:])
    status = _status(state, token)
    successor = f"{family}{number + 1}"
    if status == "live":
        if config.provider == "keeping":
            return state, ("reply", successor, "")
        old = "live" if config.provider == "forgiving" else "spent"
        return _with_quota(state, **{token: old, successor: "live"}), (
            "reply",
            successor,
            successor,
        )
    if status == "spent" and config.provider == "grace" and _status(state, successor) == "live":
        return state, ("reply", successor, successor)
    if status == "spent" and family not in state.excused:
        raise Violation(f"the spent refresh token {token} is sent")
    return (state if config.provider == "lenient" else _end_family(state, family)), ("refused",)


# A renewal: look, claim, call, save --------------------------------------------------------------


def _set(state: State, number: int, *actor: object) -> State:
    actors = list(state.actors)
    actors[number] = actor
    return state._replace(actors=tuple(actors))


def _end(state: State, config: Config, number: int, outcome: str) -> State:
    """The caller has its answer; the webhook goes on with it."""
    if config.actors[number] != "webhook":
        return _set(state, number, DONE, outcome)
    if outcome == "sign in":
        return _set(state, number, "wipe", state.row.grant if state.row else None)
    row = state.row
    older = row is not None and row.requested_at < state.ended_at_quota
    if outcome == "token" and older and config.rules.event_wants_a_later_success:
        return _set(state, number, LOOKING, None, 0, 0)
    return _set(state, number, DONE, outcome)


def _row(state: State, pk: object) -> Row | None:
    """The row with that key: one that was made after a disconnect is another."""
    return state.row if state.row is not None and state.row.pk == pk else None


def _decide(state: State, number: int, config: Config) -> str:
    """The verdict on the row: an outcome, "wait", "grace" or "renew"; as `decide` gives it."""
    _place, rejected, failures, pk = state.actors[number][:4]
    row = _row(state, pk)
    if row is None:
        return "not connected"
    if row.needs_sign_in:
        return "sign in"
    if row.access != rejected:
        return "token"
    if row.failures > int(str(failures)):
        return "unavailable"
    if row.lease is None:
        return "renew"
    owner, phase = row.lease
    if owner == number and config.rules.own_lease_is_not_taken:
        return "renew"
    if phase == "ended":
        return "grace" if config.rules.grace_for_a_late_owner else "renew"
    return "renew" if phase == "over" else "wait"


def _look(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    row = state.row
    first = state.actors[number][1] is None
    if first and row is not None:
        state = _set(state, number, LOOKING, row.access, row.failures, row.pk)
    verdict = _decide(state, number, config)
    if verdict in ("renew", "grace"):
        yield "look", _set(state, number, CLAIMING, *state.actors[number][1:4])
    elif verdict == "wait":
        if config.actors[number] == "bulk":
            if row is not None and row.lease is not None and row.lease[0] == number:
                raise Violation("bulk work takes its own lease for somebody else's")
            yield "look", _end(state, config, number, "taken")
        elif first:
            yield "look", state
    else:
        yield "look", _end(state, config, number, verdict)


def _claim(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    mine = state.actors[number][1:4]
    row = _row(state, mine[2])
    verdict = _decide(state, number, config)
    if not config.rules.look_again_under_the_lock and row is not None:
        verdict = "renew"
    if verdict == "wait":
        yield "claim", _set(state, number, LOOKING, *mine)
    elif verdict == "grace":
        assert row is not None
        assert row.lease is not None
        begun = row._replace(lease=(row.lease[0], "grace"))
        yield "claim", _set(state._replace(row=begun), number, LOOKING, *mine)
    elif verdict == "renew":
        assert row is not None
        taken = state._replace(row=row._replace(lease=(number, "held")), late=state.late - {number})
        claimed = (CLAIMED, *mine, row.version, row.grant, row.refresh)
        yield "claim", _set(taken, number, *claimed)
        if state.faults.lost_commit and row.lease != (number, "held"):
            yield "claim, its confirmation lost", _lose(taken, "lost_commit")
    else:
        yield "claim", _end(state, config, number, verdict)


def _call(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    """Sent only while our lease lasts, by what we know of it: nobody looks at the row again.
    Without a refresh token nothing is sent."""
    claimed = state.actors[number][1:]
    if number in state.late and config.rules.lease_before_the_call:
        yield "call", _set(state, number, LOOKING, *claimed[:3])
    elif not claimed[-1]:
        yield "call", _set(state, number, ANSWERED, *claimed, ("refused",), 0)
    else:
        yield "call", _set(state, number, CALLING, *claimed)


def _quota(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    claimed = (ANSWERED, *state.actors[number][1:])
    token = str(claimed[-1])
    at = state.ended_at_quota
    answered, answer = _refresh(state, config, token)
    yield "quota", _set(answered, number, *claimed, answer, at)
    if state.faults.outage:
        yield "quota is away", _set(_lose(state, "outage"), number, *claimed, ("failed",), at)
    if state.faults.lost_answer:
        lost = answered._replace(excused=answered.excused | {token[0]})
        after = _set(_lose(lost, "lost_answer"), number, *claimed, ("failed",), at)
        yield "quota, its answer lost", after


def _save(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    answer = state.actors[number][7]
    assert isinstance(answer, tuple)
    name = "save" if answer[0] == "reply" else "save_failure"
    saved, outcome = (_save_reply if answer[0] == "reply" else _save_failure)(state, config, number)
    yield name, _end(saved, config, number, outcome)
    if state.faults.lost_commit and saved != state:
        again = saved._replace(actors=state.actors)
        yield f"{name}, its confirmation lost", _lose(again, "lost_commit")


def _save_reply(state: State, config: Config, number: int) -> tuple[State, str]:
    pk, version, grant, spent, answer, requested_at = state.actors[number][3:]
    assert isinstance(answer, tuple)
    _reply, access, refresh = answer
    row = _row(state, pk)
    if row is not None and row.version == version:
        written = row._replace(
            access=access,
            refresh=refresh or row.refresh,
            version=row.version + 1,
            lease=None,
            needs_sign_in=False,
            requested_at=int(str(requested_at)),
        )
        return state._replace(row=written), "token"
    if (
        row is not None
        and row.refresh == spent
        and refresh
        and config.rules.successor_of_the_spent_token_is_kept
    ):
        written = row._replace(refresh=refresh, version=row.version + 1, lease=None)
        return state._replace(row=written), "sign in" if row.needs_sign_in else "token"
    if row is not None and row.grant == grant and not row.needs_sign_in:
        if not config.rules.same_grant_is_never_revoked:
            state = _queue(state, str(refresh), row)
        return state, "token"
    state = _queue(state, str(refresh), row)
    if row is None:
        return state, "not connected"
    return state, "sign in" if row.needs_sign_in else "token"


def _save_failure(state: State, config: Config, number: int) -> tuple[State, str]:
    pk, version, _grant, _refresh, answer, _at = state.actors[number][3:]
    assert isinstance(answer, tuple)
    row = _row(state, pk)
    mine = row is not None and row.lease is not None and row.lease[0] == number
    final = answer[0] == "refused" and row is not None and row.version == version
    if not config.rules.failure_is_of_the_claimed_version:
        mine = row is not None
        final = answer[0] == "refused"
    if row is None:
        return state, "not connected"
    if not mine:
        return state, "sign in" if row.needs_sign_in else "unavailable"
    row = row._replace(
        lease=None, failures=row.failures + 1, needs_sign_in=row.needs_sign_in or final
    )
    return state._replace(row=row), "sign in" if final else "unavailable"


# Sign-ins, disconnects, operators ----------------------------------------------------------------


def _queue(state: State, token: Token, row: Row | None) -> State:
    """`queue_unless_kept`: a provider need not rotate."""
    if not token or (row is not None and row.refresh == token):
        return state
    return state._replace(queue=state.queue | {token}, dropped=state.dropped | {token})


def _exchange(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    token = "bcdef"[number] + "0"
    refresh = token if config.actors[number] == "sign-in" else ""
    if refresh:
        state = _with_quota(state, **{token: "live"})
    yield "exchange_code", _set(state, number, "create", token, refresh, state.ended_at_quota)


def _create(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    """The row, without a secret; its own transaction, so that the write knows which row it was."""
    _place, access, refresh, at = state.actors[number]
    row = state.row
    if row is None:
        row = Row(state.next_pk, "", "")
        state = state._replace(row=row, next_pk=state.next_pk + 1)
    yield "store: create", _set(state, number, "write", access, refresh, at, row.pk, None)


def _write(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    _place, access, refresh, at, pk, tried = state.actors[number]
    row, mine = state.row, number + 1
    if row is None and not config.rules.sign_in_keeps_out_after_a_disconnect:
        yield "store: write", _set(state, number, "create", access, refresh, at)
        return
    if row is None or row.pk != pk:
        yield "store: write", _set(_queue(state, str(refresh), row), number, DONE, "not connected")
        return
    if tried is not None and config.rules.sign_in_knows_its_own_write:
        known = row.grant == mine if refresh else (row.grant, row.version) != tried
        if known:
            yield "store: write", _set(state, number, DONE, "signed in")
            return
        assert isinstance(tried, tuple)
        if row.grant != tried[0]:
            after = _queue(state, str(refresh), row)
            yield "store: write", _set(after, number, DONE, "overtaken")
            return
    written = Row(
        pk=row.pk,
        access=str(access),
        refresh=str(refresh) or row.refresh,
        version=row.version + 1,
        grant=mine if refresh else row.grant,
        requested_at=int(str(at)),
        failures=row.failures,
        lease=None if refresh or not config.rules.lease_stays_with_its_token else row.lease,
    )
    after = state._replace(row=written)
    if config.rules.superseded_is_queued:
        after = _queue(after, row.refresh, written)
    yield "store: write", _set(after, number, DONE, "signed in")
    if state.faults.lost_commit:
        again = _set(after, number, *state.actors[number][:5], (row.grant, row.version))
        yield "store: write, its confirmation lost", _lose(again, "lost_commit")


def _delete(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    """Disconnect: the row goes, and its refresh token into the queue. Again after a lost
    confirmation, whose row is gone then."""
    row = state.row
    after = state if row is None else _queue(state._replace(row=None), row.refresh, None)
    if row is not None and state.actors[number][1] not in (None, row.pk):
        after = state
    yield "disconnect", _set(after, number, DONE, "disconnected")
    if state.faults.lost_commit and row is not None and after != state:
        again = _set(after, number, "delete", row.pk)
        yield "disconnect, its confirmation lost", _lose(again, "lost_commit")


def _require(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    row = state.row
    if row is not None:
        state = state._replace(
            row=row._replace(needs_sign_in=True, version=row.version + 1),
            excused=state.excused | {row.refresh[:1]},
        )
    yield "require_sign_in", _set(state, number, DONE, "required")


def _event(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    """`user.disconnected` arrives after the person has disconnected at Quota."""
    if not state.ended_at_quota:
        return
    row = state.row
    if row is None or row.requested_at >= state.ended_at_quota:
        yield "webhook", _set(state, number, DONE, "nothing to do")
    else:
        yield "webhook", _set(state, number, LOOKING, None, 0, 0)


def _wipe(state: State, config: Config, number: int) -> Iterator[tuple[str, State]]:
    _place, tried = state.actors[number]
    row = state.row
    theirs = row is not None and row.needs_sign_in and row.grant == tried
    if not config.rules.wipe_is_of_the_tried_grant:
        theirs = row is not None
    after = state
    if theirs and row is not None:
        if row.grant != tried and _status(state, row.refresh) == "live":
            raise Violation(f"the webhook wipes {row.refresh}, which has not ended")
        after = _queue(state._replace(row=None), row.refresh, None)
    yield "wipe", _set(after, number, DONE, "wiped" if theirs else "kept")


_STEPS: dict[str, Callable[[State, Config, int], Iterator[tuple[str, State]]]] = {
    LOOKING: _look,
    CLAIMING: _claim,
    CLAIMED: _call,
    CALLING: _quota,
    ANSWERED: _save,
    "exchange": _exchange,
    "create": _create,
    "write": _write,
    "delete": _delete,
    "require": _require,
    "event": _event,
    "wipe": _wipe,
}


# Time, faults and the world around ---------------------------------------------------------------


def _lose(state: State, fault: str) -> State:
    return state._replace(faults=state.faults._replace(**{fault: getattr(state.faults, fault) - 1}))


def _crash(state: State, number: int) -> State:
    actor = state.actors[number]
    excused = state.excused
    if actor[0] == ANSWERED and isinstance(actor[7], tuple) and actor[7][0] == "reply":
        excused |= {str(actor[6])[:1]}  # its pair was nowhere else
    if actor[0] in ("create", "write"):
        excused |= {str(actor[1])[:1]}
    return _set(_lose(state, "crash")._replace(excused=excused), number, DONE, "crashed")


def _owner_is_alive(state: State) -> bool:
    assert state.row is not None
    assert state.row.lease is not None
    return state.actors[state.row.lease[0]][0] in (CLAIMING, CLAIMED, CALLING, ANSWERED)


def _time(state: State, config: Config) -> Steps:
    """The lease ends, and later its grace. While its owner is alive that costs a fault: the lease
    outlives the deadline of the call, and the grace the pauses between two attempts to save."""
    row = state.row
    if row is None or row.lease is None or row.lease[1] not in ("held", "grace"):
        return
    owner, phase = row.lease
    alive = _owner_is_alive(state)
    if alive and not state.faults.slow:
        return
    after = _lose(state, "slow") if alive else state
    asked = state.actors[owner][0] in (CALLING, ANSWERED)
    if asked and phase == "grace":  # later than the grace: documented, and excused
        after = after._replace(excused=after.excused | {row.refresh[:1]})
    name = "the lease ends" if phase == "held" else "the grace ends"
    later = (owner, "ended" if phase == "held" else "over")
    yield name, -1, after._replace(row=row._replace(lease=later), late=after.late | {owner})


def _environment(state: State, config: Config) -> Steps:
    """`quota_prune` revokes what is queued, which ends its family; and once the person may
    disconnect at Quota."""
    for token in sorted(state.queue):
        revoked = _end_family(state, token[0])._replace(queue=state.queue - {token})
        yield f"prune {token}", -1, revoked
    if "webhook" in config.actors and not state.ended_at_quota and state.row is not None:
        family = state.row.refresh[:1]
        ended = _end_family(state, family)._replace(
            ended_at_quota=1, excused=state.excused | {family}
        )
        yield "the person disconnects at Quota", -1, ended


# What must hold ----------------------------------------------------------------------------------


def check(state: State) -> None:
    """Of every state. Raises Violation."""
    row = state.row
    if row is None or not row.refresh:
        return
    if row.refresh in state.dropped:
        raise Violation(f"the row holds {row.refresh}, which was given back")
    family = row.refresh[0]
    if _status(state, row.refresh) == "live" and family not in state.excused:
        for token in state.queue:
            if token[0] == family:
                raise Violation(f"{token} is queued, and revoking it ends the row's {row.refresh}")


def check_end(state: State, config: Config) -> None:
    """Of a state after which nothing can happen. Raises Violation."""
    for kind, actor in zip(config.actors, state.actors, strict=True):
        if actor[0] != DONE and not (kind == "webhook" and actor[0] == "event"):
            raise Violation(f"a {kind} waits for ever: {actor}")
    row = state.row
    held = row.refresh if row is not None else ""
    if row is not None and held and held[0] not in state.excused:
        if _status(state, held) != "live":
            raise Violation(f"the row ends with {held}, which is {_status(state, held)}")
        if row.needs_sign_in:
            raise Violation("the user is signed out for nothing")
    if row is not None and row.lease is not None and not state.faults.slow:
        owner = state.actors[row.lease[0]]
        if owner[1] not in ("crashed",) and row.lease[1] == "held":
            raise Violation("a lease stays behind")
    heard = [actor for actor in state.actors if actor == (DONE, "token")]
    sure = not (config.faults.lost_answer or config.faults.slow or config.faults.crash)
    if "webhook" in config.actors and sure and held and row is not None and not row.needs_sign_in:
        told = state.actors[config.actors.index("webhook")]
        old = row.requested_at < state.ended_at_quota
        if old and told in heard and _status(state, held) == "dead":
            raise Violation(f"the event is handled, and {held}, which has ended, stays")
    for token, status in state.quota:
        alive = status == "live" and token[0] not in state.excused
        if alive and token != held and config.provider not in ("forgiving",):
            raise Violation(f"{token} is alive at Quota and forgotten here")
