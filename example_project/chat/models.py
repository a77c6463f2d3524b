"""The conversation of each user. A session would grow too large, and a stream ends after it is
saved."""

from typing import Any

from django.conf import settings
from django.db import models


class Exchange(models.Model):
    """One question and its answer."""

    #: Exchanges of a user that are kept. All of them are sent with each question, and paid for.
    KEPT = 6

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="exchanges"
    )
    question = models.TextField()
    answer = models.TextField()
    model = models.CharField(max_length=100)
    max_tokens = models.PositiveIntegerField()
    # What the model has looked up with the tool: tools.look_up_spending.
    lookup = models.JSONField(null=True)
    # The cost of all calls for this answer; None if it ended early.
    credits_used = models.BigIntegerField(null=True)

    def __str__(self) -> str:
        return self.question[:50]

    def keep(self) -> None:
        """Save this exchange, and delete those that are too old to be kept."""
        self.save()
        newest_first = type(self).objects.filter(user=self.user).order_by("-pk")
        kept = list(newest_first.values_list("pk", flat=True)[: self.KEPT])
        newest_first.exclude(pk__in=kept).delete()


def conversation(user: Any) -> list[Exchange]:
    """The last exchanges of `user`, oldest first."""
    return list(Exchange.objects.filter(user=user).order_by("pk"))
