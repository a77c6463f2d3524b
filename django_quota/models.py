"""What is stored: who a user is at Quota, their tokens, what is still to be revoked, what AI calls
cost, and what Quota has told us by webhook.

No HTTP here. Nothing in a `repr` or `str` is secret.
"""

import json
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models, router
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .fields import EncryptedTokenField

__all__ = [
    "PROVIDER",
    "PendingRevocation",
    "ProviderAccount",
    "QuotaToken",
    "UsageRecord",
    "WebhookEvent",
]

#: The `provider` of every row that this package writes.
PROVIDER = "quota"


class ProviderAccount(models.Model):
    """Links a user to an identity at a provider: (provider, external_id) is who they are.

    The issuer is verified and stored, but not part of the key, so that a moved issuer does not
    turn every customer into a new one. An e-mail address is never the key.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="quota_accounts"
    )
    provider = models.CharField(_("provider"), max_length=32, default=PROVIDER)
    external_id = models.CharField(
        _("external id"), max_length=255, help_text=_("The provider's stable id: the claim `sub`.")
    )
    issuer = models.CharField(_("issuer"), max_length=255, blank=True, default="")
    email = models.EmailField(_("e-mail"), blank=True, default="")
    name = models.CharField(_("name"), max_length=255, blank=True, default="")
    picture = models.URLField(_("picture"), max_length=1000, blank=True, default="")
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    last_sign_in_at = models.DateTimeField(
        _("last sign-in at"), null=True, blank=True, default=None, editable=False
    )

    class Meta:
        verbose_name = _("Quota account")
        verbose_name_plural = _("Quota accounts")
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "external_id"], name="quota_account_unique_identity"
            ),
            # One wallet a user: connecting another replaces this row.
            models.UniqueConstraint(
                fields=["user", "provider"], name="quota_account_unique_per_user"
            ),
        ]

    def __str__(self) -> str:
        return self.email or self.external_id


#: The encrypted columns. They are read from the database only where a token is really used, so
#: that neither a list in the admin nor the deletion of a user ever decrypts one.
SECRETS = ("access_token", "refresh_token", "id_token")


def require_user(user: Any) -> None:
    """Raise TypeError for anything but a user, or nobody: another row with the same key would
    pay."""
    if not isinstance(user, get_user_model()) and not getattr(user, "is_anonymous", False):
        raise TypeError(f"{type(user).__name__} is not a user; pass request.user or the like.")


class QuotaTokenQuerySet(models.QuerySet["QuotaToken"]):
    """Reads and writes go to the write database: a lagging replica would serve spent tokens."""

    def for_user(self, user: Any) -> "QuotaTokenQuerySet":
        """The token row of `user`, without its secrets.

        Raises TypeError for anything but a user: another row with the same key would pay.
        """
        require_user(user)
        return self.filter(account__user_id=user.pk, account__provider=PROVIDER)

    def with_secrets(self, *names: str) -> "QuotaTokenQuerySet":
        """These of the encrypted columns are loaded with the row; the others stay deferred."""
        return self.defer(None).defer(*(name for name in SECRETS if name not in names))


class QuotaTokenManager(models.Manager.from_queryset(QuotaTokenQuerySet)):  # type: ignore[misc]
    """Secrets are deferred unless asked for."""

    def get_queryset(self) -> QuotaTokenQuerySet:
        rows: QuotaTokenQuerySet = super().get_queryset()
        return rows.using(router.db_for_write(self.model)).defer(*SECRETS)


class QuotaToken(models.Model):
    """The tokens of one account, encrypted. Written by `django_quota.tokens` only."""

    class Status(models.TextChoices):
        ACTIVE = "active", _("active")
        REAUTHENTICATION_REQUIRED = "reauthentication_required", _("re-authentication required")

    account = models.OneToOneField(ProviderAccount, on_delete=models.CASCADE, related_name="token")
    access_token = EncryptedTokenField(_("access token"), default="")
    refresh_token = EncryptedTokenField(_("refresh token"), default="")
    id_token = EncryptedTokenField(_("id_token"), default="")
    token_type = models.CharField(_("token type"), max_length=32, default="Bearer", editable=False)
    scope = models.CharField(_("scope"), max_length=1000, blank=True, default="")
    expires_at = models.DateTimeField(_("expires at"), default=timezone.now, db_index=True)
    status = models.CharField(
        _("status"), max_length=32, choices=Status, default=Status.ACTIVE, db_index=True
    )
    version = models.PositiveBigIntegerField(
        _("version"),
        default=0,
        editable=False,
        help_text=_("Goes up with every new pair of tokens."),
    )
    grant = models.PositiveBigIntegerField(
        _("grant"),
        default=0,
        # During a deployment, workers of the older version go on writing rows without it.
        db_default=0,
        editable=False,
        help_text=_("Goes up with every sign-in: renewed tokens are of the same grant."),
    )
    lease_owner = models.CharField(max_length=64, blank=True, default="", editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, default=None, editable=False)
    last_failure = models.CharField(
        _("last failure"), max_length=64, blank=True, default="", editable=False
    )
    last_failure_at = models.DateTimeField(
        _("last failure at"), null=True, blank=True, default=None, editable=False
    )
    created_at = models.DateTimeField(_("created at"), default=timezone.now, editable=False)
    updated_at = models.DateTimeField(_("updated at"), default=timezone.now, editable=False)

    objects = QuotaTokenManager()

    if TYPE_CHECKING:
        account_id: int

    class Meta:
        base_manager_name = "objects"
        verbose_name = _("Quota token")
        verbose_name_plural = _("Quota tokens")
        # For bulk work, which comes to those that have failed before in this order.
        indexes = [models.Index(fields=["last_failure_at", "id"], name="quota_by_failure")]

    def __str__(self) -> str:
        return f"Quota token {self.pk}"

    def refresh_from_db(
        self,
        using: str | None = None,
        fields: Iterable[str] | None = None,
        from_queryset: "models.QuerySet[Any] | None" = None,
    ) -> None:
        """Also what reads a deferred secret: that one alone. Of a queryset that defers, Django's
        `only()` would ask for every column."""
        rows = QuotaToken.objects.defer(None) if from_queryset is None else from_queryset
        super().refresh_from_db(using, fields, rows)

    @property
    def needs_sign_in(self) -> bool:
        """Has Quota ended this connection, so that only a new sign-in helps?"""
        return self.status == self.Status.REAUTHENTICATION_REQUIRED

    def lasts(self, seconds: float) -> bool:
        """Is the access token good for more than `seconds` from now?"""
        return self.expires_at > timezone.now() + timedelta(seconds=seconds)


#: How long Quota is asked to revoke a token that was dropped. Long enough for any outage and for a
#: setting that nobody noticed was wrong; after that, keeping a secret that nobody uses is the
#: greater risk, and a refresh token that was not used for so long is dead at most providers.
REVOCATION_PERIOD = timedelta(days=30)


def end_of_revocation() -> datetime:
    """The `expires_at` of a token that is dropped now."""
    return timezone.now() + REVOCATION_PERIOD


class PendingRevocation(models.Model):
    """A token that Quota has still to be told to revoke (RFC 7009).

    Written in the transaction that drops the token, so that it survives the row, the user and an
    outage of Quota's. `quota_prune` works the queue off, and wipes at `expires_at` what it could
    not revoke.
    """

    token = EncryptedTokenField(_("token"), default="")
    token_type_hint = models.CharField(max_length=32, default="refresh_token")
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, db_index=True)
    expires_at = models.DateTimeField(_("expires at"), default=end_of_revocation, db_index=True)

    class Meta:
        verbose_name = _("pending revocation")
        verbose_name_plural = _("pending revocations")

    def __str__(self) -> str:
        return f"Pending revocation {self.pk}"


class UsageRecord(models.Model):
    """What one AI call cost its user. Written by `django_quota.usage.record_usage`."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="quota_usage"
    )
    call_id = models.CharField(
        _("call id"), max_length=100, help_text=_("The completion's own id; it is counted once.")
    )
    model = models.CharField(_("model"), max_length=100, blank=True, default="")
    prompt_tokens = models.PositiveBigIntegerField(_("prompt tokens"), default=0)
    completion_tokens = models.PositiveBigIntegerField(_("completion tokens"), default=0)
    credits_used = models.BigIntegerField(
        _("credits used"),
        null=True,
        blank=True,
        help_text=_("1,000,000 credits are $1.00. Unknown where a stream ended early."),
    )
    balance_after = models.BigIntegerField(_("balance after"), null=True, blank=True)
    complete = models.BooleanField(
        _("complete"), default=True, help_text=_("Did the answer arrive to its end?")
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


class WebhookEvent(models.Model):
    """An event that Quota has delivered (quota-protocol section 15). Written by
    `django_quota.webhooks`; each `event_id` is handled once.

    The body is kept to the letter: a second delivery must be the same, byte for byte, and no
    database then minds what is in it.
    """

    event_id = models.CharField(_("event id"), max_length=255, unique=True)
    type = models.CharField(_("type"), max_length=100, db_index=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="quota_events",
        help_text=_("Whom it is about, if they are known here."),
    )
    body = models.TextField(_("body"))
    created_at = models.DateTimeField(_("created at"), help_text=_("As Quota says."))
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
        """What the event says, as Quota sent it."""
        data: dict[str, Any] = json.loads(self.body)["data"]
        return data
