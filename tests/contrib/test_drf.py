"""django_quota.contrib.drf: our errors as answers of Django REST framework, and HasQuotaWallet."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection
from rest_framework.test import APIClient

from django_quota.contrib.drf import exception_handler
from django_quota.exceptions import ConfigurationError, NotConnected
from django_quota.models import QuotaToken
from tests.helpers import programs
from tests.helpers.error_answers import ANSWERS, mailed
from tests.helpers.rows import expire
from tests.sandbox_client import Person, Sandbox, query_of

pytestmark = pytest.mark.django_db(transaction=True)

OURS = {"EXCEPTION_HANDLER": "django_quota.contrib.drf.exception_handler"}


@pytest.fixture(autouse=True)
def project(settings: Any) -> None:
    """An API without QuotaMiddleware: what is answered here, DRF answers."""
    settings.ROOT_URLCONF = "tests.urls_drf"
    settings.REST_FRAMEWORK = OURS


@pytest.fixture
def atomic_requests() -> Any:
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


@pytest.fixture
def api() -> APIClient:
    return APIClient(SERVER_NAME="localhost")


@pytest.fixture
def member(api: APIClient) -> Any:
    """A user without a wallet, whom DRF alone knows: Django's session is nobody's."""
    member = get_user_model().objects.create_user("member")
    api.force_authenticate(member)
    return member


@pytest.fixture
def owner(api: APIClient, user: Any) -> Any:
    """Ada, with her wallet, whom DRF alone knows."""
    api.force_authenticate(user)
    return user


class TestPermission:
    def test_a_connected_user_comes_in(self, api: APIClient, owner: Any) -> None:
        assert api.get("/plain").json() == {"user": owner.pk}
        assert api.get("/spends").json() == {"user": owner.pk}

    def test_an_expired_token_is_renewed(
        self, api: APIClient, owner: Any, sandbox: Sandbox
    ) -> None:
        expire()
        assert api.get("/plain").status_code == 200
        assert sandbox.requests() == ["POST /oauth/token"]

    def test_a_visitor_signs_in(self, api: APIClient) -> None:
        answer = api.get("/plain")
        assert answer.status_code == 401
        assert answer.json() == {
            "error": {
                "code": "not_connected",
                "message": "You have no Quota wallet connected here, so nothing can pay for this.",
                "hint": "Sign in with Quota, or connect your wallet.",
            },
            "login_url": "/auth/quota/start",
        }
        assert answer["Cache-Control"] == "no-store, private"

    def test_who_has_no_wallet_connects_one(self, api: APIClient, member: Any) -> None:
        """Known to DRF's authentication only."""
        assert api.get("/plain").json()["login_url"] == "/auth/quota/connect"

    def test_who_must_sign_in_again(self, api: APIClient, owner: Any) -> None:
        QuotaToken.objects.update(status=QuotaToken.Status.REAUTHENTICATION_REQUIRED)
        answer = api.get("/plain")
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "reauthentication_required"

    def test_a_scope_that_is_missing_is_asked_for(
        self, api: APIClient, person: Person, settings: Any
    ) -> None:
        settings.QUOTA_SCOPES = "openid credits.read"
        person.sign_in()
        api.force_authenticate(get_user_model().objects.get())
        assert api.get("/plain").status_code == 200
        answer = api.get("/spends")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "insufficient_scope")
        at_quota = person.client.get(answer.json()["login_url"])["Location"]
        assert "credits.spend" in query_of(at_quota)["scope"].split()

    def test_while_quota_is_down(
        self, api: APIClient, owner: Any, settings: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        expire()
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        answer = api.get("/plain")
        assert answer.status_code == 503
        assert not mailed(caplog)
        assert answer.json()["error"]["code"] == "provider_unavailable"

    def test_beside_another_permission(self, api: APIClient, member: Any) -> None:
        assert api.get("/admin-or").status_code == 401
        member.is_staff = True
        assert api.get("/admin-or").json() == {"user": member.pk}

    def test_settings_that_are_wrong_stay_an_error(
        self, api: APIClient, owner: Any, settings: Any
    ) -> None:
        expire()
        settings.QUOTA_CLIENT_ID = ""
        with pytest.raises(ConfigurationError):
            api.get("/plain")

    def test_without_our_handler_it_is_a_plain_403(
        self, api: APIClient, member: Any, settings: Any
    ) -> None:
        settings.REST_FRAMEWORK = {}
        answer = api.get("/plain")
        assert (answer.status_code, answer.json()) == (
            403,
            {"detail": "You have no Quota wallet connected here, so nothing can pay for this."},
        )
        assert answer.data["detail"].code == "not_connected"

    def test_a_page_of_the_browsable_api_leaves_out_the_form(
        self, api: APIClient, user: Any, settings: Any
    ) -> None:
        """DRF asks each permission whether to show it, and catches its own errors only."""
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "rest_framework"]
        form = '<form action="/plain" method="POST"'
        visitors = api.get("/plain", headers={"accept": "text/html"})
        assert visitors.status_code == 401
        assert "not_connected" in visitors.content.decode()
        assert form not in visitors.content.decode()
        api.force_authenticate(user)
        assert form in api.get("/plain", headers={"accept": "text/html"}).content.decode()


