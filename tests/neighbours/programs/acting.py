"""Staff with a wallet of their own act as Ada, and stop: `acting PACKAGE wsgi|asgi [MODE]`."""

import json
import sys
from typing import Any

from tests.neighbours import project

PACKAGE, SERVER, MODE = (*sys.argv[1:], "refused")[:3]
APPS = {"hijack": "hijack", "loginas": "loginas", "su": "django_su", "impersonate": "impersonate"}
MIDDLEWARE = {
    "hijack": ["hijack.middleware.HijackUserMiddleware"],
    "impersonate": ["impersonate.middleware.ImpersonateMiddleware"],
}
BACKENDS = ["django.contrib.auth.backends.ModelBackend", "django_quota.backends.QuotaBackend"]

project.configure(
    apps=[APPS[PACKAGE]],
    middleware=[*MIDDLEWARE.get(PACKAGE, []), "django_quota.middleware.QuotaMiddleware"],
    ROOT_URLCONF=__name__,
    # django-su needs its own, which has no `aget_user`.
    AUTHENTICATION_BACKENDS=["django_su.backends.SuBackend"] * (PACKAGE == "su") + BACKENDS,
    QUOTA_ALLOW_IMPERSONATED_BILLING=MODE == "allowed",
    IMPERSONATE={"ALLOW_SUPERUSER": True},
)

from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import include, path

from django_quota.decorators import quota_required
from django_quota.models import ProviderAccount
from django_quota.oidc.endpoints import TokenReply
from django_quota.tokens import access
from django_quota.tokens.payer import aget_payer, get_payer
from django_quota.wallet.usage import record_usage
from tests.helpers.concurrency import run_async
from tests.helpers.replies import reply
from tests.helpers.rows import store_tokens

START: dict[str, Any] = {
    "hijack": lambda user: ("/act/acquire/", {"user_pk": user.pk}),
    "loginas": lambda user: (f"/act/login/user/{user.pk}/", {}),
    "su": lambda user: (f"/act/{user.pk}/", {}),
    "impersonate": lambda user: (f"/act/{user.pk}/", {}),
}
STOP = {
    "hijack": "/act/release/",
    "loginas": "/act/logout/",
    "su": "/act/",
    "impersonate": "/act/stop/",
}


def token(request: HttpRequest) -> HttpResponse:
    return HttpResponse(access.get_access_token(request.user))


async def atoken(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await access.aget_access_token(await aget_payer(request)))


@quota_required
def marked(request: HttpRequest) -> HttpResponse:
    record_usage(request.user, reply(credits_used=1))
    return HttpResponse(access.get_access_token(get_payer(request)))


@quota_required
async def amarked(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await access.aget_access_token(await aget_payer(request)))


VIEWS: dict[str, Any] = {"token": token, "atoken": atoken, "marked": marked, "amarked": amarked}
urlpatterns = [
    path("auth/quota/", include("django_quota.urls")),
    path("act/", include(f"{APPS[PACKAGE]}.urls")),
    *(path(name, view) for name, view in VIEWS.items()),
]


def staff(name: str) -> Any:
    return get_user_model().objects.create_superuser(name, f"{name}@example.com", "password")


def give_wallet(user: Any) -> None:
    account = ProviderAccount.objects.create(user=user, external_id=user.username)
    said = TokenReply(
        access_token=f"paid by {user.username}",
        refresh_token=f"r-{user.username}",
        id_token=None,
        expires_in=3600,
        scope="credits.read credits.spend",
    )
    store_tokens(account, said)


def verdict(answer: Any) -> str:
    text = answer.content.decode()
    return str(json.loads(text)["error"]["code"]) if text.startswith("{") else text


def bill() -> dict[str, str]:
    if SERVER == "wsgi":
        return {name: verdict(browser.get(f"/{name}")) for name in VIEWS}

    async def asked(name: str) -> Any:
        client = AsyncClient(SERVER_NAME="localhost")
        client.cookies = browser.cookies
        return await client.get(f"/{name}")

    return {name: verdict(run_async(asked(name))) for name in VIEWS}


def act(user: Any) -> None:
    url, data = START[PACKAGE](user)
    assert browser.post(url, data).status_code == 302


ada, boss, second = get_user_model().objects.create_user("ada"), staff("boss"), staff("second")
for user in (ada, boss, second):
    give_wallet(user)
browser = Client(SERVER_NAME="localhost")
assert browser.login(username="boss", password="password")
seen: dict[str, Any] = {"before": bill()}
if MODE == "nested":
    act(second)
act(ada)
seen["acting"] = bill()
for view in ("connect", "checkout", "disconnect") if MODE == "refused" else ("connect",):
    seen[view] = verdict(browser.post(f"/auth/quota/{view}", {"package_id": "starter"}))
seen["acted_by"] = getattr(ada.quota_usage.first(), "acted_by", None)
stop = browser.get if PACKAGE in ("su", "loginas", "impersonate") else browser.post
assert stop(STOP[PACKAGE]).status_code == 302
seen["after"] = bill()
print(json.dumps(seen))
