"""The encrypted column: django-encrypted-model-fields' text field, made to fail closed.

As it comes, that field hands ciphertext back when no key fits (it would be sent to Quota as a
token, then encrypted a second time), encrypts the SQL of an expression instead of a value, and
reads its keys once at import. This one raises, refuses, and reads them when they are used.
"""

from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import ExpressionWrapper, F
from django.views.decorators.debug import sensitive_variables

from .exceptions import ConfigurationError, TokenUnreadable

if TYPE_CHECKING:
    EncryptedTextField = models.TextField[str, str]
else:
    try:
        from encrypted_model_fields.fields import EncryptedTextField
    except ImproperlyConfigured:
        # The library reads FIELD_ENCRYPTION_KEY at import and would end `manage.py check` before
        # it can say what is wrong (django_quota.E003). All that touches a secret is overridden
        # below and asks for the key when it is used, so without one it refuses to read or write.
        EncryptedTextField = models.TextField

__all__ = ["EncryptedTokenField", "Rekeying", "ciphertext", "crypter"]

#: Characters: 32 bytes in URL-safe base64.
KEY_LENGTH = 44
KEY_HELP = (
    "Make one with: python -c 'from cryptography.fernet import Fernet; "
    "print(Fernet.generate_key().decode())'"
)


@lru_cache(maxsize=8)
def _fernets(keys: tuple[str | bytes, ...]) -> list[Fernet]:
    return [Fernet(key) for key in keys]


def crypter() -> MultiFernet:
    """The keys of FIELD_ENCRYPTION_KEY as they are now: the first encrypts, all decrypt.

    Raises ConfigurationError if there are none, or one is not a Fernet key.
    """
    return MultiFernet(_keys())


def _keys() -> list[Fernet]:
    value: Any = getattr(settings, "FIELD_ENCRYPTION_KEY", None)
    keys = (value,) if value and isinstance(value, str | bytes) else value
    if not keys or not isinstance(keys, Sequence):
        raise ConfigurationError(f"FIELD_ENCRYPTION_KEY is missing. {KEY_HELP}")
    try:
        if not all(len(key) == KEY_LENGTH for key in keys):
            raise ValueError  # of two keys in one string, Fernet would take the first alone
        return _fernets(tuple(keys))
    except (ValueError, TypeError):
        # `from None`: the message of the library may hold the key.
        raise ConfigurationError(
            f"FIELD_ENCRYPTION_KEY holds something that is not a Fernet key. {KEY_HELP} "
            "(Several keys are a list, not one text with commas.)"
        ) from None


def ciphertext(name: str) -> "ExpressionWrapper[F]":
    """The encrypted column `name` as it is stored, for a query: nothing is decrypted."""
    return ExpressionWrapper(F(name), output_field=models.TextField())


class Rekeying:
    """Brings ciphertext under the first key of FIELD_ENCRYPTION_KEY, as that setting is now.

    Raises what `crypter` raises.
    """

    def __init__(self) -> None:
        self._keys = list(_keys())
        self._newest = self._keys[0]

    @sensitive_variables()
    def __call__(self, stored: str) -> str | None:
        """The same secret under the newest key; `stored` itself if it is under it, or empty; None
        if no key fits."""
        if not stored:
            return stored
        for key in self._keys:
            with suppress(InvalidToken):
                if key is self._newest:
                    key.extract_timestamp(stored.encode())  # checks the signature, no more
                    renewed = stored
                else:
                    renewed = self._newest.encrypt(key.decrypt(stored.encode())).decode()
                if key is not self._keys[0]:
                    # Neighbours are mostly of one key, so it is tried first for the next one.
                    self._keys.remove(key)
                    self._keys.insert(0, key)
                return renewed
        return None


class EncryptedTokenField(EncryptedTextField):
    """A secret at rest. Reading a value that no key fits raises TokenUnreadable."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Not in forms: cleaning a form field of this kind would decrypt what a visitor sends.
        kwargs["editable"] = False
        # Not in dumpdata, which would write it in clear text: a person signs in again instead.
        kwargs["serialize"] = False
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        for always in ("editable", "serialize"):
            kwargs.pop(always, None)
        return name, path, args, kwargs

    def to_python(self, value: Any) -> Any:
        return models.TextField.to_python(self, value)

    def from_db_value(self, value: str | None, *args: Any) -> str | None:
        if value is None or value == "":
            return value
        try:
            return crypter().decrypt(value.encode()).decode()
        except (InvalidToken, ValueError):
            raise TokenUnreadable(
                f"{self.model._meta.label}.{self.name} cannot be decrypted with any key of "
                "FIELD_ENCRYPTION_KEY. Put the key it was encrypted with back into that list, or "
                "let the user sign in again."
            ) from None

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> Any:
        if value is None or value == "":
            return value
        if not isinstance(value, str):
            raise TypeError(
                f"{self.name} takes a string, not a database expression: encrypting SQL text "
                "would destroy the token. Load the rows and save() them one by one."
            )
        return crypter().encrypt(value.encode()).decode()

    def get_lookup(self, lookup_name: str) -> Any:
        # Fernet is randomised: no comparison by value can ever match.
        return super().get_lookup(lookup_name) if lookup_name == "isnull" else None
