"""People at the project of tests/helpers/existing_projects.py, run in its folder.

Its arguments are the name of the project's wsgi module, and the sandbox's origin.

Prints as JSON what each of them met.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

from tests.sandbox_client import Person, Sandbox, query_of

PAGE = {"accept": "text/html"}
PASSWORD = "an-old-password"


def log_in(client: Any, username: str, where: str = "/accounts/login/") -> str:
    """By the project's own form; where it leads."""
    answer = client.post(where, {"username": username, "password": PASSWORD}, headers=PAGE)
    return str(answer.headers.get("Location", answer.status_code))


def sign_in_by_button(person: Person, page: str) -> str:
    """By the button on the login page that `page` sends visitors to; where the person ends."""
    login_page = person.client.get(page, headers=PAGE)["Location"]
    html = person.client.get(login_page, headers=PAGE).content.decode()
    button = html.split('quota-sign-in" href="')[1].split('"')[0].replace("&amp;", "&")
    at_quota = person.client.get(button, headers=PAGE)["Location"]
    return str(person.come_back(person.at_quota(at_quota))["Location"])


def connect(person: Person) -> str:
    answer = person.client.post("/auth/quota/connect", {"next": "/desk"}, headers=PAGE)
    return str(person.come_back(person.at_quota(answer["Location"]))["Location"])


def visit(sandbox: Sandbox) -> dict[str, Any]:
    from django.contrib.auth import get_user_model
    from django.contrib.sessions.models import Session
    from django.test import Client

    users = get_user_model().objects
    met: dict[str, Any] = {}

    # Whoever was signed in before is so still.
    client = Client(SERVER_NAME="localhost")
    client.cookies["sessionid"] = Session.objects.get().session_key
    met["old session"] = client.get("/desk").status_code

    member = sandbox.person()
    met["visitor at desk"] = member.client.get("/desk")["Location"]
    met["member logs in"] = log_in(member.client, "member")
    met["member asks"] = member.client.post("/ask", headers=PAGE)["Location"]
    met["member connects"] = connect(member)
    met["member asks again"] = member.client.post("/ask", {"question": "Hello"}).status_code
    answer = member.client.post("/auth/quota/logout", headers=PAGE)
    met["member signs out"] = query_of(answer["Location"])["post_logout_redirect_uri"]
    wallet_only = sign_in_by_button(member, "/desk")
    met["member by wallet"] = query_of(wallet_only)["quota_error"]
    met["member logs in again"] = log_in(member.client, "member")

    staff = Client(SERVER_NAME="localhost")
    met["staff logs in"] = log_in(staff, "boss", "/admin/login/?next=/admin/")
    met["staff at admin"] = staff.get("/admin/auth/user/").status_code

    visitor = sandbox.person()
    met["visitor asks"] = visitor.client.post("/ask", headers=PAGE)["Location"]
    met["visitor at marked view"] = visitor.client.get("/marked", headers=PAGE)["Location"]
    before = users.count()
    met["new person signs in"] = sign_in_by_button(visitor, "/desk")
    met["new users"] = users.count() - before
    met["new person at desk"] = visitor.client.get("/desk").status_code
    met["new person asks"] = visitor.client.post("/ask", {"question": "Hello"}).status_code

    known = sandbox.person()
    users.create_user("known", known.email, PASSWORD)
    met["known address"] = query_of(sign_in_by_button(known, "/desk"))["quota_error"]

    fresh = Client(SERVER_NAME="localhost")
    met["sign-up"] = fresh.post("/sign-up", {"username": "fresh"}, headers=PAGE)["Location"]
    met["signed up at desk"] = fresh.get("/desk").status_code
    met["catch-all"] = fresh.get("/what/ever").content.decode()
    return met


if __name__ == "__main__":
    sys.path.insert(0, "")
    importlib.import_module(sys.argv[1])
    from django.conf import settings

    settings.ALLOWED_HOSTS = ["localhost"]
    print(json.dumps(visit(Sandbox(sys.argv[2]))))
