"""Staff act as a user with the packages that are made for it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.neighbours import run

pytestmark = pytest.mark.neighbour

PACKAGES = {
    "hijack": "hijack",
    "loginas": "loginas",
    "su": "django_su",
    "impersonate": "impersonate",
}
PATHS = ["token", "atoken", "marked", "amarked"]
REFUSED = dict.fromkeys(PATHS, "impersonation_refused")


@pytest.fixture(params=PACKAGES)
def package(request: Any) -> str:
    pytest.importorskip(PACKAGES[request.param])
    return str(request.param)


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_nobody_pays_while_staff_act(package: str, server: str) -> None:
    seen = run("acting", package, server)
    assert seen["before"] == dict.fromkeys(PATHS, "paid by boss")
    assert seen["acting"] == REFUSED
    assert seen["connect"] == "impersonation_refused"
    assert seen["checkout"] == "impersonation_refused"
    assert seen["disconnect"] == "impersonation_refused"
    assert seen["after"] == dict.fromkeys(PATHS, "paid by boss")


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_user_pays_where_that_is_allowed(package: str, server: str) -> None:
    seen = run("acting", package, server, "allowed")
    assert seen["acting"] == dict.fromkeys(PATHS, "paid by ada")
    assert seen["acted_by"] == "boss"
    assert seen["connect"] == "impersonation_refused"


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_nobody_pays_while_staff_act_as_staff_who_act(package: str, server: str) -> None:
    seen = run("acting", package, server, "nested")
    assert seen["acting"] == REFUSED
