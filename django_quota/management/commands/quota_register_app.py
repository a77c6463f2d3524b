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

from django_quota.conf import Settings, get_settings
from django_quota.exceptions import QuotaError
from django_quota.management.envfile import EnvFile
from django_quota.oidc import developers, discovery

TOKEN_VARIABLE = "QUOTA_SESSION_TOKEN"  # noqa: S105 - the name of a variable


class Command(BaseCommand):
    """Calls POST or PATCH /developers/apps, and prints or writes the resulting settings."""

    help = (
        "Registers this project as an OAuth app at Quota (or, with --client-id, changes it) and "
        "prints the settings to use, or writes them to a .env file. The developer's session token "
        f"(sess_...) is read from the variable {TOKEN_VARIABLE} or from standard input, never "
        "from an argument, which other users of this machine could read."
    )
    # System checks would stop at the missing settings that this command creates.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--name", help="the app's name, shown on the consent page")
        parser.add_argument(
            "--redirect-uri",
            action="append",
            metavar="URI",
            help="a callback, exactly as it will be sent, such as "
            "https://yourapp.com/auth/quota/callback; repeatable; these replace the registered "
            "callbacks",
        )
        parser.add_argument(
            "--scope",
            action="append",
            metavar="SCOPE",
            help="an allowed scope, in addition to QUOTA_SCOPES and QUOTA_CONNECT_SCOPES; "
            "repeatable",
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
        # Open it first: Quota shows the secret once, and it must not be lost to a bad file.
        file = EnvFile(options["env_file"]) if options["env_file"] else None
        try:
            if new or app["allowed_scopes"]:
                # Quota replaces the whole list: without the project's scopes every sign-in fails.
                settings = get_settings()
                wanted = [
                    *settings.scopes,
                    *settings.connect_scopes,
                    *(app["allowed_scopes"] or []),
                ]
                app["allowed_scopes"] = list(dict.fromkeys(wanted))
            saved = developers.save_app(
                _session_token(),
                {name: value for name, value in app.items() if value is not None},
                client_id=options["client_id"],
            )
        except QuotaError as error:
            if error.provider_code == "invalid_scope":
                raise CommandError(_unknown_scope(app["allowed_scopes"] or [])) from None
            raise CommandError(
                f"{error} Check that the session token is right, that the app is yours, and that "
                "every URI is https (or http on localhost)."
            ) from None
        values = _settings(saved)
        if file:
            before = file.get("QUOTA_CLIENT_ID")
            values = _with_new_keys(file, values)
            old = file.set(values)
            self.stdout.write(f"{', '.join(values)} written to {options['env_file']}")
            if old:
                self.stdout.write(f"A backup of the old file, with its secrets: {old}")
            if before not in ("", values["QUOTA_CLIENT_ID"]):
                self.stdout.write(f"{before} was replaced; it is still registered at Quota")
        else:
            for name, value in values.items():
                self.stdout.write(f"{name}={value}")


def _unknown_scope(requested: list[str]) -> str:
    text = f"Quota does not allow one of these scopes for this app: {' '.join(requested)}."
    try:
        supported = discovery.metadata().scopes_supported
    except QuotaError:
        supported = ()
    return f"{text} It supports: {' '.join(supported)}." if supported else text


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
    if "client_secret" in saved:  # only for a new app
        values["QUOTA_CLIENT_SECRET"] = saved["client_secret"]
    # They are written to a file of settings, so they must not contain a newline or a comment.
    if not all(
        isinstance(v, str) and re.fullmatch(r"[\w.~+/=-]{1,500}", v) for v in values.values()
    ):
        raise CommandError(
            "Quota's answer contains no usable client_id or client_secret; look the app up in the "
            "dashboard."
        )
    if get_settings().base_url != Settings.base_url:
        values["QUOTA_BASE_URL"] = get_settings().base_url
    return values


def _with_new_keys(file: EnvFile, values: dict[str, str]) -> dict[str, str]:
    """Return `values` with new keys for FIELD_ENCRYPTION_KEY and SESSION_SECRET.

    A key that the file has is kept: with a new one, no stored token could be decrypted, and every
    session would end.
    """
    result = dict(values)
    if not file.has("FIELD_ENCRYPTION_KEY"):
        result["FIELD_ENCRYPTION_KEY"] = Fernet.generate_key().decode()
    if not file.has("SESSION_SECRET"):
        result["SESSION_SECRET"] = secrets.token_urlsafe(50)
    return result
