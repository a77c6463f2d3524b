"""django_quota.checks: `manage.py check` says what is wrong, once, and how to mend it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.apps import apps
from django.conf import settings
from django.core.checks import ERROR, WARNING, CheckMessage
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections
from django.test import override_settings
from django.urls import get_script_prefix, set_script_prefix

from django_quota.backends import QuotaBackend
from django_quota.checks import (
    check_encryption_key,
    check_installation,
    check_settings,
    check_surroundings,
)

ROOT = Path(__file__).parent.parent
BOTH = [
    "django.contrib.auth.backends.ModelBackend",
    "django_quota.backends.QuotaBackend",
]


@pytest.fixture(autouse=True)
def sound(settings: Any) -> None:
    """The tests' own project with all that the README asks for."""
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django_quota.middleware.QuotaMiddleware"]


class OwnBackend(QuotaBackend):
    """What a project makes of ours."""


def found() -> list[CheckMessage]:
    return [*check_settings(), *check_encryption_key(), *check_installation()]


def only(message_id: str, level: int = ERROR) -> CheckMessage:
    """The one message there is."""
    (message,) = found()
    assert (message.id, message.level) == (message_id, level)
    return message


def run_check() -> str:
    """What `manage.py check` says; it must fail."""
    with pytest.raises(SystemCheckError) as raised:
        call_command("check")
    return str(raised.value)


