"""A visit in which every secret is written, and a search of all tables for one in clear text."""

import re
from typing import Any

from cryptography.fernet import Fernet
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from django_quota import connecting
from django_quota.models import PendingRevocation, QuotaToken
from django_quota.tokens import access
from django_quota.tokens.reencryption import reencrypt
from tests.neighbours import project

#: A token of Quota's, or an id_token. (A session, too, begins with "eyJ".)
CLEAR = re.compile(r"quota_token_|quota_refresh_|eyJ[\w-]+\.eyJ")


def visit() -> None:
    """Sign in, renew, re-encrypt, sign in again, disconnect, and sign in over an unreadable row."""
    person = project.person()
    assert person.sign_in()["Location"] == "/"
    user = get_user_model().objects.get()
    QuotaToken.objects.update(expires_at=timezone.now())
    access.get_access_token(user)
    settings.FIELD_ENCRYPTION_KEY = [new_key(), settings.FIELD_ENCRYPTION_KEY]
    assert reencrypt().older_keys_may_go
    assert person.sign_in()["Location"] == "/"
    assert PendingRevocation.objects.exists()
    connecting.disconnect(user)
    assert person.sign_in()["Location"] == "/"
    settings.FIELD_ENCRYPTION_KEY = new_key()
    assert person.sign_in()["Location"] == "/"
    assert QuotaToken.objects.get().access_token.reveal()


def new_key() -> str:
    return Fernet.generate_key().decode()


def clear_secrets() -> list[str]:
    """The tables in which a secret stands in clear text."""
    return [name for name, rows in _tables().items() if any(CLEAR.search(str(r)) for r in rows)]


def ciphertexts() -> list[str]:
    """The tables in which an encrypted secret stands."""
    return [name for name, rows in _tables().items() if any("gAAAA" in str(row) for row in rows)]


def _tables() -> dict[str, list[Any]]:
    tables = {}
    with connection.cursor() as cursor:
        for name in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(name)}")
            tables[name] = cursor.fetchall()
    return tables
