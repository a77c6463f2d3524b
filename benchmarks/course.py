"""What the benchmarks that print a figure a line share: the database, the provider, the line."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import django
from django.db import connection
from django.test.utils import override_settings, setup_databases, teardown_databases

from tests.light_provider import LightProvider
from tests.storms.crew import Crew


def run(work: Callable[[LightProvider], None], settings_module: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = settings_module
    django.setup()
    databases = setup_databases(verbosity=0, interactive=False)
    try:
        with LightProvider() as quota, override_settings(QUOTA_BASE_URL=quota.origin):
            work(quota)
    finally:
        teardown_databases(databases, verbosity=0)


def say(what: str, measured: object, must_be: str) -> None:
    version = getattr(connection, "mysql_server_info", None) or connection.get_database_version()
    shown = version if isinstance(version, str) else ".".join(str(number) for number in version)
    print(f"{what} | {measured} | {must_be} | {connection.vendor} {shown}")


def failures(got: list[str]) -> int:
    return sum(not said.startswith("quota_token_") for said in got)


def sqlite() -> bool:
    return connection.vendor == "sqlite"


def workers(quota: LightProvider, count: int) -> Crew:
    database: dict[str, Any] = {"OPTIONS": {}} if sqlite() else {}
    return Crew(count, database=database, QUOTA_BASE_URL=quota.origin)
