"""django-tenants keeps each tenant in a schema: the same primary key is another person in each."""

import asyncio
import json
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import django
import psycopg
from asgiref.sync import sync_to_async
from django.conf import settings

from tests import settings_postgresql
from tests.light_provider import LightProvider

BOTH = ["django.contrib.contenttypes", "django.contrib.auth", "django_quota"]
APP = "tests.neighbours.programs.tenants_app"
SCHEMAS = ("public", "acme", "bolt")

server: dict[str, Any] = dict(settings_postgresql.DATABASES["default"])
NAME = "quota_tenants"
with psycopg.connect(
    host=server["HOST"], user=server["USER"], dbname=server["NAME"], autocommit=True
) as admin:
    admin.execute(f"DROP DATABASE IF EXISTS {NAME}")
    admin.execute(f"CREATE DATABASE {NAME}")
server |= {"ENGINE": "django_tenants.postgresql_backend", "NAME": NAME}
options = {n: getattr(settings_postgresql, n) for n in dir(settings_postgresql) if n.isupper()}
options |= {
    "DATABASES": {"default": server},
    "INSTALLED_APPS": ["django_tenants", APP, *BOTH],
    "SHARED_APPS": ["django_tenants", APP, *BOTH],
    "TENANT_APPS": BOTH,
    "TENANT_MODEL": "tenants_app.Tenant",
    "TENANT_DOMAIN_MODEL": "tenants_app.Domain",
    "DATABASE_ROUTERS": ["django_tenants.routers.TenantSyncRouter"],
    "MIGRATION_MODULES": {"tenants_app": None},
}
settings.configure(**options)
django.setup()

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.test import override_settings
from django.utils import timezone
from django_tenants.utils import schema_context

from django_quota.ai.factory import async_openai_client, openai_client
from django_quota.exceptions import RefreshImpossibleHere
from django_quota.models import ProviderAccount, QuotaToken, UsageRecord
from django_quota.oidc.time_limit import within
from django_quota.tokens.access import aget_access_token, get_access_token
from django_quota.wallet.purchases import aget_balance
from tests.helpers.concurrency import closes_connections
from tests.neighbours.programs.tenants_app.models import Domain, Tenant
from tests.tiny_server import TinyServer
from tests.upstream import Upstream, chunk, last


def make(name: str) -> None:
    """The tenant's schema, and the user of key 1 in it."""
    with schema_context(name):
        user = get_user_model().objects.create_user(name)
        account = ProviderAccount.objects.create(user=user, external_id=name)
        row = QuotaToken(account=account, expires_at=timezone.now())
        row.access_token, row.refresh_token = f"quota_token_{name}.0", f"quota_refresh_{name}.0"
        row.save()


def in_a_transaction(user: Any) -> str:
    with transaction.atomic():
        return get_access_token(user)


def within_a_time_limit(user: Any) -> str:
    with within(20):
        return get_access_token(user)


WAYS: dict[str, Callable[[Any], str]] = {
    "plain": get_access_token,
    "transaction": in_a_transaction,
    "time limit": within_a_time_limit,
    "async": lambda user: asyncio.run(aget_access_token(user)),
    "async balance": lambda user: str(asyncio.run(aget_balance(user))),
}
got: dict[str, str | int] = {}
STREAM: Any = {"model": "m", "messages": [], "stream": True}


def ask(name: str, way: str, note: str) -> None:
    with schema_context(name):
        QuotaToken.objects.update(expires_at=timezone.now(), last_failure_at=None)
        user = get_user_model().objects.get()
        assert user.pk == 1
        try:
            token = WAYS[way](user)
        except RefreshImpossibleHere:
            token = "refused"
    got[note] = token.removeprefix("quota_token_").partition(".")[0]


def at_once(name: str, barrier: threading.Barrier) -> None:
    barrier.wait()
    ask(name, "time limit", f"{name} at once")
    connections.close_all()


def stream_elsewhere(name: str, elsewhere: str) -> None:
    """A stream of one tenant, read when the connection has gone on to another one."""
    user = enter(name)
    stream = openai_client(user).chat.completions.create(**STREAM)
    connection.set_schema(elsewhere)
    list(stream)


async def astream_elsewhere(name: str, elsewhere: str) -> None:
    user = await sync_to_async(enter)(name)
    stream = await async_openai_client(user).chat.completions.create(**STREAM)
    await sync_to_async(lambda: connection.set_schema(elsewhere))()
    async for _ in stream:
        pass
    await sync_to_async(connections.close_all)()


def enter(name: str) -> Any:
    connection.set_schema(name)
    QuotaToken.objects.update(expires_at=timezone.now() + timedelta(hours=1))
    return get_user_model().objects.get()


def in_new_thread(work: Callable[[], object]) -> None:
    """As a request, which finds no schema set in its thread."""
    thread = threading.Thread(target=closes_connections(work))
    thread.start()
    thread.join()


def count_records(note: str) -> None:
    for schema in SCHEMAS:
        with schema_context(schema):
            got[f"{note} in {schema}"] = UsageRecord.objects.all().delete()[0]


with connection.schema_editor() as editor:
    editor.create_model(Tenant)
    editor.create_model(Domain)
call_command("migrate_schemas", verbosity=0)
for schema in SCHEMAS[1:]:
    Tenant(schema_name=schema).save(verbosity=0)
with LightProvider() as quota:
    settings.QUOTA_BASE_URL = quota.origin
    for schema in SCHEMAS:
        make(schema)
    for way in WAYS:
        for schema in SCHEMAS[1:]:
            ask(schema, way, f"{schema} {way}")
    barrier = threading.Barrier(2, timeout=60)
    threads = [threading.Thread(target=at_once, args=(name, barrier)) for name in SCHEMAS[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
with TinyServer() as ai, override_settings(QUOTA_BASE_URL=ai.origin):
    for note, work in {
        "record": lambda: stream_elsewhere("acme", "bolt"),
        "async record": lambda: asyncio.run(astream_elsewhere("acme", "bolt")),
    }.items():
        answer = Upstream()
        answer.say(chunk("Hello"), last(credits_used=1, balance_after=9))
        answer.end()
        ai.on("/v1/chat/completions", answer)
        in_new_thread(work)
        count_records(note)
connections.close_all()
print(json.dumps(got))