class TestHandler:
    @pytest.mark.parametrize(("error", "status", "members"), ANSWERS)
    def test_states(
        self,
        api: APIClient,
        member: Any,
        error: str,
        status: int,
        members: dict[str, str],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        answer = api.get(f"/raises/{error}")
        assert answer.status_code == status
        body = answer.json()
        told = body.pop("error")
        assert body == members
        assert answer["Cache-Control"] == "no-store, private"
        lines = [r.getMessage() for r in caplog.records if r.name == "django_quota.answers"]
        expected = [] if members else [f"{told['code']}: for the log [{told['reference']}]"]
        assert lines == expected
        assert "for the log" not in answer.content.decode()
        assert answer.get("Retry-After") == ("7" if error == "RateLimited" else None)

    def test_says_the_same_as_the_middleware(
        self, api: APIClient, member: Any, settings: Any
    ) -> None:
        by_drf = api.get("/raises/InsufficientCredits")
        settings.REST_FRAMEWORK = {}
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]
        by_middleware = APIClient().get("/raises/InsufficientCredits")
        assert by_drf.json() == by_middleware.json()
        assert by_drf.status_code == by_middleware.status_code == 402

    def test_any_other_error_is_drfs(self, api: APIClient, member: Any) -> None:
        answer = api.get("/raises/ValidationError")
        assert (answer.status_code, answer.json()) == (400, ["of DRF's own"])

    def test_what_the_developer_must_mend_stays_an_error(self, api: APIClient, member: Any) -> None:
        with pytest.raises(ConfigurationError):
            api.get("/raises/ConfigurationError")

    def test_without_any_handler_it_stays_an_error(
        self, api: APIClient, member: Any, settings: Any
    ) -> None:
        """So that the tests above show something."""
        settings.REST_FRAMEWORK = {}
        with pytest.raises(NotConnected):
            api.get("/raises/NotConnected")


