"""Which user is which person at Quota."""

from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from django_quota.fields import IdentifierField

#: The `provider` of every row that this package writes.
PROVIDER = "quota"


class ProviderAccount(models.Model):
    """Links a user to an identity at a provider. The key is (provider, external_id).

    The issuer is verified and stored, but it is not part of the key: if the issuer's URL changes,
    customers keep their accounts. An e-mail address is never the key.
    """

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="quota_accounts"
    )
    provider = models.CharField(_("provider"), max_length=32, default=PROVIDER)
    external_id = IdentifierField(
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
    created_user = models.BooleanField(
        _("created the user"),
        default=False,
        help_text=_(
            "True if a sign-in with Quota created the user. Disconnecting then keeps this link "
            "unless the user has a password, because it is their only way to sign in."
        ),
    )
    signs_in = models.BooleanField(
        _("signs in"),
        default=True,
        help_text=_(
            "True if this person may sign in with Quota. False for a user with a password who has "
            "only connected a wallet: signing in with it would bypass their second factor."
        ),
    )

    class Meta:
        verbose_name = _("Quota account")
        verbose_name_plural = _("Quota accounts")
        constraints = [
            models.UniqueConstraint(
                fields=["provider", "external_id"], name="quota_account_unique_identity"
            ),
            # One wallet for each user: connecting another one replaces this row.
            models.UniqueConstraint(
                fields=["user", "provider"], name="quota_account_unique_per_user"
            ),
        ]

    def __str__(self) -> str:
        return self.email or self.external_id


def require_user(user: Any) -> None:
    """Raise TypeError unless `user` is a user or anonymous.

    Any other object with the same primary key would spend that user's credits.
    """
    if not isinstance(user, get_user_model()) and not getattr(user, "is_anonymous", False):
        raise TypeError(f"{type(user).__name__} is not a user; pass a user such as request.user.")
