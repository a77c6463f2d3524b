"""What a copied, pickled, printed or serialised secret shows: never its text."""

from __future__ import annotations

import copy
import json
import pickle
from pprint import pformat
from typing import Any

import pytest
from django.core.serializers.json import DjangoJSONEncoder
from django.forms.models import model_to_dict
from rest_framework.serializers import ModelSerializer

from django_quota.fields import Sealed
from django_quota.models import QuotaToken
from django_quota.secret import Secret

pytestmark = pytest.mark.django_db

HUSH = "quota_token_hush"


class Everything(ModelSerializer):  # type: ignore[misc]
    class Meta:
        model = QuotaToken
        fields = "__all__"


def unsaved() -> QuotaToken:
    token = QuotaToken(access_token=HUSH)
    token.refresh_token = HUSH
    return token


def texts_of(thing: Any) -> list[str]:
    return [
        str(thing),
        repr(thing),
        f"{thing}",
        f"{thing!r}",
        pformat(thing),
    ]


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s))]
)
def test_copy_of_a_sealed_holds_the_ciphertext_only(copied: Any) -> None:
    sealed = Sealed.of(HUSH)
    twin = copied(sealed)

    assert twin == sealed
    assert HUSH not in " ".join(texts_of(twin))
    assert HUSH.encode() not in pickle.dumps(sealed)
    assert twin.reveal() == HUSH


@pytest.mark.parametrize("encoder", [json.JSONEncoder, DjangoJSONEncoder])
def test_sealed_is_no_json(encoder: Any) -> None:
    with pytest.raises(TypeError):
        json.dumps({"token": Sealed.of(HUSH)}, cls=encoder)


@pytest.mark.parametrize(
    "walk",
    [
        vars,
        pickle.dumps,
        copy.deepcopy,
        model_to_dict,
        lambda token: [getattr(token, field.attname) for field in token._meta.concrete_fields],
        lambda token: [field.value_to_string(token) for field in token._meta.concrete_fields],
        lambda token: dict(Everything(token).data),
    ],
)
def test_who_walks_over_an_unsaved_row_finds_no_secret(walk: Any) -> None:
    token = unsaved()

    assert HUSH not in " ".join([*texts_of(walk(token)), str(vars(token))])


def test_repr_of_a_secret_hides_it_and_its_text_does_not() -> None:
    secret = Secret(HUSH)
    held = {"a": [secret], "b": (secret,)}

    assert HUSH not in repr(secret) + f"{secret!r}" + "%r" % secret + pformat(held) + str(held)  # noqa: UP031
    assert f"Bearer {secret}" == f"Bearer {HUSH}"
    assert type(str(secret)) is str
    assert copy.deepcopy(held) == held
    assert HUSH not in repr(copy.deepcopy(held))


def test_secret_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="Pass the user instead"):
        pickle.dumps({"token": Secret(HUSH)})
