"""``python -m django_quota.sandbox``: prepare the database and serve until stopped."""

from __future__ import annotations

import argparse
import errno
import importlib.util
import ipaddress
import os
import signal
import sqlite3
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import django

__all__ = ["build_parser", "main"]

DEFAULT_PORT = 5281


def build_parser(prog: str = "python -m django_quota.sandbox") -> argparse.ArgumentParser:
    """Return the parser of the command line options."""
    parser = argparse.ArgumentParser(
        prog=prog, description="Run a complete local Quota, with play money and canned answers."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to serve on (%(default)s)")
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help="port to serve on, or 0 for any free one (%(default)s)",
    )
    parser.add_argument(
        "--data",
        type=Path,
        default=Path("quota-sandbox.sqlite3"),
        metavar="FILE",
        help="SQLite database file (%(default)s)",
    )
    parser.add_argument(
        "--allow-remote",
        action="store_true",
        help="allow a --host that other machines can reach",
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the sandbox and return the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    options = build_parser().parse_args(arguments)
    if importlib.util.find_spec("oauth2_provider") is None:
        return _fail('packages are missing. Run: pip install "django-quota[sandbox]".')
    if not 0 <= options.port <= 65535:
        return _fail(f"--port must be from 0 to 65535, not {options.port}.")
    if not options.allow_remote and not _is_loopback(options.host):
        return _fail(
            f"--host {options.host} can be reached from other machines, so other people could use "
            "this sandbox. Add --allow-remote if you want that."
        )
    problem = _prepare_database_file(options.data)
    if problem:
        return _fail(f"--data {options.data} cannot be used: {problem}.")
    _configure(options)
    return _serve(options.host, options.port)


def _fail(message: str) -> int:
    sys.stderr.write(f"Quota sandbox: {message}\n")
    return 1


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _prepare_database_file(path: Path) -> str:
    """Create the database file if it is missing, and return what is wrong with it, or "".

    A new file is readable by its owner only: it contains tokens, client secrets and signing keys.
    """
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
        connection.close()
    except OSError as error:
        return error.strerror or str(error)
    except sqlite3.Error as error:
        return str(error)
    return ""


def _configure(options: argparse.Namespace) -> None:
    """Set up Django with the settings of the sandbox, even if the environment names others."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "django_quota.sandbox.settings"
    os.environ["QUOTA_SANDBOX_DATA"] = str(options.data.resolve())
    if options.allow_remote:
        os.environ["QUOTA_SANDBOX_HOSTS"] = "*"
    django.setup()


def _build_origin(host: str, port: int) -> str:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"http://{host}:{port}"
    if address.is_unspecified:
        # A browser cannot open 0.0.0.0 or [::].
        return f"http://localhost:{port}"
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"


def _serve(host: str, port: int) -> int:
    # These modules import models, which needs django.setup() first.
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    from django.db import connections

    from .seed import seed
    from .server import bind
    from .state import state

    try:
        server = bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _fail(
                f"port {port} is in use. Stop the program that uses it, or set another port with "
                "--port and in QUOTA_BASE_URL."
            )
        return _fail(f"cannot serve on {host}, port {port}: {error.strerror}.")
    try:
        state.origin = _build_origin(host, server.server_port)
        call_command("migrate", verbosity=0, interactive=False, skip_checks=True)
        seed()
        connections.close_all()  # from here on, only request threads use the database
        server.set_app(get_wsgi_application())
        sys.stdout.write(f"Quota sandbox ready at {state.origin}\n")
        sys.stdout.flush()
        server.serve_forever()
    finally:
        server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
