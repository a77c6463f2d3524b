"""What AI calls cost, the credits that were granted, and the events that Quota has delivered."""

import json
from typing import Any

from django.conf import settings
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_quota.fields import IdentifierField


class UsageRecord(models.Model):
    """The cost of one AI call. Written by `django_quota.wallet.usage.record_usage`."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="quota_usage"
    )
    call_id = IdentifierField(
        _("call id"),
        max_length=100,
        help_text=_("The id of the completion, which is recorded once."),
    )
    model = models.CharField(_("model"), max_length=100, blank=True, default="")
    prompt_tokens = models.PositiveBigIntegerField(_("prompt tokens"), default=0)
    completion_tokens = models.PositiveBigIntegerField(_("completion tokens"), default=0)
    cached_tokens = models.PositiveBigIntegerField(
        _("cached tokens"),
        default=0,
        help_text=_("The prompt tokens that the model's provider read from its cache."),
    )
    reasoning_tokens = models.PositiveBigIntegerField(
        _("reasoning tokens"),
        default=0,
        help_text=_("The completion tokens that the model spent on reasoning."),
    )
    credits_used = models.BigIntegerField(
        _("credits used"),
        null=True,
        blank=True,
        help_text=_("1,000,000 credits are $1.00. Empty if a stream ended early."),
    )
    balance_after = models.BigIntegerField(_("balance after"), null=True, blank=True)
    complete = models.BooleanField(
        _("complete"), default=True, help_text=_("True if the whole answer arrived.")
    )
    # A name, not a foreign key: it outlives that person's account, and they may have none here.
    acted_by = models.CharField(
        _("acted by"),
        max_length=255,
        blank=True,
        default="",
        help_text=_(
            "The name of the person who acted as the user; empty if the user made the call."
        ),
    )
    purpose = models.CharField(
        _("purpose"),
        max_length=100,
        blank=True,
        default="",
        help_text=_("What the call was for, from `billed_for(purpose=...)`."),
    )
    # A model's label and a primary key, not a foreign key: the record outlives the object, and the
    # object may be in another database.
    object_type = models.CharField(
        _("object type"),
        max_length=200,
        blank=True,
        default="",
        help_text=_("The model of `billed_for(object=...)`, such as `reports.report`."),
    )
    object_id = models.CharField(_("object id"), max_length=100, blank=True, default="")
    request_id = models.CharField(
        _("request id"),
        max_length=100,
        blank=True,
        default="",
        help_text=_("The id of the HTTP request at Quota, to quote to its support."),
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now)

    class Meta:
        verbose_name = _("usage record")
        verbose_name_plural = _("usage records")
        constraints = [
            models.UniqueConstraint(fields=["user", "call_id"], name="quota_usage_unique_call"),
        ]
        indexes = [models.Index(fields=["user", "created_at"], name="quota_usage_by_day")]

    def __str__(self) -> str:
        return f"Usage record {self.pk}"


class CreditGrant(models.Model):
    """Credits that the developer has given to a user. Written by `django_quota.wallet.grants`.

    The row is written before Quota is asked (quota-protocol section 13), so a request whose answer
    was lost is repeated with the same key, and credited once. `unanswered` counts such requests:
    while it is not 0, Quota may have credited the user.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        on_delete=models.SET_NULL,
        related_name="quota_grants",
    )
    external_id = IdentifierField(
        _("external id"), max_length=255, help_text=_("The `sub` of the wallet's owner.")
    )
    idempotency_key = IdentifierField(_("idempotency key"), max_length=100, unique=True)
    credits = models.BigIntegerField(_("credits"))
    reason = models.CharField(_("reason"), max_length=200, blank=True, default="")
    granted_by = models.CharField(
        _("granted by"),
        max_length=255,
        blank=True,
        default="",
        help_text=_("The name of the member of staff, if the admin was used."),
    )
    attempt = models.PositiveIntegerField(
        _("attempt"),
        default=1,
        help_text=_("So many keys were sent to Quota: a new one after each refusal."),
    )
    unanswered = models.PositiveIntegerField(
        _("unanswered"),
        default=0,
        help_text=_("Requests under the last key that may have credited the user."),
    )
    asked_at = models.DateTimeField(
        _("asked at"),
        default=timezone.now,
        help_text=_("When Quota was first asked under the last key."),
    )
    last_failure = models.CharField(_("last failure"), max_length=100, blank=True, default="")
    ledger_id = models.CharField(_("ledger id"), max_length=100, blank=True, default="")
    balance_after = models.BigIntegerField(_("balance after"), null=True, blank=True)
    created_at = models.DateTimeField(_("created at"), default=timezone.now)
    granted_at = models.DateTimeField(
        _("granted at"),
        null=True,
        blank=True,
        help_text=_("Empty until Quota has confirmed the grant."),
    )

    class Meta:
        verbose_name = _("credit grant")
        verbose_name_plural = _("credit grants")

    def __str__(self) -> str:
        return f"Credit grant {self.pk}"


class WebhookEvent(models.Model):
    """An event that Quota has delivered (quota-protocol section 15).

    Written by `django_quota.web.webhooks`, which handles each `event_id` once. The body is stored
    as text, exactly as delivered: a second delivery must be the same, byte for byte, and some JSON
    cannot be stored in a JSON column.
    """

    event_id = IdentifierField(_("event id"), max_length=255, unique=True)
    type = models.CharField(_("type"), max_length=100, db_index=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="quota_events",
        help_text=_("The user that the event is about, if this site knows them."),
    )
    body = models.TextField(_("body"))
    created_at = models.DateTimeField(_("created at"), help_text=_("The time that Quota gives."))
    received_at = models.DateTimeField(_("received at"), default=timezone.now, db_index=True)
    handled_at = models.DateTimeField(_("handled at"), null=True, blank=True)
    claimed_until = models.DateTimeField(null=True, blank=True, editable=False)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    last_failure = models.CharField(_("last failure"), max_length=100, blank=True, default="")

    class Meta:
        verbose_name = _("webhook event")
        verbose_name_plural = _("webhook events")

    def __str__(self) -> str:
        return self.event_id

    @property
    def data(self) -> dict[str, Any]:
        """The `data` object of the event, as Quota sent it."""
        data: dict[str, Any] = json.loads(self.body)["data"]
        return data
