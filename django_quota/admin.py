"""Accounts and tokens in Django's admin: who is connected and in what state, never a secret."""

import json
from contextlib import suppress
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import F, QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import truncatechars
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from . import reencryption, revocation, tokens
from .exceptions import QuotaError
from .models import SECRETS, ProviderAccount, QuotaToken, UsageRecord, WebhookEvent
from .money import format_usd

__all__ = ["ProviderAccountAdmin", "QuotaTokenAdmin", "UsageRecordAdmin", "WebhookEventAdmin"]

#: What may be seen of a token: everything but the encrypted columns and the lease.
TOKEN_FIELDS: list[Any] = [
    field.name
    for field in QuotaToken._meta.fields
    if field.name not in (*SECRETS, "id", "lease_owner", "lease_until")
]


#: Characters of a username in a list; those that we make would push the other columns out.
USERNAME_WIDTH = 20
#: Characters of an event that are laid out; what is nested deeply would become megabytes of blanks.
LAID_OUT = 2000


class Readable:
    """Says of a token whether its secrets can be decrypted, on its own page only: in a list, that
    would be done for every row. There, the filter "last failure" has `token_unreadable`."""

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


class QuotaTokenInline(Readable, admin.StackedInline):  # type: ignore[type-arg]
    """The account's token, to look at."""

    model = QuotaToken
    fields: ClassVar[list[Any]] = [*(n for n in TOKEN_FIELDS if n != "account"), "readable"]
    readonly_fields = fields
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(ProviderAccount)
class ProviderAccountAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Who is who at Quota."""

    list_display = ["__str__", "name", "username", "token_status", "last_sign_in_at"]
    list_select_related = ["user", "token"]
    list_filter = ["token__status", "provider", "created_at", "last_sign_in_at"]
    search_fields = ["external_id", "email", "name"]
    raw_id_fields = ["user"]
    # What Quota says is written by a sign-in.
    readonly_fields = ["issuer", "email", "name", "picture", "created_at", "last_sign_in_at"]
    #: Whoever may write these decides who signs in as whom, superusers included.
    identity_fields = ["user", "provider", "external_id"]
    inlines = [QuotaTokenInline]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return _is_superuser(request) and super().has_add_permission(request)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [*self.readonly_fields, *([] if _is_superuser(request) else self.identity_fields)]

    def get_queryset(self, request: HttpRequest) -> "QuerySet[ProviderAccount]":
        # A joined table ignores its manager: without this, every secret would be decrypted.
        return super().get_queryset(request).defer(*(f"token__{name}" for name in SECRETS))

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [*self.search_fields, *_user_search_fields("user")]

    @admin.display(description=_("user"), ordering="user")
    def username(self, account: ProviderAccount) -> str:
        return truncatechars(str(account.user), USERNAME_WIDTH)

    @admin.display(description=_("wallet"), ordering="token__status")
    def token_status(self, account: ProviderAccount) -> str:
        token = getattr(account, "token", None)
        return str(token.get_status_display()) if token else str(_("not connected"))


@admin.register(QuotaToken)
class QuotaTokenAdmin(Readable, admin.ModelAdmin):  # type: ignore[type-arg]
    """The state of each connection, and what an operator may do about it."""

    list_display = ["account", "user", "status", "last_failure", "expires_at"]
    list_select_related = ["account__user"]
    list_filter = ["status", "expires_at", "last_failure"]
    search_fields = ["account__external_id", "account__email", "account__name"]
    fields: ClassVar[list[Any]] = [*TOKEN_FIELDS, "readable"]
    readonly_fields = fields
    actions = ["refresh_tokens", "revoke_tokens", "require_sign_in"]

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [*self.search_fields, *_user_search_fields("account__user")]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    @admin.display(description=_("user"), ordering="account__user")
    def user(self, token: QuotaToken) -> str:
        return truncatechars(str(token.account.user), USERNAME_WIDTH)

    @admin.action(description=_("Refresh the selected tokens at Quota"), permissions=["change"])
    def refresh_tokens(self, request: HttpRequest, rows: "QuerySet[QuotaToken]") -> None:
        done = 0
        for row in rows.select_related("account"):
            try:
                tokens.renew(row.account)
                done += 1
            except QuotaError as error:
                self.message_user(request, f"{row.account}: {error}", messages.ERROR)
        self.say(request, done, ngettext("%d token refreshed.", "%d tokens refreshed.", done))

    @admin.action(
        description=_("Disconnect and revoke the selected tokens"), permissions=["delete"]
    )
    def revoke_tokens(self, request: HttpRequest, rows: "QuerySet[QuotaToken]") -> None:
        done = rows.count()
        for row in rows:
            row.delete()
        revocation.revoke_pending()
        self.say(request, done, ngettext("%d token revoked.", "%d tokens revoked.", done))

    @admin.action(description=_("Require a new sign-in"), permissions=["change"])
    def require_sign_in(self, request: HttpRequest, rows: "QuerySet[QuotaToken]") -> None:
        done = rows.update(
            status=QuotaToken.Status.REAUTHENTICATION_REQUIRED,
            last_failure="required_by_admin",
            version=F("version") + 1,  # a renewal that is under way must not undo it
        )
        self.say(request, done, ngettext("%d user must sign in again.", "%d users must.", done))

    def say(self, request: HttpRequest, done: int, sentence: str) -> None:
        if done:
            self.message_user(request, sentence % done, messages.SUCCESS)


class ReadOnly(admin.ModelAdmin):  # type: ignore[type-arg]
    """What this package writes, to look at."""

    list_select_related = ["user"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [field.name for field in self.model._meta.fields]

    @admin.display(description=_("user"), ordering="user")
    def username(self, row: UsageRecord | WebhookEvent) -> str:
        return truncatechars(str(row.user or "-"), USERNAME_WIDTH)

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [*self.search_fields, *_user_search_fields("user")]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnly):
    """What each AI call cost."""

    list_display = ["created_at", "username", "model", "cost", "credits_used", "complete"]
    list_filter = ["complete", "created_at", "model"]
    # No date_hierarchy: on MariaDB it needs time zone tables, which few servers have.
    search_fields = ["call_id"]

    @admin.display(description=_("cost"), ordering="credits_used")
    def cost(self, usage: UsageRecord) -> str:
        return "" if usage.credits_used is None else format_usd(usage.credits_used)


@admin.register(WebhookEvent)
class WebhookEventAdmin(ReadOnly):
    """What Quota has told us, and what has become of it."""

    list_display = ["event_id", "type", "username", "created_at", "handled_at", "last_failure"]
    list_filter = ["type", "handled_at", "last_failure"]
    search_fields = ["event_id"]
    exclude = ["body"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        known = super().get_readonly_fields(request, obj)
        return [*(name for name in known if name != "body"), "content"]

    def get_queryset(self, request: HttpRequest) -> "QuerySet[WebhookEvent]":
        return super().get_queryset(request).defer("body")  # a list of them would be megabytes

    @admin.display(description=_("body"))
    def content(self, event: WebhookEvent) -> str:
        text = event.body
        if len(text) <= LAID_OUT:
            with suppress(RecursionError):
                # In ASCII: what JSON can escape, a page cannot always hold.
                text = json.dumps(json.loads(text), indent=2)
        return format_html("<pre>{}</pre>", text)


def _user_search_fields(path: str) -> list[str]:
    """The user's name and e-mail, whatever the project's user model calls them."""
    model = get_user_model()
    names = {model.USERNAME_FIELD, model.get_email_field_name()}
    there = {field.name for field in model._meta.get_fields()}
    return [f"{path}__{name}" for name in sorted(names & there)]


def _is_superuser(request: HttpRequest) -> bool:
    return bool(getattr(request.user, "is_superuser", False))
