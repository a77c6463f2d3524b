"""The tool that the model may call: it looks up what the user has spent."""

import json
from datetime import timedelta
from typing import Any

from django.db.models import Count, Sum
from django.utils import timezone

MAX_DAYS = 30
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look_up_spending",
            "description": "What the user has spent on AI calls on this site.",
            "parameters": {
                "type": "object",
                "properties": {
                    "days": {"type": "integer", "minimum": 1, "maximum": MAX_DAYS, "default": 7}
                },
                "required": ["days"],
            },
        },
    }
]


def look_up_spending(user: Any, arguments: str) -> dict[str, int]:
    """Run the tool. `arguments` is what the model wrote, so it may be anything."""
    try:
        days = min(max(int(json.loads(arguments)["days"]), 1), MAX_DAYS)
    except (ValueError, TypeError, KeyError, OverflowError):
        days = 7
    since = timezone.now() - timedelta(days=days)
    sums = user.quota_usage.filter(created_at__gte=since).aggregate(
        calls=Count("pk"), credits=Sum("credits_used", default=0)
    )
    return {"days": days, **sums}
