"""One contestant: `python -m benchmarks.sign_in.contestant`, a Django process that takes orders.

It serves WSGI requests as a worker does, one after the other, without a server: what is timed is
from the request's environ to the end of the response.
"""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlsplit

import django

from benchmarks.sign_in.callers import Callers
from benchmarks.sign_in.workers import answer_orders

#: What is looked for after a sign-in.
CHECKS = ("user", "last_login", "session", "link", "refresh_token", "encrypted")
CSRF = "s" * 32
#: Calls of the function that gives a token, for one time.
TOKEN_CALLS = 20


class Browser:
    """A browser at the site, with its cookies."""

    def __init__(self, handler: Callable[..., Any]) -> None:
        self.handler = handler
        self.cookies = {"csrftoken": CSRF}

    def ask(self, method: str, url: str) -> dict[str, Any]:
        """Where the answer leads, and the seconds that it took: `wall`, and `cpu` of this process
        with all its threads."""
        environ = self._environ(method, url)
        answered: list[Any] = []
        cpu, wall = time.process_time(), time.perf_counter()
        response = self.handler(environ, lambda *head: answered.extend(head))
        body = b"".join(response)
        response.close()
        took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        status, headers = answered
        if not status.startswith("302"):
            raise RuntimeError(f"{method} {url}: {status} {body.decode()[:1000]}")
        for name, value in headers:
            if name == "Set-Cookie":
                self.cookies |= {k: v.value for k, v in SimpleCookie(value).items()}
        return {"location": dict(headers)["Location"], **took}

    def _environ(self, method: str, url: str) -> dict[str, Any]:
        parts = urlsplit(url)
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        return {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": parts.path,
            "QUERY_STRING": parts.query,
            "CONTENT_LENGTH": "0",
            "HTTP_HOST": "localhost:8000",
            "HTTP_COOKIE": cookies,
            "HTTP_X_CSRFTOKEN": CSRF,
            "REMOTE_ADDR": "127.0.0.1",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": True,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
        }


class Contestant:
    """The orders that are about the site of this process."""

    def __init__(self) -> None:
        from django.core.wsgi import get_wsgi_application

        from benchmarks.sign_in.settings import PROJECT

        self.project = PROJECT
        self.handler = get_wsgi_application()
        self.browser = Browser(self.handler)
        self.callers: Callers

    def start(self) -> dict[str, Any]:
        """With a browser that is new to the site: where it is sent to."""
        self.browser = Browser(self.handler)
        return self.browser.ask(self.project.start_method, self.project.start)

    def come_back(self, url: str) -> dict[str, Any]:
        """The callback."""
        return self.browser.ask("GET", url)

    def count(self, url: str) -> int:
        """The callback, and how many statements it made (BEGIN and COMMIT are none)."""
        with counted_statements() as statements:
            self.come_back(url)
        return len(statements)

    def fill(self, count: int) -> None:
        """So many users more, who have signed in before."""
        from django.contrib.auth import get_user_model
        from django.db import connection

        model = get_user_model()
        names = [f"somebody-{number}" for number in range(count)]
        users = [model(username=name, email=f"{name}@example.com", password="!") for name in names]
        self.project.fill(model.objects.bulk_create(users, batch_size=1000))
        with connection.cursor() as cursor:
            cursor.execute("ANALYZE")

    def check(self, sub: str, refresh_token: str) -> list[str]:
        """Which of CHECKS hold after a sign-in of `sub`, to whom that token was issued."""
        from django.contrib.auth import SESSION_KEY
        from django.contrib.sessions.models import Session

        user = user_of(sub)
        session = Session.objects.get(session_key=self.browser.cookies["sessionid"]).get_decoded()
        stored = self.project.refresh_token(user)
        holds = {
            "user": user.is_active,
            "last_login": is_recent(user.last_login),
            "session": session[SESSION_KEY] == str(user.pk),
            "link": self.project.is_linked(user, sub),
            "refresh_token": stored == refresh_token,
            "encrypted": bool(stored) and not is_in_clear_text(stored),
        }
        return [check for check in CHECKS if holds[check]]

    def token(self, sub: str) -> dict[str, Any] | None:
        """What it takes to get a fresh access token of `sub`, whose user is loaded already; None if
        the package offers no function for it."""
        user = user_of(sub)
        with counted_statements() as statements:
            if not self.project.access_token(user):
                return None
        cpu, wall = time.process_time(), time.perf_counter()
        for _ in range(TOKEN_CALLS):
            self.project.access_token(user)
        took = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        each = {clock: seconds / TOKEN_CALLS for clock, seconds in took.items()}
        return {"statements": len(statements), **each}

    def expire(self, sub: str, access_token: str, refresh_token: str) -> None:
        """These are the tokens of `sub` now, and the access token has expired."""
        self.project.expire(user_of(sub), access_token, refresh_token)

    def gather(self, sub: str, count: int) -> None:
        """So many callers are ready to ask for the token of `sub`."""
        self.callers = Callers(count, lambda: user_of(sub), self.project.access_token)

    def release(self) -> list[str]:
        """They ask; what each of them got."""
        return self.callers.release()

    def stored(self, sub: str) -> str:
        """The refresh token of `sub` that the site has."""
        return self.project.refresh_token(user_of(sub))


def user_of(sub: str) -> Any:
    from django.contrib.auth import get_user_model

    return get_user_model().objects.get(email=f"{sub}@example.com")


@contextmanager
def counted_statements() -> Iterator[list[str]]:
    from django.db import connection

    statements: list[str] = []

    def note(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        if not sql.startswith("BEGIN"):  # SQLite's; on PostgreSQL it is no query of Django's
            statements.append(sql)
        return execute(sql, *rest)

    with connection.execute_wrapper(note):
        yield statements


def is_recent(moment: Any) -> bool:
    from django.utils import timezone

    return moment is not None and 0 <= (timezone.now() - moment).total_seconds() < 60


def is_in_clear_text(secret: str) -> bool:
    """True if it is anywhere in the database."""
    from django.db import connection

    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(table)}")
            if any(secret in str(row) for row in cursor):
                return True
    return False


def set_up() -> None:
    """Django with the contestant's settings, and its tables."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.sign_in.settings"
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    call_command("migrate", run_syncdb=True, verbosity=0)  # the floor, which refers to users


def main() -> None:
    set_up()
    contestant = Contestant()
    contestant.project.prepare()
    visits = ("start", "come_back", "count", "fill", "check", "token")
    storms = ("expire", "gather", "release", "stored")
    orders = {name: getattr(contestant, name) for name in (*visits, *storms)}
    answer_orders({"ready": lambda: True, **orders})


if __name__ == "__main__":
    main()
