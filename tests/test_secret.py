"""django_quota.secret: a token that shows itself to nobody."""

import pickle

import pytest

from django_quota.secret import Secret


def test_secret_is_hidden_in_every_repr() -> None:
    token = Secret("quota_token_hush")

    assert "hush" not in f"{token!r} {[token]} { ({'token': token}) }"


def test_secret_is_the_text_where_it_is_formatted() -> None:
    assert f"Bearer {Secret('quota_token_hush')}" == "Bearer quota_token_hush"


def test_secret_cannot_be_pickled() -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(Secret("quota_token_hush"))
