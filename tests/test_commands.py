"""The management commands, against the live sandbox."""

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command, get_commands
from django.db import OperationalError, connection
from django.utils import timezone
from dotenv import dotenv_values

from django_quota import connecting, doctor
from django_quota.ai import factory
from django_quota.exceptions import ProviderUnavailable
from django_quota.management.exit_codes import NEEDS_YOU, TRY_AGAIN
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from django_quota.oidc import discovery, endpoints
from django_quota.tokens import reencryption, revocation
from tests import signing
from tests.light_provider import LightProvider
from tests.sandbox_client import SCOPES, Person, Sandbox
from tests.tiny_server import TinyServer, json_answer

URI = "http://localhost:8000/auth/quota/callback"


def register(**options: Any) -> str:
    out = io.StringIO()
    call_command("quota_register_app", stdout=out, **options)
    return out.getvalue()


def values(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


class TestRegisterApp:
    @pytest.fixture(autouse=True)
    def developer(
        self, sandbox: Sandbox, sandbox_app: dict[str, str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("QUOTA_SESSION_TOKEN", sandbox_app["session_token"])

    def app(self, sandbox: Sandbox, client_id: str) -> Any:
        session = os.environ["QUOTA_SESSION_TOKEN"]
        return sandbox.call(
            "GET", f"/developers/apps/{client_id}", headers={"Authorization": f"Bearer {session}"}
        )

    def test_prints_the_settings_to_use(self, sandbox: Sandbox) -> None:
        made = values(register(name="My App", redirect_uri=[URI]))

        assert made["QUOTA_CLIENT_ID"].startswith("quota_client_")
        assert made["QUOTA_CLIENT_SECRET"].startswith("quota_secret_")
        assert made["QUOTA_BASE_URL"] == sandbox.origin
        app = self.app(sandbox, made["QUOTA_CLIENT_ID"])
        assert (app["name"], app["redirect_uris"]) == ("My App", [URI])
        assert app["allowed_scopes"] == SCOPES

    def test_allows_what_connect_wallet_asks_for(self, sandbox: Sandbox, settings: Any) -> None:
        settings.QUOTA_CONNECT_SCOPES = "credits.read account.read"
        made = values(register(name="My App", redirect_uri=[URI]))
        app = self.app(sandbox, made["QUOTA_CLIENT_ID"])
        assert app["allowed_scopes"] == [*SCOPES, "account.read"]

    def test_an_unknown_scope_is_named_and_those_that_there_are(self) -> None:
        with pytest.raises(CommandError) as caught:
            register(name="My App", redirect_uri=[URI], scope=["models.read"])
        asked, known = str(caught.value).split("It supports: ")
        assert f"{' '.join(SCOPES)} models.read." in asked
        assert "credits.spend" in known and "models.read" not in known

    def test_an_unknown_scope_is_named_without_discovery(self, sandbox: Sandbox) -> None:
        discovery.forget()
        sandbox.set(fail={"path": "/.well-known/openid-configuration", "status": 503})
        with pytest.raises(CommandError, match=r"models\.read\.$"):
            register(name="My App", redirect_uri=[URI], scope=["models.read"])

    def test_works_before_there_are_any_settings(self, settings: Any) -> None:
        del settings.QUOTA_CLIENT_ID, settings.QUOTA_CLIENT_SECRET
        assert "QUOTA_CLIENT_ID=" in register(name="My App", redirect_uri=[URI])

    @pytest.mark.parametrize(
        "saved",
        [
            {},
            {"client_id": 7},
            {"client_id": "quota_client_1", "client_secret": None},
            {"client_id": "quota_client_1", "client_secret": "x\nPYTHONPATH=/evil"},
            {"client_id": "quota_client_1 # a comment", "client_secret": "quota_secret_1"},
            {"client_id": "quota_client_1", "client_secret": "${HOME}"},
        ],
    )
    def test_writes_no_line_that_quota_thought_up(
        self, saved: Any, settings: Any, tmp_path: Path
    ) -> None:
        env = tmp_path / ".env"
        with TinyServer() as quota:
            quota.on("/developers/apps", json_answer(saved))
            settings.QUOTA_BASE_URL = quota.origin
            with pytest.raises(CommandError, match="no usable client_id or client_secret"):
                register(name="My App", redirect_uri=[URI], env_file=env)
        assert env.read_text() == ""

    def test_writes_an_env_file_that_only_its_owner_can_read(self, tmp_path: Path) -> None:
        env = tmp_path / ".env"
        env.write_text(
            "# mine\nDEBUG=1\nQUOTA_CLIENT_ID=\nSESSION_SECRET=kept\nFIELD_ENCRYPTION_KEY=\n"
        )
        env.chmod(0o644)

        out = register(name="My App", redirect_uri=[URI], env_file=env)

        text = env.read_text()
        assert text.startswith("# mine\nDEBUG=1\n")
        there = values(text.removeprefix("# mine\n"))
        assert there["QUOTA_CLIENT_SECRET"].startswith("quota_secret_")
        assert there["SESSION_SECRET"] == "kept"
        assert len(there["FIELD_ENCRYPTION_KEY"]) == 44
        assert text.count("QUOTA_CLIENT_ID=") == 1
        assert env.stat().st_mode & 0o777 == 0o600
        assert "quota_secret_" not in out

    @pytest.mark.parametrize(
        "text",
        [
            "FIELD_ENCRYPTION_KEY={key}\nSESSION_SECRET=old\n",
            "FIELD_ENCRYPTION_KEY = \"{key}\"\nSESSION_SECRET = 'old'\n",
            "export FIELD_ENCRYPTION_KEY={key}\nexport SESSION_SECRET=old\n",
            "FIELD_ENCRYPTION_KEY={key}\r\nSESSION_SECRET=old\r\n",
            "\ufeffFIELD_ENCRYPTION_KEY={key}\nSESSION_SECRET=old",
            "  FIELD_ENCRYPTION_KEY={key}\n\tSESSION_SECRET=old # mine\n",
        ],
    )
    def test_keeps_the_keys_that_are_in_force(self, tmp_path: Path, text: str) -> None:
        """With new ones no stored token could be read, and every session would end."""
        env, key = tmp_path / ".env", Fernet.generate_key().decode()
        env.write_bytes(text.format(key=key).encode())

        register(name="My App", redirect_uri=[URI], env_file=env)

        there = dotenv_values(env)
        assert (there["FIELD_ENCRYPTION_KEY"], there["SESSION_SECRET"]) == (key, "old")
        assert str(there["QUOTA_CLIENT_ID"]).startswith("quota_client_")
        old = tmp_path / ".env.old"
        assert old.read_text() == text.format(key=key).removeprefix("\ufeff").replace("\r\n", "\n")
        assert old.stat().st_mode & 0o777 == 0o600

    def test_makes_no_key_beside_a_line_that_cannot_be_read(self, tmp_path: Path) -> None:
        env = tmp_path / ".env"
        env.write_text('FIELD_ENCRYPTION_KEY="not closed\n')

        said = register(name="My App", redirect_uri=[URI], env_file=env)

        assert "FIELD_ENCRYPTION_KEY" not in said
        assert env.read_text().startswith('FIELD_ENCRYPTION_KEY="not closed\n')

    def test_a_file_in_another_encoding_is_left_alone(self, tmp_path: Path) -> None:
        env = tmp_path / ".env"
        env.write_bytes("NAME=Zo\u00eb\n".encode("latin-1"))
        with pytest.raises(CommandError, match="not UTF-8"):
            register(name="My App", redirect_uri=[URI], env_file=env)
        assert env.read_bytes() == b"NAME=Zo\xeb\n"

    def test_without_python_dotenv(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "dotenv.parser", None)
        with pytest.raises(CommandError, match="pip install python-dotenv"):
            register(name="My App", redirect_uri=[URI], env_file=tmp_path / ".env")

    def test_says_which_app_it_has_replaced(self, tmp_path: Path) -> None:
        env = tmp_path / ".env"
        assert "no longer" not in register(name="My App", redirect_uri=[URI], env_file=env)
        before = values(env.read_text())["QUOTA_CLIENT_ID"]
        said = register(name="My App", redirect_uri=[URI], env_file=env)
        assert f"{before} was replaced" in said

    def test_changes_an_app_and_keeps_its_secret(self, sandbox: Sandbox, tmp_path: Path) -> None:
        env = tmp_path / ".env"
        register(name="My App", redirect_uri=[URI], env_file=env)
        before = values(env.read_text())

        register(
            client_id=before["QUOTA_CLIENT_ID"],
            scope=["account.read"],
            post_logout_uri=["http://localhost:8000/"],
            env_file=env,
        )

        assert values(env.read_text()) == before
        app = self.app(sandbox, before["QUOTA_CLIENT_ID"])
        # Quota replaces the list: one that left QUOTA_SCOPES out would end every sign-in.
        assert app["allowed_scopes"] == [*SCOPES, "account.read"]
        assert app["post_logout_redirect_uris"] == ["http://localhost:8000/"]
        assert (app["name"], app["redirect_uris"]) == ("My App", [URI])

    def test_reads_the_token_from_standard_input(
        self, monkeypatch: pytest.MonkeyPatch, sandbox_app: dict[str, str]
    ) -> None:
        monkeypatch.delenv("QUOTA_SESSION_TOKEN")
        monkeypatch.setattr("sys.stdin", io.StringIO(sandbox_app["session_token"] + "\n"))
        assert "QUOTA_CLIENT_ID=" in register(name="My App", redirect_uri=[URI])

    @pytest.mark.parametrize("token", ["", "sk-quota-x", "nonsense"])
    def test_without_a_session_token(self, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
        monkeypatch.setenv("QUOTA_SESSION_TOKEN", token)
        monkeypatch.setattr("sys.stdin", io.StringIO(""))
        with pytest.raises(CommandError, match="No session token") as caught:
            register(name="My App", redirect_uri=[URI])
        assert "nonsense" not in str(caught.value)

    def test_refused_by_quota(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("QUOTA_SESSION_TOKEN", "sess_wrong")
        with pytest.raises(CommandError, match="Check that the session token is right") as caught:
            register(name="My App", redirect_uri=[URI])
        assert "sess_wrong" not in str(caught.value)

    def test_quota_down(self, settings: Any) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        with pytest.raises(CommandError, match="Quota cannot be reached"):
            register(name="My App", redirect_uri=[URI])

    def test_a_file_that_cannot_be_written_is_said_before_quota_is_asked(
        self, sandbox: Sandbox, tmp_path: Path
    ) -> None:
        sandbox.forget_requests()
        with pytest.raises(CommandError, match="Cannot write"):
            register(name="My App", redirect_uri=[URI], env_file=tmp_path / "no" / ".env")
        assert sandbox.requests() == []

    def test_a_new_app_needs_a_name_and_a_callback(self) -> None:
        with pytest.raises(CommandError, match="--redirect-uri"):
            register(name="My App")


@pytest.mark.django_db
class TestCheck:
    def check(self) -> list[str]:
        out = io.StringIO()
        try:
            call_command("quota_check", stdout=out)
        except CommandError:
            out.write("failed")
        return out.getvalue().splitlines()

    def test_all_well(self, sandbox: Sandbox) -> None:
        lines = self.check()
        assert [line[:4] for line in lines] == ["ok  "] * 8
        assert sandbox.origin in lines[4]

    def test_settings(self, settings: Any) -> None:
        del settings.QUOTA_CLIENT_ID
        lines = self.check()
        assert lines[0].startswith("FAIL  settings: QUOTA_CLIENT_ID is missing. Register an OAuth")
        assert lines[1:] == ["failed"]

    def test_quota_down(self, settings: Any) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        assert self.check()[4].startswith("FAIL  discovery: Quota cannot be reached")

    def test_an_issuer_prints_the_line_to_paste(self, sandbox: Sandbox) -> None:
        sandbox.set(issuer="https://www.usequota.ai")
        assert 'QUOTA_ISSUER = "https://www.usequota.ai"' in self.check()[4]

    def test_a_wrong_secret(self, sandbox: Sandbox, settings: Any) -> None:
        settings.QUOTA_CLIENT_SECRET = "quota_secret_wrong"
        lines = self.check()
        assert lines[-2].startswith("FAIL  client: Quota refused the client (invalid_client)")
        assert "quota_secret_wrong" not in str(lines)

    def test_no_revocation_offered_sends_nothing(self, settings: Any) -> None:
        with TinyServer() as server:
            settings.QUOTA_BASE_URL = server.origin
            server.on("/.well-known/openid-configuration", json_answer({"issuer": server.origin}))
            server.on("/.well-known/jwks.json", json_answer({"keys": [signing.jwk("k1")]}))

            lines = self.check()

            assert lines[-2].startswith("ok    client: Quota offers no revocation")
            assert {seen.method for seen in server.requests} == {"GET"}

    def test_ai_calls_that_do_not_reach_quota(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail() -> None:
            raise ProviderUnavailable("Quota gave no usable answer (connection refused).")

        monkeypatch.setattr(factory, "find_models", fail)
        assert self.check()[-2].startswith("FAIL  AI calls: Quota gave no usable answer")

    def test_ai_calls_without_the_sdk(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(doctor, "find_spec", lambda name: None)
        assert self.check()[-1] == (
            "ok    AI calls: not checked, because the OpenAI SDK is not installed"
        )

    def test_asks_for_the_models_once_and_for_no_money(self, sandbox: Sandbox) -> None:
        sandbox.forget_requests()
        assert self.check()[-1] == "ok    AI calls: Quota answers the OpenAI SDK"
        assert sandbox.requests()[-1] == "GET /v1/models"

    def test_a_wrong_key_does_not_hide_the_rest(self, sandbox: Sandbox, settings: Any) -> None:
        settings.FIELD_ENCRYPTION_KEY = "x"
        marks = [line[:4] for line in self.check()]
        assert marks == ["ok  ", "FAIL", "ok  ", "FAIL", "ok  ", "ok  ", "ok  ", "ok  ", "fail"]

    def test_unreadable_tokens(self, sandbox: Sandbox) -> None:
        PendingRevocation.objects.create(token="quota_refresh_hush")
        pending = PendingRevocation.objects.create(token="quota_refresh_hush")
        assert self.check()[3].startswith("ok    stored tokens: the 2 oldest and newest can be")
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE django_quota_pendingrevocation SET token = 'spoilt' WHERE id = %s",
                [pending.pk],
            )
        lines = self.check()
        assert lines[3].startswith(
            "FAIL  stored tokens: 1 of the 2 oldest and newest cannot be decrypted (such as "
            f"PendingRevocation {pending.pk}: token); `manage.py quota_reencrypt_tokens --dry-run`"
        )
        assert "spoilt" not in str(lines) and "hush" not in str(lines)
        assert lines[-3].startswith("ok    client")  # the rest is looked at all the same

    def test_before_the_tables_are_made(
        self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def missing() -> None:
            raise OperationalError("no such table")

        monkeypatch.setattr(reencryption, "sample", missing)
        assert "`manage.py migrate`" in self.check()[3]


@pytest.mark.django_db(transaction=True)
def test_prune_revokes_what_was_dropped(person: Person, sandbox: Sandbox) -> None:
    person.sign_in()
    connecting.disconnect(get_user_model().objects.get())
    out = io.StringIO()
    call_command("quota_prune", stdout=out)
    assert (
        out.getvalue() == "1 tokens revoked, 0 wiped unrevoked, 0 left; 0 webhook events deleted\n"
    )
    assert not PendingRevocation.objects.exists()


def run(name: str, *arguments: str, code: int = NEEDS_YOU) -> tuple[str, str]:
    """What it prints, and the message that it fails with (its exit code is `code` then), or ""."""
    out = io.StringIO()
    try:
        call_command(name, *arguments, stdout=out)
    except CommandError as error:
        assert error.returncode == code
        return out.getvalue(), str(error)
    return out.getvalue(), ""


@pytest.mark.django_db(transaction=True)
class TestBulkCommands:
    @pytest.fixture(autouse=True)
    def quota(self, settings: Any) -> Iterator[LightProvider]:
        with LightProvider() as live:
            settings.QUOTA_BASE_URL = live.origin
            yield live

    @pytest.fixture
    def token(self) -> QuotaToken:
        user = get_user_model().objects.create(username="ada")
        account = ProviderAccount.objects.create(user=user, external_id="ada")
        return QuotaToken.objects.create(
            account=account,
            refresh_token="quota_refresh_ada.0",
            expires_at=timezone.now() + timedelta(minutes=20),
            updated_at=timezone.now() - timedelta(hours=1),
        )

    def test_refresh(self, token: QuotaToken) -> None:
        nothing = "0 tokens renewed, 0 need a new sign-in, 0 failed, 0 unreadable\n"
        assert run("quota_refresh_tokens") == (nothing, "")  # ten minutes, unless said otherwise
        assert run("quota_refresh_tokens", "--within", "30.5") == ("1" + nothing[1:], "")

    def test_refresh_is_content_when_a_user_must_sign_in(
        self, token: QuotaToken, quota: LightProvider
    ) -> None:
        endpoints.revoke(token.refresh_token.reveal(), "refresh_token")
        out, error = run("quota_refresh_tokens", "--within", "30", "--rate", "1000")
        assert (out[:39], error) == ("0 tokens renewed, 1 need a new sign-in,", "")

    def test_refresh_tells_a_bad_hour_from_a_broken_set_up(
        self, token: QuotaToken, quota: LightProvider, settings: Any
    ) -> None:
        within = ("--within", "30")
        quota.set(fail={"ada": 500})
        out, error = run("quota_refresh_tokens", *within, code=TRY_AGAIN)
        assert "1 failed" in out and "the log" in error
        quota.set(client_secret="another")
        error = run("quota_refresh_tokens", *within, code=NEEDS_YOU)[1]
        assert "ended early: Quota refused the client" in error
        settings.FIELD_ENCRYPTION_KEY = Fernet.generate_key().decode()
        out, error = run("quota_refresh_tokens", *within, code=NEEDS_YOU)
        assert "1 unreadable" in out and "the log" in error

    def test_refresh_while_quota_is_away_is_a_bad_hour(
        self, token: QuotaToken, settings: Any
    ) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        assert run("quota_refresh_tokens", "--within", "30", code=TRY_AGAIN)[1]

    @pytest.mark.parametrize(
        "arguments", [("--rate", "0"), ("--rate", "nan"), ("--within", "-1"), ("--within", "soon")]
    )
    def test_refresh_takes_numbers_above_0(self, arguments: tuple[str, str]) -> None:
        assert "must be a number above 0" in run("quota_refresh_tokens", *arguments)[1]

    def test_reencrypt(self, token: QuotaToken, settings: Any) -> None:
        old = settings.FIELD_ENCRYPTION_KEY
        settings.FIELD_ENCRYPTION_KEY = [Fernet.generate_key().decode(), old]
        out, error = run("quota_reencrypt_tokens", "--dry-run")
        assert out == "0 values under the newest key, 1 under an older one, 0 unreadable\n"
        assert error == "Keep the older keys, and run this again (without --dry-run)."

        out, error = run("quota_reencrypt_tokens")

        assert error == ""
        assert out == (
            "1 values under the newest key, 0 under an older one, 0 unreadable\n"
            "django_quota's tables no longer need the older keys.\n"
        )
        settings.FIELD_ENCRYPTION_KEY = settings.FIELD_ENCRYPTION_KEY[0]
        token.refresh_from_db(fields=["refresh_token"])
        assert token.refresh_token.reveal() == "quota_refresh_ada.0"

    def test_reencrypt_names_what_it_cannot_read(self, token: QuotaToken, settings: Any) -> None:
        settings.FIELD_ENCRYPTION_KEY = Fernet.generate_key().decode()
        err = io.StringIO()
        with pytest.raises(CommandError, match="Keep all keys"):
            call_command("quota_reencrypt_tokens", stdout=io.StringIO(), stderr=err)
        assert err.getvalue() == f"cannot be decrypted: QuotaToken {token.pk}: refresh_token\n"

    def test_reencrypt_with_a_malformed_key(self, settings: Any) -> None:
        settings.FIELD_ENCRYPTION_KEY = [settings.FIELD_ENCRYPTION_KEY, "hush"]
        out, error = run("quota_reencrypt_tokens")
        assert out == "" and "not a Fernet key" in error and "hush" not in error

    def test_prune_while_quota_is_away_is_a_bad_hour(self, settings: Any) -> None:
        settings.QUOTA_BASE_URL = "http://127.0.0.1:9"
        PendingRevocation.objects.create(token="quota_refresh_ada.0")
        out, error = run("quota_prune", code=TRY_AGAIN)
        assert out == "0 tokens revoked, 0 wiped unrevoked, 1 left; 0 webhook events deleted\n"
        assert "Quota cannot be reached" in error and "next run" in error

    def test_prune_of_a_token_that_quota_does_not_revoke_is_a_bad_hour(
        self, quota: LightProvider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(token: str, hint: str) -> None:
            raise ProviderUnavailable("HTTP 500")

        monkeypatch.setattr(endpoints, "revoke", refuse)
        PendingRevocation.objects.create(token="quota_refresh_ada.0")
        assert "the log" in run("quota_prune", code=TRY_AGAIN)[1]

    def test_prune_without_a_client_is_a_broken_set_up(self, settings: Any) -> None:
        settings.QUOTA_CLIENT_ID = ""
        PendingRevocation.objects.create(token="quota_refresh_ada.0")
        assert "QUOTA_CLIENT_ID" in run("quota_prune", code=NEEDS_YOU)[1]

    def test_prune_while_the_database_is_away_is_a_bad_hour(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def away(*args: Any) -> None:
            raise OperationalError("server closed the connection")

        monkeypatch.setattr(revocation, "_waiting", away)
        assert "OperationalError" in run("quota_prune", code=TRY_AGAIN)[1]

    @pytest.mark.parametrize(
        "command", ["quota_refresh_tokens", "quota_reencrypt_tokens", "quota_prune"]
    )
    def test_quiet_ones_for_cron(self, command: str, token: QuotaToken) -> None:
        assert run(command, "--verbosity", "0") == ("", "")

    @pytest.mark.parametrize(
        "command", ["quota_refresh_tokens", "quota_reencrypt_tokens", "quota_prune"]
    )
    def test_help_names_the_exit_codes(
        self, command: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            call_command(command, "--help")
        assert "Exit code: 0 if" in " ".join(capsys.readouterr().out.split())


@pytest.mark.process
def test_no_command_takes_a_token_as_an_argument() -> None:
    """Other users of the machine could read it in the list of processes."""
    for command in get_commands():
        if not command.startswith("quota_"):
            continue
        done = subprocess.run(
            [sys.executable, "-m", "django", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "--token" not in done.stdout and "--session" not in done.stdout