class TestHandlerOfTheProjectsOwn:
    """One that calls ours."""

    @staticmethod
    def handled_by(settings: Any, name: str) -> None:
        settings.REST_FRAMEWORK = {"EXCEPTION_HANDLER": f"tests.urls_drf.{name}"}

    @pytest.mark.parametrize("path", ["raises/NotConnected", "raises/InsufficientCredits", "plain"])
    def test_asking_ours_first_gives_the_answer_that_ours_alone_gives(
        self, api: APIClient, member: Any, settings: Any, path: str
    ) -> None:
        alone = api.get(f"/{path}")
        self.handled_by(settings, "ours_first")
        answer = api.get(f"/{path}")
        assert (answer.status_code, answer.json()) == (alone.status_code, alone.json())
        assert answer["Cache-Control"] == "no-store, private"
        assert answer["X-Api-Version"] == "2"

    @pytest.mark.parametrize("handler", ["ours_first", "drfs_first"])
    def test_foreign_error_that_drf_knows_gets_drfs_answer(
        self, api: APIClient, member: Any, settings: Any, handler: str
    ) -> None:
        self.handled_by(settings, handler)
        answer = api.get("/raises/ValidationError")
        assert (answer.status_code, answer.json()) == (400, ["of DRF's own"])

    @pytest.mark.parametrize("handler", ["ours_first", "drfs_first"])
    @pytest.mark.parametrize("error", [ZeroDivisionError, ConfigurationError])
    def test_error_that_nobody_answers_is_raised_again(
        self, api: APIClient, member: Any, settings: Any, handler: str, error: type[Exception]
    ) -> None:
        self.handled_by(settings, handler)
        with pytest.raises(error):
            api.get(f"/raises/{error.__name__}")

    def test_asking_drfs_first_leaves_our_errors_to_ours(
        self, api: APIClient, member: Any, settings: Any
    ) -> None:
        alone = api.get("/raises/InsufficientCredits")
        self.handled_by(settings, "drfs_first")
        answer = api.get("/raises/InsufficientCredits")
        assert (answer.status_code, answer.json()) == (402, alone.json())

    def test_asking_drfs_first_makes_the_permissions_refusal_a_plain_403(
        self, api: APIClient, member: Any, settings: Any
    ) -> None:
        """Why docs/scripts.rst says to ask ours first."""
        self.handled_by(settings, "drfs_first")
        answer = api.get("/plain")
        assert (answer.status_code, list(answer.json())) == (403, ["detail"])

    def test_giving_ours_what_is_ours_leaves_the_rest_to_another_handler(
        self, api: APIClient, member: Any, settings: Any
    ) -> None:
        self.handled_by(settings, "theirs_for_the_rest")
        assert api.get("/plain").json()["login_url"] == "/auth/quota/connect"
        assert api.get("/raises/NotConnected").status_code == 401
        answer = api.get("/raises/ValidationError")
        assert (answer.status_code, answer.json()) == (418, {"theirs": "ValidationError"})

    def test_view_that_has_written_is_rolled_back(
        self, atomic_requests: None, api: APIClient, member: Any, settings: Any
    ) -> None:
        self.handled_by(settings, "ours_first")
        assert api.get("/raises/NotConnected").status_code == 401
        member.refresh_from_db()
        assert member.last_name == ""


def test_handler_called_by_itself_returns_none_for_what_drf_does_not_know() -> None:
    assert exception_handler(ZeroDivisionError(), {}) is None


class TestAtomicRequests:
    @pytest.mark.parametrize("error", ["NotConnected", "ProviderUnavailable"])
    def test_what_the_view_has_written_is_rolled_back(
        self, atomic_requests: None, api: APIClient, member: Any, error: str
    ) -> None:
        answer = api.get(f"/raises/{error}")
        assert answer.status_code in (401, 503)
        member.refresh_from_db()
        assert member.last_name == ""

    def test_without_a_transaction_it_stays(self, api: APIClient, member: Any) -> None:
        """So that the test above shows something."""
        api.get("/raises/NotConnected")
        member.refresh_from_db()
        assert member.last_name == "seen"

    def test_an_expired_token(
        self, atomic_requests: None, api: APIClient, owner: Any, sandbox: Sandbox
    ) -> None:
        """A permission is asked inside of the transaction, where SQLite cannot save a new one."""
        expire()
        answer = api.get("/plain")
        if connection.vendor == "sqlite":
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "refresh_impossible_here"
            assert sandbox.requests() == []
        else:
            assert answer.status_code == 200

    def test_an_expired_token_of_a_view_outside(
        self, atomic_requests: None, api: APIClient, owner: Any, sandbox: Sandbox
    ) -> None:
        """As the README says."""
        expire()
        assert api.get("/not-atomic").status_code == 200
        assert sandbox.requests() == ["POST /oauth/token"]


@pytest.mark.process
def test_the_package_does_without() -> None:
    loaded = programs.run("print_modules", "django_quota.urls", "django_quota.middleware").split()
    assert "django_quota.middleware" in loaded
    assert "rest_framework" not in loaded


@pytest.mark.process
def test_names_the_extra_where_it_is_missing() -> None:
    assert "django-quota[drf]" in programs.run("without_rest_framework")
