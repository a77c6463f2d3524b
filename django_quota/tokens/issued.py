"""Tokens that Quota has just issued: they are either stored or revoked.

Between Quota's reply and the row that stores the tokens, several steps can fail: a check of the
id_token, a backend of the project, the database. The tokens would then stay valid at Quota, while
nothing here knows them. So code that receives tokens holds them in `with Issued(reply)`.
"""

import logging
from functools import partial
from types import TracebackType

from django.db import Error, connections, router
from django.views.decorators.debug import sensitive_variables

from django_quota.conf import get_settings
from django_quota.exceptions import QuotaError, new_reference
from django_quota.models import PendingRevocation
from django_quota.oidc import endpoints
from django_quota.oidc.time_limit import within
from django_quota.secret import Secret

from . import durable, revocation
from .places import here
from .single_flight import in_transaction

logger = logging.getLogger("django_quota.issued")


class Issued:
    """A context manager for the tokens of `reply`.

    At the end of the block they are queued for revocation, unless `settle` was called. If the
    database cannot take them, they are revoked at once.
    """

    def __init__(self, reply: endpoints.TokenReply) -> None:
        self.reply = reply
        self._settled = False

    def settle(self) -> None:
        """Keep the tokens: they are stored, or other code is responsible for them."""
        self._settled = True

    def __enter__(self) -> "Issued":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._settled:
            self.settle()
            _drop(self.reply)


@sensitive_variables()
def _drop(reply: endpoints.TokenReply) -> None:
    """Revoke the tokens of `reply`. Raises no error, which would hide why they are dropped."""
    # RFC 7009 section 2.1: revoking the refresh token revokes the access token too.
    token, hint = reply.refresh_token, "refresh_token"
    if token is None:
        token, hint = reply.access_token, "access_token"
    try:
        _queue(token, hint)
    except (Error, QuotaError, RuntimeError) as error:  # RuntimeError: no thread can be started
        reference = new_reference()
        logger.warning(
            "a token could not be queued for revocation: %s [%s]", type(error).__name__, reference
        )
        _revoke(token, hint, reference)


@sensitive_variables()
def _queue(token: str, hint: str) -> None:
    alias = router.db_for_write(PendingRevocation)
    work = partial(revocation.queue, Secret(token), using=alias, hint=hint)
    # The error that follows rolls the caller's transaction back, and the row would be lost. So use
    # another connection. On SQLite no other connection can write meanwhile.
    if in_transaction(alias) and connections[alias].vendor != "sqlite":
        durable.run_in_thread(partial(here(alias).call, work))
    else:
        work()


@sensitive_variables()
def _revoke(token: str, hint: str, reference: str) -> None:
    """Revoke the token now, without the queue. If Quota is away too, it waits in memory."""
    try:
        revoked = _is_revoked(token, hint)
    except QuotaError as error:
        logger.error("the token could not be revoked either: %s [%s]", error.code, reference)
        later = partial(_revoke_or_queue, Secret(token), hint)
        durable.outbox.put(later, f"revoking a token [{reference}]")
        return
    if revoked:
        logger.warning("the token was revoked at Quota at once [%s]", reference)
    else:
        logger.error("the token was not revoked: Quota offers no revocation [%s]", reference)


@sensitive_variables()
def _revoke_or_queue(token: str, hint: str) -> None:
    """For the outbox, which repeats it until one of the two succeeds."""
    try:
        revoked = _is_revoked(token, hint)
    except QuotaError:
        revoked = False
    if not revoked:
        revocation.queue(token, hint=hint)


@sensitive_variables()
def _is_revoked(token: str, hint: str) -> bool:
    """Ask Quota to revoke the token, with one time limit for discovery and the request."""
    with within(get_settings().deadline):
        return endpoints.revoke(token, hint)