class TestSurroundings:
    @pytest.fixture(autouse=True)
    def clean_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)

    def ids(self) -> list[str | None]:
        return [message.id for message in check_surroundings()]

    def test_that_are_sound(self) -> None:
        assert self.ids() == []

    @pytest.mark.parametrize("hosts", [["*"], ["app.example", "*"]])
    def test_any_host_without_a_fixed_callback(self, hosts: list[str], settings: Any) -> None:
        settings.ALLOWED_HOSTS = hosts
        (message,) = check_surroundings()
        assert (message.id, message.level) == ("django_quota.W014", WARNING)
        assert "QUOTA_REDIRECT_URI" in str(message.hint)

    def test_any_host_with_a_fixed_callback(self, settings: Any) -> None:
        settings.ALLOWED_HOSTS = ["*"]
        settings.QUOTA_REDIRECT_URI = "https://app.example/auth/quota/callback"
        assert self.ids() == []

    def test_any_sub_domain(self, settings: Any) -> None:
        settings.ALLOWED_HOSTS = [".app.example"]
        assert self.ids() == []

    def test_a_developers_key_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")
        (message,) = check_surroundings()
        assert (message.id, message.level) == ("django_quota.W015", WARNING)
        assert "hush" not in str(message)

    def test_an_empty_key(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "")
        assert self.ids() == []

    def test_a_key_where_no_wallet_is_billed(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-hush")
        settings.QUOTA_SCOPES = "openid email"
        settings.QUOTA_CONNECT_SCOPES = "credits.read"
        assert self.ids() == []

    def test_of_settings_that_are_wrong_are_not_looked_at(self, settings: Any) -> None:
        settings.ALLOWED_HOSTS = ["*"]
        settings.QUOTA_BASE_URL = "nonsense"
        assert self.ids() == []


def test_a_sound_project_has_nothing_to_mend() -> None:
    assert found() == []
    call_command("check")


def test_each_message_is_given_once_after_installed_apps_changed(settings: Any) -> None:
    """Django calls `ready()` again, as it does in `modify_settings` and `override_settings`."""
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.humanize"]
    del settings.QUOTA_CLIENT_ID

    assert run_check().count("QUOTA_CLIENT_ID is missing.") == 1


class TestRequiredSettings:
    @pytest.mark.parametrize("name", ["QUOTA_CLIENT_ID", "QUOTA_CLIENT_SECRET"])
    def test_absent(self, name: str, settings: Any) -> None:
        delattr(settings, name)
        message = only("django_quota.E001")

        assert message.msg == f"{name} is missing."
        assert "quota_register_app" in str(message.hint)

    @pytest.mark.parametrize("name", ["QUOTA_CLIENT_ID", "QUOTA_CLIENT_SECRET"])
    @pytest.mark.parametrize("value", [None, "", []])
    def test_empty(self, name: str, value: Any) -> None:
        with override_settings(**{name: value}):
            assert only("django_quota.E001").msg == f"{name} is missing."

    @pytest.mark.parametrize("name", ["QUOTA_CLIENT_ID", "QUOTA_CLIENT_SECRET"])
    @pytest.mark.parametrize("value", [7, " ", [7]])
    def test_malformed(self, name: str, value: Any) -> None:
        with override_settings(**{name: value}):
            message = only("django_quota.E002")
        assert message.msg.startswith(f"{name} must be ")
        assert "quota_register_app" in str(message.hint)

    @pytest.mark.parametrize("name", ["QUOTA_CLIENT_ID", "QUOTA_CLIENT_SECRET"])
    def test_fail_the_command(self, name: str) -> None:
        with override_settings(**{name: None}):
            text = run_check()
        assert f"(django_quota.E001) {name} is missing." in text
        assert text.count("django_quota.") == 1
        assert "HINT: Register an OAuth app with Quota" in text


class TestOtherSettings:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("QUOTA_BASE_URL", "api.usequota.ai"),
            ("QUOTA_BASE_URL", ""),
            ("QUOTA_ISSUER", "http://usequota.ai"),
            ("QUOTA_SCOPES", []),
            ("QUOTA_CONNECT_SCOPES", None),
            ("QUOTA_REDIRECT_URI", "/auth/quota/callback"),
            ("QUOTA_POST_LOGOUT_REDIRECT_URI", "/"),
            ("QUOTA_ERROR_URL", ""),
            ("QUOTA_ALLOWED_NEXT_HOSTS", "app.example"),
            ("QUOTA_ALLOWED_NEXT_HOSTS", ["*"]),
            ("QUOTA_ALLOWED_NEXT_HOSTS", [""]),
            ("QUOTA_ALLOWED_NEXT_HOSTS", ["https://app.example"]),
            ("QUOTA_ALLOWED_NEXT_HOSTS", ["app.example:8000"]),
            ("QUOTA_ALLOWED_NEXT_HOSTS", [7]),
            ("QUOTA_TIMEOUT", "3"),
            ("QUOTA_TIMEOUT", 0),
            ("QUOTA_DEADLINE", 0),
            ("QUOTA_REFRESH_LEEWAY", -1),
            ("QUOTA_CLOCK_SKEW", 1.5),
            ("QUOTA_BALANCE_TTL", None),
            ("QUOTA_WEBHOOK_SECRET", ""),
            ("QUOTA_API_KEY", "quota_secret_x"),
            ("QUOTA_CREATE_USER", "False"),
            ("QUOTA_LINK_BY_EMAIL", 0),
        ],
    )
    def test_malformed_is_one_error_that_names_it(self, name: str, value: Any) -> None:
        with override_settings(**{name: value}):
            message = only("django_quota.E002")
            text = run_check()
        assert message.msg.startswith(f"{name} must ")
        assert f"(django_quota.E002) {name} must " in text
        assert text.count("django_quota.") == text.count("django_quota.E002") == 1

    def test_misspelt_is_a_warning(self) -> None:
        with override_settings(QUOTA_TIMOUT=3):
            message = only("django_quota.W001", WARNING)
        assert message.msg == "QUOTA_TIMOUT is not a setting of django_quota."

    def test_errors_do_not_hide_each_other(self) -> None:
        with override_settings(QUOTA_CLIENT_ID="", QUOTA_DEADLINE=0, QUOTA_TIMOUT=3):
            assert [message.id for message in found()] == [
                "django_quota.E001",
                "django_quota.E002",
                "django_quota.W001",
            ]

    def test_secrets_are_not_shown(self) -> None:
        with override_settings(QUOTA_CLIENT_SECRET=["quota_secret_hush", 7]):
            assert "hush" not in run_check()


class TestEncryptionKey:
    @pytest.mark.parametrize("value", [None, [], ()])
    def test_missing(self, value: Any) -> None:
        with override_settings(FIELD_ENCRYPTION_KEY=value):
            message = only("django_quota.E003")
            text = run_check()
        assert message.msg.startswith("FIELD_ENCRYPTION_KEY is missing.")
        assert "Fernet.generate_key()" in f"{message.msg} {message.hint}"
        assert text.count("django_quota.") == 1

    @pytest.mark.parametrize("value", ["hush", ["hush"], [None], 7])
    def test_malformed(self, value: Any) -> None:
        with override_settings(FIELD_ENCRYPTION_KEY=value):
            message = only("django_quota.E003")
        assert message.msg.startswith("FIELD_ENCRYPTION_KEY ")
        assert "Fernet.generate_key()" in f"{message.msg} {message.hint}"
        assert "hush" not in f"{message.msg} {message.hint}"

    def test_how_to_make_one_is_said_once(self) -> None:
        with override_settings(FIELD_ENCRYPTION_KEY=None):
            assert run_check().count("Fernet.generate_key()") == 1

    @pytest.mark.process
    def test_the_command_that_makes_one_works(self) -> None:
        with override_settings(FIELD_ENCRYPTION_KEY=None):
            message = only("django_quota.E003")
        command = f"{message.msg} {message.hint}".split("python -c '")[1].split("'")[0]
        made = subprocess.run(
            [sys.executable, "-c", command], capture_output=True, text=True, check=True
        )
        with override_settings(FIELD_ENCRYPTION_KEY=made.stdout.strip()):
            assert check_encryption_key() == []


