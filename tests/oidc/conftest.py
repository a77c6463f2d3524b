from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.conf import Settings as ProjectSettings

from django_quota.oidc import transport
from tests.tiny_server import TinyServer, json_answer

DISCOVERY = "/.well-known/openid-configuration"


@pytest.fixture
def server(settings: ProjectSettings) -> Iterator[TinyServer]:
    """A Quota with a discovery document."""
    with TinyServer() as running:
        settings.QUOTA_BASE_URL = running.origin
        settings.QUOTA_CLIENT_SECRET = "quota_secret_hush"
        running.on(DISCOVERY, json_answer({"issuer": running.origin}))
        yield running
    transport._session().close()
