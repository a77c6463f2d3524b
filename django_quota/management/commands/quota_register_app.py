"""`manage.py quota_register_app`: register this project at Quota, or change its registration."""

import getpass
import os
import re
import secrets
import sys
from pathlib import Path
from typing import Any

from cryptography.fernet import Fernet
from django.core.management.base import BaseCommand, CommandError, CommandParser

from ... import discovery, provider
from ...conf import Settings, get_settings
from ...exceptions import QuotaError

TOKEN_VARIABLE = "QUOTA_SESSION_TOKEN"  # noqa: S105 - the name of a variable


class Command(BaseCommand):
    """POST or PATCH /developers/apps, and the settings that follow from it."""

    help = (
        "Registers this project as an OAuth app at Quota (or, with --client-id, changes it) and "
        "prints the settings to use, or writes them to a .env file. The developer's session token "
        f"(sess_...) is read from the variable {TOKEN_VARIABLE} or from standard input, never "
        "from an argument, which other users of this machine could read."
    )
    # The settings that this command makes are what the checks would miss.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", help="the app's name, shown on the consent page")
        parser.add_argument(
            "--redirect-uri",
            action="append",
            metavar="URI",
            help="a callback, exactly as it will be sent, such as "
            "https://yourapp.com/auth/quota/callback; repeatable; those that are given replace "
            "those that are registered",
        )
        parser.add_argument(
            "--scope",
            action="append",
            metavar="SCOPE",
            help="an allowed scope, besides those of QUOTA_SCOPES and QUOTA_CONNECT_SCOPES, which "
            "are always among them; repeatable",
        )
        parser.add_argument(
            "--post-logout-uri",
            action="append",
            metavar="URI",
            help="where Quota may send people after sign-out, such as https://yourapp.com/; "
            "repeatable",
        )
        parser.add_argument("--client-id", help="change the app with this client id")
        parser.add_argument(
            "--env-file", type=Path, help="write the settings to this file instead of printing them"
        )

    def handle(self, **options: Any) -> None:
        app = {
            "name": options["name"],
            "redirect_uris": options["redirect_uri"],
            "allowed_scopes": options["scope"],
            "post_logout_redirect_uris": options["post_logout_uri"],
        }
        new = not options["client_id"]
        if new and not (app["name"] and app["redirect_uris"]):
            raise CommandError("A new app needs --name and at least one --redirect-uri.")
        if options["env_file"]:
            _make_private(options["env_file"])  # before Quota shows the secret, which it does once
        try:
            if new or app["allowed_scopes"]:
                # Quota replaces the whole list: leaving one out would end every sign-in.
                settings = get_settings()
                wanted = [
                    *settings.scopes,
                    *settings.connect_scopes,
                    *(app["allowed_scopes"] or []),
                ]
                app["allowed_scopes"] = list(dict.fromkeys(wanted))
            saved = provider.save_app(
                _session_token(),
                {name: value for name, value in app.items() if value is not None},
                client_id=options["client_id"],
            )
        except QuotaError as error:
            if getattr(error, "provider_code", "") == "invalid_scope":
                raise CommandError(_unknown_scope(app["allowed_scopes"] or [])) from None
            raise CommandError(
                f"{error} Is the session token right, the app yours, and "
                "every URI https (or http on localhost)?"
            ) from None
        values = _settings(saved)
        if options["env_file"]:
            before = _update(options["env_file"], values)
            self.stdout.write(f"{', '.join(values)} written to {options['env_file']}")
            if before not in ("", values["QUOTA_CLIENT_ID"]):
                self.stdout.write(f"{before} is no longer there; it is still registered at Quota")
        else:
            for name, value in values.items():
                self.stdout.write(f"{name}={value}")


def _unknown_scope(asked: list[str]) -> str:
    text = f"Quota does not know one of these scopes, or not for this app: {' '.join(asked)}."
    try:
        supported = discovery.metadata().scopes_supported
    except QuotaError:
        supported = ()
    return f"{text} It knows: {' '.join(supported)}." if supported else text


def _session_token() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "")
    if not token:
        token = getpass.getpass("Session token: ") if sys.stdin.isatty() else sys.stdin.readline()
    token = token.strip()
    if not token.startswith("sess_"):
        raise CommandError(
            f"No session token (sess_...) in {TOKEN_VARIABLE} or on standard input. Sign in to "
            "Quota's dashboard, or POST /auth/login, to get one."
        )
    return token


def _settings(saved: dict[str, Any]) -> dict[str, str]:
    values: dict[str, Any] = {"QUOTA_CLIENT_ID": saved.get("client_id")}
    if "client_secret" in saved:  # only a new app's, and only this once
        values["QUOTA_CLIENT_SECRET"] = saved["client_secret"]
    # They go into a file that is read as settings: nothing may start a line or a comment there.
    if not all(
        isinstance(v, str) and re.fullmatch(r"[\w.~+/=-]{1,500}", v) for v in values.values()
    ):
        raise CommandError(
            "Quota's answer holds no usable client_id or client_secret; look the app up in the "
            "dashboard."
        )
    if get_settings().base_url != Settings.base_url:
        values["QUOTA_BASE_URL"] = get_settings().base_url
    return values


def _make_private(path: Path) -> None:
    try:
        path.touch(mode=0o600)
        path.chmod(0o600)
    except OSError as error:
        raise CommandError(f"Cannot write {path}: {error.strerror}.") from None


def _update(path: Path, values: dict[str, str]) -> str:
    """Set `values` in the .env file, whose other lines stay; make what else the project needs.
    The client id that was there, or ""."""
    lines = path.read_text().splitlines()
    pairs = [[part.strip() for part in line.split("=", 1)] for line in lines if "=" in line]
    there = {name: value for name, value in pairs if value}
    if "FIELD_ENCRYPTION_KEY" not in there:
        values["FIELD_ENCRYPTION_KEY"] = Fernet.generate_key().decode()
    if "SESSION_SECRET" not in there:
        values["SESSION_SECRET"] = secrets.token_urlsafe(50)
    kept = [line for line in lines if line.partition("=")[0].strip() not in values]
    path.write_text("\n".join([*kept, *(f"{k}={v}" for k, v in values.items())]) + "\n")
    return there.get("QUOTA_CLIENT_ID", "")
