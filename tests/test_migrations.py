"""The migrations fit the models, and people can tell by their names what they do."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connection
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.migration import SwappableTuple
from django.utils import timezone

import django_quota
from django_quota.models import ProviderAccount, UsageRecord, WebhookEvent

FOLDER = Path(django_quota.__file__).parent / "migrations"
NAMES = sorted(path.stem for path in FOLDER.glob("[0-9]*.py"))

pytestmark = pytest.mark.django_db


def test_there_is_none_to_be_made() -> None:
    call_command("makemigrations", "django_quota", "--check", "--dry-run", verbosity=0)


def test_there_is_none_to_be_made_whatever_the_projects_default_id_is(settings: Any) -> None:
    settings.DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
    call_command("makemigrations", "django_quota", "--check", "--dry-run", verbosity=0)


def test_they_are_named_by_hand() -> None:
    assert NAMES
    for name in NAMES:
        assert re.fullmatch(r"\d{4}_[a-z][a-z0-9_]*", name), name
        assert "_auto_" not in name


def test_they_follow_each_other() -> None:
    assert [name[:4] for name in NAMES] == [f"{n:04}" for n in range(1, len(NAMES) + 1)]
    graph = MigrationLoader(None).graph
    assert graph.leaf_nodes("django_quota") == [("django_quota", NAMES[-1])]


def test_they_take_any_user_model() -> None:
    first = MigrationLoader(None).graph.nodes["django_quota", NAMES[0]]

    assert [type(needed) for needed in first.dependencies] == [SwappableTuple]


def test_their_tables_are_there() -> None:
    ours = {name for name in connection.introspection.table_names() if "quota" in name}
    assert {
        "django_quota_provideraccount",
        "django_quota_quotatoken",
        "django_quota_pendingrevocation",
    } <= ours


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("other", ["SUB", "sub ", "s\u00fcb"])
def test_identifiers_are_compared_by_bytes(other: str) -> None:
    """Of a person, a call and an event: MariaDB by itself takes these for the same."""
    users = [get_user_model().objects.create(username=name) for name in ("ada", "eve")]
    now = timezone.now()
    for user, name in zip(users, ("sub", other), strict=True):
        ProviderAccount.objects.create(user=user, external_id=name)
        UsageRecord.objects.create(user=users[0], call_id=name)
        WebhookEvent.objects.create(event_id=name, type="t", body="{}", created_at=now)

    for rows, column in (
        (ProviderAccount.objects, "external_id"),
        (UsageRecord.objects, "call_id"),
        (WebhookEvent.objects, "event_id"),
    ):
        assert rows.get(**{column: other}) != rows.get(**{column: "sub"})
