"""As a server that loads the app and then forks: renew a token, fork, and renew it in the child.

Each prints the new access token.
"""

import asyncio
import os
import signal
import sys
import warnings

from asgiref.sync import ThreadSensitiveContext
from django.db import connections

from tests.helpers.programs import GIVE_UP_AFTER, set_up


async def request() -> None:
    from django.contrib.auth import get_user_model

    from django_quota.tokens.access import aget_access_token

    async with ThreadSensitiveContext():
        user = await get_user_model().objects.aget()
        print(await aget_access_token(user), flush=True)


if __name__ == "__main__":
    signal.alarm(GIVE_UP_AFTER)
    # That a process with threads forks is what this is about.
    warnings.simplefilter("ignore", DeprecationWarning)
    set_up()
    from django_quota.models import QuotaToken

    asyncio.run(request())
    QuotaToken.objects.update(expires_at="2020-01-01T00:00:00Z")
    connections.close_all()
    if child := os.fork():
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    signal.alarm(GIVE_UP_AFTER)
    asyncio.run(request())
