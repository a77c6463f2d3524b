"""Read-only pages of the admin for rows that only this package writes."""

import json
from contextlib import suppress
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import truncatechars
from django.utils.html import format_html
from django.utils.translation import gettext_lazy as _

from django_quota.models import CreditGrant, UsageRecord, WebhookEvent
from django_quota.money import format_usd

from .rows import USERNAME_WIDTH, user_search_fields

#: Characters of an event that is shown with indents. Deep nesting would become megabytes of spaces.
MAX_INDENTED_CHARS = 2000


class ReadOnlyAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Read-only admin for rows that only this package writes."""

    list_select_related = ["user"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        return [field.name for field in self.model._meta.fields]

    @admin.display(description=_("user"), ordering="user")
    def username(self, row: UsageRecord | CreditGrant | WebhookEvent) -> str:
        return truncatechars(str(row.user or "-"), USERNAME_WIDTH)

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [*self.search_fields, *user_search_fields("user")]

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False


@admin.register(UsageRecord)
class UsageRecordAdmin(ReadOnlyAdmin):
    """The cost of each AI call."""

    list_display = [
        "created_at",
        "username",
        "cost",
        "model",
        "purpose",
        "about",
        "acted_by",
        "credits_used",
        "complete",
    ]
    list_filter = ["complete", "created_at", "model", "purpose"]
    # No date_hierarchy: on MariaDB it needs time zone tables, which few servers have.
    # The words of "reports.report 42" find the calls for that object.
    search_fields = ["call_id", "acted_by", "=request_id", "object_type", "=object_id"]

    @admin.display(description=_("object"), ordering="object_type")
    def about(self, usage: UsageRecord) -> str:
        return f"{usage.object_type} {usage.object_id}".strip()

    @admin.display(description=_("cost"), ordering="credits_used")
    def cost(self, usage: UsageRecord) -> str:
        return "" if usage.credits_used is None else format_usd(usage.credits_used)


@admin.register(CreditGrant)
class CreditGrantAdmin(ReadOnlyAdmin):
    """The credits that the developer has given. Quota has not confirmed a row without granted_at.

    A row cannot be deleted here: its key would credit a second time.
    """

    list_display = ["created_at", "username", "amount", "credits", "reason", "granted_at"]
    list_filter = ["created_at", ("granted_at", admin.EmptyFieldListFilter), "last_failure"]
    search_fields = ["idempotency_key", "external_id", "ledger_id", "granted_by"]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description=_("amount"), ordering="credits")
    def amount(self, grant: CreditGrant) -> str:
        return format_usd(grant.credits)


@admin.register(WebhookEvent)
class WebhookEventAdmin(ReadOnlyAdmin):
    """The events that Quota has delivered, and how they were handled."""

    list_display = ["event_id", "type", "username", "created_at", "handled_at", "last_failure"]
    list_filter = ["type", "handled_at", "last_failure"]
    search_fields = ["event_id"]
    exclude = ["body"]

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[Any]:
        names = super().get_readonly_fields(request, obj)
        return [*(name for name in names if name != "body"), "content"]

    def get_queryset(self, request: HttpRequest) -> "QuerySet[WebhookEvent]":
        return super().get_queryset(request).defer("body")  # megabytes in a list

    @admin.display(description=_("body"))
    def content(self, event: WebhookEvent) -> str:
        text = event.body
        if len(text) <= MAX_INDENTED_CHARS:
            with suppress(RecursionError):
                # As ASCII: JSON can escape characters that an HTML page cannot contain.
                text = json.dumps(json.loads(text), indent=2)
        return format_html("<pre>{}</pre>", text)
