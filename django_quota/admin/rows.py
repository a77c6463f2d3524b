"""Accounts, tokens and records in Django's admin. No page shows a secret."""

from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import truncatechars
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_quota.exceptions import QuotaError
from django_quota.fields import EncryptedTokenField
from django_quota.models import (
    ProviderAccount,
    QuotaToken,
)
from django_quota.tokens import access, endings, reencryption, revocation

from .grants import GrantActionMixin

#: The fields of a token that the admin shows: all but the encrypted columns and the lease.
TOKEN_FIELDS: list[Any] = [
    field.name
    for field in QuotaToken._meta.fields
    if not isinstance(field, EncryptedTokenField)
    and field.name not in ("id", "lease_owner", "lease_until", "lease_in_grace")
]

#: Characters of a username in a list. The names that this package generates are longer.
USERNAME_WIDTH = 20


class ReadableMixin:
    """Shows whether a token's secrets can be decrypted, on the token's page only.

    In a list, that would decrypt every row. There, use the filter "last failure", which has the
    value `token_unreadable`.
    """

    @admin.display(description=_("readable"))
    def readable(self, token: QuotaToken) -> str:
        try:
            unreadable = reencryption.unreadable_columns(token)
        except QuotaError as error:
            return str(error)
        if not unreadable:
            return str(_("yes"))
        return str(
            _(
                "no: %s cannot be decrypted with any key of FIELD_ENCRYPTION_KEY. Put the key back "
                "into that list, or let the user sign in again."
            )
        ) % ", ".join(unreadable)


class QuotaTokenInline(ReadableMixin, admin.StackedInline):  # type: ignore[type-arg]
    """The account's token, read-only."""

    model = QuotaToken
    fields: ClassVar[list[Any]] = [*(n for n in TOKEN_FIELDS if n != "account"), "readable"]
    readonly_fields = fields
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ProviderAccount)
class ProviderAccountAdmin(GrantActionMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """Which user is which person at Quota."""

    list_display = ["__str__", "name", "username", "token_status", "last_sign_in_at"]
    list_select_related = ["user", "token"]
    list_filter = ["token__status", "provider", "created_at", "last_sign_in_at"]
    search_fields = ["external_id", "email", "name"]
    raw_id_fields = ["user"]
    # A sign-in writes these, from what Quota says.
    readonly_fields = ["issuer", "email", "name", "picture", "created_at", "last_sign_in_at"]
    #: For superusers only: these fields decide who signs in as which user.
    identity_fields = ["user", "provider", "external_id", "created_user", "signs_in"]
    inlines = [QuotaTokenInline]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _is_superuser(request) and super().has_add_permission(request)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [*self.readonly_fields, *([] if _is_superuser(request) else self.identity_fields)]

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [*self.search_fields, *user_search_fields("user")]

    @admin.display(description=_("user"), ordering="user")
    def username(self, account: ProviderAccount) -> str:
        return truncatechars(str(account.user), USERNAME_WIDTH)

    @admin.display(description=_("wallet"), ordering="token__status")
    def token_status(self, account: ProviderAccount) -> str:
        token = getattr(account, "token", None)
        return str(token.get_status_display()) if token else str(_("not connected"))


@admin.register(QuotaToken)
class QuotaTokenAdmin(ReadableMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    """The state of each connection, with actions for operators."""

    list_display = ["account", "user", "status", "last_failure", "expires_at"]
    list_select_related = ["account__user"]
    list_filter = ["status", "expires_at", "last_failure"]
    search_fields = ["account__external_id", "account__email", "account__name"]
    fields: ClassVar[list[Any]] = [*TOKEN_FIELDS, "readable"]
    readonly_fields = fields
    actions = ["refresh_tokens", "revoke_tokens", "require_sign_in"]

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [*self.search_fields, *user_search_fields("account__user")]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: QuotaToken, form: Any, change: bool) -> None:
        """Save nothing: all fields are read-only, and a save would undo a renewal meanwhile."""

    @admin.display(description=_("user"), ordering="account__user")
    def user(self, token: QuotaToken) -> str:
        return truncatechars(str(token.account.user), USERNAME_WIDTH)

    @admin.action(description=_("Refresh the selected tokens at Quota"), permissions=["change"])
    def refresh_tokens(self, request: HttpRequest, rows: "QuerySet[QuotaToken]") -> None:
        done = 0
        for row in rows.select_related("account"):
            try:
                if access.renew(row.account):
                    done += 1
                else:
                    sentence = _(
                        "%(account)s: Quota gave no refresh token, so the access token "
                        "is used until it expires."
                    )
                    self.message_user(
                        request, sentence % {"account": row.account}, messages.WARNING
                    )
            except QuotaError as error:
                self.message_user(request, f"{row.account}: {error}", messages.ERROR)
        counted = ngettext("%d token refreshed.", "%d tokens refreshed.", done)
        self.show_count(request, done, counted)

    @admin.action(
        description=_("Disconnect and revoke the selected tokens"), permissions=["delete"]
    )
    def revoke_tokens(self, request: HttpRequest, rows: "QuerySet[QuotaToken]") -> None:
        done = self.count_successes(request, rows, endings.wipe)
        # With ATOMIC_REQUESTS the rows are locked until the commit, and a rollback restores them.
        # So call Quota after the commit: no lock is held then, and no revoked token comes back.
        transaction.on_commit(revocation.revoke_pending, using=rows.db)
        sentence = ngettext("%d token revoked.", "%d tokens revoked.", done)
        self.show_count(request, done, sentence)

    @admin.action(description=_("Require a new sign-in"), permissions=["change"])
    def require_sign_in(self, request: HttpRequest, rows: "QuerySet[QuotaToken]") -> None:
        require = partial(endings.require_sign_in, reason="required_by_admin")
        done = self.count_successes(request, rows, require)
        sentence = ngettext("%d user must sign in again.", "%d users must sign in again.", done)
        self.show_count(request, done, sentence)

    def count_successes(
        self,
        request: HttpRequest,
        rows: "QuerySet[QuotaToken]",
        work: Callable[[QuotaToken], bool],
    ) -> int:
        """Call `work` for each row; return how often it returned True.

        An error, such as a row that stays locked, is shown with the account. The other rows go on.
        """
        done = 0
        with_identity = QuotaToken.objects.with_identity(rows.db)
        for row in with_identity.filter(pk__in=rows.values("pk")).select_related("account"):
            try:
                done += work(row)
            except QuotaError as error:
                self.message_user(request, f"{row.account}: {error}", messages.ERROR)
        return done

    def show_count(self, request: HttpRequest, done: int, sentence: str) -> None:
        """Show `sentence` with the number `done`, unless it is 0."""
        if done:
            self.message_user(request, sentence % done, messages.SUCCESS)


def user_search_fields(path: str) -> list[str]:
    """Return lookups for the username and e-mail fields of the project's user model."""
    model = get_user_model()
    wanted = {model.USERNAME_FIELD, model.get_email_field_name()}
    existing = {field.name for field in model._meta.get_fields()}
    return [f"{path}__{name}" for name in sorted(wanted & existing)]


def _is_superuser(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))
