"""Model fields for secrets and for identifiers from outside.

`EncryptedTokenField` extends the text field of django-encrypted-model-fields, and differs from it:

* If no key decrypts a value, it raises. The library's field returns the ciphertext, which would be
  sent to Quota as a token, and then be encrypted a second time.
* It refuses database expressions. The library's field encrypts their SQL.
* It reads the keys when they are used, not once at import.
* An instance holds a `Sealed`, so that code which iterates over its fields sees no clear text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings
from django.core.exceptions import FieldError, ImproperlyConfigured
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.query_utils import DeferredAttribute
from django.views.decorators.debug import sensitive_variables

from django_quota.secret import Secret

from .exceptions import ConfigurationError, TokenUnreadable

if TYPE_CHECKING:
    EncryptedTextField = models.TextField["str | Sealed", "Sealed"]
    _CharField = models.CharField[str, str]
else:
    _CharField = models.CharField
    try:
        from encrypted_model_fields.fields import EncryptedTextField
    except ImproperlyConfigured:
        # The library reads FIELD_ENCRYPTION_KEY at import, and would end `manage.py check` before
        # it can report the missing key (django_quota.E003). Every method that handles a secret is
        # overridden below, and raises ConfigurationError without a key.
        EncryptedTextField = models.TextField

#: Characters of a Fernet key: 32 bytes in URL-safe base64.
KEY_LENGTH = 44
KEY_HELP = (
    "Make one with: python -c 'from cryptography.fernet import Fernet; "
    "print(Fernet.generate_key().decode())'"
)


@lru_cache(maxsize=8)
def _fernets(keys: tuple[str | bytes, ...]) -> list[Fernet]:
    return [Fernet(key) for key in keys]


def crypter() -> MultiFernet:
    """Return the current keys of FIELD_ENCRYPTION_KEY: the first encrypts, all decrypt.

    Raises ConfigurationError if there is no key, or one is not a Fernet key.
    """
    return MultiFernet(_keys())


def _keys() -> list[Fernet]:
    # Raise here, where no local variable holds a key that a traceback could show.
    keys = _configured_keys()
    if keys is None:
        raise ConfigurationError(f"FIELD_ENCRYPTION_KEY is missing. {KEY_HELP}")
    if not keys:
        raise ConfigurationError(
            f"FIELD_ENCRYPTION_KEY contains something that is not a Fernet key. {KEY_HELP} "
            "(Write several keys as a list, not as one string with commas.)"
        )
    return keys


def _configured_keys() -> list[Fernet] | None:
    """Return the keys of the setting; None if it is missing, [] if one key is malformed."""
    value: Any = getattr(settings, "FIELD_ENCRYPTION_KEY", None)
    keys = (value,) if value and isinstance(value, str | bytes) else value
    if not keys or not isinstance(keys, Sequence):
        return None
    try:
        if not all(len(key) == KEY_LENGTH for key in keys):
            return []  # Fernet would use the first of two keys in one string
        return _fernets(tuple(keys))
    except (ValueError, TypeError):
        return []


@dataclass(frozen=True, slots=True, repr=False)
class Sealed:
    """A secret as it is stored: the ciphertext, or "" for no secret.

    Only `reveal` decrypts it. Its repr, `str()`, pickles and copies contain no clear text, and it
    cannot be encoded as JSON. Two are equal if their ciphertexts are equal. Encrypting the same
    secret twice gives two that differ; `same_secret` compares the clear texts.
    """

    ciphertext: str

    @classmethod
    @sensitive_variables()
    def of(cls, secret: str) -> "Sealed":
        """Encrypt `secret` with the first key of FIELD_ENCRYPTION_KEY.

        Raises ConfigurationError if a key is missing or malformed.
        """
        return cls(crypter().encrypt(secret.encode()).decode() if secret else "")

    def reveal(self) -> Secret:
        """Return the secret in clear text.

        Raises TokenUnreadable if no key decrypts it, ConfigurationError if a key is missing or
        malformed.
        """
        if not self.ciphertext:
            return Secret()
        try:
            return Secret(crypter().decrypt(self.ciphertext.encode()).decode())
        except (InvalidToken, ValueError):
            raise _unreadable() from None

    def same_secret(self, other: "Sealed") -> bool:
        """Return True if both decrypt to the same secret. False if one cannot be decrypted."""
        try:
            return self == other or self.reveal() == other.reveal()
        except TokenUnreadable:
            return False

    def __bool__(self) -> bool:
        return bool(self.ciphertext)

    def __repr__(self) -> str:
        return "<sealed>"


class Rotation:
    """Encrypts values again with the first key of FIELD_ENCRYPTION_KEY.

    It reads the keys once, and is for many values, of which most use the same key. Raises
    ConfigurationError if a key is missing or malformed.
    """

    def __init__(self) -> None:
        self._keys = _keys()
        self._newest = self._used = self._keys[0]

    def rotated(self, ciphertext: str) -> str:
        """Return the same secret, encrypted with the first key; `ciphertext` if it is already.

        Raises TokenUnreadable if no key decrypts it.
        """
        if not ciphertext:
            return ""
        stored = ciphertext.encode()
        # Begin with the key of the last value: to try a wrong one takes a third of a rotation.
        for key in (self._used, *self._keys):
            try:
                if key is self._newest:
                    key.extract_timestamp(stored)  # checks the signature and decrypts nothing
                    rotated = ciphertext
                else:
                    rotated = self._newest.encrypt(key.decrypt(stored)).decode()
            except InvalidToken:
                continue
            self._used = key
            return rotated
        raise _unreadable()


def _unreadable() -> TokenUnreadable:
    return TokenUnreadable(
        "A stored token cannot be decrypted with any key of FIELD_ENCRYPTION_KEY. Put the key it "
        "was encrypted with back into that list, or let the user sign in again."
    )


class _SealedAttribute(DeferredAttribute):
    """Encrypts at assignment, so that an instance never holds clear text, even before a save."""

    field: "EncryptedTokenField"

    def __set__(self, instance: models.Model, value: Any) -> None:
        instance.__dict__[self.field.attname] = self.field.to_python(value)


class EncryptedTokenField(EncryptedTextField):
    """Stores a secret encrypted. It reads as a `Sealed`, and encrypts a string at assignment."""

    descriptor_class = _SealedAttribute

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Leave it out of forms, where a visitor could set it.
        kwargs["editable"] = False
        # Leave it out of dumpdata: people sign in again instead.
        kwargs["serialize"] = False
        super().__init__(*args, **kwargs)

    def deconstruct(self) -> Any:
        name, path, args, kwargs = super().deconstruct()
        for fixed in ("editable", "serialize"):
            kwargs.pop(fixed, None)
        return name, path, args, kwargs

    @sensitive_variables()
    def to_python(self, value: Any) -> Sealed | None:
        if value is None or isinstance(value, Sealed):
            return value
        if not isinstance(value, str):
            raise TypeError(
                f"{self.name} takes a string or a Sealed, not a database expression: the database "
                "cannot encrypt. Load the rows and save() them one by one."
            )
        return Sealed.of(value)

    def from_db_value(self, value: str | None, *args: Any) -> Sealed | None:
        return None if value is None else Sealed(value)

    def get_prep_value(self, value: Any) -> str | None:
        """Return the ciphertext, for a lookup. Only the `Sealed` of that row can match."""
        if value is None:
            return None
        if isinstance(value, Sealed):
            return value.ciphertext
        raise FieldError(
            f"{self.name} is encrypted, and each encryption differs, so it cannot be looked up by "
            "its clear text."
        )

    def get_db_prep_save(self, value: Any, connection: BaseDatabaseWrapper) -> str | None:
        return self.get_prep_value(self.to_python(value))

    def get_lookup(self, lookup_name: str) -> Any:
        # `exact` takes a `Sealed` only. Other comparisons cannot match a ciphertext.
        return super().get_lookup(lookup_name) if lookup_name in ("exact", "isnull") else None


class IdentifierField(_CharField):
    """Stores an identifier from outside, such as a `sub`, which is compared byte by byte.

    PostgreSQL and SQLite do that by default. MariaDB and MySQL need a collation: theirs ignores
    case, accents and trailing spaces.
    """

    def db_parameters(self, connection: BaseDatabaseWrapper) -> Any:
        parameters: dict[str, Any] = dict(super().db_parameters(connection))
        if connection.vendor == "mysql":
            is_mariadb = getattr(connection, "mysql_is_mariadb", False)
            parameters["collation"] = "utf8mb4_nopad_bin" if is_mariadb else "utf8mb4_0900_bin"
        return parameters
