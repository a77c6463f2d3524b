"""django-cacheops keeps pickled rows in Redis."""

import json
import os
from typing import Any

from tests.neighbours import project


def prefix(query: Any) -> str:
    return f"django_quota-tests-{os.getpid()}:"


project.configure(
    apps=["cacheops"],
    CACHEOPS_REDIS=os.environ["REDIS"],
    CACHEOPS={"*.*": {"ops": "all", "timeout": 600}},
    CACHEOPS_PREFIX=prefix,
)

import redis
from django.contrib.admin.sites import site
from django.test import RequestFactory

from django_quota.models import ProviderAccount
from tests.neighbours import visit, waiting

store = redis.Redis.from_url(os.environ["REDIS"])
try:
    waited = waiting.looks_until_the_new_token_is_seen()
    visit.visit()
    admin = site._registry[ProviderAccount]
    rows = admin.get_queryset(RequestFactory().get("/")).select_related("token")
    assert [account.token.access_token.reveal() for account in rows]
    keys = list(store.scan_iter(f"{prefix(None)}*"))
    values = [store.get(key) for key in keys if store.type(key) == b"string"]
finally:
    for key in store.scan_iter(f"{prefix(None)}*"):
        store.delete(key)
print(
    json.dumps(
        {
            "waited": waited,
            "kept": len(values),
            "clear": sum(bool(visit.CLEAR.search(value.decode("latin-1"))) for value in values),
        }
    )
)
