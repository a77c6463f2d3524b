"""The action "Grant credits" of the accounts: a form, a page to confirm, then the grants."""

import uuid
from decimal import Decimal
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin import helpers
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.response import TemplateResponse
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext

from django_quota.conf import get_settings
from django_quota.exceptions import QuotaError
from django_quota.models import ProviderAccount
from django_quota.money import credits_of, format_exact_usd
from django_quota.oidc.time_limit import within
from django_quota.tokens.payer import acted_by
from django_quota.wallet import grant_credits

#: Accounts of one action: Quota is asked for each of them, while the browser waits.
MAX_ACCOUNTS = 100


class GrantForm(forms.Form):
    """The amount for each user, and the reason.

    `key` is generated when the form is first shown. So a form that is sent twice grants once.
    """

    dollars = forms.DecimalField(
        label=_("US dollars for each user"),
        min_value=Decimal("0.000001"),
        max_value=Decimal(1_000_000),
        decimal_places=6,
        help_text=_("$1.00 are 1,000,000 credits. They are paid from your own wallet at Quota."),
    )
    reason = forms.CharField(
        label=_("Reason"), max_length=200, help_text=_("It is shown in Quota's ledger.")
    )
    key = forms.RegexField(r"^[0-9a-f]{32}\Z", widget=forms.HiddenInput)

    def clean_reason(self) -> str:
        """Refuse what no ledger can store."""
        reason: str = self.cleaned_data["reason"]
        if not reason.isprintable():
            raise ValidationError(_("The reason contains characters that cannot be printed."))
        return reason

    @property
    def credits(self) -> int:
        """The amount of a valid form, in credits."""
        return credits_of(self.cleaned_data["dollars"])


class GrantActionMixin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Adds the action to the admin of ProviderAccount."""

    actions = ["grant_credits"]

    def has_grant_permission(self, request: HttpRequest) -> bool:
        """Return True if the member of staff may spend the developer's credits."""
        return request.user.has_perm("django_quota.add_creditgrant")

    @admin.action(description=_("Grant credits"), permissions=["grant"])
    def grant_credits(
        self, request: HttpRequest, accounts: "QuerySet[ProviderAccount]"
    ) -> TemplateResponse | None:
        """Show the form, then the page to confirm; then grant, and return to the list.

        After errors, the page to confirm is shown again, for the accounts that are left.
        """
        chosen = list(accounts.select_related("user").order_by("pk")[: MAX_ACCOUNTS + 1])
        if len(chosen) > MAX_ACCOUNTS:
            sentence = _("Choose at most %d accounts, or call grant_credits in a script.")
            self.message_user(request, sentence % MAX_ACCOUNTS, messages.ERROR)
            return None
        is_sent = "key" in request.POST
        form = GrantForm(request.POST if is_sent else None, initial={"key": uuid.uuid4().hex})
        if form.is_valid() and "confirmed" in request.POST:
            chosen = self._grant(request, chosen, form)
        return self._page(request, chosen, form) if chosen else None

    def _page(
        self, request: HttpRequest, accounts: list[ProviderAccount], form: GrantForm
    ) -> TemplateResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": _("Grant credits"),
            "opts": self.opts,
            "media": self.media + form.media,
            "accounts": accounts,
            "form": form,
            "action_checkbox_name": helpers.ACTION_CHECKBOX_NAME,
        }
        if form.is_valid():
            context |= {
                "amount": format_exact_usd(form.credits),
                "credits": form.credits,
                "total": format_exact_usd(form.credits * len(accounts)),
            }
        return TemplateResponse(request, "django_quota/admin/grant_credits.html", context)

    def _grant(
        self, request: HttpRequest, accounts: list[ProviderAccount], form: GrantForm
    ) -> list[ProviderAccount]:
        """Grant to each user. An error is shown with the account, and the others go on.

        Return the accounts that had an error.
        """
        options: dict[str, Any] = {
            "reason": form.cleaned_data["reason"],
            "granted_by": acted_by() or request.user.get_username(),
        }
        failed = []
        # One limit for all: a server ends a request that takes too long. Whoever sends the form
        # again gets the rest granted.
        with within(get_settings().deadline):
            for account in accounts:
                key = f"admin-{form.cleaned_data['key']}-{account.pk}"
                try:
                    grant_credits(account.user, form.credits, idempotency_key=key, **options)
                except QuotaError as error:
                    failed.append(account)
                    # Named as on the page to confirm. The admin would capitalise an address that
                    # the message begins with.
                    failure = _("Grant to %(user)s (%(account)s): %(error)s")
                    names = {"user": account.user, "account": account, "error": error}
                    self.message_user(request, failure % names, messages.ERROR)
        if failed:
            advice = _("To try again, send this form once more: nobody is granted credits twice.")
            self.message_user(request, advice, messages.WARNING)
        if done := len(accounts) - len(failed):
            sentence = ngettext(
                "%(amount)s granted to %(n)d user.",
                "%(amount)s granted to each of %(n)d users.",
                done,
            )
            words = {"amount": format_exact_usd(form.credits), "n": done}
            self.message_user(request, sentence % words, messages.SUCCESS)
        return failed