class TestInstallation:
    @pytest.mark.parametrize("path", ["tests.test_checks.OwnBackend", BOTH[1]])
    def test_our_backend_or_one_made_of_it_will_do(self, path: str) -> None:
        with override_settings(AUTHENTICATION_BACKENDS=[path]):
            assert found() == []

    @pytest.mark.parametrize(
        "paths", [[], BOTH[:1], ["no.such.Backend"], ["django_quota.backends"], ["nonsense"]]
    )
    def test_without_our_backend_nobody_can_sign_in(self, paths: list[str]) -> None:
        with override_settings(AUTHENTICATION_BACKENDS=paths):
            message = only("django_quota.E004")
        assert "'django_quota.backends.QuotaBackend'" in str(message.hint)

    def test_without_our_backend_the_command_fails(self) -> None:
        with override_settings(AUTHENTICATION_BACKENDS=BOTH[:1]):
            assert "django_quota.E004" in run_check()

    def test_without_our_middleware_errors_are_no_states(self, settings: Any) -> None:
        settings.MIDDLEWARE = settings.MIDDLEWARE[:-1]
        message = only("django_quota.W003", WARNING)
        assert "django_quota.middleware.QuotaMiddleware" in str(message.hint)

    @pytest.mark.parametrize(
        ("backend", "ok"),
        [
            ("filebased.FileBasedCache", False),
            ("dummy.DummyCache", False),
            ("locmem.LocMemCache", True),
            ("db.DatabaseCache", True),
            ("memcached.PyMemcacheCache", True),
            ("redis.RedisCache", True),
        ],
    )
    def test_cache_whose_add_is_not_atomic(self, settings: Any, backend: str, ok: bool) -> None:
        path = f"django.core.cache.backends.{backend}"
        settings.CACHES = {"default": {"BACKEND": path, "LOCATION": "kept"}}
        found = [message for message in check_installation() if message.id == "django_quota.W005"]
        assert [str(message.hint)[:12] for message in found] == ([] if ok else ["Use Redis or"])

    @pytest.mark.parametrize("backend", ["db.DatabaseCache", "locmem.LocMemCache"])
    @pytest.mark.parametrize("atomic", [True, False])
    def test_a_cache_in_the_transactions_of_requests(
        self, settings: Any, monkeypatch: pytest.MonkeyPatch, backend: str, atomic: bool
    ) -> None:
        where = {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": "kept"}
        settings.CACHES = {"default": where}
        monkeypatch.setitem(settings.DATABASES["default"], "ATOMIC_REQUESTS", atomic)
        hints = [str(message.hint) for message in found() if message.id == "django_quota.W004"]
        assert ["Redis" in hint for hint in hints] == (
            [True] if atomic and backend == "db.DatabaseCache" else []
        )

    @pytest.mark.parametrize(
        ("vendor", "options", "said"),
        [
            ("sqlite", {}, "SQLite cannot renew"),
            ("postgresql", {"pool": True}, "connection pool"),
            ("postgresql", {}, None),
        ],
    )
    def test_a_request_in_a_transaction_names_the_decorator(
        self,
        monkeypatch: pytest.MonkeyPatch,
        vendor: str,
        options: dict[str, Any],
        said: str | None,
    ) -> None:
        connection = connections["default"]
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
        monkeypatch.setitem(connection.settings_dict, "OPTIONS", options)
        monkeypatch.setattr(type(connection), "vendor", vendor)
        messages = [message for message in found() if message.id == "django_quota.W010"]
        assert len(messages) == bool(said)
        assert all(str(said) in message.msg for message in messages)
        assert all("@quota_required" in str(message.hint) for message in messages)

    @pytest.mark.parametrize("create", [True, False])
    def test_a_site_that_is_closed_to_new_users(self, settings: Any, create: bool) -> None:
        settings.REGISTRATION_OPEN, settings.QUOTA_CREATE_USER = False, create
        assert [message.id for message in found()] == ["django_quota.W013"] * create

    @pytest.mark.parametrize(("is_open", "said"), [(True, []), (False, ["django_quota.W013"])])
    def test_allauth_that_is_closed_to_new_users(
        self, monkeypatch: pytest.MonkeyPatch, is_open: bool, said: list[str]
    ) -> None:
        adapter = SimpleNamespace(is_open_for_signup=lambda request: is_open)
        module = SimpleNamespace(get_adapter=lambda: adapter)
        for name in ("allauth", "allauth.account", "allauth.account.adapter"):
            monkeypatch.setitem(sys.modules, name, module)
        installed = apps.is_installed
        monkeypatch.setattr(
            apps, "is_installed", lambda name: name == "allauth.account" or installed(name)
        )
        assert [message.id for message in found()] == said

    @pytest.mark.parametrize("value", ["Strict", "strict", "STRICT"])
    def test_a_strict_session_cookie_breaks_every_sign_in(self, value: str) -> None:
        """Django takes it in any case of letters."""
        with override_settings(SESSION_COOKIE_SAMESITE=value):
            message = only("django_quota.W002", WARNING)
        assert "'Lax'" in str(message.hint)

    @pytest.mark.parametrize("value", ["Lax", "None", False, None])
    def test_other_session_cookies_are_fine(self, value: Any) -> None:
        with override_settings(SESSION_COOKIE_SAMESITE=value):
            assert found() == []


@pytest.mark.process
class TestCommandLine:
    """A real `manage.py check`: what is wrong with FIELD_ENCRYPTION_KEY is wrong at import."""

    def check(self, tmp_path: Path, **changes: Any) -> subprocess.CompletedProcess[str]:
        lines = ["from tests.settings import *"]
        lines += [f"MIDDLEWARE = {settings.MIDDLEWARE!r}"]
        lines += [
            f"del {name}" if value is ... else f"{name} = {value!r}"
            for name, value in changes.items()
        ]
        (tmp_path / "changed_settings.py").write_text("\n".join(lines))
        environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "changed_settings",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
            "TEST_DATABASE": "sqlite",
        }
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "django", "check"],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=environment,
        )

    def test_of_a_sound_project(self, tmp_path: Path) -> None:
        done = self.check(tmp_path)
        assert (done.returncode, done.stderr) == (0, "")

    @pytest.mark.parametrize("value", [..., None, "", [], "not a key", ["not a key"], 7])
    def test_of_a_project_without_a_key(self, value: Any, tmp_path: Path) -> None:
        done = self.check(tmp_path, FIELD_ENCRYPTION_KEY=value)

        assert done.returncode == 1
        assert "(django_quota.E003) FIELD_ENCRYPTION_KEY " in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.count("django_quota.") == 1

    def test_of_a_project_with_nothing_set(self, tmp_path: Path) -> None:
        names = ("FIELD_ENCRYPTION_KEY", "QUOTA_CLIENT_ID", "QUOTA_CLIENT_SECRET")
        done = self.check(tmp_path, **dict.fromkeys(names, ...))

        assert "Traceback" not in done.stderr
        assert done.stderr.count("django_quota.E001") == 2
        assert done.stderr.count("django_quota.E003") == 1


