"""Somebody waits for a renewal that another process makes, beside a cache of query results."""

import sqlite3
import time
from datetime import timedelta
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django.utils import timezone

from django_quota.fields import Sealed
from django_quota.models import ProviderAccount, QuotaToken
from django_quota.tokens import access


def looks_until_the_new_token_is_seen() -> int:
    """How often the one who waits looks in vain once the other process has saved."""
    user = get_user_model().objects.create_user("ada")
    account = ProviderAccount.objects.create(user=user, external_id="ada")
    now = timezone.now()
    QuotaToken.objects.create(
        account=account,
        access_token="quota_token_old",
        refresh_token="quota_refresh_old",
        expires_at=now,
        lease_owner="another process",
        lease_until=now + timedelta(seconds=20),
    )
    pauses = 0

    def pause(seconds: Any) -> None:
        nonlocal pauses
        pauses += 1
        if pauses == 2:  # it has looked twice, so the cache has the row
            _save_by_another_process()

    real, time.sleep = time.sleep, pause
    try:
        assert access.get_access_token(user) == "quota_token_new"
    finally:
        time.sleep = real
    user.delete()
    return pauses - 2


def _save_by_another_process() -> None:
    """On a connection that the cache of this process knows nothing of."""
    database = sqlite3.connect(str(connection.settings_dict["NAME"]))
    values: Any = (
        Sealed.of("quota_token_new").ciphertext,
        (timezone.now() + timedelta(hours=1)).isoformat(" "),
    )
    with database:
        database.execute(
            "UPDATE django_quota_quotatoken SET access_token = ?, expires_at = ?, "
            "version = version + 1, lease_owner = '', lease_until = NULL",
            values,
        )
    database.close()
