"""The rows of webhook events: what is known of a delivery, its lease, and its end.

A new event takes three statements, and one that was handled before takes one. Those that every
delivery runs are SQL: to build them with the ORM takes longer than to run them.
"""

import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import IntegrityError, connections, router
from django.db.models import F
from django.utils import timezone

from django_quota import accounts
from django_quota.models import PROVIDER, ProviderAccount, WebhookEvent
from django_quota.tokens.clock import SQL, Clock
from django_quota.tokens.leases import Lease
from django_quota.tokens.places import database_of
from django_quota.tokens.wallet_name import remember_wallet

from .webhook_delivery import Delivery, DeliveryRefused, is_identifier

#: Seconds after which another delivery may handle an event, because the first handler has died.
LEASE_SECONDS = 60

#: User, wallet, clock and event. The names do not clash with those of a user model.
_LOOK_UP = """
    SELECT person.*, account.id AS django_quota_account, account.external_id AS django_quota_sub,
        {clock} AS django_quota_clock, event.body AS django_quota_body,
        event.handled_at IS NOT NULL AS django_quota_is_handled
    FROM {account} account JOIN {user} person ON person.{user_key} = account.user_id
        LEFT JOIN {event} event ON event.event_id = %s
    WHERE account.provider = %s AND account.external_id = %s
"""
_COLUMNS = ("account", "sub", "clock", "body", "is_handled")


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the database knows when a delivery comes."""

    #: The user whom the event is about; None if this site does not know them.
    user: Any
    #: The clock of the database that the events are in.
    clock: Clock
    #: True if an earlier delivery of this id may have been stored.
    is_stored: bool = True
    #: True if this very event was handled.
    is_handled: bool = False


def look_up(delivery: Delivery) -> Known:
    """Look up the user, the event and the clock. It takes one query if the user is known."""
    alias, sub = _alias(), delivery.data.get("user_id")
    if not is_identifier(sub):
        return Known(user=None, clock=Clock.of(alias))
    if router.db_for_write(ProviderAccount) != alias:
        account = accounts.find(sub)
        return Known(user=None if account is None else account.user, clock=Clock.of(alias))
    return _look_up_together(delivery, sub, alias) or Known(user=None, clock=Clock.of(alias))


def _look_up_together(delivery: Delivery, sub: str, alias: str) -> Known | None:
    quote = connections[alias].ops.quote_name
    model = get_user_model()
    sql = _LOOK_UP.format(
        clock=SQL[connections[alias].vendor],
        account=quote(ProviderAccount._meta.db_table),
        user=quote(model._meta.db_table),
        user_key=quote(str(model._meta.pk.column)),
        event=quote(WebhookEvent._meta.db_table),
    )
    users = model._base_manager.raw(sql, [delivery.id, PROVIDER, sub], using=alias)
    user: Any = next(iter(users), None)
    at = time.monotonic()
    if user is None:
        return None
    read = {name: vars(user).pop(f"django_quota_{name}") for name in _COLUMNS}
    if read["sub"] != sub:  # on MariaDB before `migrate`; see `accounts.find`
        return None
    # The event may change the balance of this wallet.
    remember_wallet(user, database_of(user), read["account"], sub)
    return Known(
        user=user,
        clock=Clock(float(read["clock"]), at),
        is_stored=read["body"] is not None,
        is_handled=bool(read["is_handled"]) and read["body"] == delivery.body,
    )


def find_event(delivery: Delivery) -> WebhookEvent | None:
    """Return the event that was stored by an earlier delivery, None if there is none.

    Raises DeliveryRefused if that was another event.
    """
    events = WebhookEvent.objects.using(_alias()).filter(event_id=delivery.id)
    event = next(iter(events), None)  # one at most, so that there is nothing to sort
    if event is not None and event.body != delivery.body:
        raise DeliveryRefused(409, "another event of this id was delivered before")
    return event


def store_claimed(delivery: Delivery, known: Known) -> WebhookEvent | None:
    """Store the event with our lease on it; None if another delivery has stored it meanwhile."""
    event = WebhookEvent(
        event_id=delivery.id,
        type=delivery.type,
        user=known.user,
        body=delivery.body,
        created_at=delivery.created_at,
        claimed_until=_lease_end(known.clock),
        attempts=1,
    )
    try:
        _insert(event)
    except IntegrityError:
        if find_event(delivery) is None:
            raise  # the user was deleted at this moment
        return None
    return event


def _insert(event: WebhookEvent) -> None:
    """Save a new event. Raises IntegrityError if its id is stored already."""
    alias = _alias()
    connection = connections[alias]
    quote = connection.ops.quote_name
    fields = [field for field in WebhookEvent._meta.concrete_fields if not field.primary_key]
    names = ", ".join(quote(str(field.column)) for field in fields)
    places = ", ".join(["%s"] * len(fields))
    returns_key = connection.features.can_return_columns_from_insert
    sql = f"INSERT INTO {_table()} ({names}) VALUES ({places})"  # noqa: S608
    with connection.cursor() as cursor:
        cursor.execute(
            f"{sql} RETURNING id" if returns_key else sql,
            [field.get_db_prep_save(getattr(event, field.attname), connection) for field in fields],
        )
        event.pk = cursor.fetchone()[0] if returns_key else cursor.lastrowid
    event._state.adding, event._state.db = False, alias


def claim(event: WebhookEvent, clock: Clock) -> bool:
    """Take the lease of `event`. False if another process holds the lease, or has just handled the
    event."""
    free = _rows(event).filter(handled_at=None).exclude(Lease.held("claimed_until", clock.now()))
    event.claimed_until = _lease_end(clock)
    taken = free.update(claimed_until=event.claimed_until, attempts=F("attempts") + 1)
    return bool(taken)


def give_back(event: WebhookEvent, failure: str) -> None:
    """Give back our own lease only: it may have ended, and another process have taken its own."""
    own = _rows(event).filter(claimed_until=event.claimed_until)
    own.update(claimed_until=None, last_failure=failure)


def end(event: WebhookEvent) -> None:
    """Store that `event` was handled."""
    connection = connections[_alias()]
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    ended = "handled_at = %s, claimed_until = NULL, last_failure = ''"
    with connection.cursor() as cursor:
        cursor.execute(f"UPDATE {_table()} SET {ended} WHERE id = %s", [now, event.pk])  # noqa: S608


def _alias() -> str:
    return router.db_for_write(WebhookEvent)


def _table() -> str:
    return connections[_alias()].ops.quote_name(WebhookEvent._meta.db_table)


def _rows(event: WebhookEvent) -> Any:
    return WebhookEvent.objects.using(_alias()).filter(pk=event.pk)


def _lease_end(clock: Clock) -> datetime:
    return clock.now() + timedelta(seconds=LEASE_SECONDS)