class TestErrorURL:
    def test_that_leads_nowhere(self, settings: Any) -> None:
        settings.QUOTA_ERROR_URL = "no_such_name"
        (message,) = check_installation()
        assert message.id == "django_quota.E005"
        assert "'no_such_name'" in message.msg

    def test_without_our_urls_in_the_project(self, settings: Any) -> None:
        settings.ROOT_URLCONF = "django.contrib.auth.urls"
        (message,) = check_installation()
        assert message.id == "django_quota.E005"
        assert 'include("django_quota.urls")' in str(message.hint)

    @pytest.fixture
    def login_required(self, settings: Any) -> None:
        name = "django.contrib.auth.middleware.LoginRequiredMiddleware"
        settings.MIDDLEWARE = [*settings.MIDDLEWARE, name]

    @pytest.mark.parametrize("prefix", ["/", "/sub/"])
    def test_that_nobody_sees_who_is_not_signed_in(
        self, settings: Any, login_required: None, prefix: str
    ) -> None:
        settings.QUOTA_ERROR_URL = "home"
        before = get_script_prefix()
        set_script_prefix(prefix)
        try:
            (message,) = check_installation()
        finally:
            set_script_prefix(before)
        assert (message.id, message.level) == ("django_quota.W006", WARNING)
        assert "@login_not_required" in str(message.hint)

    @pytest.mark.parametrize(
        "url", ["django_quota:error", "/says-why?a=b", "/nowhere", "https://other.example/"]
    )
    def test_that_everybody_sees(self, settings: Any, login_required: None, url: str) -> None:
        settings.ROOT_URLCONF = "tests.urls_circles"
        settings.QUOTA_ERROR_URL = url
        assert check_installation() == []

    def test_may_be_a_path(self, settings: Any) -> None:
        settings.QUOTA_ERROR_URL = "/#sign-in"
        assert check_installation() == []
