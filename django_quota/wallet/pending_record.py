"""Writes usage records: once for each call, and out of reach of the caller's rollback."""

import logging
from typing import Any

from django.contrib.auth import get_user_model
from django.db import (
    Error,
    IntegrityError,
    InterfaceError,
    OperationalError,
    connections,
    router,
    transaction,
)

from django_quota.exceptions import QuotaError
from django_quota.models import UsageRecord
from django_quota.signals import usage_recorded
from django_quota.tokens import durable
from django_quota.tokens.durable import outbox, with_lock_timeout
from django_quota.tokens.payer import acted_by
from django_quota.tokens.places import Elsewhere, Place, here
from django_quota.tokens.single_flight import in_transaction

from .calls import Call
from .replies import UNPRICED, Reply, Usage

logger = logging.getLogger("django_quota.usage")


def recorded_usage(user: Any, call_id: str) -> Usage | None:
    """Return the recorded cost of a call by `user`; None if there is no record, or no cost."""
    alias = router.db_for_write(UsageRecord, instance=user)
    rows = UsageRecord.objects.using(alias).filter(user=user, call_id=call_id)
    found = rows.values_list("credits_used", "balance_after").first()
    if found is None or found[0] is None:
        return None
    return Usage(credits_used=found[0], balance_after=found[1])


class PendingRecord:
    """One row of UsageRecord, which is written once, even if the attempt is repeated.

    An error of the database must not cost the caller an answer that is paid for, and a rollback of
    the caller's transaction (ATOMIC_REQUESTS) must not remove the record. So the record is written
    on another connection, or waits in memory while the database is away. On SQLite another
    connection cannot write meanwhile, so the record is part of the caller's transaction.
    """

    def __init__(self, call: Call, reply: Reply) -> None:
        self._call, self._reply = call, reply
        self._usage = reply.usage or UNPRICED
        self._values = {
            "model": reply.model,
            "prompt_tokens": reply.prompt_tokens,
            "completion_tokens": reply.completion_tokens,
            "cached_tokens": reply.cached_tokens,
            "reasoning_tokens": reply.reasoning_tokens,
            "credits_used": self._usage.credits_used,
            "balance_after": self._usage.balance_after,
            "complete": reply.complete,
            "acted_by": acted_by(),
            "purpose": call.attribution.purpose,
            "object_type": call.attribution.object_type,
            "object_id": call.attribution.object_id,
            "request_id": reply.request_id,
        }

    def write(self) -> bool:
        """Write the row, in the caller's thread or in one with connections of its own.

        Returns False if this completion was recorded before.
        """
        call = self._call
        if call.is_here():
            return self.write_at_once()
        try:
            return self._announced(self._insert_at(call.place))
        except (Error, QuotaError) as error:
            self._write_later(call.place, error)
            return True

    def write_at_once(self) -> bool:
        """Write the row, in the caller's thread. Returns False as `write` does.

        Raises the database's error only if the caller's transaction is lost.
        """
        connection = connections[self._call.alias]
        if connection.vendor != "sqlite" and _is_in_transaction(self._call.alias):
            return self._write_in_thread()
        try:
            return self._write_here()
        except Error as error:
            if not connection.in_atomic_block:
                self._write_later(None, error)
            elif connection.needs_rollback:
                self._write_later(None, error)
                raise  # the transaction cannot be committed, and nothing else reports that
            else:
                _log(error)
                transaction.on_commit(self._write_here, using=self._call.alias, robust=True)
            return True

    def _write_here(self) -> bool:
        return self._announced(self._insert())

    def _write_in_thread(self) -> bool:
        """Write the row on another connection, out of reach of the caller's rollback."""
        place, lost = None, None
        try:
            place = here(self._call.alias)
        except Error as error:
            lost = error
        try:
            is_new = self._announced(durable.run_in_thread(lambda: self._insert_at(place)))
        except IntegrityError:
            # This transaction has created the user, and a rollback removes the user as well.
            return self._write_here()
        except (Error, QuotaError, RuntimeError) as error:  # RuntimeError: no thread can be started
            self._write_later(place, error)
            is_new = True
        if isinstance(lost, OperationalError | InterfaceError):
            raise lost
        return is_new

    def _write_later(self, place: Place | None, error: Exception) -> None:
        """Write the row when the database is back."""
        _log(error)
        outbox.put(lambda: self._announced(self._insert_at(place)), "usage of a call")

    def _insert_at(self, place: Place | None) -> bool:
        if place is not None:
            place.enter()
        elif not self._is_same_user():
            raise Elsewhere("The caller's schema is unknown, because its connection is lost.")
        return with_lock_timeout(self._insert, self._call.alias)

    def _is_same_user(self) -> bool:
        """Compare the user: in another tenant's schema, this primary key is another person's."""
        user = self._call.user
        rows = get_user_model()._base_manager.using(self._call.alias).filter(pk=user.pk)
        found = rows.values_list("password", get_user_model().USERNAME_FIELD).first()
        return bool(found == (user.password, user.get_username()))

    def _insert(self) -> bool:
        rows = UsageRecord.objects.using(self._call.alias)
        key = {"user": self._call.user, "call_id": self._reply.call_id}
        return rows.get_or_create(**key, defaults=self._values)[1]

    def _announced(self, is_new: bool) -> bool:
        """Send the signal if the row is new; return `is_new`."""
        if is_new:
            usage_recorded.send_robust(
                sender=UsageRecord,
                user=self._call.user,
                usage=self._usage,
                complete=self._reply.complete,
            )
        return is_new


def _is_in_transaction(alias: str) -> bool:
    try:
        return in_transaction(alias)
    except Error:  # there is no connection, so there is no transaction
        return False


def _log(error: Exception) -> None:
    logger.warning("usage not recorded yet: %s", type(error).__name__, exc_info=error)
