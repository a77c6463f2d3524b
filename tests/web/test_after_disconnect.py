"""What a person sees whose account is linked, and who has disconnected the wallet."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.template import engines
from django.test import Client, RequestFactory

from django_quota.models import ProviderAccount, QuotaToken
from tests.sandbox_client import Person, wanted_at

BROWSER = {"Accept": "text/html"}

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def linked() -> ProviderAccount:
    user = get_user_model().objects.create(username="ada")
    return ProviderAccount.objects.create(user=user, external_id="1", email="ada@example.com")


def connect_page(user: Any) -> str:
    client = Client()
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    return client.get("/auth/quota/connect").content.decode()


def connect_button(user: Any) -> str:
    request = RequestFactory().get("/")
    request.user = user
    template = engines["django"].from_string("{% load quota %}{% quota_connect %}")
    return template.render({}, request)


def test_connect_page_without_tokens_does_not_say_that_a_wallet_is_connected(
    linked: ProviderAccount,
) -> None:
    page = connect_page(linked.user)

    assert "Connect your Quota wallet again?" in page
    assert "ada@example.com" in page
    assert "connected already" not in page


def test_connect_page_with_tokens_names_the_wallet_to_be_replaced(linked: ProviderAccount) -> None:
    QuotaToken.objects.create(account=linked)

    page = connect_page(linked.user)

    assert "You have a Quota wallet connected already: <strong>ada@example.com</strong>" in page


def test_connect_button_offers_another_wallet_only_if_one_is_connected(
    linked: ProviderAccount,
) -> None:
    assert "Connect your Quota wallet" in connect_button(linked.user)
    QuotaToken.objects.create(account=linked)
    assert "Connect another wallet" in connect_button(linked.user)


def test_connecting_another_wallet_lets_quota_ask_who_it_is(user: Any, person: Person) -> None:
    """Else a browser that is signed in at Quota gets the same wallet back at once."""

    start = person.client.post("/auth/quota/connect")
    assert wanted_at(start)[1]["prompt"] == "login"

    person.client.post("/auth/quota/disconnect")
    start = person.client.post("/auth/quota/connect")
    assert "prompt" not in wanted_at(start)[1]


def test_packages_page_without_a_wallet_offers_to_connect_one(user: Any, person: Person) -> None:
    page = person.client.get("/auth/quota/packages", headers=BROWSER).content.decode()
    assert "Buy for" in page
    person.client.post("/auth/quota/disconnect")

    page = person.client.get("/auth/quota/packages", headers=BROWSER).content.decode()

    assert "Buy for" not in page
    assert "/auth/quota/connect?next=%2Fauth%2Fquota%2Fpackages" in page
