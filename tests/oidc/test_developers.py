"""django_quota.oidc.developers: the registration of an OAuth app."""

from __future__ import annotations

from django.conf import Settings as ProjectSettings

from django_quota.oidc import developers
from tests.tiny_server import TinyServer, json_answer


class TestSaveApp:
    def test_registers_with_the_developers_session(self, server: TinyServer) -> None:
        server.on("/developers/apps", json_answer({"client_id": "quota_client_1"}, status=201))

        found = developers.save_app("sess_hush", {"name": "Site"}, client_id=None)

        assert found == {"client_id": "quota_client_1"}
        (seen,) = server.requests
        assert (seen.method, seen.body) == ("POST", b'{"name": "Site"}')
        assert seen.headers["authorization"] == "Bearer sess_hush"

    def test_changes_the_app_that_is_named(self, server: TinyServer) -> None:
        server.on("/developers/apps/quota_client_1", json_answer({"client_id": "quota_client_1"}))

        developers.save_app("sess_hush", {"name": "Site"}, client_id="quota_client_1")

        assert server.requests[0].method == "PATCH"

    def test_without_any_client_configured(
        self, server: TinyServer, settings: ProjectSettings
    ) -> None:
        """It is how a project gets one."""
        settings.QUOTA_CLIENT_ID = settings.QUOTA_CLIENT_SECRET = ""
        server.on("/developers/apps", json_answer({"client_id": "quota_client_1"}))

        assert developers.save_app("sess_hush", {}, client_id=None)
