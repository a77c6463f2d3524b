"""django_quota.fields: a secret at rest, and all the ways in which it must not get out or lost."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth import get_user_model
from django.core import serializers
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.core.management import call_command
from django.db import connection, models, transaction
from django.db.models import Case, F, Q, Value, When
from django.db.models.functions import Concat, Upper
from django.forms import modelform_factory
from django.test import override_settings

from django_quota.exceptions import ConfigurationError, TokenUnreadable
from django_quota.fields import EncryptedTokenField, Rotation, Sealed, crypter
from django_quota.models import PendingRevocation, ProviderAccount, QuotaToken
from tests.helpers.rows import stored
from tests.settings import FIELD_ENCRYPTION_KEY
from tests.shown import shown

# Always the same: they are part of test names, which all test processes must agree on.
KEYS = [base64.urlsafe_b64encode(bytes([n + 65]) * 32).decode() for n in range(3)]

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def first_key() -> Iterator[None]:
    with override_settings(FIELD_ENCRYPTION_KEY=KEYS[0]):
        yield


def make(name: str = "ada", **secrets: str) -> QuotaToken:
    user = get_user_model().objects.create(username=name)
    account = ProviderAccount.objects.create(user=user, external_id=name)
    return QuotaToken.objects.create(account=account, **secrets)


def read(name: str = "access_token") -> str:
    """The secret in that column, in clear text."""
    secret: Sealed = getattr(QuotaToken.objects.get(), name)
    return secret.reveal()


class TestAtRest:
    def test_the_column_holds_no_secret(self) -> None:
        make(access_token="quota_token_hush")

        assert "hush" not in stored()
        assert Fernet(KEYS[0]).decrypt(stored().encode()) == b"quota_token_hush"

    def test_the_same_secret_looks_different_each_time(self) -> None:
        token = make(access_token="quota_token_hush")
        first = stored()
        token.access_token = "quota_token_hush"
        token.save()

        assert stored() != first

    def test_what_is_not_assigned_is_saved_as_it_was(self) -> None:
        token = make(access_token="quota_token_hush")
        first = stored()
        token.save()

        assert stored() == first

    @pytest.mark.parametrize("secret", ["quota_token_hush", "ü 李 🙂", "a" * 16_384, " ", "\n"])
    def test_comes_back_to_the_letter(self, secret: str) -> None:
        make(access_token=secret)

        assert read() == secret

    def test_nothing_stays_nothing(self) -> None:
        make(access_token="")

        assert stored() == ""
        assert read() == ""

    @pytest.mark.parametrize("name", ["access_token", "refresh_token", "id_token"])
    def test_every_secret_is_encrypted(self, name: str) -> None:
        make(**{name: "hush"})

        assert "hush" not in stored(name)
        assert read(name) == "hush"

    def test_one_that_looks_like_ciphertext_is_encrypted_again(self) -> None:
        looks_encrypted = Fernet(KEYS[0]).encrypt(b"hush").decode()
        make(access_token=looks_encrypted)

        assert stored() != looks_encrypted
        assert read() == looks_encrypted

    def test_values_and_values_list_are_sealed(self) -> None:
        make(access_token="hush")

        assert QuotaToken.objects.values_list("access_token", flat=True).get() == Sealed(stored())
        assert QuotaToken.objects.values("access_token").get() == {"access_token": Sealed(stored())}

    def test_update_with_a_string_encrypts(self) -> None:
        make(access_token="old")
        QuotaToken.objects.update(access_token="hush")

        assert "hush" not in stored()
        assert read() == "hush"

    def test_bulk_create_encrypts(self) -> None:
        PendingRevocation.objects.bulk_create([PendingRevocation(token="hush")])
        with connection.cursor() as cursor:
            cursor.execute("SELECT token FROM django_quota_pendingrevocation")
            assert "hush" not in cursor.fetchone()[0]

        assert PendingRevocation.objects.get().token.reveal() == "hush"


class TestUnreadable:
    @pytest.fixture(autouse=True)
    def with_another_key(self) -> Iterator[None]:
        make(access_token="quota_token_hush")
        with override_settings(FIELD_ENCRYPTION_KEY=KEYS[1]):
            yield

    def test_is_an_error_and_never_the_ciphertext(self) -> None:
        with pytest.raises(TokenUnreadable) as raised:
            read()

        assert str(raised.value) == (
            "A stored token cannot be decrypted with any key of FIELD_ENCRYPTION_KEY. Put the key "
            "it was encrypted with back into that list, or let the user sign in again."
        )
        assert stored() not in shown(raised.value)

    def test_does_not_hinder_reading_the_rest(self) -> None:
        assert QuotaToken.objects.get().status == QuotaToken.Status.ACTIVE

    def test_is_not_touched_by_saving_the_rest(self) -> None:
        before = stored()
        token = QuotaToken.objects.get()
        token.scope = "openid"
        token.save()

        assert stored() == before

    def test_can_be_read_again_with_the_old_key_back_in_the_list(self) -> None:
        with override_settings(FIELD_ENCRYPTION_KEY=[KEYS[1], KEYS[0]]):
            assert read() == "quota_token_hush"

    def test_can_be_replaced_by_a_new_sign_in(self) -> None:
        token = QuotaToken.objects.get()
        token.access_token = "new"
        token.save()

        assert read() == "new"

    @pytest.mark.parametrize("column", ["plain text", "gAAAAA", "ü", "\\x00"])
    def test_is_also_what_was_never_encrypted(self, column: str) -> None:
        """Somebody wrote it into the table by hand, or a database dump was cut."""
        with connection.cursor() as cursor:
            cursor.execute("UPDATE django_quota_quotatoken SET access_token = %s", [column])

        with pytest.raises(TokenUnreadable):
            read()


def test_what_decrypts_to_no_text_is_unreadable() -> None:
    PendingRevocation.objects.create(token="hush")
    with connection.cursor() as cursor:
        no_text = Fernet(KEYS[0]).encrypt(b"\xff").decode()
        cursor.execute("UPDATE django_quota_pendingrevocation SET token = %s", [no_text])

    with pytest.raises(TokenUnreadable):
        PendingRevocation.objects.get().token.reveal()


class TestKeys:
    def test_the_first_encrypts(self) -> None:
        with override_settings(FIELD_ENCRYPTION_KEY=[KEYS[1], KEYS[0]]):
            make(access_token="hush")

        assert Fernet(KEYS[1]).decrypt(stored().encode()) == b"hush"

    def test_all_decrypt(self) -> None:
        make(access_token="hush")
        with override_settings(FIELD_ENCRYPTION_KEY=[KEYS[2], KEYS[1], KEYS[0]]):
            assert read() == "hush"

    def test_rotated_is_under_the_first(self) -> None:
        token = make(access_token="hush")
        with override_settings(FIELD_ENCRYPTION_KEY=[KEYS[1], KEYS[0]]):
            token.access_token = Sealed(Rotation().rotated(token.access_token.ciphertext))
            token.save()
        with override_settings(FIELD_ENCRYPTION_KEY=KEYS[1]):
            assert read() == "hush"

    def test_rotated_is_the_same_where_it_is_under_the_first_already(self) -> None:
        stored = make(access_token="hush").access_token.ciphertext
        assert Rotation().rotated(stored) is stored
        assert Rotation().rotated("") == ""

    @pytest.mark.parametrize("value", [KEYS[0], KEYS[0].encode(), [KEYS[0]], (KEYS[0].encode(),)])
    def test_may_be_one_or_several_as_text_or_bytes(self, value: Any) -> None:
        with override_settings(FIELD_ENCRYPTION_KEY=value):
            assert crypter().decrypt(crypter().encrypt(b"hush")) == b"hush"

    @pytest.mark.parametrize("value", [None, "", b"", [], (), 7, {"a": 1}, {KEYS[0]}])
    def test_that_are_missing(self, value: Any) -> None:
        with (
            override_settings(FIELD_ENCRYPTION_KEY=value),
            pytest.raises(ConfigurationError) as raised,
        ):
            crypter()

        assert str(raised.value).startswith("FIELD_ENCRYPTION_KEY is missing. Make one with: ")
        assert "Fernet.generate_key()" in str(raised.value)

    def test_that_are_not_set_at_all(self, settings: Any) -> None:
        del settings.FIELD_ENCRYPTION_KEY
        with pytest.raises(ImproperlyConfigured, match="FIELD_ENCRYPTION_KEY is missing"):
            crypter()

    @pytest.mark.parametrize(
        "value",
        [
            "hush",
            b"hush",
            KEYS[0][:-4],
            f"{KEYS[0]},{KEYS[1]}",
            "ü" * 44,
            [KEYS[0], "hush"],
            [KEYS[0], ""],
            [KEYS[0], None],
            [7],
            [["hush"]],
        ],
    )
    def test_that_are_malformed(self, value: Any) -> None:
        with (
            override_settings(FIELD_ENCRYPTION_KEY=value),
            pytest.raises(ConfigurationError) as raised,
        ):
            crypter()

        assert str(raised.value).startswith(
            "FIELD_ENCRYPTION_KEY contains something that is not a Fernet key. Make one with: "
        )
        assert "hush" not in shown(raised.value)
        assert KEYS[0][:-4] not in shown(raised.value)

    def test_without_one_nothing_is_written_in_clear(self) -> None:
        with (
            override_settings(FIELD_ENCRYPTION_KEY=None),
            pytest.raises(ConfigurationError),
            transaction.atomic(),
        ):
            make(access_token="hush")

        assert not QuotaToken.objects.exists()

    def test_without_one_nothing_is_read(self) -> None:
        make(access_token="hush")
        with override_settings(FIELD_ENCRYPTION_KEY=None), pytest.raises(ConfigurationError):
            read()


class TestExpressions:
    @pytest.mark.parametrize(
        "expression",
        [
            F("refresh_token"),
            Value("hush"),
            Upper("refresh_token"),
            Concat(F("refresh_token"), Value("x")),
            Case(When(pk=1, then=Value("hush"))),
        ],
    )
    def test_are_refused_by_update(self, expression: Any) -> None:
        """django-encrypted-model-fields would encrypt their SQL, and the token would be gone."""
        make(access_token="old", refresh_token="r")
        before = stored()

        with pytest.raises(TypeError, match="access_token takes a string"), transaction.atomic():
            QuotaToken.objects.update(access_token=expression)
        assert stored() == before

    def test_are_refused_by_assignment(self) -> None:
        token = make(access_token="old", refresh_token="r")
        with pytest.raises(TypeError, match="access_token takes a string"):
            token.access_token = F("refresh_token")  # type: ignore[assignment]

    def test_are_refused_by_create(self) -> None:
        with pytest.raises(TypeError, match="token takes a string"):
            PendingRevocation.objects.create(token=Value("hush"))  # type: ignore[misc]

    def test_are_refused_by_bulk_update(self) -> None:
        token = make(access_token="old")
        before = stored()
        token.access_token = "new"

        with pytest.raises(TypeError, match="access_token takes a string"), transaction.atomic():
            QuotaToken.objects.bulk_update([token], ["access_token"])
        assert stored() == before

    @pytest.mark.parametrize("value", [7, b"bytes", ["hush"], True])
    def test_nor_is_anything_else_that_is_no_string_taken(self, value: Any) -> None:
        with pytest.raises(TypeError, match="takes a string"):
            PendingRevocation.objects.create(token=value)

    def test_bulk_update_of_other_fields_is_fine(self) -> None:
        token = make(access_token="hush")
        token.scope = "openid"
        QuotaToken.objects.bulk_update([token], ["scope"])

        assert read() == "hush"


class TestLookups:
    @pytest.mark.parametrize(
        "lookup",
        [
            "exact",
            "iexact",
            "in",
            "contains",
            "icontains",
            "startswith",
            "endswith",
            "regex",
            "gt",
            "lt",
            "range",
        ],
    )
    def test_by_value_are_refused(self, lookup: str) -> None:
        """They could only find nothing, and be taken for "there is none"."""
        value: Any = ["a", "b"] if lookup in ("in", "range") else "a"
        with pytest.raises(FieldError, match=r"access_token|EncryptedTokenField"):
            list(QuotaToken.objects.filter(**{f"access_token__{lookup}": value}))

    def test_by_value_are_refused_in_every_way(self) -> None:
        for query in (
            lambda: QuotaToken.objects.filter(access_token="a"),
            lambda: QuotaToken.objects.exclude(access_token="a"),
            lambda: QuotaToken.objects.filter(Q(access_token="a") | Q(pk=1)),
            lambda: QuotaToken.objects.get_or_create(access_token="a"),
            lambda: ProviderAccount.objects.filter(token__access_token="a"),
        ):
            with pytest.raises(FieldError):
                list(query())

    def test_by_ciphertext_finds_the_row(self) -> None:
        token = make(access_token="hush")
        same_secret = Sealed.of("hush")

        assert QuotaToken.objects.get(access_token=token.access_token) == token
        assert not QuotaToken.objects.filter(access_token=same_secret).exists()

    def test_for_null_work(self) -> None:
        make()
        assert QuotaToken.objects.filter(access_token__isnull=False).count() == 1


class TestElsewhere:
    def test_not_in_a_model_form(self) -> None:
        form = modelform_factory(QuotaToken, fields="__all__")
        assert not {"access_token", "refresh_token", "id_token"} & set(form.base_fields)

    def test_cannot_be_put_into_a_model_form(self) -> None:
        """Cleaning it would decrypt whatever a visitor sends."""
        with pytest.raises(FieldError, match="non-editable"):
            modelform_factory(QuotaToken, fields=["access_token"])

    def test_makes_no_form_field_that_decrypts(self) -> None:
        # Of the key that django-encrypted-model-fields itself has read, at import.
        ciphertext = Fernet(FIELD_ENCRYPTION_KEY).encrypt(b"hush").decode()
        field = QuotaToken._meta.get_field("access_token")

        for value in (field.clean(ciphertext, None), field.to_python(ciphertext)):
            assert isinstance(value, Sealed)
            assert value.reveal() == ciphertext

    def test_full_clean_leaves_a_secret_as_it_is(self) -> None:
        make(access_token=Fernet(FIELD_ENCRYPTION_KEY).encrypt(b"hush").decode())
        token = QuotaToken.objects.get()
        before = token.access_token
        token.full_clean()

        assert token.access_token == before

    def test_dumpdata_holds_no_token(self) -> None:
        make(access_token="hush1", refresh_token="hush2", id_token="hush3")
        PendingRevocation.objects.create(token="hush4")
        out = io.StringIO()
        call_command("dumpdata", "django_quota", stdout=out)

        assert "django_quota.quotatoken" in out.getvalue()
        assert "hush" not in out.getvalue()

    @pytest.mark.parametrize("kind", ["json", "xml", "jsonl", "python"])
    def test_serializers_hold_no_token(self, kind: str) -> None:
        make(access_token="hush1", refresh_token="hush2", id_token="hush3")

        assert "hush" not in str(serializers.serialize(kind, QuotaToken.objects.all()))

    def test_migrations_name_our_field_and_nothing_that_it_always_sets(self) -> None:
        field = EncryptedTokenField("access token", default="")
        field.set_attributes_from_name("access_token")

        assert field.deconstruct() == (
            "access_token",
            "django_quota.fields.EncryptedTokenField",
            [],
            {"verbose_name": "access token", "default": ""},
        )

    def test_is_a_sound_text_column(self) -> None:
        field = EncryptedTokenField()
        field.set_attributes_from_name("token")
        field.model = PendingRevocation

        assert isinstance(field, models.TextField)
        assert field.check() == []
