"""The tokens of each account, and the queue of tokens to revoke."""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_quota.fields import EncryptedTokenField

from .account import PROVIDER, ProviderAccount, require_user

if TYPE_CHECKING:
    from django_quota.tokens.clock import Clock

M = TypeVar("M", bound=models.Model)


class WriteDatabaseManager(models.Manager[M]):
    """Reads from the write database, because a replica that lags would return spent tokens.

    The mark also keeps rows out of the cache of django-cacheops.
    """

    def get_queryset(self) -> "models.QuerySet[M]":
        rows = super().get_queryset()
        rows._for_write = True  # type: ignore[attr-defined]
        return rows


class QuotaTokenManager(WriteDatabaseManager["QuotaToken"]):
    """The tokens of all users."""

    def for_user(self, user: Any) -> "models.QuerySet[QuotaToken]":
        """The token row of `user`.

        Raises TypeError if `user` is not a user.
        """
        require_user(user)
        # The user's own database, unless a router decides otherwise: in another database the same
        # primary key is another person's.
        hints = {} if user.pk is None else {"instance": user}
        rows = self.db_manager(hints=hints)
        return rows.filter(account__user_id=user.pk, account__provider=PROVIDER)

    def with_identity(self, using: str | None = None) -> "models.QuerySet[QuotaToken]":
        """All rows, annotated with what `QuotaToken.identity` needs.

        By subqueries and not by a join: MariaDB would lock the account's row too.
        """
        account = ProviderAccount.objects.filter(pk=models.OuterRef("account_id"))
        key = ProviderAccount._meta.get_field("user").get_col("account").output_field
        identity: dict[str, Any] = {
            "account_user": models.Subquery(account.values("user_id"), output_field=key),
            "account_external_id": models.Subquery(account.values("external_id")),
        }
        return self.using(using).annotate(**identity)


class QuotaToken(models.Model):
    """The encrypted tokens of one account.

    Only `django_quota.tokens` writes these rows: `storing`, `renewal`, `endings` and
    `reencryption`.
    """

    class Status(models.TextChoices):
        ACTIVE = "active", _("active")
        REAUTHENTICATION_REQUIRED = "reauthentication_required", _("re-authentication required")

    account = models.OneToOneField(ProviderAccount, on_delete=models.CASCADE, related_name="token")
    access_token = EncryptedTokenField(_("access token"), default="")
    refresh_token = EncryptedTokenField(_("refresh token"), default="")
    id_token = EncryptedTokenField(_("id_token"), default="")
    scope = models.CharField(_("scope"), max_length=1000, blank=True, default="")
    expires_at = models.DateTimeField(_("expires at"), default=timezone.now, db_index=True)
    status = models.CharField(
        _("status"), max_length=32, choices=Status, default=Status.ACTIVE, db_index=True
    )
    version = models.PositiveBigIntegerField(
        _("version"),
        default=0,
        editable=False,
        help_text=_("Grows with every new pair of tokens."),
    )
    grant = models.PositiveBigIntegerField(
        _("grant"),
        default=0,
        editable=False,
        help_text=_("A number for the sign-in that the refresh token comes from."),
    )
    lease_owner = models.CharField(max_length=64, blank=True, default="", editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, default=None, editable=False)
    # True after the lease has ended: until `lease_until` its owner may still save Quota's reply.
    lease_in_grace = models.BooleanField(default=False, editable=False)
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
        account_user: Any
        account_external_id: str
        #: Set by `lookup` and `locking`: the database's clock when the row was read, and the
        #: seconds that its lock took.
        clock: "Clock"
        lock_waited: float

    class Meta:
        # Also for `account.token` and refresh_from_db().
        base_manager_name = "objects"
        verbose_name = _("Quota token")
        verbose_name_plural = _("Quota tokens")
        # Bulk renewal visits the rows that have failed before in this order.
        indexes = [models.Index(fields=["last_failure_at", "id"], name="quota_by_failure")]

    def __str__(self) -> str:
        return f"Quota token {self.pk}"

    @property
    def identity(self) -> tuple[Any, Any, str]:
        """Account, user and `sub` of the wallet's owner. Only for rows read by `with_identity`.

        Where each tenant has a database or a schema, any one of these keys alone may be another
        person's in another tenant.
        """
        return self.account_id, self.account_user, self.account_external_id

    @property
    def needs_sign_in(self) -> bool:
        """True if Quota has ended this connection, so that the user must sign in again."""
        return self.status == self.Status.REAUTHENTICATION_REQUIRED


def of_same_account(row: QuotaToken | None, seen: QuotaToken) -> QuotaToken | None:
    """Return `row`, which was read by the primary key of `seen`; None if its account differs.

    `django_quota.tokens.places` chooses the schema; this is the last guard. In another tenant's
    schema, the same primary key is another person's row.
    """
    return row if row is not None and row.identity == seen.identity else None


#: How long the package tries to revoke a dropped token. It outlasts any outage and most wrong
#: settings. After that, keeping an unused secret is the greater risk, and most providers have
#: expired a refresh token that was not used for so long.
REVOCATION_PERIOD = timedelta(days=30)


def end_of_revocation() -> datetime:
    """Return the `expires_at` of a token that is dropped now."""
    return timezone.now() + REVOCATION_PERIOD


class PendingRevocation(models.Model):
    """A dropped token that is waiting to be revoked at Quota (RFC 7009).

    It is written in the transaction that drops the token, so it survives the row, the user and an
    outage of Quota. `quota_prune` revokes the tokens in this queue, and deletes at `expires_at`
    those that it could not revoke.
    """

    token = EncryptedTokenField(_("token"), default="")
    token_type_hint = models.CharField(max_length=32, default="refresh_token")
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    created_at = models.DateTimeField(_("created at"), default=timezone.now, db_index=True)
    expires_at = models.DateTimeField(_("expires at"), default=end_of_revocation, db_index=True)

    objects = WriteDatabaseManager["PendingRevocation"]()

    class Meta:
        verbose_name = _("pending revocation")
        verbose_name_plural = _("pending revocations")

    def __str__(self) -> str:
        return f"Pending revocation {self.pk}"
