"""The recipe, end to end, against the live sandbox."""

import pytest
from django.contrib.auth import get_user_model

from django_quota.models import ProviderAccount, QuotaToken
from tests.sandbox_client import Person, Sandbox

pytestmark = pytest.mark.django_db(transaction=True)


def test_first_sign_in_makes_a_user_with_account_and_tokens(person: Person) -> None:
    answer = person.sign_in(next="/?welcome=1")

    assert answer.status_code == 302, answer
    assert answer["Location"] == "/?welcome=1"
    account = ProviderAccount.objects.get()
    assert (account.email, account.name) == (person.email, "Ada Lovelace")
    assert account.user == get_user_model().objects.get()
    assert QuotaToken.objects.get().account == account
    assert "$1.00" in person.client.get("/").content.decode()


def test_returning_sign_in_costs_exactly_one_request(person: Person, sandbox: Sandbox) -> None:
    person.sign_in()
    back = person.at_quota(person.start())
    sandbox.forget_requests()

    person.come_back(back)

    assert sandbox.requests() == ["POST /oauth/token"]
