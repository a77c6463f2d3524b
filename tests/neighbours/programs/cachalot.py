"""django-cachalot keeps the results of queries, here in the memory of one process."""

import json

from tests.neighbours import project

project.configure(apps=["cachalot"], CACHALOT_ENABLED=True)

from django.core.cache import cache

from django_quota.models import QuotaToken
from tests.neighbours import visit, waiting

waited = waiting.looks_until_the_new_token_is_seen()
list(QuotaToken.objects.all())  # a query of the project's own
kept = str(cache._cache)
print(
    json.dumps(
        {
            "waited": waited,
            "kept": len(cache._cache),
            "clear": bool(visit.CLEAR.search(kept)),
        }
    )
)
