"""docs/existing-projects.rst, followed word by word in a project that has users."""

from __future__ import annotations

import json
import os
import re
import secrets
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from django.core.management import call_command

from tests.sandbox_client import PASSWORD, Sandbox

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = (ROOT / "docs/existing-projects.rst").read_text()


def block(title: str) -> str:
    """The code on the page whose first line has this title."""
    blocks = re.findall(r"\.\. code-block:: [\w+]+\n\n((?:   .*\n|\n)+)", PAGE)
    found = [textwrap.dedent(code) for code in blocks]
    (code,) = [code for code in found if title in code.split("\n")[0]]
    return code


class Project:
    """A project of Django's own `startproject`, with a login page, a sign-up, a page for members
    and a catch-all pattern; a user who has a password, and one of staff."""

    settings = "mysite.settings"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        call_command("startproject", "mysite", folder)
        self.write("web/__init__.py", "")
        self.write("web/templates/registration/login.html", LOGIN_PAGE)
        self.write("web/templates/desk.html", "A page for members.\n")
        self.write("web/views.py", VIEWS)
        self.write("mysite/urls.py", URLS)
        self.write_settings()
        self.manage("shell", "-c", USERS)

    def write_settings(self) -> None:
        self.add("mysite/settings.py", OWN_SETTINGS)

    def add_quota(self) -> None:
        """What the page says about the settings."""
        self.add("mysite/settings.py", block("settings.py, at its end"))

    def follow_page(self) -> None:
        self.add_quota()
        self.add("mysite/urls.py", block("urls.py, at its end"))
        self.add("web/templates/registration/login.html", block("below the form"))
        self.add("web/templates/desk.html", block("on a page of the user's"))
        views = self.read("web/views.py")
        views = views.replace("login(request, user)\n", last_line(block("where a form has made")))
        self.write("web/views.py", views + block("a view that bills") + MARKED_VIEW)
        self.add("mysite/urls.py", 'urlpatterns = [path("ask", views.ask), *urlpatterns]')
        self.add("mysite/urls.py", 'urlpatterns = [path("marked", views.marked), *urlpatterns]')

    def register(self, sandbox: Sandbox) -> None:
        """Steps 6 and 7 of the README."""
        account = {"email": f"dev-{secrets.token_hex(4)}@example.com", "password": PASSWORD}
        session = sandbox.call("POST", "/auth/register", account)["session_token"]
        self.add(".env", f"QUOTA_BASE_URL={sandbox.origin}\n")
        self.manage(
            *("quota_register_app", "--name", "My App"),
            *("--redirect-uri", "http://localhost/auth/quota/callback"),
            *("--post-logout-uri", "http://localhost/bye", "--env-file", ".env"),
            QUOTA_SESSION_TOKEN=session,
        )
        self.manage("migrate")
        self.manage("check", "--fail-level", "WARNING")
        self.manage("quota_check")

    def run(self, *args: str, **environment: str) -> str:
        inherited = {
            k: v for k, v in os.environ.items() if not k.startswith(("DJANGO_", "QUOTA_", "OPENAI"))
        }
        done = subprocess.run(
            [sys.executable, *args],
            cwd=self.folder,
            env=inherited
            | {"PYTHONPATH": str(ROOT), "DJANGO_SETTINGS_MODULE": self.settings}
            | {"DJANGO_CONFIGURATION": "Dev"}
            | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def manage(self, *args: str, **environment: str) -> str:
        return self.run("manage.py", *args, **environment)

    def visit(self, sandbox: Sandbox) -> Any:
        program = "tests.programs.existing_project"
        return json.loads(self.run("-m", program, "mysite.wsgi", sandbox.origin))

    def read(self, name: str) -> str:
        return (self.folder / name).read_text()

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def add(self, name: str, text: str) -> None:
        self.write(name, (self.read(name) if (self.folder / name).exists() else "") + "\n" + text)

    def schema(self) -> set[tuple[str, str]]:
        """Table, and the SQL of it or of one of its indexes."""
        database = sqlite3.connect(self.folder / "db.sqlite3")
        try:
            return set(database.execute("SELECT tbl_name, sql FROM sqlite_master"))
        finally:
            database.close()


class InPackage(Project):
    """Settings in base.py and dev.py."""

    settings = "mysite.settings.dev"

    def write_settings(self) -> None:
        base = self.read("mysite/settings.py").replace("parent.parent", "parent.parent.parent")
        (self.folder / "mysite/settings.py").unlink()
        self.write("mysite/settings/__init__.py", "")
        self.write("mysite/settings/base.py", base + OWN_SETTINGS)
        dev = "from .base import *\n\nDEBUG = True\nINTERNAL_IPS = ['127.0.0.1']\n"
        self.write("mysite/settings/dev.py", dev)

    def add_quota(self) -> None:
        self.add("mysite/settings/base.py", block("settings.py, at its end"))
        self.add("mysite/settings/dev.py", "")

    def register(self, sandbox: Sandbox) -> None:
        dev = block("settings/dev.py, at its end").replace("http://127.0.0.1:5281", sandbox.origin)
        self.add("mysite/settings/dev.py", dev)
        super().register(sandbox)


def follow(project: Project, sandbox_process: str) -> None:
    """Do what the page says, and look at what it promises."""
    before = project.schema()

    project.follow_page()
    sandbox = Sandbox(sandbox_process)
    project.register(sandbox)
    assert project.visit(sandbox) == MET

    after = project.schema()
    assert before <= after
    assert {table.split("_")[:2] == ["django", "quota"] for table, _ in after - before} == {True}
    project.manage("migrate", "django_quota", "zero")
    assert project.schema() == before


def last_line(code: str) -> str:
    return code.strip().split("\n")[-1] + "\n"


OWN_SETTINGS = """
INSTALLED_APPS += ["web"]
LOGIN_REDIRECT_URL = "/desk"
LOGOUT_REDIRECT_URL = "/bye"
STATIC_ROOT = BASE_DIR / "static"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the default takes long
"""

LOGIN_PAGE = """<form method="post">{% csrf_token %}{{ form }}<button>Log in</button></form>
"""

VIEWS = """
from django.contrib.auth import login
from django.contrib.auth.decorators import login_required
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.shortcuts import redirect, render


@login_required
def desk(request):
    return render(request, "desk.html")


def sign_up(request):
    user = User.objects.create_user(request.POST["username"])
    login(request, user)
    return redirect("/desk")


def anything(request, where):
    return HttpResponse("a page of the project's")


"""

MARKED_VIEW = """
from django_quota.decorators import quota_required


@login_required
@quota_required
def marked(request):
    return HttpResponse("marked")
"""

URLS = """
from django.contrib import admin
from django.urls import include, path

from web import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("accounts/", include("django.contrib.auth.urls")),
    path("desk", views.desk),
    path("sign-up", views.sign_up),
    path("<path:where>", views.anything),
]
"""

USERS = """
from django.contrib.auth.models import User
from django.core.management import call_command
from django.test import Client
call_command("migrate")
User.objects.create_user("member", "member@site.example", "an-old-password")
User.objects.create_superuser("boss", "boss@site.example", "an-old-password")
answer = Client(SERVER_NAME="localhost").post(
    "/accounts/login/", {"username": "member", "password": "an-old-password"}
)
assert answer.status_code == 302, answer
"""

#: What the page promises.
MET = {
    "old session": 200,
    "visitor at desk": "/accounts/login/?next=/desk",
    "member logs in": "/desk",
    "member asks": "/auth/quota/connect",
    "member connects": "/desk",
    "member asks again": 200,
    "member signs out": "http://localhost/bye",
    "member by wallet": "wallet_only",
    "member logs in again": "/desk",
    "staff logs in": "/admin/",
    "staff at admin": 200,
    "visitor asks": "/accounts/login/?next=/ask",
    "visitor at marked view": "/accounts/login/?next=%2Fmarked",
    "new person signs in": "/desk",
    "new users": 1,
    "new person at desk": 200,
    "new person asks": 200,
    "known address": "email_known",
    "sign-up": "/desk",
    "signed up at desk": 200,
    "catch-all": "a page of the project's",
}
