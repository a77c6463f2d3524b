"""A user's calls as a CSV file (RFC 4180) that spreadsheets open."""

import csv
import re
from collections.abc import Iterable
from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.utils import timezone

from django_quota.models import UsageRecord
from django_quota.money import dollars

_COLUMNS = [
    "date",
    "model",
    "purpose",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "credits",
    "usd",
    "complete",
    "call_id",
]
#: What a spreadsheet takes for a formula: one of these signs, also in full width, at the beginning
#: of a cell. If its separator is not the comma, one of its cells may begin inside one of ours.
_FORMULA = re.compile(r"(^|[,;|\t\r\n\"])(\s*[=+\-@\uff1d\uff0b\uff0d\uff20])")


def csv_response(records: Iterable[UsageRecord]) -> HttpResponse:
    """Return `records` as a download. Times are ISO 8601, in the current time zone."""
    filename = f"usage-{_local(timezone.now()).date().isoformat()}.csv"
    response = HttpResponse(
        content_type="text/csv; charset=utf-8",
        headers={"Content-Disposition": f'attachment; filename="{filename}"'},
    )
    response.write("\ufeff")  # Without this mark, Excel does not read the file as UTF-8.
    writer = csv.writer(response, quoting=csv.QUOTE_ALL)
    writer.writerow(_COLUMNS)
    writer.writerows(map(_row, records))
    return response


def _row(record: UsageRecord) -> list[Any]:
    credits = record.credits_used
    return [
        _local(record.created_at).isoformat(timespec="seconds"),
        _as_text(record.model),
        _as_text(record.purpose),
        record.prompt_tokens,
        record.completion_tokens,
        record.cached_tokens,
        record.reasoning_tokens,
        credits,
        None if credits is None else f"{dollars(credits):f}",
        "yes" if record.complete else "no",
        _as_text(record.call_id),
    ]


def _local(moment: Any) -> Any:
    return timezone.localtime(moment) if settings.USE_TZ else moment


def _as_text(value: str) -> str:
    """Return `value` with an apostrophe before each sign that would begin a formula (CWE-1236)."""
    return _FORMULA.sub(r"\1'\2", value)
