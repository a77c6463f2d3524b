"""A token provider that counts, and processes that ask it: both are started once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connection
from pytest_django.fixtures import Settings

from tests.light_provider import LightProvider
from tests.storms.crew import Crew


@pytest.fixture(scope="session")
def light_provider() -> Iterator[LightProvider]:
    with LightProvider() as live:
        yield live


@pytest.fixture
def quota(light_provider: LightProvider, settings: Settings) -> Iterator[LightProvider]:
    light_provider.reset()
    settings.QUOTA_BASE_URL = light_provider.origin
    yield light_provider
    light_provider.set(hang=False)


@pytest.fixture(scope="session")
def crew(light_provider: LightProvider, django_db_setup: None) -> Iterator[Crew]:
    """As many web workers as the database is promised to stand."""
    sqlite = connection.vendor == "sqlite"
    database: dict[str, Any] = {"OPTIONS": {}} if sqlite else {}  # Django's own five seconds
    ours = {"QUOTA_BASE_URL": light_provider.origin, "QUOTA_WEBHOOK_SECRET": "whsec_storm"}
    with Crew(4 if sqlite else 8, database=database, **ours) as crew:
        yield crew
