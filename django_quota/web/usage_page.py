"""The page that shows signed-in users what their AI calls have cost, also as a CSV file."""

from django.http import HttpRequest, HttpResponseBase
from django.shortcuts import render
from django.views.decorators.http import require_safe

from django_quota.models import UsageRecord
from django_quota.tokens.payer import user_of
from django_quota.wallet.spending import spending_of

from .redirects import user_home_url
from .requests import query_value
from .usage_chart import chart_of
from .usage_csv import csv_response
from .wallet_view import wallet_view

__all__ = ["usage"]

#: The calls that the page shows, and those in the CSV file; newest first.
MAX_CALLS, MAX_CSV_CALLS = 25, 10_000


@require_safe
@wallet_view
def usage(request: HttpRequest) -> HttpResponseBase:
    """GET usage: what the signed-in user has spent by day and by purpose, and their last calls.

    With `?format=csv`, the last calls as a file. It is the user of the request also while staff act
    as them, as on every page that only reads.
    """
    user = user_of(request)
    records = UsageRecord.objects.filter(user_id=user.pk).order_by("-created_at", "-pk")
    if query_value(request, "format") == "csv":
        return csv_response(records[:MAX_CSV_CALLS])
    spending = spending_of(user)
    context = {
        "spending": spending,
        "today": spending.days[-1],
        "chart": chart_of(spending.days),
        "calls": list(records[:MAX_CALLS]),
        "max_csv_calls": MAX_CSV_CALLS,
        "home_url": user_home_url(),
    }
    return render(request, "django_quota/usage.html", context)
